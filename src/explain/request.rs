//! A request made of a URL, a method and header lines: read by the parser and taken by the step that take real ones.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::BytesMut;
use futures::future::BoxFuture;
use http::Method;

use super::Scene;
use crate::{
    front::{ListenAddress, Listener},
    proxy::{
        downstream::Door,
        fields::PeerText,
        ids::RequestId,
        receive::{self, Connection, Request, is_trusted},
        routing::Scheme,
        synth::Refusal,
    },
    wire::{self, Authority, BadAuthority, BadRequest, Framing, HeadLimits},
};

/// Who asks, as routes and forwarding fields see it: this machine.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What is asked about.
#[derive(Debug, Clone)]
pub struct Ask {
    /// `http://a.test/b?c` or `https://...`
    pub url: String,
    pub method: Method,
    /// `Name: value`
    pub headers: Vec<String>,
}

/// Why there is no such request.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the URL must begin with http:// or https://")]
    Scheme,
    #[error("the URL's host is {0}")]
    Host(#[from] BadAuthority),
    #[error("found the header \"{0}\", expected it as \"Name: value\"")]
    Header(String),
    #[error("this request would not be read: {0}")]
    Head(#[from] BadRequest),
    #[error("this request would not be read: its head does not end")]
    Incomplete,
    #[error("the configuration has no listener")]
    NoListener,
}

/// A request as the steps of an exchange know it.
pub(super) struct Taken {
    pub(super) connection: Connection,
    pub(super) request: Request,
    /// Why it is refused, if it is.
    pub(super) refusal: Option<Refusal>,
    pub(super) has_body: bool,
    pub(super) body_length: Option<u64>,
}

/// A connection that nobody has opened.
struct Nobody;

impl Door for Nobody {
    fn serves(&self, _: &str) -> bool {
        true
    }

    fn until_cut(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// Takes a request as if it had come over the listener that its URL leads to.
pub(super) fn take(scene: &Scene<'_>, ask: &Ask) -> Result<Taken, AskError> {
    let (scheme, rest) = match ask.url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
        _ => return Err(AskError::Scheme),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(end);
    let authority = Authority::parse(host)?;
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let mut head = format!("{} {target} HTTP/1.1\r\nHost: {authority}\r\n", ask.method);
    for line in &ask.headers {
        if !line.contains(':') || line.contains(['\r', '\n']) {
            return Err(AskError::Header(line.clone()));
        }
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let limits = &scene.config.server.limits;
    let limits = HeadLimits {
        header_bytes: limits.header_bytes,
        header_count: limits.header_count,
        target_bytes: limits.target_bytes,
        underscore_headers: limits.underscore_headers,
    };
    let head = wire::parse_request(&mut BytesMut::from(head.as_bytes()), &limits)?.ok_or(AskError::Incomplete)?;
    let (has_body, body_length) = match head.framing {
        Framing::None | Framing::Length(0) => (false, None),
        Framing::Length(length) => (true, Some(length)),
        Framing::Chunked | Framing::UntilClose => (true, None),
    };
    let port = authority.port.unwrap_or(scheme.default_port());
    let listener = listener(&scene.config.server.listeners, scheme, port).ok_or(AskError::NoListener)?;
    let proxies = &scene.config.server.trusted_proxies;
    let connection = Connection {
        peer: Some(SocketAddr::new(CLIENT, 0)),
        listener: Arc::from(listener.address.to_string()),
        scheme,
        tls_version: None,
        peer_text: PeerText::new(Some(CLIENT)),
        trusted: is_trusted(proxies, Some(CLIENT)),
        redirect_to_https: listener.redirect_to_https && scheme == Scheme::Http,
        local: authority,
        door: Box::new(Nobody),
    };
    let id = RequestId::from_parts(0, 0);
    let (request, refusal) = receive::receive(&connection, head, id, Instant::now(), proxies);
    Ok(Taken { connection, request, refusal, has_body, body_length })
}

/// The listener on that port, else the first of that scheme, else the first: TLS may end before the edge.
fn listener(listeners: &[Listener], scheme: Scheme, port: u16) -> Option<&Listener> {
    let fits = |listener: &&Listener| listener.tls.is_some() == (scheme == Scheme::Https);
    let on_port =
        |listener: &&Listener| matches!(listener.address, ListenAddress::Tcp(address) if address.port() == port);
    let mut of_scheme = listeners.iter().filter(fits);
    of_scheme.clone().find(on_port).or_else(|| of_scheme.next()).or_else(|| listeners.first())
}
