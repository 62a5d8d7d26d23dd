//! What must hold for every input, whoever makes it up.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};

use crate::{
    driver::{End, Transcript, requests as read_requests, responses as read_responses},
    proxy::target::Target,
    wire::{
        BodyWriter, Framing, HeadLimits, Lines, RawTarget, RequestHead, ResponseHead, UnderscoreHeaders, Version,
        write_request_head, write_response_head,
    },
};

/// Small, so that small inputs reach them.
const LIMITS: HeadLimits =
    HeadLimits { header_bytes: 1024, header_count: 12, target_bytes: 128, underscore_headers: UnderscoreHeaders::Pass };

const BODY_MAX: Option<u64> = Some(4096);

/// A client sends `data`: the requests read do not depend on how the bytes arrive, and each, written for an origin, is
/// read as the same request.
pub fn requests(data: &[u8]) {
    let whole = read_requests([data], LIMITS, BODY_MAX);
    for pieces in cuts(data) {
        assert_eq!(read_requests(pieces, LIMITS, BODY_MAX), whole);
    }
    for (head, body) in whole.messages {
        let bytes = request_bytes(&head, &body);
        let again = read_requests([&bytes[..]], roomy(), BODY_MAX);
        assert_one(again, |(read, read_body)| {
            let none = head.framing == Framing::None;
            assert!(read.framing == head.framing || (none && read.framing == Framing::Length(0)));
            assert_eq!((&read.method, &read.target), (&head.method, &head.target));
            assert_eq!((read.fields, read_body), (head.fields, body));
            if head.authority.is_some() {
                assert_eq!(read.authority, head.authority);
            }
        });
    }
}

/// An origin sends `data`, of which the first byte chooses the method that it answers.
pub fn responses(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let method = [Method::GET, Method::HEAD, Method::POST][usize::from(*choice) % 3].clone();
    let whole = read_responses([data], LIMITS, &method, BODY_MAX);
    for pieces in cuts(data) {
        assert_eq!(read_responses(pieces, LIMITS, &method, BODY_MAX), whole);
    }
    for (mut head, body) in whole.messages {
        let bytes = response_bytes(&head, &body);
        let again = read_responses([&bytes[..]], roomy(), &method, BODY_MAX);
        assert_one(again, |(mut read, read_body)| {
            assert_eq!((read.status, read.framing), (head.status, head.framing));
            if !head.status.is_informational() {
                assert_eq!(read.keep_alive, head.keep_alive);
                assert!(head.status == StatusCode::NO_CONTENT || read.content_length == head.content_length);
            }
            // The writer may have added an option to it.
            read.fields.remove(header::CONNECTION);
            head.fields.remove(header::CONNECTION);
            assert_eq!((read.fields, read_body), (head.fields, body));
        });
    }
}

/// A client asks for `data`: if that is a target at all, its normal form is normal.
pub fn targets(data: &[u8]) {
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let Ok(target) = Target::parse(raw) else { return };
    let normal = target.path_and_query();
    let again = Target::parse(normal).expect("a normal form is a target");
    assert_eq!(again.path_and_query(), normal);
    assert_eq!((again.path(), again.query()), (target.path(), target.query()));
    assert_eq!(target.received(), raw);
    assert_eq!(target.query().is_some(), raw.contains('?'));

    assert!(target.path().starts_with('/'));
    assert!(normal.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#'));
    assert!(target.path().split('/').all(|segment| segment != "." && segment != ".."));
    let mut octets = normal.split('%');
    octets.next();
    for octet in octets {
        let hex = &octet[..2];
        assert!(hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')), "{normal}");
        let octet = u8::from_str_radix(hex, 16).expect("two hexadecimal digits");
        assert!(octet != 0 && !octet.is_ascii_alphanumeric() && !b"-._~".contains(&octet), "{normal}");
    }
}

/// What the edge sends to an origin for a request.
fn request_bytes(head: &RequestHead, body: &[u8]) -> Vec<u8> {
    let host = head.authority.as_ref().map_or("unnamed.test".to_owned(), ToString::to_string);
    let target = match &head.target {
        RawTarget::Origin(target) => target,
        RawTarget::Asterisk => "*",
        RawTarget::Authority => &host,
    };
    let mut out = BytesMut::new();
    write_request_head(&mut out, &head.method, target, &host, &head.fields, &Lines::default(), head.framing);
    with_body(out, head.framing, body)
}

/// What the edge sends to a client of HTTP/1.1 for a response.
fn response_bytes(head: &ResponseHead, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let fields: &HeaderMap = &head.fields;
    write_response_head(
        &mut out,
        Version::Http11,
        head.status,
        fields,
        head.framing,
        head.content_length,
        head.keep_alive,
    );
    with_body(out, head.framing, body)
}

fn with_body(head: BytesMut, framing: Framing, body: &[u8]) -> Vec<u8> {
    let mut out = vec![head.freeze()];
    let mut writer = BodyWriter::new(framing);
    for piece in body.chunks(1 + body.len() / 3) {
        writer.data(Bytes::copy_from_slice(piece), &mut out).expect("the body is as long as it was announced");
    }
    writer.end(&mut out).expect("the body is as long as it was announced");
    out.concat()
}

/// Exactly one message was read, to its end.
fn assert_one<H: std::fmt::Debug>(transcript: Transcript<H>, check: impl FnOnce((H, Vec<u8>))) {
    assert!(matches!(transcript.end, End::Clean | End::Closed), "{transcript:?}");
    let [message] = <[_; 1]>::try_from(transcript.messages).expect("one message was written");
    check(message);
}

/// Ways for `data` to arrive: byte by byte, in small pieces, in two halves, with nothing in between.
fn cuts(data: &[u8]) -> [Vec<&[u8]>; 4] {
    let (left, right) = data.split_at(data.len() / 2);
    [
        data.chunks(1).collect(),
        data.chunks(7).collect(),
        vec![left, right],
        data.chunks(3).flat_map(|piece| [piece, &[]]).collect(),
    ]
}

/// Names in lower case and framing fields may make a head longer than it was.
fn roomy() -> HeadLimits {
    HeadLimits { header_bytes: 4 * LIMITS.header_bytes, header_count: 2 * LIMITS.header_count, ..LIMITS }
}
