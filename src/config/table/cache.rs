//! Rows of `cache.NAME`, and of a route's `cache`.

use super::{
    Key, Kind,
    kind::{OR_NONE_DURATION, OR_NONE_SIZE, SIZE, int, key, list, one_or_many, optional, required, words},
    texts::{GLOB, HEADER_NAME, MEDIA_TYPE, NAME, PATH_PATTERN, STATUS_PATTERN, STATUSES, TEXT},
};

/// A named policy.
pub(super) static POLICY: &[Key] = &POLICY_KEYS;

/// A policy used by a route, with keys of its own over it.
pub(super) static OVERRIDE: &[Key] = &override_keys();

const POLICY_KEYS: [Key; 25] = [
    key("extends", Kind::Or(&["none"], &NAME), "none", "Policy whose keys hold where this one says nothing."),
    key(
        "default_ttl",
        OR_NONE_DURATION,
        "none",
        "Freshness lifetime where the origin is silent; `none`: heuristic, 10% of the age of `Last-Modified`, at most 1d; `0s`: no heuristic.",
    ),
    key("force_ttl", OR_NONE_DURATION, "none", "Replaces the freshness lifetime of what is storable, never of a 5xx."),
    key(
        "browser_ttl",
        OR_NONE_DURATION,
        "none",
        "What clients get as a lifetime instead; it lasts exactly that long from now.",
    ),
    key(
        "status_ttl",
        Kind::Map { key: STATUSES, sample: "STATUS", of: &Kind::Duration },
        "{}",
        "Lifetimes by status where the origin is silent, as `{ 404: 10s, 5xx: 0s }`; a code beats its class.",
    ),
    key("ttl", list(&Kind::Struct(TTL)), "[]", "Lifetimes by path, type and status; the first that matches wins."),
    key(
        "stale_while_revalidate",
        Kind::Duration,
        "0s",
        "Served stale while a fresh one is fetched, where the origin says nothing about stale (RFC 5861).",
    ),
    key(
        "stale_if_error",
        Kind::Duration,
        "0s",
        "Served stale while the origin fails, where the origin says nothing about stale (RFC 5861).",
    ),
    key("keep", Kind::Duration, "1h", "Kept past every window for validation, if it has a validator."),
    key("ttl_jitter", Kind::Share, "0%", "Random part by which lifetimes are shortened."),
    key("key", Kind::Struct(CACHE_KEY), "{}", "What the cache key is made of beside scheme, host and path."),
    key("bypass", Kind::Struct(REQUESTS), "{}", "A request that carries one of these is neither looked up nor stored."),
    key("refresh", Kind::Struct(REQUESTS), "{}", "A request that carries one of these is not looked up, but stored."),
    key("forward_cookies", Kind::Or(&["all"], &list(&GLOB)), "all", "Cookies that the origin sees."),
    key("languages", list(&TEXT), "[]", "`Accept-Language` is taken for one of these, the first where none fits."),
    key(
        "compress",
        Kind::Or(&["none"], &Kind::Struct(COMPRESS)),
        "none",
        "What is compressed here, once, and answered with from then on. `Accept-Encoding` is then taken for the one coding that \
         this client gets, or `identity`; the origin too is asked for that, and what it has coded itself stays as it is.",
    ),
    key("slice", OR_NONE_SIZE, "none", "Fetches and stores large bodies in aligned slices of this size."),
    key("collapse", Kind::Struct(COLLAPSE), "{}", "One fetch for any number of concurrent readers."),
    key("variants_max", int(1, 10_000), "64", "Stored variants of one key; the oldest goes first."),
    key("min_uses", int(1, 1_000_000), "1", "Stored only when asked for so often."),
    key("object_max", OR_NONE_SIZE, "none", "Largest body stored; `none`: what the tiers allow."),
    key(
        "client_directives",
        words(&["honour", "ignore"]),
        "honour",
        "Are `Cache-Control` and `Pragma` of requests honoured?",
    ),
    key(
        "ignore_origin",
        list(&words(&["cache-control", "expires", "no-cache", "no-store", "private", "must-revalidate", "vary"])),
        "[]",
        "Parts of the origin's word that are not listened to.",
    ),
    key(
        "set_cookie",
        words(&["refuse", "strip", "store"]),
        "refuse",
        "A response with `Set-Cookie`: not stored, stored as received, or stored without the cookies of `strip_set_cookie`.",
    ),
    key("strip_set_cookie", list(&GLOB), "[]", "Cookies that `set_cookie: strip` takes away."),
];

const fn override_keys() -> [Key; POLICY_KEYS.len() + 1] {
    let mut keys = [required("use", NAME, "The policy."); POLICY_KEYS.len() + 1];
    let mut index = 0;
    while index < POLICY_KEYS.len() {
        keys[index + 1] = POLICY_KEYS[index];
        index += 1;
    }
    keys
}

const TTL: &[Key] = &[
    required("match", Kind::Struct(TTL_MATCH), "Which responses."),
    required("force_ttl", Kind::Duration, "Their freshness lifetime."),
];

const TTL_MATCH: &[Key] = &[
    optional("path", one_or_many(&PATH_PATTERN), "Paths."),
    optional("content_type", one_or_many(&GLOB), "Media types."),
    optional("status", one_or_many(&STATUS_PATTERN), "Statuses."),
];

const CACHE_KEY: &[Key] = &[
    key("query", Kind::Struct(QUERY), "{}", "Query parameters."),
    key("headers", list(&HEADER_NAME), "[]", "Request fields that are part of the key."),
    key("cookies", list(&GLOB), "[]", "Cookies that are part of the key."),
];

const QUERY: &[Key] = &[
    key("ignore", list(&GLOB), "[]", "Parameters left out of the key; not together with `only`."),
    key(
        "only",
        Kind::Or(&["none"], &list(&GLOB)),
        "none",
        "Parameters that alone are kept; `[]` keeps none, `none` keeps all.",
    ),
    key("forward", words(&["keyed", "all"]), "keyed", "What the origin sees: the parameters of the key, or all."),
];

const REQUESTS: &[Key] = &[
    key("cookies", list(&GLOB), "[]", "Cookies."),
    key("headers", list(&GLOB), "[]", "Fields."),
    key("query", list(&GLOB), "[]", "Query parameters."),
];

const COMPRESS: &[Key] = &[
    key(
        "prefer",
        list(&words(&["br", "zstd", "gzip"])),
        "[ br, zstd, gzip ]",
        "Codings that are made, the best first; where a client wants several alike it gets the first of them.",
    ),
    key(
        "types",
        list(&MEDIA_TYPE),
        "[ \"text/*\", application/javascript, application/json, \"application/*+json\", application/wasm, application/xml, \
         \"application/*+xml\", font/otf, font/ttf, image/svg+xml ]",
        "Media types. What is compressed already is left out, such as video, and so are event streams.",
    ),
    key("min_size", SIZE, "1KiB", "Smallest body that is compressed; the largest has 16MiB."),
];

const COLLAPSE: &[Key] = &[
    key("wait", Kind::PositiveDuration, "10s", "How long waiters wait for the response head of the one that fetches."),
    key("expired", words(&["fetch", "error"]), "fetch", "After `wait`: one more waiter fetches, or all get 504."),
    key("uncacheable_for", Kind::Duration, "60s", "A key whose answer was not storable is not collapsed for so long."),
];
