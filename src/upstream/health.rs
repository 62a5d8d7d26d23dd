//! Active health checks: one task per peer asks it how it is.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use pingora_core::protocols::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep_until},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    config::{Health, HostPolicy},
    connect::Connector,
    peer::{Finding, Peer},
};

/// Bytes of an answer that are looked at; a health page is small.
const ANSWER_MAX: usize = 16 * 1024;
/// Header fields of an answer.
const FIELDS_MAX: usize = 100;
/// Probes that failing traffic asks for come at most this often.
const SUSPICION_GAP: Duration = Duration::from_millis(100);

/// Probes the peer until it leaves the pool. The first probe decides alone, and so does a bad one that failing traffic
/// asked for: two witnesses.
pub(super) async fn watch(peer: Arc<Peer>, health: Health, host: String, connector: Arc<Connector>) {
    let request = request(&health.path, &host);
    let gap = SUSPICION_GAP.min(health.interval);
    let mut suspected = false;
    let mut round = 0;
    while !peer.retired() {
        let start = Instant::now();
        let finding = match tokio::time::timeout(health.timeout, probe(&connector, &peer, &health, &request)).await {
            Ok(Ok(finding)) => finding,
            Ok(Err(why)) => Finding::Bad(why),
            Err(_) => Finding::Bad(format!("no answer within {:?}", health.timeout)),
        };
        peer.record(&finding, health.rise, health.fall, suspected);
        // The first rest is anything up to an interval, so that probes that began together part.
        let rest = if round == 0 {
            health.interval.mul_f64(uniform(peer.id(), round))
        } else {
            jitter(health.interval, peer.id(), round)
        };
        round += 1;
        suspected = tokio::select! {
            () = sleep_until(start + rest) => false,
            () = peer.suspected() => true,
        };
        if suspected {
            sleep_until(start + gap).await;
        }
    }
}

/// What goes into `Host`: there is no client to take it from.
pub(super) fn host(policy: &HostPolicy, peer: &Peer) -> String {
    match policy {
        HostPolicy::Client | HostPolicy::Peer => peer.address().to_owned(),
        HostPolicy::Literal(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    }
}

/// `rest`, a tenth more or less, from the name and the round: tasks that began together do not march in step.
pub(super) fn jitter(rest: Duration, name: &str, round: u64) -> Duration {
    rest.mul_f64(0.9 + 0.2 * uniform(name, round))
}

/// A number in [0, 1) that looks random.
fn uniform(name: &str, round: u64) -> f64 {
    // The upper 32 bits fit a float exactly.
    let hash = xxh3_64_with_seed(name.as_bytes(), round) >> 32;
    hash as f64 / (1u64 << 32) as f64
}

fn request(path: &str, host: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: eduham-edge\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// One request on a connection of its own: what a new client would meet.
async fn probe(connector: &Connector, peer: &Peer, health: &Health, request: &[u8]) -> Result<Finding, String> {
    let mut stream = connector.dial(peer, health.timeout).await.map_err(|error| error.to_string())?;
    stream.write_all(request).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    let mut answer = Answer::default();
    let status = loop {
        if let Some(status) = answer.head()? {
            break status;
        }
        if !answer.read(&mut stream).await? {
            return Err("it closed the connection without an answer".to_owned());
        }
    };
    if status == StatusCode::SERVICE_UNAVAILABLE && draining(&mut answer, &mut stream).await? {
        return Ok(Finding::Draining);
    }
    if health.expect.iter().any(|pattern| pattern.matches(status.as_u16())) {
        Ok(Finding::Good)
    } else {
        Err(format!("status {}", status.as_u16()))
    }
}

/// Whether the body is a JSON object whose `state` is `draining`.
async fn draining(answer: &mut Answer, stream: &mut Stream) -> Result<bool, String> {
    loop {
        if let Some(body) = answer.body() {
            return Ok(says_draining(&body));
        }
        if !answer.read(stream).await? {
            return Ok(answer.rest().is_some_and(|body| says_draining(&body)));
        }
    }
}

fn says_draining(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|json| json["state"] == "draining")
}

/// What has come of an answer.
#[derive(Debug, Default)]
struct Answer {
    bytes: Vec<u8>,
    /// Where the body begins, once the head is whole.
    body_at: usize,
    framing: Framing,
}

/// How the body ends.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    #[default]
    Close,
}

impl Answer {
    /// Reads on; false at the end of the stream.
    async fn read(&mut self, stream: &mut Stream) -> Result<bool, String> {
        if self.bytes.len() >= ANSWER_MAX {
            return Err(format!("its answer is longer than {ANSWER_MAX} bytes"));
        }
        Ok(stream.read_buf(&mut self.bytes).await.map_err(|error| error.to_string())? > 0)
    }

    /// The status, once the head is whole; interim responses (RFC 9110 15.2) are skipped.
    fn head(&mut self) -> Result<Option<StatusCode>, String> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
            let mut head = httparse::Response::new(&mut fields);
            let parsed = head.parse(&self.bytes).map_err(|error| format!("its answer is not HTTP/1.1: {error}"))?;
            let (httparse::Status::Complete(length), Some(code)) = (parsed, head.code) else { return Ok(None) };
            let status = StatusCode::from_u16(code).map_err(|error| error.to_string())?;
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                self.bytes.drain(..length);
                continue;
            }
            self.framing = framing(head.headers);
            self.body_at = length;
            return Ok(Some(status));
        }
    }

    /// The body, once its framing says that it is whole.
    fn body(&self) -> Option<Vec<u8>> {
        let bytes = self.bytes.get(self.body_at..)?;
        match self.framing {
            Framing::Length(length) => bytes.get(..length).map(<[u8]>::to_vec),
            Framing::Chunked => unchunk(bytes),
            Framing::Close => None,
        }
    }

    /// The body at the end of the stream.
    fn rest(&self) -> Option<Vec<u8>> {
        match self.framing {
            Framing::Close => self.bytes.get(self.body_at..).map(<[u8]>::to_vec),
            Framing::Length(_) | Framing::Chunked => None,
        }
    }
}

fn framing(fields: &[httparse::Header<'_>]) -> Framing {
    let field = |name: &str| fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
    if field("transfer-encoding").is_some() {
        return Framing::Chunked;
    }
    let length = field("content-length").and_then(|value| std::str::from_utf8(value).ok());
    length.and_then(|value| value.trim().parse().ok()).map_or(Framing::Close, Framing::Length)
}

/// The data of a whole chunked body (RFC 9112 7.1); trailers are not looked at.
fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(bytes) else { return None };
        if size == 0 {
            return Some(data);
        }
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        data.extend_from_slice(bytes.get(start..end)?);
        bytes = bytes.get(end.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: &str) -> Answer {
        Answer { bytes: bytes.as_bytes().to_vec(), ..Answer::default() }
    }

    #[test]
    fn an_answer_is_read_as_its_framing_says() {
        let rows = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some(200), Some("ok"), None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", Some(200), None, None),
            ("HTTP/1.1 200 OK\r\n\r\nok", Some(200), None, Some("ok")),
            (
                "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
                Some(503),
                Some("abcd"),
                None,
            ),
            ("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", Some(503), None, None),
            (
                "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
                Some(204),
                None,
                Some(""),
            ),
            ("HTTP/1.0 200 OK\r\n\r\n", Some(200), None, Some("")),
            ("HTTP/1.1 200 O", None, None, Some("HTTP/1.1 200 O")),
        ];
        for (bytes, status, body, rest) in rows {
            let mut answer = answer(bytes);
            assert_eq!(answer.head().unwrap().map(|status| status.as_u16()), status, "{bytes}");
            let text = |body: Option<Vec<u8>>| body.map(|body| String::from_utf8(body).unwrap());
            assert_eq!(text(answer.body()).as_deref(), body, "{bytes}");
            assert_eq!(text(answer.rest()).as_deref(), rest, "{bytes}");
        }
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for bytes in ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 banana\r\n\r\n", "HTTP/2 200\r\n\r\n"] {
            answer(bytes).head().unwrap_err();
        }
    }

    #[test]
    fn draining_is_said_in_json() {
        let rows = [
            (r#"{"state":"draining"}"#, true),
            (r#"{ "rooms": 3, "state": "draining" }"#, true),
            (r#"{"state":"ready"}"#, false),
            (r#"["draining"]"#, false),
            ("draining", false),
            ("", false),
        ];
        for (body, draining) in rows {
            assert_eq!(says_draining(body.as_bytes()), draining, "{body}");
        }
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let rests: Vec<_> = (0..1000).map(|round| jitter(Duration::from_secs(10), "a", round)).collect();
        assert!(rests.iter().all(|rest| (Duration::from_secs(9)..=Duration::from_secs(11)).contains(rest)));
        assert!(rests.iter().min() < Some(&Duration::from_millis(9_100)));
        assert!(rests.iter().max() > Some(&Duration::from_millis(10_900)));
    }
}
