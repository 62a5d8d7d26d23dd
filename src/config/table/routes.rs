//! Rows of `sites[]` and `routes[]`.

use super::{
    Key, Kind, cache,
    kind::{OR_NONE_DURATION, SIZE, int, key, list, one_or_many, optional, required, words},
    server,
    texts::{
        BODY, GLOB, HEADER_NAMES, HEADER_VALUE, HOST_PATTERN, LISTEN_ADDRESS, METHOD, NAME, NETWORK, PATH_PATTERN,
        PATH_PREFIX, STATUSES, STICKY_SOURCE, TEXT, VALUE_PATTERN, WORDS,
    },
    upstreams,
};

pub(super) static SITE: &[Key] = &[
    required(
        "hosts",
        list(&HOST_PATTERN),
        "Hosts, as `a.test` or `\"*.b.test\"`; exact beats wildcard, the longest wildcard beats others.",
    ),
    key("plugins", list(&Kind::Any), "[]", "Plugins of all routes, before the routes' own.").off(),
    key(
        "errors",
        Kind::Map { key: STATUSES, sample: "STATUS", of: &Kind::File },
        "{}",
        "Pages for errors, as `{ 404: f.html, 5xx: f.html }`.",
    )
    .off(),
    required(
        "routes",
        list(&Kind::Struct(ROUTE)),
        "Routes of these hosts; there is no falling through to the top-level ones.",
    ),
];

/// A route.
pub(super) static ROUTE: &[Key] = &[
    required("name", NAME, "Name, unique among all routes."),
    key(
        "match",
        Kind::Struct(MATCH),
        "{}",
        "What a request must look like: keys AND, lists OR; `{}` is every request.",
    ),
    optional(
        "upstream",
        NAME,
        "Upstream that answers. A route has exactly one of `upstream`, `split`, `redirect`, `respond`.",
    ),
    optional("split", Kind::Struct(SPLIT), "Shares of the requests for several upstreams.").unwritten(),
    optional("redirect", Kind::Struct(REDIRECT), "Sends the client elsewhere."),
    optional("respond", Kind::Struct(RESPOND), "A fixed answer of the edge."),
    optional("fallback", NAME, "Upstream that is asked when the first one fails.").unwritten(),
    key(
        "cache",
        Kind::Or(&["none"], &Kind::Short(&NAME, cache::OVERRIDE)),
        "none",
        "Policy, or `{ use: POLICY, KEY: VALUE }` with keys of its own; `none`: nothing is stored.",
    ),
    key("sticky", Kind::Or(&["none"], &Kind::Struct(STICKY)), "none", "Keeps the requests of a room on one peer."),
    key(
        "websocket",
        Kind::Or(&["none"], &Kind::Struct(WEBSOCKET)),
        "none",
        "Takes WebSocket upgrades; `none`: `Upgrade` is dropped.",
    ),
    key(
        "upstream_path",
        Kind::Or(&["none"], &Kind::Struct(UPSTREAM_PATH)),
        "none",
        "Changes the path that the origin sees.",
    ),
    key(
        "entitled",
        Kind::Or(&["strict"], &Kind::Bool),
        "false",
        "Stored once, shown to those whose session allows it.",
    )
    .off(),
    optional("login", TEXT, "Where HTML clients without a session are sent, as `\"/login?next={url}\"`.").unwritten(),
    key("session", Kind::Bool, "false", "Tells the origin who is asking.").off(),
    key("plugins", list(&Kind::Any), "[]", "Plugins, in order.").off(),
    key(
        "errors",
        Kind::Map { key: STATUSES, sample: "STATUS", of: &Kind::File },
        "{}",
        "Pages for errors, as `{ 404: f.html, 5xx: f.html }`.",
    )
    .off(),
    optional("metrics", NAME, "The `route` label of metrics; the name if left out."),
    optional(
        "timeouts",
        Kind::Struct(upstreams::TIMEOUTS),
        "The upstream's, key by key; a default here means the upstream's value.",
    ),
    optional(
        "retries",
        Kind::Struct(upstreams::RETRIES),
        "The upstream's, key by key; a default here means the upstream's value.",
    ),
    optional("limits", Kind::Struct(server::ROUTE_LIMITS), "The server's, key by key."),
    optional("log", Kind::Any, "A `log` of its own.").unwritten(),
];

static MATCH: &[Key] = &[
    optional("path", one_or_many(&PATH_PATTERN), "Paths: `{name}` is one segment, `\"{*rest}\"` everything below."),
    optional("host", one_or_many(&HOST_PATTERN), "Hosts."),
    optional("methods", one_or_many(&METHOD), "Methods; `GET` implies `HEAD`."),
    optional("scheme", words(&["http", "https"]), "How the client came."),
    key(
        "headers",
        Kind::Map { key: HEADER_NAMES, sample: "FIELD", of: &one_or_many(&VALUE_PATTERN) },
        "{}",
        "Request fields.",
    ),
    key(
        "query",
        Kind::Map { key: WORDS, sample: "PARAMETER", of: &one_or_many(&VALUE_PATTERN) },
        "{}",
        "Query parameters.",
    ),
    key("cookies", Kind::Map { key: WORDS, sample: "COOKIE", of: &one_or_many(&VALUE_PATTERN) }, "{}", "Cookies."),
    optional("client_ip", one_or_many(&NETWORK), "Addresses of clients."),
    optional("listener", one_or_many(&LISTEN_ADDRESS), "Listeners, by their address."),
];

static SPLIT: &[Key] = &[
    required("by", TEXT, "What decides the share of a client."),
    required("to", list(&Kind::Struct(SPLIT_ARM)), "The arms."),
];

static SPLIT_ARM: &[Key] =
    &[required("upstream", NAME, "Upstream of the arm."), required("share", Kind::Share, "Its share.")];

static REDIRECT: &[Key] = &[
    required(
        "to",
        TEXT,
        "Target, with `{scheme}`, `{host}`, `{path}`, `{query}`, `{path_and_query}` and path parameters.",
    ),
    key("status", Kind::OneOfNumbers(&[301, 302, 303, 307, 308]), "308", "Status."),
];

static RESPOND: &[Key] = &[
    key("status", int(200, 599), "200", "Status."),
    optional("file", Kind::File, "File whose content is the body, read when the configuration is."),
    optional("body", BODY, "The body itself."),
    key("headers", Kind::Map { key: HEADER_NAMES, sample: "FIELD", of: &HEADER_VALUE }, "{}", "Response fields."),
];

static STICKY: &[Key] = &[
    required("by", list(&STICKY_SOURCE), "Sources of the room, the first present decides."),
    key(
        "cookie",
        Kind::Or(&["none"], &Kind::Struct(STICKY_COOKIE)),
        "none",
        "A sealed random affinity id for clients without a room.",
    )
    .off(),
    key("else", words(&["client_ip", "random", "refuse"]), "client_ip", "What decides without a room."),
    key("pin_ttl", Kind::PositiveDuration, "60s", "How long a room is remembered where it is.").noted(),
    key("rebalance", Kind::Struct(REBALANCE), "{}", "How rooms go back to where they belong.").noted(),
    optional("redis", Kind::Any, "A Redis of its own.").unwritten(),
];

static STICKY_COOKIE: &[Key] = &[
    key("name", NAME, "eh_room", "Name of the cookie."),
    required("secret", Kind::Secret, "What it is sealed with."),
    key("same_site", words(&["strict", "lax", "none"]), "lax", "`SameSite` of the cookie."),
    key("max_age", Kind::Duration, "1d", "How long the client keeps it."),
];

static REBALANCE: &[Key] = &[
    key("rate", TEXT, "1/s", "Rooms that move."),
    key("idle", Kind::Duration, "30s", "Only rooms that were silent for so long."),
];

static WEBSOCKET: &[Key] = &[
    key(
        "idle_timeout",
        Kind::PositiveDuration,
        "75s",
        "Without a byte in either direction for so long the socket is closed.",
    ),
    key("message_max", SIZE, "1MiB", "Largest message.").noted(),
    key("origins", list(&GLOB), "[]", "Allowed `Origin` values, as `https://a.test`; `[]`: any."),
    key("connections", Kind::Or(&["none"], &int(1, 10_000_000)), "none", "Sockets at once.").off(),
    key(
        "connections_per_ip",
        Kind::Or(&["none"], &int(1, 10_000_000)),
        "none",
        "Sockets at once from one client address.",
    )
    .off(),
    key("max_age", OR_NONE_DURATION, "none", "Longest life of a socket.").off(),
];

static UPSTREAM_PATH: &[Key] = &[
    optional("strip", PATH_PREFIX, "Prefix that is removed."),
    optional("add", PATH_PREFIX, "Prefix that is put before."),
];
