//! Opening a socket: the handshake between client and collaboration node. What follows is the tunnel's.

use std::sync::Arc;

use bytes::BytesMut;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONNECTION, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use pingora_core::protocols::Stream;

use super::{
    Edge, Snapshot,
    downstream::{ClientGone, Length, OutgoingHead, ResponseSink},
    exchange::{Exchange, Trace},
    fetch::{self, Discard, Payload},
    fields,
    receive::{Connection, Request},
    routing::{Route, WebSocket},
    synth::Refusal,
};
use crate::{
    store::Failure,
    telemetry::SocketMetrics,
    upstream::{Lease, Pool},
};

/// A socket that both sides have agreed to.
pub struct Socket {
    pub upstream: Stream,
    /// What the node sent right behind its 101.
    pub early: BytesMut,
    /// Counts the socket at its peer for as long as it lives.
    pub lease: Lease,
    pub websocket: WebSocket,
    pub metrics: SocketMetrics,
}

/// The exchange that opened a socket, as far as its last record needs it.
pub struct Opened {
    pub snapshot: Arc<Snapshot>,
    pub request: Request,
    pub trace: Trace,
}

impl Opened {
    /// Writes the record of the close.
    pub fn closed(self, edge: &Arc<Edge>, connection: &Connection, reason: &str, from_client: u64, to_client: u64) {
        let Self { snapshot, request, mut trace } = self;
        trace.bytes_received = from_client;
        trace.bytes_sent = to_client;
        let exchange = Exchange { edge, snapshot, connection, request, trace, ahead: None };
        exchange.write_record(StatusCode::SWITCHING_PROTOCOLS.as_u16(), Some(reason));
    }
}

impl Exchange<'_> {
    /// Dials the room's node and, once it agrees, switches the client's connection over.
    pub async fn open_socket<S: ResponseSink>(
        &mut self,
        route: &Arc<Route>,
        websocket: &WebSocket,
        pool: &Arc<Pool>,
        sticky: Option<String>,
        is_bodyless: bool,
        sink: &mut S,
    ) -> Result<Option<Box<Socket>>, ClientGone> {
        if let Some(refusal) = self.check_handshake(websocket, is_bodyless) {
            self.count_open(route, "refused");
            self.deliver_refusal(sink, &refusal).await?;
            return Ok(None);
        }
        let is_sticky = sticky.is_some();
        let mut request = self.origin_request(route, pool, sticky);
        request.fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let fetched = fetch::fetch(self.edge, pool, &request, &Payload::default(), &mut Discard).await;
        let response = match fetched {
            Ok(response) => response,
            Err((failure, seen)) => {
                self.trace.seen = seen;
                self.count_open(route, "failed");
                self.deliver_refusal(sink, &Refusal::Origin(failure)).await?;
                return Ok(None);
            }
        };
        if is_sticky {
            let source = response.body.lease().source().as_str();
            self.edge.metrics.sticky_decisions.with_label_values(&[&route.metrics, source]).inc();
        }
        if response.status != StatusCode::SWITCHING_PROTOCOLS {
            self.count_open(route, "rejected");
            let rest = self.deliver_origin(sink, response).await?;
            rest.release(self.edge);
            return Ok(None);
        }
        self.trace.seen = response.seen.clone();
        let mut fields = response.fields;
        fields::strip_for_client(&mut fields);
        fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        fields::sign_answer(&mut fields, &self.request.id);
        let (early, upstream, lease) = response.body.into_parts();
        let Some(upstream) = upstream else {
            let failure = Failure { status: StatusCode::BAD_GATEWAY, error: "http_upgrade_failed" };
            self.deliver_refusal(sink, &Refusal::Origin(failure)).await?;
            return Ok(None);
        };
        self.trace.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        self.trace.first_byte = Some(self.request.started.elapsed());
        let head = OutgoingHead {
            status: StatusCode::SWITCHING_PROTOCOLS,
            fields,
            length: Length::None { announced: None },
            close: false,
        };
        sink.head(&head).await?;
        sink.end().await?;
        self.count_open(route, "opened");
        self.count_socket();
        self.write_record(StatusCode::SWITCHING_PROTOCOLS.as_u16(), None);
        let metrics =
            SocketMetrics::new(&self.edge.metrics, &route.metrics, &pool.config().name, lease.peer().id().as_str());
        Ok(Some(Box::new(Socket { upstream, early, lease, websocket: websocket.clone(), metrics })))
    }

    /// RFC 6455 4.2.1, and the operator's list of origins. A body has no place before a socket.
    fn check_handshake(&self, websocket: &WebSocket, is_bodyless: bool) -> Option<Refusal> {
        let fields = &self.request.fields;
        if single(fields, &SEC_WEBSOCKET_VERSION).is_some_and(|version| version != "13") {
            return Some(Refusal::WebSocketVersion);
        }
        if !is_bodyless
            || single(fields, &SEC_WEBSOCKET_VERSION).is_none()
            || !single(fields, &SEC_WEBSOCKET_KEY).is_some_and(is_key)
        {
            return Some(Refusal::BadHandshake);
        }
        if websocket.origins.is_empty() {
            return None;
        }
        let origin = fields.get(ORIGIN).and_then(|origin| origin.to_str().ok());
        let allowed = origin.is_some_and(|origin| websocket.origins.iter().any(|glob| glob.matches(origin)));
        (!allowed).then_some(Refusal::OriginNotAllowed)
    }

    fn count_open(&self, route: &Route, result: &str) {
        self.edge.metrics.websocket_opens.with_label_values(&[&route.metrics, result]).inc();
    }
}

/// The value of a field that is there exactly once.
fn single<'a>(fields: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = fields.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// 16 bytes in base64 (RFC 6455 4.1): 22 digits and the padding.
fn is_key(value: &HeaderValue) -> bool {
    value.as_bytes().strip_suffix(b"==").is_some_and(|digits| {
        digits.len() == 22 && digits.iter().all(|digit| digit.is_ascii_alphanumeric() || b"+/".contains(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_16_bytes_in_base64() {
        for (key, expected) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", true),
            ("AAAAAAAAAAAAAAAAAAAA+/==", true),
            ("dGhlIHNhbXBsZSBub25jZQ", false),
            ("dGhlIHNhbXBsZSBub25jZQ=", false),
            ("dGhlIHNhbXBsZQ==", false),
            ("dGhlIHNhbXBsZSBub25jZ!==", false),
            ("", false),
        ] {
            assert_eq!(is_key(&HeaderValue::from_static(key)), expected, "{key:?}");
        }
    }
}
