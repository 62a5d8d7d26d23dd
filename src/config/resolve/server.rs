//! `server`: listeners, limits, drain.

use std::time::Duration;

use super::Resolver;
use crate::{
    config::{
        checked::{Checked, Fields},
        values,
    },
    front::{Config, Drain, Http2, Limits, ListenAddress, Listener, Tls, TlsVersion, UnderscoreHeaders},
};

/// Descriptors kept for everything that is not a client connection or its origin.
const DESCRIPTORS_RESERVED: u64 = 1000;

/// Connections that are possible even where the descriptor limit is tiny.
const CONNECTIONS_MIN: u64 = 16;

pub(super) fn server(server: &Checked, resolver: &mut Resolver<'_>) -> Config {
    let Some(fields) = server.fields() else { return neutral() };
    let listeners = fields.get("listeners");
    if listeners.items().is_empty() && !listeners.is_bad() {
        resolver.problem(
            &listeners.at,
            "found no listener, expected at least one",
            Some("listeners: [ { address: 127.0.0.1:8080 } ]".to_owned()),
        );
    }
    let addresses = listeners.items().iter().filter_map(|listener| {
        let address = listener.fields()?.get("address");
        Some((values::listen_address(address.text()?).ok()?, &address.at))
    });
    let fixed = addresses.filter(|(address, _)| !matches!(address, ListenAddress::Tcp(tcp) if tcp.port() == 0));
    resolver.unique("the address", fixed.map(|(address, at)| (address.to_string(), at)));
    Config {
        workers: match fields.get("workers").int() {
            Some(workers) => usize::try_from(workers).unwrap_or(usize::MAX),
            None => resolver.environment.parallelism(),
        },
        reuse_port: fields.bool("reuse_port"),
        listeners: listeners
            .items()
            .iter()
            .filter_map(|listener| self::listener(listener.fields()?, resolver))
            .collect(),
        trusted_proxies: fields.get("trusted_proxies").texts().filter_map(|text| values::network(text).ok()).collect(),
        limits: fields.fields("limits").map_or_else(no_limits, |limits| self::limits(limits, resolver)),
        drain: fields
            .fields("drain")
            .map_or(NO_DRAIN, |drain| Drain { delay: drain.duration("delay"), deadline: drain.duration("deadline") }),
    }
}

/// An address as written, a socket's path relative to the file.
pub(super) fn address(value: &Checked, resolver: &Resolver<'_>) -> Option<ListenAddress> {
    Some(match values::listen_address(value.text()?).ok()? {
        ListenAddress::Unix(path) => {
            ListenAddress::Unix(resolver.report.resolve_path(value.at.place, &path.to_string_lossy()))
        }
        tcp @ ListenAddress::Tcp(_) => tcp,
    })
}

fn listener(fields: &Fields, resolver: &mut Resolver<'_>) -> Option<Listener> {
    let redirect_to_https = fields.bool("redirect_to_https");
    let tls = fields.fields("tls");
    if redirect_to_https && tls.is_some() {
        let at = &fields.get("redirect_to_https").at;
        resolver.problem(at, "found true on a listener with tls, expected it on one without", None);
    }
    let http2 = fields.fields("http2");
    Some(Listener {
        address: address(fields.get("address"), resolver)?,
        redirect_to_https,
        http2: Http2 {
            streams: u32::try_from(http2.map_or(0, |http2| http2.int("streams"))).unwrap_or(u32::MAX),
            idle: http2.map_or(Duration::ZERO, |http2| http2.duration("idle")),
        },
        tls: tls.and_then(|tls| self::tls(tls, resolver)),
    })
}

fn tls(fields: &Fields, resolver: &mut Resolver<'_>) -> Option<Tls> {
    let certificates = fields.get("certificates");
    match certificates.items() {
        [certificate] => {
            let certificate = certificate.fields()?;
            Some(Tls {
                cert: certificate.get("cert").path()?.to_owned(),
                key: certificate.get("key").path()?.to_owned(),
                min_version: fields.choose("min_version", &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)]),
            })
        }
        [] => {
            if !certificates.is_bad() {
                resolver.problem(&certificates.at, "found no certificate, expected one with its key", None);
            }
            None
        }
        many => {
            let message = format!("found {} certificates, expected one: several are not available yet", many.len());
            resolver.problem(&certificates.at, message, None);
            None
        }
    }
}

fn limits(fields: &Fields, resolver: &Resolver<'_>) -> Limits {
    let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let automatic =
        || (resolver.environment.descriptors().saturating_sub(DESCRIPTORS_RESERVED) / 2).max(CONNECTIONS_MIN);
    Limits {
        header_bytes: count(fields.size("header_bytes")),
        header_count: count(fields.int("header_count")),
        target_bytes: count(fields.size("target_bytes")),
        body_bytes: fields.size("body_bytes"),
        header_timeout: fields.duration("header_timeout"),
        body_timeout: fields.duration("body_timeout"),
        idle_timeout: fields.duration("idle_timeout"),
        connections: count(fields.get("connections").int().unwrap_or_else(automatic)),
        underscore_headers: fields.choose(
            "underscore_headers",
            &[
                ("drop", UnderscoreHeaders::Drop),
                ("pass", UnderscoreHeaders::Pass),
                ("reject", UnderscoreHeaders::Reject),
            ],
        ),
    }
}

const NO_DRAIN: Drain = Drain { delay: Duration::ZERO, deadline: Duration::ZERO };

/// Stands in for a `limits` that was bad.
fn no_limits() -> Limits {
    Limits {
        header_bytes: 0,
        header_count: 0,
        target_bytes: 0,
        body_bytes: 0,
        header_timeout: Duration::ZERO,
        body_timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        connections: 0,
        underscore_headers: UnderscoreHeaders::Drop,
    }
}

/// Stands in for a `server` that was bad.
fn neutral() -> Config {
    Config {
        workers: 1,
        reuse_port: false,
        listeners: Vec::new(),
        trusted_proxies: Vec::new(),
        limits: no_limits(),
        drain: NO_DRAIN,
    }
}
