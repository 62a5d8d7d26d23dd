//! `node`, `admin`, `redis`, `fleet`, `store` and `log`.

use super::{Resolver, names, server};
use crate::redis::Config as RedisConfig;
use crate::{
    admin::{self, Right, Token},
    config::{
        Node,
        checked::{Checked, Fields, Value},
    },
    fleet::{self, LEASE_MIN, WhenCutOff},
    front::{self, ListenAddress},
    store,
    telemetry::{self, Access, AccessTo},
};

/// The memory tier keeps no body larger than this by itself: larger ones belong on disk.
const OBJECT_MAX: u64 = 64 << 20;

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 8;

pub(super) fn node(value: &Checked, resolver: &Resolver<'_>) -> Node {
    let text = |name| value.fields().and_then(|fields| fields.text(name)).map(str::to_owned);
    Node { id: text("id").unwrap_or_else(|| resolver.environment.host_name()), region: text("region") }
}

pub(super) fn admin(
    value: &Checked,
    upstreams: &Checked,
    server: &front::Config,
    resolver: &mut Resolver<'_>,
) -> admin::Config {
    let nothing = || admin::Config {
        address: ListenAddress::Tcp(([127, 0, 0, 1], 0).into()),
        metrics_token: false,
        ready_require: Vec::new(),
        tokens: Vec::new(),
    };
    let Some(fields) = value.fields() else { return nothing() };
    let tokens = fields.get("tokens");
    let at = &fields.get("address").at;
    let address = server::address(fields.get("address"), resolver).unwrap_or_else(|| nothing().address);
    if server.listeners.iter().any(|listener| listener.address == address) && !has_port_0(&address) {
        resolver.problem(at, format!("found {address}, expected an address that is no listener's"), None);
    }
    let is_exposed = matches!(address, ListenAddress::Tcp(tcp) if !tcp.ip().is_loopback());
    if is_exposed && tokens.items().is_empty() && !tokens.is_bad() {
        let message = format!("found {address} without admin.tokens, expected a loopback address or tokens");
        resolver.problem(at, message, None);
    }
    if fields.bool("metrics_token") && tokens.items().is_empty() && !tokens.is_bad() {
        let at = &fields.get("metrics_token").at;
        resolver.problem(at, "found true without admin.tokens, expected a token that may read", None);
    }
    let require = fields.fields("ready").map(|ready| ready.get("require"));
    for name in require.map(Checked::items).unwrap_or_default() {
        let text = name.text().unwrap_or_default();
        if !name.is_bad() && !names(upstreams).any(|defined| defined == text) {
            resolver.unknown_name(&name.at, text, "the name of an upstream", names(upstreams));
        }
    }
    let named = tokens.items().iter().filter_map(|token| {
        let name = token.fields()?.get("name");
        Some((name.text()?.to_owned(), &name.at))
    });
    resolver.unique("the name", named);
    admin::Config {
        address,
        metrics_token: fields.bool("metrics_token"),
        ready_require: require.into_iter().flat_map(Checked::texts).map(str::to_owned).collect(),
        tokens: tokens.items().iter().filter_map(|token| self::token(token.fields()?, resolver)).collect(),
    }
}

fn has_port_0(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(tcp) if tcp.port() == 0)
}

fn token(fields: &Fields, resolver: &mut Resolver<'_>) -> Option<Token> {
    let value = fields.get("value");
    let text = value.text()?;
    if text.len() < TOKEN_BYTES_MIN && !resolver.no_files {
        resolver.problem(
            &value.at,
            format!("found a token of {} bytes, expected at least {TOKEN_BYTES_MIN}", text.len()),
            None,
        );
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        resolver.problem(&value.at, "found a token with bytes that no header can carry, expected visible ASCII", None);
    }
    let allow = fields.get("allow");
    if allow.items().is_empty() && !allow.is_bad() {
        resolver.problem(
            &allow.at,
            "found an empty list, expected at least one of read, purge, drain, config, all",
            None,
        );
    }
    Some(Token {
        name: fields.text("name")?.to_owned(),
        value: text.to_owned(),
        allow: allow.items().iter().filter_map(Checked::word).filter_map(|word| word.parse::<Right>().ok()).collect(),
    })
}

pub(super) fn fleet(value: &Checked, shared: &Checked, resolver: &mut Resolver<'_>) -> fleet::Config {
    let fields = value.fields();
    if let Some(fields) = fields {
        let (lease, history) = (fields.get("lease"), fields.get("history"));
        if lease.duration().is_some_and(|lease| lease < LEASE_MIN) {
            resolver.problem(
                &lease.at,
                format!(
                    "found a lease below {LEASE_MIN:?}, expected at least that: who is late with a beat would be lost"
                ),
                None,
            );
        }
        if lease.duration().zip(history.duration()).is_some_and(|(lease, history)| history < lease) {
            resolver.problem(
                &history.at,
                "found a time below fleet.lease, expected at least that: nodes that still serve would be forgotten",
                None,
            );
        }
    }
    let own = fields.and_then(|fields| fields.fields("redis"));
    fleet::Config {
        redis: own.or(shared.fields()).and_then(redis),
        lease: fields.map(|fields| fields.duration("lease")).unwrap_or_default(),
        history: fields.map(|fields| fields.duration("history")).unwrap_or_default(),
        when_cut_off: fields.map_or(WhenCutOff::Serve, |fields| {
            let words =
                [("serve", WhenCutOff::Serve), ("revalidate", WhenCutOff::Revalidate), ("stop", WhenCutOff::Stop)];
            fields.choose("when_cut_off", &words)
        }),
    }
}

fn redis(fields: &Fields) -> Option<RedisConfig> {
    Some(RedisConfig {
        url: fields.text("url")?.parse().ok()?,
        prefix: fields.text("prefix")?.to_owned(),
        timeout: fields.duration("timeout"),
    })
}

pub(super) fn store(value: &Checked, node: &Node, resolver: &mut Resolver<'_>) -> store::Config {
    let fields = value.fields();
    let Some(memory) = fields.and_then(|fields| fields.fields("memory")) else {
        return store::Config { memory: store::Memory { size: 0, object_max: 0 }, disk: None };
    };
    let disk = fields.and_then(|fields| fields.fields("disk")).map(|disk| disk_tier(disk, node, resolver));
    let size = match memory.get("size").value {
        // A share of memory need not be exact.
        Value::Share(percent) => (resolver.environment.memory() as f64 * percent / 100.0) as u64,
        _ => memory.size("size"),
    };
    let object_max = memory.get("object_max");
    let automatic = (size / 8).min(OBJECT_MAX);
    let resolved = object_max.size().unwrap_or(automatic);
    if resolved > size && !object_max.is_bad() && !memory.get("size").is_bad() {
        resolver.problem(&object_max.at, "found more than store.memory.size, expected at most that", None);
    }
    store::Config { memory: store::Memory { size, object_max: resolved }, disk }
}

fn disk_tier(disk: &Fields, node: &Node, resolver: &mut Resolver<'_>) -> store::DiskConfig {
    let path = disk.get("path").path().map(|path| path.to_string_lossy().replace("{node}", &node.id));
    let (size, object_max) = (disk.get("size"), disk.get("object_max"));
    let bytes = size.size().unwrap_or_default();
    if bytes < store::DISK_SIZE_MIN && !size.is_bad() {
        let least = store::DISK_SIZE_MIN >> 20;
        resolver.problem(&size.at, format!("found less than {least}MiB, expected at least that"), None);
    }
    let largest = object_max.size().unwrap_or_default();
    if largest > bytes && object_max.written && !object_max.is_bad() && !size.is_bad() {
        resolver.problem(&object_max.at, "found more than store.disk.size, expected at most that", None);
    }
    if largest > store::DISK_OBJECT_MAX && !object_max.is_bad() {
        let most = store::DISK_OBJECT_MAX >> 30;
        resolver.problem(&object_max.at, format!("found more than {most}GiB, expected at most that"), None);
    }
    store::DiskConfig {
        path: path.unwrap_or_default().into(),
        size: bytes,
        object_max: largest.min(bytes),
        min_free: disk.get("min_free").share().unwrap_or_default(),
    }
}

pub(super) fn log(value: &Checked, resolver: &Resolver<'_>) -> telemetry::Config {
    let fields = value.fields();
    let access = fields.and_then(|fields| fields.fields("access"));
    telemetry::Config {
        level: fields.and_then(|fields| fields.text("level")).unwrap_or("info").to_owned(),
        access: access.map_or_else(
            || Access { to: AccessTo::None, buffer: 0, redact_query: Vec::new() },
            |access| Access {
                to: access_to(access.get("to"), resolver),
                buffer: usize::try_from(access.size("buffer")).unwrap_or(usize::MAX),
                redact_query: access.get("redact_query").texts().map(str::to_ascii_lowercase).collect(),
            },
        ),
    }
}

fn access_to(value: &Checked, resolver: &Resolver<'_>) -> AccessTo {
    match (value.word(), value.text()) {
        (Some("stdout"), _) => AccessTo::Stdout,
        (Some("stderr"), _) => AccessTo::Stderr,
        (_, Some(path)) => AccessTo::File(resolver.report.resolve_path(value.at.place, path)),
        _ => AccessTo::None,
    }
}
