//! `wire` beside hyper and pingora-core: where both accept, they frame alike; where only one does, the reason is known.
#![expect(unreachable_pub, reason = "the modules under fuzz/ are public in the crate of the fuzz targets")]

#[path = "../../fuzz/src/driver.rs"]
mod driver;
mod generate;
mod parsers;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use driver::{End, Transcript};
use eduham_edge::{
    front::UnderscoreHeaders,
    wire::{self, BodyWriter, Framing, HeadLimits, Lines, RawTarget, RequestHead, ResponseHead, Version},
};
use generate::Random;
use http::{Method, StatusCode, Uri};
use parsers::{SeenRequest, SeenResponse};
use tokio::runtime::Runtime;

const LIMITS: HeadLimits = HeadLimits {
    header_bytes: 32 * 1024,
    header_count: 100,
    target_bytes: 8 * 1024,
    underscore_headers: UnderscoreHeaders::Pass,
};

/// Connections that each test makes up.
const CONNECTIONS: u64 = 6000;

/// Where `wire` refuses a request that hyper or pingora-core takes, and why it should.
const STRICTER_REQUESTS: &[(&str, &str)] = &[
    ("bare-lf", "RFC 9112 section 2.2 allows it as a line end; other servers take it for data"),
    (
        "request-line",
        "one empty line in front is enough for the clients of old; controls, tabs and double spaces hide bytes",
    ),
    ("version", "what stands behind the target is a version and nothing else"),
    ("target", "raw high bytes, fragments, forms that no method allows, user information"),
    ("host", "a Host that is no host routes here and somewhere else"),
    ("missing-host", "RFC 9112 section 3.2 wants 400"),
    ("duplicate-host", "RFC 9112 section 3.2 wants 400"),
    ("content-length", "a list of lengths may be refused (RFC 9112 section 6.3, item 5)"),
    ("duplicate-content-length", "so may two lines"),
    ("length-required", "RFC 1945 section 8.3"),
    ("length-and-transfer-encoding", "RFC 9112 section 6.1: it ought to be handled as an error"),
    ("transfer-encoding", "a list with empty or quoted elements, or chunked twice"),
    ("duplicate-transfer-encoding", "the same on two lines"),
    ("unsupported-transfer-encoding", "nothing here decodes gzip"),
    ("expectation", "RFC 9110 section 10.1.1 wants 417"),
    ("closed", "pingora-core looks for close in the first Connection line alone"),
    ("chunk-size", "a space behind it, or no digit at all"),
    ("chunk-overflow", "more than 16 digits"),
    ("chunk-extension", "not the grammar of RFC 9112 section 7.1.1"),
    ("trailer", "trailers are fields, and checked as such"),
];

/// Where `wire` refuses a response that hyper or pingora-core takes.
const STRICTER_RESPONSES: &[(&str, &str)] = &[
    ("bare-lf", "as in a request"),
    ("status-line", "an empty line in front is allowed of requests only; a version of two digits"),
    ("folded-field", "RFC 9112 section 5.2 gives the choice of 502"),
    ("content-length", "hyper does not look at the length of an answer without body"),
    ("differing-content-length", "nor does it compare it"),
    ("length-and-transfer-encoding", "RFC 9112 section 6.1: it ought to be handled as an error"),
    ("transfer-encoding", "a coding that nobody asked for; until the end of the connection is a guess"),
    ("transfer-encoding-in-http10", "RFC 9112 section 6.1: faulty framing"),
    ("chunk-size", "as in a request"),
    ("chunk-overflow", "as in a request"),
    ("chunk-extension", "as in a request"),
    ("trailer", "as in a request"),
];

/// Counts what was seen, so that a run which compares nothing does not pass.
#[derive(Default)]
struct Tally {
    agreed: usize,
    refused_by_us: BTreeMap<&'static str, usize>,
    refused_by_them: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// Only the other parser accepts a message: our reason is one that is known.
    fn stricter(&mut self, known: &[(&str, &str)], end: End, context: &dyn Fn() -> String) {
        let reason = match end {
            End::Refused(reason) => reason,
            End::Closed => "closed",
            End::Clean | End::Incomplete => panic!("{end:?}: {}", context()),
        };
        assert!(known.iter().any(|(name, _)| *name == reason), "{reason} is no known reason: {}", context());
        *self.refused_by_us.entry(reason).or_default() += 1;
    }

    /// Only `wire` accepts a message: the other's reason is one that is known.
    fn more_lenient(&mut self, reason: Option<&'static str>, context: &dyn Fn() -> String) {
        let reason = reason.unwrap_or_else(|| panic!("accepted by us alone: {}", context()));
        *self.refused_by_them.entry(reason).or_default() += 1;
    }

    fn assert_seen(&self, agreed: usize, stricter: &[(&str, &str)], lenient: &[&str]) {
        assert!(self.agreed > agreed, "agreed on {} messages", self.agreed);
        // A few are too rare for every run.
        assert!(self.refused_by_us.len() * 4 >= stricter.len() * 3, "{:?}", self.refused_by_us);
        assert_eq!(self.refused_by_them.keys().copied().collect::<Vec<_>>(), lenient, "{:?}", self.refused_by_them);
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// As hyper and pingora-core read the same requests.
fn peers_on_requests(runtime: &Runtime, bytes: &[u8]) -> [(&'static str, Vec<SeenRequest>); 2] {
    runtime.block_on(async {
        [("hyper", parsers::hyper_requests(bytes).await), ("pingora", parsers::pingora_requests(bytes).await)]
    })
}

/// As hyper and pingora-core read the same responses.
fn peers_on_responses(runtime: &Runtime, bytes: &[u8]) -> [(&'static str, Option<SeenResponse>); 2] {
    runtime.block_on(async {
        [("hyper", parsers::hyper_response(bytes).await), ("pingora", parsers::pingora_response(bytes).await)]
    })
}

fn target(head: &RequestHead) -> &str {
    match &head.target {
        RawTarget::Origin(target) => target,
        RawTarget::Asterisk => "*",
        RawTarget::Authority => panic!("no CONNECT is generated"),
    }
}

/// Whether another parser saw the request that we saw; it may keep the absolute form.
fn same_request((head, body): &(RequestHead, Vec<u8>), theirs: &SeenRequest) -> bool {
    let same_target = theirs.target == target(head) || theirs.target.starts_with("http://");
    theirs.method == head.method.as_str() && theirs.body == *body && same_target
}

/// Why another parser refuses a request that is right.
fn lenient_request(peer: &str, bytes: &[u8], head: &RequestHead) -> Option<&'static str> {
    if target(head) != "*" && target(head).parse::<Uri>().is_err() {
        return Some("the crate http refuses the target");
    }
    if later_minor_version(bytes) {
        return Some("httparse knows HTTP/1.0 and HTTP/1.1 only");
    }
    if peer == "pingora" && contains(bytes, b"http://") {
        return Some("pingora-core wants Host to equal the authority of the absolute form");
    }
    None
}

/// Why another parser refuses a response that is right.
fn lenient_response(peer: &str, bytes: &[u8]) -> Option<&'static str> {
    if later_minor_version(bytes) {
        return Some("httparse knows HTTP/1.0 and HTTP/1.1 only");
    }
    if peer == "hyper" && (contains(bytes, b" :") || contains(bytes, b"\t:")) {
        return Some("hyper does not remove whitespace before a colon");
    }
    None
}

fn later_minor_version(bytes: &[u8]) -> bool {
    bytes.windows(8).any(|window| window.starts_with(b"HTTP/1.") && (b'2'..=b'9').contains(&window[7]))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn with_body(head: BytesMut, framing: Framing, body: &[u8]) -> Vec<u8> {
    let mut out = vec![head.freeze()];
    let mut writer = BodyWriter::new(framing);
    writer.data(Bytes::copy_from_slice(body), &mut out).expect("as long as announced");
    writer.end(&mut out).expect("as long as announced");
    out.concat()
}

/// The final response, if it was read completely.
fn final_response(ours: &Transcript<ResponseHead>) -> Option<&(ResponseHead, Vec<u8>)> {
    ours.messages
        .iter()
        .find(|(head, _)| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS)
}

#[test]
fn requests_are_framed_as_hyper_and_pingora_frame_them() {
    let runtime = runtime();
    let mut tally = Tally::default();
    for seed in 0..CONNECTIONS {
        let bytes = generate::requests(&mut Random(seed));
        let ours = driver::requests([&bytes[..]], LIMITS, None);
        for (peer, theirs) in peers_on_requests(&runtime, &bytes) {
            let context = || format!("{peer}, seed {seed}, {}\n{ours:?}\n{theirs:?}", bytes.escape_ascii());
            let both = ours.messages.len().min(theirs.len());
            for (mine, other) in ours.messages.iter().zip(&theirs) {
                assert!(same_request(mine, other), "{}", context());
            }
            tally.agreed += both;
            if let Some((head, _)) = ours.messages.get(both) {
                tally.more_lenient(lenient_request(peer, &bytes, head), &context);
            } else if theirs.len() > both {
                tally.stricter(STRICTER_REQUESTS, ours.end, &context);
            }
        }
    }
    tally.assert_seen(
        3000,
        STRICTER_REQUESTS,
        &[
            "httparse knows HTTP/1.0 and HTTP/1.1 only",
            "pingora-core wants Host to equal the authority of the absolute form",
            "the crate http refuses the target",
        ],
    );
}

#[test]
fn responses_are_framed_as_hyper_and_pingora_frame_them() {
    let runtime = runtime();
    let mut tally = Tally::default();
    for seed in 0..CONNECTIONS {
        let bytes = generate::responses(&mut Random(seed));
        let ours = driver::responses([&bytes[..]], LIMITS, &Method::GET, None);
        for (peer, theirs) in peers_on_responses(&runtime, &bytes) {
            let context = || format!("{peer}, seed {seed}, {}\n{ours:?}\n{theirs:?}", bytes.escape_ascii());
            match (final_response(&ours), &theirs) {
                (Some((head, body)), Some(seen)) => {
                    assert!(seen.status == head.status && seen.body == *body, "{}", context());
                    tally.agreed += 1;
                }
                (Some(_), None) => tally.more_lenient(lenient_response(peer, &bytes), &context),
                (None, Some(_)) => tally.stricter(STRICTER_RESPONSES, ours.end, &context),
                (None, None) => {}
            }
        }
    }
    tally.assert_seen(
        3000,
        STRICTER_RESPONSES,
        &["httparse knows HTTP/1.0 and HTTP/1.1 only", "hyper does not remove whitespace before a colon"],
    );
}

/// The other half of smuggling: what we make of an accepted message is one message for everybody.
#[test]
fn what_is_passed_on_is_one_message_for_hyper_and_pingora() {
    let runtime = runtime();
    let mut passed = 0;
    for seed in 0..CONNECTIONS {
        let bytes = generate::requests(&mut Random(seed));
        for message in driver::requests([&bytes[..]], LIMITS, None).messages {
            let (head, body) = &message;
            if target(head) != "*" && target(head).parse::<Uri>().is_err() {
                continue; // the crate http refuses it, however it is written
            }
            let host = head.authority.as_ref().map_or("unnamed.test".into(), ToString::to_string);
            let mut out = BytesMut::new();
            wire::write_request_head(
                &mut out,
                &head.method,
                target(head),
                &host,
                &head.fields,
                &Lines::default(),
                head.framing,
            );
            let out = with_body(out, head.framing, body);
            for (peer, theirs) in peers_on_requests(&runtime, &out) {
                let one = theirs.len() == 1 && same_request(&message, &theirs[0]);
                assert!(one, "{peer}, seed {seed}, {}\n{theirs:?}", out.escape_ascii());
                passed += 1;
            }
        }
        let bytes = generate::responses(&mut Random(seed));
        for (head, body) in driver::responses([&bytes[..]], LIMITS, &Method::GET, None).messages {
            if head.status.is_informational() {
                continue; // the final response is what is compared
            }
            let (framing, length) = (head.framing, head.content_length);
            let mut out = BytesMut::new();
            wire::write_response_head(
                &mut out,
                Version::Http11,
                head.status,
                &head.fields,
                framing,
                length,
                head.keep_alive,
            );
            let out = with_body(out, framing, &body);
            for (peer, theirs) in peers_on_responses(&runtime, &out) {
                let same = theirs.as_ref().is_some_and(|seen| seen.status == head.status && seen.body == body);
                assert!(same, "{peer}, seed {seed}, {}\n{theirs:?}", out.escape_ascii());
                passed += 1;
            }
        }
    }
    assert!(passed > 8000, "{passed} messages were passed on");
}
