-- Courses as they are published. Times are milliseconds since 1970, flags 0 or 1, ids UUIDs of version 7.

CREATE TABLE courses (
    id           TEXT PRIMARY KEY,
    slug         TEXT NOT NULL UNIQUE,
    title        TEXT NOT NULL,
    summary      TEXT NOT NULL,
    search       TEXT NOT NULL,     -- title and summary in lower case: LIKE differs between databases
    cover        TEXT,              -- the URL of a picture
    version      BIGINT NOT NULL,   -- 1 for the first publication
    digest       TEXT NOT NULL,     -- of everything published: the same again is no new version
    published_at BIGINT NOT NULL,
    created_at   BIGINT NOT NULL
);

CREATE TABLE modules (
    id        TEXT PRIMARY KEY,
    course_id TEXT NOT NULL REFERENCES courses (id),
    pos       BIGINT NOT NULL,
    title     TEXT NOT NULL,
    UNIQUE (course_id, pos)
);

CREATE TABLE lessons (
    id           TEXT PRIMARY KEY,
    course_id    TEXT NOT NULL REFERENCES courses (id),
    module_id    TEXT NOT NULL REFERENCES modules (id),
    pos          BIGINT NOT NULL,   -- within the course
    source       TEXT NOT NULL,     -- the file it came from: what keeps its id when it is published again
    slug         TEXT NOT NULL,
    title        TEXT NOT NULL,
    kind         TEXT NOT NULL,     -- text, video
    free_preview BIGINT NOT NULL,
    styles       TEXT NOT NULL,     -- URLs of stylesheets, separated by spaces
    body         TEXT NOT NULL,     -- sanitised HTML
    UNIQUE (course_id, pos),
    UNIQUE (course_id, slug),
    UNIQUE (course_id, source)
);

CREATE TABLE assets (
    id         TEXT PRIMARY KEY,
    course_id  TEXT NOT NULL REFERENCES courses (id),
    source     TEXT NOT NULL,
    UNIQUE (course_id, source)
);

-- Every content that an asset ever had: a page that was stored before the last publication still finds its pictures.
CREATE TABLE asset_versions (
    asset_id   TEXT NOT NULL REFERENCES assets (id),
    sha256     TEXT NOT NULL,
    file       TEXT NOT NULL,       -- the last segment of its URL
    mime       TEXT NOT NULL,
    bytes      BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (asset_id, sha256, file)
);

-- What edges must forget, written in the transaction that makes it so, delivered afterwards.
CREATE TABLE purge_outbox (
    id         TEXT PRIMARY KEY,
    keys       TEXT NOT NULL,       -- surrogate keys, separated by spaces
    state      TEXT NOT NULL,       -- pending, done
    created_at BIGINT NOT NULL
);
CREATE INDEX purge_outbox_by_state ON purge_outbox (state, created_at);

-- How far one edge has got with it.
CREATE TABLE purge_deliveries (
    outbox_id  TEXT NOT NULL REFERENCES purge_outbox (id),
    edge       TEXT NOT NULL,       -- its admin URL
    state      TEXT NOT NULL,       -- pending, done
    attempts   BIGINT NOT NULL,
    next_at    BIGINT NOT NULL,
    last_error TEXT,
    PRIMARY KEY (outbox_id, edge)
);
