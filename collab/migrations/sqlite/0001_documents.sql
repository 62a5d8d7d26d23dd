-- Changes of a document since its snapshot. `seq` is dense per document and in the order of commits.
CREATE TABLE doc_updates (
    doc_id TEXT NOT NULL,
    seq    BIGINT NOT NULL,
    bytes  BLOB NOT NULL,
    PRIMARY KEY (doc_id, seq)
);

-- All changes up to `seq`, as one. `version` grows with each snapshot: two nodes never replace the same one.
CREATE TABLE doc_snapshots (
    doc_id  TEXT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    seq     BIGINT NOT NULL,
    bytes   BLOB NOT NULL
);
