//! Heads written from values, so that nothing of how they were received survives.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::{
    framing::{Framing, Version},
    prebuilt::Ending,
};

/// Field lines of our own making, written once and sent after the fields of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a line whose value is these parts one after the other. They come from checked values; none says how the
    /// message is framed.
    #[inline]
    pub fn add<'a>(&mut self, name: &HeaderName, value: impl IntoIterator<Item = &'a [u8]>) {
        debug_assert!(!is_framing(name), "the writer alone frames a message");
        self.0.extend_from_slice(name.as_str().as_bytes());
        self.0.extend_from_slice(b": ");
        for part in value {
            debug_assert!(!part.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "values are checked before");
            self.0.extend_from_slice(part);
        }
        self.0.extend_from_slice(b"\r\n");
    }

    /// The lines as they are sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Writes a request head. `fields` are written in their order, names in lower case, but for `Host`, `Content-Length`
/// and `Transfer-Encoding`, which come from the arguments alone; `lines` follow them. `target` and `host` are visible
/// ASCII.
///
/// A method that anticipates a body gets `content-length: 0` when there is none (RFC 9110 section 8.6).
///
/// # Panics
/// For [`Framing::UntilClose`]: a request cannot be framed so, and its body would be read as another request.
pub fn write_request_head(
    out: &mut BytesMut,
    method: &Method,
    target: &str,
    host: &str,
    fields: &HeaderMap,
    lines: &Lines,
    framing: Framing,
) {
    debug_assert!(is_visible(target) && is_visible(host), "target and host are checked where they are parsed");
    out.reserve(64 + target.len() + host.len() + fields_size(fields) + lines.0.len());
    put(out, &[method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\nhost: ", host.as_bytes(), b"\r\n"]);
    put_fields(out, fields);
    out.put_slice(&lines.0);
    match framing {
        Framing::None if [Method::POST, Method::PUT, Method::PATCH].contains(method) => put_length(out, 0),
        Framing::None => {}
        Framing::Length(length) => put_length(out, length),
        Framing::Chunked => put(out, &[b"transfer-encoding: chunked\r\n"]),
        // The parser of requests never yields it, and nobody else makes the framing of a request.
        Framing::UntilClose => panic!("a request is not framed by the end of its connection"),
    }
    put(out, &[b"\r\n"]);
}

/// Writes a response head for a client of `version`. `fields` are written in their order, names in lower case, but for
/// `Content-Length` and `Transfer-Encoding`, which come from the arguments alone.
///
/// `announced_length` is written where no body follows: the answer to HEAD, and 304; a 1xx and a 204 announce none.
/// Any other answer without content is `Framing::Length(0)`. `Connection` says `close` when not `keep_alive` or framed
/// by the end of the connection, `keep-alive` to HTTP/1.0; an interim response and 101 get only what `fields` holds.
pub fn write_response_head(
    out: &mut BytesMut,
    version: Version,
    status: StatusCode,
    fields: &HeaderMap,
    framing: Framing,
    announced_length: Option<u64>,
    keep_alive: bool,
) {
    debug_assert!(framing == framing.for_client(version), "HTTP/1.0 knows no chunks");
    out.reserve(128 + fields_size(fields));
    put_status(out, status);
    put_fields(out, fields);
    put_ending(out, status, Ending { version, framing, announced_length, keep_alive });
}

pub(super) fn put_status(out: &mut BytesMut, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or_default();
    put(out, &[b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
}

/// What the arguments of [`write_response_head`] alone decide, and the end of the head.
pub(super) fn put_ending(out: &mut BytesMut, status: StatusCode, ending: Ending) {
    let Ending { version, framing, announced_length, keep_alive } = ending;
    if !status.is_informational() {
        match framing {
            Framing::None if status == StatusCode::NO_CONTENT => {}
            Framing::None => {
                if let Some(length) = announced_length {
                    put_length(out, length);
                }
            }
            Framing::Length(length) => put_length(out, length),
            Framing::Chunked => put(out, &[b"transfer-encoding: chunked\r\n"]),
            Framing::UntilClose => {}
        }
        if !keep_alive || framing == Framing::UntilClose {
            put(out, &[b"connection: close\r\n"]);
        } else if version == Version::Http10 {
            put(out, &[b"connection: keep-alive\r\n"]);
        }
    }
    put(out, &[b"\r\n"]);
}

pub(super) fn put(out: &mut BytesMut, pieces: &[&[u8]]) {
    for piece in pieces {
        out.put_slice(piece);
    }
}

fn put_length(out: &mut BytesMut, length: u64) {
    put(out, &[b"content-length: ", decimal(length, &mut [0; DIGITS_MAX]), b"\r\n"]);
}

/// Digits of the largest number.
pub const DIGITS_MAX: usize = 20;

/// `number` in decimal digits, at the end of `room`.
pub fn decimal(mut number: u64, room: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut first = DIGITS_MAX;
    loop {
        first -= 1;
        room[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &room[first..];
        }
    }
}

fn put_fields(out: &mut BytesMut, fields: &HeaderMap) {
    for (name, value) in fields {
        if !is_framing(name) {
            put(out, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
    }
}

/// Fields that only the arguments of a writer decide.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST].contains(name)
}

fn fields_size(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_request_has_one_host_and_one_framing_whatever_its_fields_say() {
        let fields = fields(&[("host", "evil"), ("content-length", "9"), ("transfer-encoding", "x"), ("x", "y")]);
        for (method, framing, expected) in [
            (Method::GET, Framing::None, "GET /a HTTP/1.1\r\nhost: b\r\nx: y\r\n\r\n"),
            (Method::POST, Framing::None, "POST /a HTTP/1.1\r\nhost: b\r\nx: y\r\ncontent-length: 0\r\n\r\n"),
            (Method::GET, Framing::Length(0), "GET /a HTTP/1.1\r\nhost: b\r\nx: y\r\ncontent-length: 0\r\n\r\n"),
            (Method::PUT, Framing::Chunked, "PUT /a HTTP/1.1\r\nhost: b\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n"),
        ] {
            let mut out = BytesMut::new();
            write_request_head(&mut out, &method, "/a", "b", &fields, &Lines::default(), framing);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 9, 10, 65_535, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; DIGITS_MAX]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn lines_of_our_own_follow_the_fields() {
        let mut lines = Lines::default();
        lines.add(&header::VIA, [&b"1.1 "[..], b"x"]);
        let mut out = BytesMut::new();
        write_request_head(&mut out, &Method::GET, "/a", "b", &fields(&[("x", "y")]), &lines, Framing::Length(1));
        assert_eq!(out, "GET /a HTTP/1.1\r\nhost: b\r\nx: y\r\nvia: 1.1 x\r\ncontent-length: 1\r\n\r\n");
    }

    #[test]
    fn a_response_says_how_it_ends_and_whether_the_connection_stays() {
        let (v10, v11) = (Version::Http10, Version::Http11);
        let (none, five) = (Framing::None, Framing::Length(5));
        for (version, status, framing, announced, keep_alive, expected) in [
            (v11, 200, five, None, true, "200 OK\r\nx: y\r\ncontent-length: 5\r\n"),
            (v11, 200, five, None, false, "200 OK\r\nx: y\r\ncontent-length: 5\r\nconnection: close\r\n"),
            (v11, 200, Framing::Chunked, None, true, "200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n"),
            (v11, 200, Framing::UntilClose, None, true, "200 OK\r\nx: y\r\nconnection: close\r\n"),
            (v10, 200, five, None, true, "200 OK\r\nx: y\r\ncontent-length: 5\r\nconnection: keep-alive\r\n"),
            (v10, 200, five, None, false, "200 OK\r\nx: y\r\ncontent-length: 5\r\nconnection: close\r\n"),
            (v11, 200, none, Some(7), true, "200 OK\r\nx: y\r\ncontent-length: 7\r\n"),
            (v11, 200, none, None, true, "200 OK\r\nx: y\r\n"),
            (v11, 304, none, Some(7), true, "304 Not Modified\r\nx: y\r\ncontent-length: 7\r\n"),
            (v11, 204, none, Some(7), true, "204 No Content\r\nx: y\r\n"),
            (v11, 103, none, Some(7), false, "103 Early Hints\r\nx: y\r\n"),
            (v11, 101, none, None, false, "101 Switching Protocols\r\nx: y\r\n"),
            (v11, 799, Framing::Length(0), None, true, "799 \r\nx: y\r\ncontent-length: 0\r\n"),
        ] {
            let fields = fields(&[("transfer-encoding", "x"), ("content-length", "9"), ("x", "y")]);
            let status = StatusCode::from_u16(status).unwrap();
            let mut out = BytesMut::new();
            write_response_head(&mut out, version, status, &fields, framing, announced, keep_alive);
            assert_eq!(out, format!("HTTP/1.1 {expected}\r\n"));
        }
    }
}
