//! Rows of `server`.

use super::{
    Key, Kind,
    kind::{OR_NONE_SIZE, int, key, list, one_or_many, optional, required, words},
    texts::{HOST_NAME, LISTEN_ADDRESS, NETWORK, TEXT},
};

/// Largest request head in bytes, and largest number of anything that a client makes the edge keep.
const HEAD_BYTES_MAX: u64 = 1 << 20;

pub(super) static SERVER: &[Key] = &[
    key("workers", Kind::Or(&["auto"], &int(1, 1024)), "auto", "Worker threads; `auto` is one for each processor."),
    key(
        "reuse_port",
        Kind::Bool,
        "false",
        "Lets several edges share an address, each with its own store and control listener.",
    ),
    key("upgrade_socket", Kind::Or(&["none"], &Kind::Path), "none", "Where a new process takes the listeners over.")
        .off(),
    key("listeners", list(&Kind::Struct(LISTENER)), "[]", "Addresses that clients connect to; at least one."),
    key("trusted_proxies", list(&NETWORK), "[]", "Networks whose forwarding fields and PROXY header are believed."),
    key("limits", Kind::Struct(LIMITS), "{}", "What every client connection is held to."),
    key("drain", Kind::Struct(DRAIN), "{}", "How the edge leaves."),
];

static LISTENER: &[Key] = &[
    required("address", LISTEN_ADDRESS, "`IP:PORT`, `\"[::]:443\"` or `unix:PATH`; port 0 lets the system choose."),
    key("proxy_protocol", Kind::Bool, "false", "Expects a PROXY header from the load balancer in front.").off(),
    key("redirect_to_https", Kind::Bool, "false", "Answers every request with a redirect to `https`."),
    key(
        "http2",
        Kind::Struct(HTTP2),
        "{}",
        "HTTP/2 on this listener, by ALPN over TLS and by prior knowledge without.",
    ),
    key("tls", Kind::Or(&["none"], &Kind::Struct(TLS)), "none", "TLS; `none` is clear text."),
];

static HTTP2: &[Key] = &[
    key("streams", int(1, 10_000), "100", "Concurrent streams of one connection."),
    key("idle", Kind::PositiveDuration, "60s", "A connection without streams is closed after this."),
];

static TLS: &[Key] = &[
    required("certificates", list(&Kind::Struct(CERTIFICATE)), "Certificates with their keys; exactly one for now."),
    key("min_version", words(&["1.2", "1.3"]), "\"1.2\"", "Lowest version of TLS that is spoken."),
    key("hsts", Kind::Or(&["none"], &Kind::Struct(HSTS)), "none", "Sends `Strict-Transport-Security`.").off(),
    key(
        "client_ca",
        Kind::Or(&["none"], &Kind::File),
        "none",
        "Authorities of client certificates, which are then required.",
    )
    .off(),
    key(
        "ticket_keys",
        list(&Kind::File),
        "[]",
        "Files of 64 random bytes, shared by edges; the first encrypts tickets, the others decrypt.",
    )
    .off(),
    key(
        "unknown_sni",
        words(&["reject", "default"]),
        "reject",
        "What a client gets that asks for a name of no certificate.",
    )
    .noted(),
    key("acme", Kind::Or(&["none"], &Kind::Struct(ACME)), "none", "Certificates by ACME.").off(),
];

static CERTIFICATE: &[Key] = &[
    required("cert", Kind::File, "PEM file of the chain, leaf first."),
    required("key", Kind::File, "PEM file of the key."),
    key("ocsp", Kind::Or(&["none"], &Kind::File), "none", "An OCSP answer to staple.").off(),
];

static HSTS: &[Key] = &[
    key("max_age", Kind::Duration, "365d", "How long browsers remember."),
    key("subdomains", Kind::Bool, "false", "Also for all names below."),
    key("preload", Kind::Bool, "false", "Consent to be built into browsers."),
];

static ACME: &[Key] = &[
    required("directory", TEXT, "URL of the authority's directory."),
    required("contact", one_or_many(&TEXT), "Mail addresses for the authority."),
    required("domains", list(&HOST_NAME), "Names to get certificates for."),
    required("storage", Kind::Path, "Directory of account and certificates."),
];

static LIMITS: &[Key] = &[
    key(
        "header_bytes",
        Kind::Size { min: 1024, max: HEAD_BYTES_MAX },
        "32KiB",
        "Bytes of one request head, request line included.",
    ),
    key("header_count", int(1, 10_000), "100", "Field lines of one request head."),
    key("target_bytes", Kind::Size { min: 16, max: HEAD_BYTES_MAX }, "8KiB", "Bytes of the request target."),
    key("body_bytes", super::kind::SIZE, "100MiB", "Bytes of a request body."),
    key("header_timeout", Kind::PositiveDuration, "10s", "From the first byte of a request head to its last."),
    key(
        "body_timeout",
        Kind::PositiveDuration,
        "30s",
        "Between two reads of a request body, and between two writes of a response.",
    ),
    key("idle_timeout", Kind::PositiveDuration, "75s", "Between two requests on a connection."),
    key("min_rate", OR_NONE_SIZE, "none", "Bytes per second below which a client is too slow.").off(),
    key(
        "connections",
        Kind::Or(&["auto"], &int(1, 10_000_000)),
        "auto",
        "Connections at once; `auto` is (descriptor limit - 1,000) / 2.",
    ),
    key(
        "connections_per_ip",
        Kind::Or(&["none"], &int(1, 10_000_000)),
        "none",
        "Connections at once from one client address.",
    )
    .off(),
    key(
        "underscore_headers",
        words(&["drop", "pass", "reject"]),
        "drop",
        "What happens to a request field with `_` in its name.",
    ),
];

static DRAIN: &[Key] = &[
    key("delay", Kind::Duration, "0s", "Unready but still accepting, with `Connection: close` and GOAWAY."),
    key("deadline", Kind::Duration, "30s", "From the end of `delay` until what is left is cut."),
    key(
        "rate",
        Kind::Or(&["auto"], &int(1, 1_000_000)),
        "auto",
        "Sockets closed per second; `auto` spreads the rooms over `deadline`.",
    )
    .noted(),
    key("jitter", Kind::Share, "20%", "Random part of the moment at which a socket is closed.").noted(),
];

/// `limits` of a route: those that can differ once the head has been read.
pub(super) static ROUTE_LIMITS: &[Key] = &[
    optional("body_bytes", super::kind::SIZE, "Bytes of a request body; the server's if left out."),
    optional(
        "body_timeout",
        Kind::PositiveDuration,
        "Between two reads of a request body, and between two writes of a response; the server's if left out.",
    ),
];
