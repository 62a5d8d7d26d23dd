//! The one table of every key of the configuration.
//!
//! The structural check, the defaults, the JSON Schema and the reference are all made from it, so that they cannot
//! differ. A row says the name, the kind of value, the default, one sentence for operators, and whether this build
//! does what the key says. Read [`kind`] first, then the sections in the order of a configuration file.

mod kind;
mod texts;

mod server;

mod operations;

mod cache;

mod upstreams;

mod routes;

pub(super) use kind::{Availability, Default, Key, Kind, TextKind};
use kind::{key, list, required};
use texts::{NAMES, TEXT};

/// The top level of a configuration file.
pub(super) static ROOT: &[Key] = &[
    required("version", Kind::OneOfNumbers(&[1]), "Version of this format."),
    key(
        "include",
        list(&TEXT),
        "[]",
        "Further files, as `conf.d/*.yaml`, read in the order of their names; named maps merge, routes and sites append. They set neither `server`, `admin`, `store` nor `node`.",
    ),
    key("node", Kind::Struct(operations::NODE), "{}", "Who this edge is among its like."),
    key(
        "server",
        Kind::Struct(server::SERVER),
        "{}",
        "The front door: listeners, and what every client connection is held to.",
    ),
    key("admin", Kind::Struct(operations::ADMIN), "{}", "The control listener: health, metrics, purge."),
    key(
        "redis",
        Kind::Or(&["none"], &Kind::Struct(operations::REDIS)),
        "none",
        "What nodes share; without it one node is complete in itself.",
    ),
    key("fleet", Kind::Struct(operations::FLEET), "{}", "How nodes tell each other about purges."),
    key("store", Kind::Struct(operations::STORE), "{}", "Where stored responses are kept."),
    key(
        "cache",
        Kind::Map { key: NAMES, sample: "NAME", of: &Kind::Struct(cache::POLICY) },
        "{}",
        "Named cache policies; a route takes one by its name.",
    ),
    key(
        "sessions",
        Kind::Or(&["none"], &Kind::Struct(operations::SESSIONS)),
        "none",
        "How the edge learns who is asking.",
    )
    .off(),
    key(
        "upstreams",
        Kind::Map { key: NAMES, sample: "NAME", of: &Kind::Struct(upstreams::UPSTREAM) },
        "{}",
        "Named pools of peers.",
    ),
    key("sites", list(&Kind::Struct(routes::SITE)), "[]", "Hosts that have routes of their own."),
    key(
        "routes",
        list(&Kind::Struct(routes::ROUTE)),
        "[]",
        "Routes of all other hosts; the first that matches decides, there is no falling through.",
    ),
    key("log", Kind::Struct(operations::LOG), "{}", "Diagnostics and the access record."),
    key("tracing", Kind::Struct(operations::TRACING), "{}", "Traces for OpenTelemetry."),
];

/// Keys that an included file may not set: they describe the process, not what it serves.
pub(super) const MAIN_FILE_ONLY: [&str; 4] = ["server", "admin", "store", "node"];
