//! Rows of `node`, `admin`, `redis`, `fleet`, `store`, `sessions`, `log` and `tracing`.

use super::{
    Key, Kind,
    kind::{OR_NONE_DURATION, SIZE, key, list, one_or_many, optional, required, words},
    texts::{GLOB, LISTEN_ADDRESS, LOG_LEVEL, LOG_PATH, NAME, NETWORK, REDIS_URL, STATUS_PATTERN, TARGET, TEXT},
};

pub(super) static NODE: &[Key] = &[
    key(
        "id",
        Kind::Or(&["auto"], &NAME),
        "auto",
        "Name of this edge, in logs and to other edges; `auto` is the host's name.",
    ),
    key("region", Kind::Or(&["none"], &NAME), "none", "Where this edge stands."),
    key(
        "role",
        Kind::Words { now: &["edge"], later: &["shield"] },
        "edge",
        "`shield`: asked by other edges before the origin.",
    ),
];

pub(super) static ADMIN: &[Key] = &[
    key(
        "address",
        LISTEN_ADDRESS,
        "127.0.0.1:9901",
        "Address of the control listener; one that is not loopback needs `tokens`.",
    ),
    key("tls", Kind::Or(&["none"], &Kind::Struct(ADMIN_TLS)), "none", "TLS on the control listener.").off(),
    key("metrics_token", Kind::Bool, "false", "`/metrics` needs a token that may read."),
    key("ready", Kind::Struct(READY), "{}", "What readiness depends on beside this node itself."),
    key(
        "tokens",
        list(&Kind::Struct(TOKEN)),
        "[]",
        "Who may do what; without tokens whoever reaches the control listener may do all.",
    ),
];

static ADMIN_TLS: &[Key] = &[
    required("cert", Kind::File, "PEM file of the chain, leaf first."),
    required("key", Kind::File, "PEM file of the key."),
    key(
        "client_ca",
        Kind::Or(&["none"], &Kind::File),
        "none",
        "Authorities of client certificates, which are then required.",
    ),
];

static READY: &[Key] =
    &[key("require", list(&NAME), "[]", "Upstreams without a usable peer of which this node is not ready.")];

static TOKEN: &[Key] = &[
    required("name", NAME, "Who holds it; it is in the audit line."),
    required("value", Kind::Secret, "The token, sent as `Authorization: Bearer TOKEN`."),
    required(
        "allow",
        list(&words(&["read", "purge", "drain", "config", "all"])),
        "`read` = every GET, `purge` = purging, `drain` = peers and drain, `config` = reload and log.",
    ),
];

pub(super) static REDIS: &[Key] = &[
    required("url", REDIS_URL, "`redis://`, `rediss://`, `redis+cluster://` or `redis+sentinel://` and the address."),
    key("prefix", TEXT, "\"eh:\"", "What every key begins with."),
    key("timeout", Kind::PositiveDuration, "50ms", "Of one command."),
];

pub(super) static FLEET: &[Key] = &[
    key("edges", Kind::Struct(EDGES), "{}", "Other edges that may ask this one.").off(),
    key(
        "lease",
        Kind::PositiveDuration,
        "10s",
        "A node that is silent for so long is lost; the same on every node, at least 1s.",
    ),
    key(
        "history",
        Kind::PositiveDuration,
        "1d",
        "How long purges are remembered for nodes that come back; no shorter than `lease`.",
    ),
    key(
        "when_cut_off",
        words(&["serve", "revalidate", "stop"]),
        "serve",
        "What a node does that cannot hear of purges.",
    ),
    optional("redis", Kind::Struct(REDIS), "A Redis of its own."),
];

static EDGES: &[Key] = &[
    key("from", list(&NETWORK), "[]", "Networks of other edges."),
    key("secret", Kind::Or(&["none"], &Kind::Secret), "none", "What edges sign their requests with."),
];

pub(super) static STORE: &[Key] = &[
    key("memory", Kind::Struct(MEMORY), "{}", "The memory tier."),
    key("disk", Kind::Or(&["none"], &Kind::Struct(DISK)), "none", "The disk tier."),
    key("redis", Kind::Or(&["none"], &Kind::Struct(REDIS_TIER)), "none", "The tier that nodes share.").off(),
];

static MEMORY: &[Key] = &[
    key(
        "size",
        Kind::Either(&SIZE, &Kind::Share),
        "256MiB",
        "Bytes, bookkeeping included; a share is of the memory that the process may use.",
    ),
    key(
        "object_max",
        Kind::Or(&["auto"], &SIZE),
        "auto",
        "Largest body kept here; `auto` is `size` / 8, at most 64MiB.",
    ),
];

static DISK: &[Key] = &[
    required(
        "path",
        Kind::Path,
        "Directory, made if need be, locked by one process; `{node}` in it is this node's id.",
    ),
    key("size", SIZE, "2GiB", "Bytes on disk, at least 16MiB; what exceeds it goes by the oldest segment of 64MiB."),
    key("object_max", SIZE, "1GiB", "Largest body kept here, at most `size` and 4GiB."),
    key(
        "min_free",
        Kind::Share,
        "5%",
        "Share of the file system that stays free: below it the oldest goes, then nothing more is written.",
    ),
];

static REDIS_TIER: &[Key] = &[
    key("object_max", SIZE, "256KiB", "Largest body kept there."),
    optional("redis", Kind::Struct(REDIS), "A Redis of its own."),
];

pub(super) static SESSIONS: &[Key] = &[
    key(
        "cookie",
        one_or_many(&GLOB),
        "[ __Host-eh_s, eh_s ]",
        "Cookies that carry a session, the first present counts.",
    ),
    key("source", words(&["redis", "introspection"]), "redis", "Who knows the sessions."),
    optional("introspection", Kind::Struct(INTROSPECTION), "Where RFC 7662 introspection is asked."),
    key("local_ttl", Kind::Duration, "2s", "How long an answer is remembered here."),
    key("negative_ttl", Kind::Duration, "1s", "How long an unknown session is remembered here."),
    key("grace", Kind::Duration, "10m", "How long a known session is believed while the source is gone."),
    optional("redis", Kind::Struct(REDIS), "A Redis of its own."),
];

static INTROSPECTION: &[Key] =
    &[required("upstream", NAME, "Upstream that is asked."), required("path", TARGET, "Path of the endpoint.")];

pub(super) static LOG: &[Key] = &[
    key("level", LOG_LEVEL, "info", "Diagnostics on stderr: `info`, or a filter such as `warn,edge=debug`."),
    key("access", Kind::Struct(ACCESS), "{}", "The access record: one JSON line for each request."),
];

static ACCESS: &[Key] = &[
    key("to", Kind::Or(&["stdout", "stderr", "none"], &LOG_PATH), "stdout", "`stdout`, `stderr`, `none`, or a file."),
    key("sample", Kind::Share, "100%", "Share of the requests that is written.").off(),
    key("always", Kind::Struct(ALWAYS), "{}", "What is written whatever the sample.").unwritten(),
    key("client_ip", words(&["full", "truncated", "none"]), "full", "How much of a client's address is written.").off(),
    key(
        "buffer",
        Kind::Size { min: 4096, max: 1 << 32 },
        "8MiB",
        "Bytes that may wait for the writer; over it lines are dropped and counted.",
    ),
    key(
        "redact_query",
        list(&GLOB),
        "[ ticket, token, sig, signature, policy, key-pair-id, code, password ]",
        "Query parameters whose values are never written.",
    ),
];

static ALWAYS: &[Key] = &[
    key("status", list(&STATUS_PATTERN), "[ 5xx ]", "Statuses."),
    key("slower_than", OR_NONE_DURATION, "1s", "Requests that took longer."),
];

pub(super) static TRACING: &[Key] = &[
    key("otlp", Kind::Or(&["none"], &TEXT), "none", "URL of an OTLP receiver.").off(),
    key("sample", Kind::Share, "1%", "Share of the requests that is traced.").unwritten(),
    key("trust_incoming", Kind::Bool, "false", "Believes a client's `traceparent`.").off(),
];
