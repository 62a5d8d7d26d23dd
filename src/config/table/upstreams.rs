//! Rows of `upstreams.NAME`; `timeouts` and `retries` are a route's too.

use super::{
    Key, Kind,
    kind::{SIZE, int, key, list, optional, required},
    texts::{HEADER_NAME, HOST_LITERAL, HOST_NAME, NAME, PEER_ADDRESS, RETRY_WHEN, STATUS_PATTERN, TARGET},
};
use crate::config::table::kind::{OR_NONE_DURATION, words};

pub(super) static UPSTREAM: &[Key] = &[
    required(
        "peers",
        list(&Kind::Short(&PEER_ADDRESS, PEER)),
        "Addresses, each alone or with its settings; a name stands for every address that it resolves to.",
    ),
    key(
        "balance",
        Kind::Words { now: &["round_robin", "least_requests", "rendezvous"], later: &["ketama", "maglev"] },
        "least_requests",
        "How a peer is chosen.",
    ),
    key(
        "bounded_load",
        Kind::Number { min: 1.0, max: 100.0 },
        "1.25",
        "How far above the average the load of a peer may be, for the hashing ones.",
    )
    .noted(),
    key(
        "host",
        Kind::Or(&["client", "peer"], &HOST_LITERAL),
        "client",
        "`Host` to the origin: what the client asked for, the peer's address, or a literal.",
    ),
    key(
        "tls",
        Kind::Or(&["none"], &Kind::Struct(TLS)),
        "none",
        "TLS to the peers; `none` is clear text, `{}` is TLS with the defaults.",
    ),
    key("http2", Kind::Bool, "false", "HTTP/2 to the peers.").off(),
    key("resolve", Kind::Struct(RESOLVE), "{}", "How names of peers are resolved.").noted(),
    key(
        "health",
        Kind::Or(&["none"], &Kind::Struct(HEALTH)),
        "none",
        "Active health checks; `none`: peers are up until ejected.",
    ),
    key("outlier", Kind::Struct(OUTLIER), "{}", "Ejects peers whose answers fail.").noted(),
    key("panic", Kind::Share, "50%", "Below this share of usable peers health is ignored."),
    key("timeouts", Kind::Struct(TIMEOUTS), "{}", "Deadlines towards the origin."),
    key(
        "retries",
        Kind::Struct(RETRIES),
        "{}",
        "Further tries, another peer first, before the first byte to the client.",
    ),
    key("limits", Kind::Struct(LIMITS), "{}", "For each peer.").noted(),
    key("hedge", Kind::Or(&["none"], &Kind::Struct(HEDGE)), "none", "A second request when the first is slow.").off(),
    key("auth", Kind::Or(&["none"], &Kind::Struct(AUTH)), "none", "A field sent to this origin.").off(),
    key("shield", list(&NAME), "[]", "Upstreams asked first.").off(),
];

static PEER: &[Key] = &[
    optional("id", NAME, "Name, unique in its upstream; the address if left out. Rendezvous hashes it."),
    required("address", PEER_ADDRESS, "`IP:PORT`, `NAME:PORT` or `unix:PATH`."),
    key("weight", int(0, 1000), "1", "Share of the load; 0 = drain."),
    key("backup", Kind::Bool, "false", "Used only when no other peer is usable."),
];

static TLS: &[Key] = &[
    key(
        "sni",
        Kind::Or(&["none"], &HOST_NAME),
        "none",
        "Name for SNI and for verification; `none`: the host part of the peer's address.",
    ),
    key("ca", Kind::Or(&["system"], &Kind::File), "system", "PEM file of the authorities that are believed."),
    optional("client_cert", Kind::File, "PEM file of a client certificate.").unwritten(),
    optional("client_key", Kind::File, "PEM file of its key.").unwritten(),
    key("verify", Kind::Bool, "true", "Is the origin's certificate verified? `false` is for tests."),
];

static RESOLVE: &[Key] = &[
    key("family", words(&["any", "v4", "v6"]), "any", "Addresses that are used."),
    key("min_ttl", Kind::Duration, "1s", "An answer is used at least so long."),
    key("max_ttl", Kind::Duration, "5m", "An answer is used at most so long."),
    key("on_failure", words(&["keep", "down"]), "keep", "What happens to peers when the name does not resolve."),
];

static HEALTH: &[Key] = &[
    key("path", TARGET, "/healthz", "What is asked for."),
    key("interval", Kind::PositiveDuration, "1s", "Between two probes of a peer."),
    key("timeout", Kind::PositiveDuration, "500ms", "Of one probe."),
    key("rise", int(1, 1000), "2", "Good probes in a row that bring a peer up; the first probe decides alone."),
    key("fall", int(1, 1000), "2", "Bad probes in a row that take a peer down."),
    key("expect", list(&STATUS_PATTERN), "[ 2xx, 3xx ]", "Good statuses."),
];

static OUTLIER: &[Key] = &[
    key("failures", int(1, 1_000_000), "5", "Failures within `window` that eject a peer."),
    key("window", Kind::PositiveDuration, "10s", "Over which failures are counted."),
    key("eject", Kind::PositiveDuration, "10s", "How long the first ejection lasts."),
    key("eject_max", Kind::PositiveDuration, "5m", "How long an ejection may last."),
    key("max_ejected", Kind::Share, "50%", "Share of the peers that may be ejected."),
    key("slow_start", Kind::Duration, "10s", "Over which a peer that comes back gets its full share."),
];

pub(super) static TIMEOUTS: &[Key] = &[
    key("connect", Kind::PositiveDuration, "500ms", "For a connection, TLS included."),
    key("first_byte", Kind::PositiveDuration, "30s", "From the end of the request to the response head."),
    key("between_bytes", Kind::PositiveDuration, "60s", "Between two reads of a response body."),
    key("keepalive", Kind::Duration, "60s", "How long an idle connection is kept."),
    key("total", OR_NONE_DURATION, "none", "For the whole exchange with the origin."),
];

pub(super) static RETRIES: &[Key] = &[
    key("max", int(0, 100), "2", "Further tries after the first."),
    key(
        "budget",
        Kind::Share,
        "20%",
        "Share of the requests of the last 10 s that may be retries, at least 3 a second.",
    ),
    key("when", list(&RETRY_WHEN), "[ connect, reset, 502, 503, 504 ]", "What is tried again."),
    key("non_idempotent", Kind::Bool, "false", "Also POST and PATCH after something was sent."),
    key("body_max", SIZE, "64KiB", "A request body up to this size is kept for a retry."),
];

static LIMITS: &[Key] = &[
    key("connections", Kind::Or(&["none"], &int(1, 1_000_000)), "none", "Connections at once."),
    key("queue", int(0, 1_000_000), "1000", "Requests that may wait for one."),
    key("queue_timeout", Kind::Duration, "1s", "How long a request may wait for one."),
];

static HEDGE: &[Key] = &[
    required("after", Kind::PositiveDuration, "How long the first may take."),
    key("budget", Kind::Share, "5%", "Share of the requests that may be hedged."),
];

static AUTH: &[Key] =
    &[key("header", HEADER_NAME, "x-edge-auth", "Name of the field."), required("value", Kind::Secret, "Its value.")];
