//! What a client connection is to the exchange: a request body to read and a sink for the answer.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode};

use crate::wire::{Framing, Version};

/// A request body that failed while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum RequestBodyError {
    #[error("the body is larger than the limit")]
    TooLarge,
    #[error("the body's framing is broken")]
    Malformed,
    #[error("the client sent nothing for too long")]
    Timeout,
    #[error("the client left in the middle of the body")]
    Gone,
}

impl RequestBodyError {
    /// What the client is told, if it can still be told.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Malformed | Self::Gone => StatusCode::BAD_REQUEST,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

/// The client no longer takes what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct ClientGone;

/// The door that a connection came in by. It counts the connection for as long as it lives.
pub trait Door: Send + Sync {
    /// Does the certificate that the client was shown serve this host? Without TLS every host is served.
    fn serves(&self, host: &str) -> bool;
    /// Resolves when what is left of connections is ended at once.
    fn until_cut(&self) -> BoxFuture<'static, ()>;
}

/// A request body, in pieces, in order.
pub trait RequestBody: Send {
    /// Is there none at all?
    fn is_empty(&self) -> bool;
    /// How many bytes it will have, if the client said so.
    fn length(&self) -> Option<u64>;
    /// A route's own limits: no more than so many bytes, and so long between two pieces if it says so.
    fn limit(&mut self, bytes: u64, within: Option<Duration>);
    /// The next piece; `None` after the last.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, RequestBodyError>> + Send;
    /// Bytes read so far.
    fn received(&self) -> u64;
}

/// How long the body of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is none, by method or status; the length that a GET would have had may still be announced.
    None {
        announced: Option<u64>,
    },
    Known(u64),
    /// Until it ends.
    Unknown,
}

impl Length {
    /// How a message of HTTP/1.x ends that is so long; with it the length to announce where no body follows.
    pub fn framing(self, version: Version) -> (Framing, Option<u64>) {
        match self {
            Self::None { announced } => (Framing::None, announced),
            Self::Known(length) => (Framing::Length(length), None),
            Self::Unknown => (Framing::Chunked.for_client(version), None),
        }
    }
}

/// The head of an answer, ready for any protocol version. No framing and no hop-by-hop fields.
#[derive(Debug, Clone)]
pub struct OutgoingHead {
    pub status: StatusCode,
    pub fields: HeaderMap,
    pub length: Length,
    /// The connection is not to be used again.
    pub close: bool,
}

/// Where an answer goes. `head` and `body` may be held back until `flush` or `end`.
pub trait ResponseSink: Send {
    /// Resolves when the client has given up, where its protocol can say so: then nobody waits for the answer.
    fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static;
    /// An interim response (1xx but 101).
    fn interim(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
    ) -> impl Future<Output = Result<(), ClientGone>> + Send;
    fn head(&mut self, head: &OutgoingHead) -> impl Future<Output = Result<(), ClientGone>> + Send;
    fn body(&mut self, piece: Bytes) -> impl Future<Output = Result<(), ClientGone>> + Send;
    fn flush(&mut self) -> impl Future<Output = Result<(), ClientGone>> + Send;
    fn end(&mut self) -> impl Future<Output = Result<(), ClientGone>> + Send;
    /// The answer cannot be completed: the client must see that it is cut off.
    fn abort(&mut self);
    /// Has a final head been given?
    fn started(&self) -> bool;
    /// Body bytes taken by the client so far.
    fn sent(&self) -> u64;
}
