//! The access record: what is told of one request, as one JSON line.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer, ser::Error as _};
use time::OffsetDateTime;

/// Everything that is told of one request, in the order it is written. What is `None` is left out. Cookies, `Authorization`, tokens and
/// signatures have no place here; `target` and `referer` are redacted when they are written.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AccessRecord<'a> {
    /// When the record is written: the end of a request, the open and the close of a socket. RFC 3339, UTC, milliseconds.
    #[serde(serialize_with = "rfc3339_ms")]
    pub time: SystemTime,
    /// The node's id.
    pub node: &'a str,
    pub request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<std::net::IpAddr>,
    /// As written in `server.listeners[].address`.
    pub listener: &'a str,
    pub method: &'a str,
    pub scheme: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<&'a str>,
    /// Path and query, normalised.
    pub target: &'a str,
    /// `HTTP/1.1`, `HTTP/2`
    pub protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The cache policy of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<&'a str>,
    /// The hash of the configuration that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<&'a str>,
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<&'a str>,
    /// The request's `Range`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<&'a str>,
    /// `hit`, `stale_updating`, ...: see [`CacheResult`](super::CacheResult).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_status: Option<&'a str>,
    /// The reason behind `cache_status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "hex")]
    pub key_hash: Option<u128>,
    /// What picked the variant below the key: the fields that `vary` names as the request had them, separated by `; `;
    /// of a field that may bring a secret, only that it was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<&'a str>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// Seconds of freshness left; negative = stale for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_cache_control: Option<&'a str>,
    /// The request had cookies; what they were has no place here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub request_cookie: bool,
    /// The request had `Authorization`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub request_authorization: bool,
    /// As the origin said it, now or when the response was stored; of an answer of the edge's own, as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_cache_control: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdn_cache_control: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<&'a str>,
    /// The origin set a cookie.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub set_cookie: bool,
    /// Separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surrogate_keys: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<u16>,
    /// Requests sent to origins, the first included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "milliseconds")]
    pub time_to_first_byte_ms: Option<Duration>,
    #[serde(serialize_with = "milliseconds_of")]
    pub duration_ms: Duration,
    /// From the request to the origin to its response head.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "milliseconds")]
    pub origin_ms: Option<Duration>,
    /// Why the edge made the answer itself, or why it broke off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    /// The client left first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub client_gone: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referer: Option<&'a str>,
    /// Why a socket ended; only in the record of its close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_reason: Option<&'a str>,
}

/// Writes a moment as RFC 3339 in UTC, with milliseconds.
///
/// # Errors
/// What the serializer says.
pub fn rfc3339_ms<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let nanos = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let at = i128::try_from(nanos).map_err(S::Error::custom)?;
    let at = OffsetDateTime::from_unix_timestamp_nanos(at).map_err(S::Error::custom)?;
    serializer.collect_str(&format_args!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    ))
}

fn hex<S: Serializer>(hash: &Option<u128>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:032x}", hash.unwrap_or_default()))
}

/// Milliseconds to three decimals: a memory hit takes some microseconds.
fn milliseconds_of<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_micros() as f64 / 1000.0)
}

fn milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    milliseconds_of(&duration.unwrap_or_default(), serializer)
}
