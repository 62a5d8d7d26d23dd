//! Step 1: is this a request that we take, what does it ask for, and who asks?

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header::MAX_FORWARDS};
use ipnet::IpNet;

use super::{
    downstream::Door,
    fields::{self, PeerText},
    ids::RequestId,
    routing::Scheme,
    synth::Refusal,
    target::Target,
};
use crate::wire::{Authority, RawTarget, RequestHead, Version};

/// Members of `X-Forwarded-For` that are looked at, from the right.
const FORWARDED_HOPS_MAX: usize = 32;

/// A client connection as an exchange knows it.
pub struct Connection {
    /// None for a unix socket.
    pub peer: Option<SocketAddr>,
    /// The listener's address as configured.
    pub listener: Arc<str>,
    pub scheme: Scheme,
    /// `TLSv1.3`
    pub tls_version: Option<&'static str>,
    /// The same, as forwarding fields write it.
    pub peer_text: PeerText,
    /// Is the peer one whose forwarding fields are believed?
    pub trusted: bool,
    /// Answer everything with a redirect to `https`.
    pub redirect_to_https: bool,
    /// The address that stands for the host of an HTTP/1.0 request without one.
    pub local: Authority,
    /// Held for as long as anything of the connection lives, a socket in its own task too.
    pub door: Box<dyn Door>,
}

/// A request that was taken.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub version: Version,
    pub target: Target,
    /// Did the client name a host?
    pub has_host: bool,
    pub authority: Authority,
    /// Shared with requests of the connection that have the same ones.
    pub fields: Arc<HeaderMap>,
    pub scheme: Scheme,
    /// None for a unix socket without a trusted word on it.
    pub client_ip: Option<IpAddr>,
    pub id: RequestId,
    /// When its head was there; or, behind pipelined requests, when their answers had been written.
    pub started: Instant,
    pub expect_continue: bool,
}

impl Request {
    /// Stands for a request whose head could not be taken.
    pub fn unknown(connection: &Connection, id: RequestId, started: Instant) -> Self {
        Self {
            method: Method::GET,
            version: Version::Http11,
            target: Target::root(),
            has_host: false,
            authority: connection.local.clone(),
            fields: Arc::default(),
            scheme: connection.scheme,
            client_ip: connection.peer.map(|peer| peer.ip()),
            id,
            started,
            expect_continue: false,
        }
    }

    /// The host as routing and keys know it.
    pub fn host(&self) -> Option<&str> {
        self.has_host.then_some(&*self.authority.host)
    }

    /// The port, unless it is the scheme's own.
    pub fn port(&self) -> Option<u16> {
        self.authority.port.filter(|port| *port != self.scheme.default_port())
    }

    /// Does the client ask for a WebSocket (RFC 6455 4.1)?
    pub fn wants_websocket(&self) -> bool {
        let has = |name: HeaderName, word: &str| {
            self.fields
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|member| member.trim().eq_ignore_ascii_case(word))
        };
        self.version == Version::Http11
            && self.method == Method::GET
            && has(http::header::CONNECTION, "upgrade")
            && has(http::header::UPGRADE, "websocket")
    }
}

/// Takes the request; with it, why it is refused, if it is. `proxies` are the networks whose forwarding fields are
/// believed.
pub fn receive(
    connection: &Connection,
    mut head: RequestHead,
    id: RequestId,
    started: Instant,
    proxies: &[IpNet],
) -> (Request, Option<Refusal>) {
    let (target, refusal) = match check(connection, &mut head) {
        Ok(target) => (target, None),
        Err(refusal) => (Target::root(), Some(refusal)),
    };
    let scheme = match connection.trusted.then(|| head.fields.get("x-forwarded-proto")).flatten() {
        Some(proto) if proto == "https" => Scheme::Https,
        Some(proto) if proto == "http" => Scheme::Http,
        _ => connection.scheme,
    };
    let client_ip = client_ip(connection, &head.fields, proxies);
    fields::strip_named(&mut head.fields);
    let request = Request {
        client_ip,
        has_host: head.authority.is_some(),
        authority: head.authority.unwrap_or_else(|| connection.local.clone()),
        method: head.method,
        version: head.version,
        target,
        fields: head.fields,
        scheme,
        id,
        started,
        expect_continue: head.expect_continue,
    };
    (request, refusal)
}

fn check(connection: &Connection, head: &mut RequestHead) -> Result<Target, Refusal> {
    // An echo of the request (TRACE) would show fields that scripts must not see; a tunnel to anywhere (CONNECT)
    // is not what a gateway is for (RFC 9110 9.3.6, 9.3.8).
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Refusal::MethodNotAllowed);
    }
    let raw = match &mut head.target {
        RawTarget::Origin(raw) => std::mem::take(raw),
        RawTarget::Asterisk => return Err(Refusal::OptionsOfTheEdge),
        RawTarget::Authority => return Err(Refusal::MethodNotAllowed),
    };
    if head.method == Method::OPTIONS && forwards_ran_out(&mut head.fields) {
        return Err(Refusal::OptionsOfTheEdge);
    }
    let target = Target::of(raw).map_err(Refusal::BadTarget)?;
    if let Some(authority) = &head.authority
        && !connection.door.serves(&authority.host)
    {
        return Err(Refusal::Misdirected);
    }
    if fields::is_looping(&head.fields) {
        return Err(Refusal::Loop);
    }
    Ok(target)
}

/// Counts `Max-Forwards` down; true when it has run out and we are to answer (RFC 9110 7.6.2).
fn forwards_ran_out(fields: &mut Arc<HeaderMap>) -> bool {
    // What is not a number is ignored.
    let left = fields.get(MAX_FORWARDS).and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
    match left {
        Some(0) => true,
        Some(left) => {
            Arc::make_mut(fields).insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            false
        }
        None => false,
    }
}

/// Who asks: the peer, or, behind trusted proxies, the nearest address in `X-Forwarded-For` that is not one.
fn client_ip(connection: &Connection, fields: &HeaderMap, proxies: &[IpNet]) -> Option<IpAddr> {
    let peer = connection.peer.map(|peer| peer.ip());
    if !connection.trusted {
        return peer;
    }
    let mut client = peer;
    let lines: Vec<&str> = fields.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    for member in lines.iter().rev().flat_map(|line| line.rsplit(',')).take(FORWARDED_HOPS_MAX) {
        let Ok(ip) = member.trim().parse::<IpAddr>() else { break };
        client = Some(ip);
        if !is_trusted(proxies, Some(ip)) {
            break;
        }
    }
    client
}

/// Does one of `networks` hold this peer? A unix socket is trusted when any network is: only this machine reaches it.
pub fn is_trusted(networks: &[IpNet], peer: Option<IpAddr>) -> bool {
    match peer {
        Some(ip) => networks.iter().any(|network| network.contains(&ip.to_canonical())),
        None => !networks.is_empty(),
    }
}
