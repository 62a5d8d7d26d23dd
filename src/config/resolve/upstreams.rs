//! `upstreams.NAME`: pools of peers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Resolver, UpstreamConfig, structure};
use crate::{
    config::{
        checked::{Checked, Fields, Value},
        values,
    },
    upstream::{Balance, Config, Health, HostPolicy, PeerAddress, PeerConfig, Retries, Timeouts, Tls},
};

/// The upstreams by name, and the settings that a route may change.
pub(super) struct Upstreams {
    upstreams: BTreeMap<String, (Fields, UpstreamConfig)>,
}

impl Upstreams {
    pub(super) fn new(value: &Checked, resolver: &mut Resolver<'_>) -> Self {
        let mut upstreams = BTreeMap::new();
        for (name, value) in value.map() {
            let Some(fields) = structure(value) else { continue };
            let upstream = Arc::new(upstream(name, fields, resolver));
            upstreams.insert(name.clone(), (fields.clone(), upstream));
        }
        Self { upstreams }
    }

    /// In the order of their names.
    pub(super) fn all(&self) -> Vec<UpstreamConfig> {
        self.upstreams.values().map(|(_, upstream)| upstream.clone()).collect()
    }

    /// A route's `upstream`, if it exists.
    pub(super) fn find(&self, name: &Checked, resolver: &mut Resolver<'_>) -> Option<(&Fields, &UpstreamConfig)> {
        let text = name.text()?;
        let found = self.upstreams.get(text);
        if found.is_none() {
            resolver.unknown_name(&name.at, text, "the name of an upstream", self.upstreams.keys().map(String::as_str));
        }
        found.map(|(fields, upstream)| (fields, upstream))
    }
}

fn upstream(name: &str, fields: &Fields, resolver: &mut Resolver<'_>) -> Config {
    let peers = fields.get("peers");
    if peers.items().is_empty() && !peers.is_bad() {
        resolver.problem(&peers.at, "found no peer, expected at least one", None);
    }
    let ids = peers.items().iter().filter_map(|peer| {
        let id = peer_id(peer)?;
        Some((id.text()?.to_owned(), &id.at))
    });
    resolver.unique("the peer id", ids);
    Config {
        name: name.to_owned(),
        peers: peers.items().iter().filter_map(|peer| self::peer(peer, resolver)).collect(),
        balance: fields.choose(
            "balance",
            &[
                ("least_requests", Balance::LeastRequests),
                ("round_robin", Balance::RoundRobin),
                ("rendezvous", Balance::Rendezvous),
            ],
        ),
        host: host(fields.get("host")),
        tls: fields.fields("tls").map(|tls| self::tls(tls, resolver)),
        health: fields.fields("health").map(|health| self::health(health, resolver)),
        panic_percent: fields.percent("panic"),
        timeouts: fields.fields("timeouts").map_or(NO_TIMEOUTS, timeouts),
        retries: fields.fields("retries").map_or_else(no_retries, retries),
    }
}

/// The value that names a peer: its `id`, or its address.
fn peer_id(peer: &Checked) -> Option<&Checked> {
    match &peer.value {
        Value::Struct(fields) => match fields.get("id").text() {
            Some(_) => Some(fields.get("id")),
            None => Some(fields.get("address")),
        },
        Value::Text(_) => Some(peer),
        _ => None,
    }
}

fn peer(peer: &Checked, resolver: &Resolver<'_>) -> Option<PeerConfig> {
    let fields = peer.fields();
    let address = fields.map_or(peer, |fields| fields.get("address"));
    Some(PeerConfig {
        id: peer_id(peer)?.text()?.to_owned(),
        address: match values::peer_address(address.text()?).ok()? {
            PeerAddress::Unix(path) => {
                PeerAddress::Unix(resolver.report.resolve_path(address.at.place, &path.to_string_lossy()))
            }
            other => other,
        },
        weight: fields.map_or(1, |fields| u32::try_from(fields.int("weight")).unwrap_or(u32::MAX)),
        backup: fields.is_some_and(|fields| fields.bool("backup")),
    })
}

fn host(value: &Checked) -> HostPolicy {
    match (value.word(), value.text()) {
        (Some("peer"), _) => HostPolicy::Peer,
        (_, Some(literal)) => values::host_literal(literal).map_or(HostPolicy::Client, HostPolicy::Literal),
        _ => HostPolicy::Client,
    }
}

fn tls(fields: &Fields, resolver: &mut Resolver<'_>) -> Tls {
    let verify = fields.bool("verify");
    if !verify && !fields.get("verify").is_bad() {
        resolver.report.warn(
            &fields.get("verify").at,
            "anyone between the edge and the origin can read and change what passes",
            None,
        );
    }
    Tls { sni: fields.text("sni").map(str::to_owned), ca: fields.get("ca").path().map(Into::into), verify }
}

fn health(fields: &Fields, resolver: &mut Resolver<'_>) -> Health {
    let expect = fields.get("expect");
    if expect.items().is_empty() && !expect.is_bad() {
        resolver.problem(&expect.at, "found an empty list, expected at least one status", None);
    }
    let count = |name| u32::try_from(fields.int(name)).unwrap_or(u32::MAX);
    Health {
        path: fields.text("path").unwrap_or_default().to_owned(),
        interval: fields.duration("interval"),
        timeout: fields.duration("timeout"),
        rise: count("rise"),
        fall: count("fall"),
        expect: expect.texts().filter_map(|text| values::status_pattern(text).ok()).collect(),
    }
}

pub(super) fn timeouts(fields: &Fields) -> Timeouts {
    Timeouts {
        connect: fields.duration("connect"),
        first_byte: fields.duration("first_byte"),
        between_bytes: fields.duration("between_bytes"),
        keepalive: fields.duration("keepalive"),
        total: fields.get("total").duration(),
    }
}

pub(super) fn retries(fields: &Fields) -> Retries {
    Retries {
        max: u32::try_from(fields.int("max")).unwrap_or(u32::MAX),
        budget_percent: fields.percent("budget"),
        when: fields.get("when").texts().filter_map(|text| values::retry_when(text).ok()).collect(),
        non_idempotent: fields.bool("non_idempotent"),
        body_max: fields.size("body_max"),
    }
}

/// Stands in for a `timeouts` that was bad.
const NO_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::ZERO,
    first_byte: Duration::ZERO,
    between_bytes: Duration::ZERO,
    keepalive: Duration::ZERO,
    total: None,
};

/// Stands in for a `retries` that was bad.
fn no_retries() -> Retries {
    Retries { max: 0, budget_percent: 0, when: Vec::new(), non_idempotent: false, body_max: 0 }
}
