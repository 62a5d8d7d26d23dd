//! Active health checks: one task per peer asks it how it is.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use http::{Method, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep_until},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    config::{Health, HostPolicy},
    connect::Connector,
    peer::{Finding, Peer},
};
use crate::wire::{BodyReader, Framing, HeadLimits, HeadReader, ResponseHead, Step, UnderscoreHeaders};

/// Bytes of an answer that are looked at; a health page is small.
const ANSWER_MAX: usize = 16 * 1024;
/// What the head of an answer may weigh.
const HEAD: HeadLimits = HeadLimits {
    header_bytes: ANSWER_MAX,
    header_count: 100,
    target_bytes: 0,
    underscore_headers: UnderscoreHeaders::Pass,
};
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
    let mut answer = Answer::new();
    let head = answer.head(&mut stream).await?;
    let status = head.status;
    if status == StatusCode::SERVICE_UNAVAILABLE && says_draining(&answer.body(&mut stream, head.framing).await?) {
        return Ok(Finding::Draining);
    }
    if health.expect.iter().any(|pattern| pattern.matches(status.as_u16())) {
        Ok(Finding::Good)
    } else {
        Err(format!("status {}", status.as_u16()))
    }
}

fn says_draining(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|json| json["state"] == "draining")
}

/// What has come of an answer. It is held to what the traffic's answers are held to: a peer whose answers would be
/// refused is not well.
struct Answer {
    heads: HeadReader,
    buf: BytesMut,
    received: usize,
}

impl Answer {
    fn new() -> Self {
        Self { heads: HeadReader::new(HEAD), buf: BytesMut::new(), received: 0 }
    }

    /// Reads on; false at the end of the stream.
    async fn read<R: AsyncRead + Unpin>(&mut self, from: &mut R) -> Result<bool, String> {
        if self.received >= ANSWER_MAX {
            return Err(format!("its answer is longer than {ANSWER_MAX} bytes"));
        }
        let read = from.read_buf(&mut self.buf).await.map_err(|error| error.to_string())?;
        self.received += read;
        Ok(read > 0)
    }

    /// The head; interim responses (RFC 9110 15.2) are skipped.
    async fn head<R: AsyncRead + Unpin>(&mut self, from: &mut R) -> Result<ResponseHead, String> {
        loop {
            let head = self.heads.response(&mut self.buf, &Method::GET);
            match head.map_err(|error| format!("its answer is not HTTP/1.1: {error}"))? {
                Some(head) if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS => {}
                Some(head) => return Ok(head),
                None if self.read(from).await? => {}
                None => return Err("it closed the connection without an answer".to_owned()),
            }
        }
    }

    /// The body that follows.
    async fn body<R: AsyncRead + Unpin>(&mut self, from: &mut R, framing: Framing) -> Result<Vec<u8>, String> {
        let mut reader = BodyReader::new(framing, None);
        let mut body = Vec::new();
        let broken = |error| format!("its body is broken: {error}");
        loop {
            match reader.read(&mut self.buf).map_err(broken)? {
                Step::Data(piece) => body.extend_from_slice(&piece),
                Step::End => return Ok(body),
                Step::More if self.read(from).await? => {}
                Step::More => return reader.eof().map(|()| body).map_err(broken),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer that comes in pieces of `cut` bytes and then ends.
    async fn answer(bytes: &str, cut: usize) -> Result<(u16, String), String> {
        let (mut peer, mut edge) = tokio::io::duplex(cut);
        let bytes = bytes.to_owned();
        let peer = tokio::spawn(async move { peer.write_all(bytes.as_bytes()).await });
        let mut answer = Answer::new();
        let head = answer.head(&mut edge).await?;
        let body = answer.body(&mut edge, head.framing).await?;
        peer.await.unwrap().unwrap();
        Ok((head.status.as_u16(), String::from_utf8(body).unwrap()))
    }

    #[tokio::test]
    async fn an_answer_is_read_as_its_framing_says() {
        let rows = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, "ok")),
            ("HTTP/1.1 200 OK\r\n\r\nok", (200, "ok")),
            ("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n", (503, "abcd")),
            ("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", (204, "")),
            ("HTTP/1.0 200 OK\r\n\r\n", (200, "")),
        ];
        for (bytes, (status, body)) in rows {
            for cut in [1, 1024] {
                assert_eq!(answer(bytes, cut).await, Ok((status, body.to_owned())), "{bytes} by {cut}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_a_whole_answer_is_an_error_that_says_why() {
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 * ANSWER_MAX));
        let rows = [
            ("", "it closed the connection without an answer"),
            ("HTTP/1.1 200 O", "it closed the connection without an answer"),
            ("SSH-2.0-OpenSSH\r\n", "its answer is not HTTP/1.1: "),
            ("HTTP/1.1 banana\r\n\r\n", "its answer is not HTTP/1.1: "),
            ("HTTP/2 200\r\n\r\n", "its answer is not HTTP/1.1: "),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", "its body is broken: "),
            ("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "its body is broken: "),
            (&endless, "its answer is longer than "),
        ];
        for (bytes, why) in rows {
            // Room for all of it: who stops reading early must not make the peer wait.
            let error = answer(bytes, 4 * ANSWER_MAX).await.unwrap_err();
            assert!(error.starts_with(why), "{bytes:.40}: {error}");
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
