//! Finds the end of a head in bytes that drip in, within the limits.

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use memchr::{memchr, memchr_iter};

use super::{
    error::{BadRequest, BadResponse},
    fields,
    framing::Version,
    request::{self, RequestHead, RequestLine},
    response::{self, ResponseHead},
};

/// Bytes of a method; the longest registered one is `UPDATEREDIRECTREF` (17).
pub const METHOD_MAX: usize = 32;

/// Bytes of a head whose field section is remembered, and keeps all of it; what browsers send with their cookies is shorter.
const REMEMBERED_MAX: usize = 2 * 1024;

/// What surrounds method and target in a request line: two spaces, the version, CRLF.
const REQUEST_LINE_REST: usize = 2 + "HTTP/1.1".len() + 2;

/// What a head may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, start line and last empty line included.
    pub header_bytes: usize,
    /// Field lines.
    pub header_count: usize,
    /// Bytes of the request target. Requests only.
    pub target_bytes: usize,
    /// What happens to a field with `_` in its name. Requests only.
    pub underscore_headers: UnderscoreHeaders,
}

/// What happens to a request field with `_` in its name. Backends that turn `-` into `_` cannot tell `X_User` from
/// `X-User`, so a client could say for itself what only the edge may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderscoreHeaders {
    Drop,
    Pass,
    Reject,
}

/// Reads the heads of one connection, one after the other, and remembers how far it has looked.
#[derive(Debug, Clone)]
pub struct HeadReader {
    limits: HeadLimits,
    scan: Scan,
    last: Option<Last>,
}

/// The field section of the last request. Clients say the same again and again on a connection: to compare it costs less than
/// to parse it, and comes to the same.
#[derive(Debug, Clone)]
struct Last {
    /// Its bytes, the empty line included.
    bytes: Bytes,
    /// What else it was parsed under.
    version: Version,
    section: request::Section,
}

/// Why the end of a head will not be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BadHead {
    BareLf,
    EmptyStartLine,
    StartLineTooLong,
    TooLarge,
    TooManyFields,
}

/// How far a head has been looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Scan {
    /// Bytes that have been searched for LF.
    searched: usize,
    /// Where the line begins whose end is searched.
    line_start: usize,
    /// Lines found, the start line included.
    lines: usize,
}

impl HeadReader {
    /// A reader at the beginning of a head.
    #[must_use]
    pub fn new(limits: HeadLimits) -> Self {
        Self { limits, scan: Scan::default(), last: None }
    }

    /// The limits from the next head on. Between two heads only.
    pub fn limit(&mut self, limits: HeadLimits) {
        debug_assert!(self.scan.searched == 0, "a head is read under the limits that it began with");
        if self.limits != limits {
            self.limits = limits;
            self.last = None;
        }
    }

    /// Takes a request head from the front of `buf` once it is complete; `None` asks for more bytes. Between two calls
    /// bytes may only be added to `buf`. One empty line before the head is skipped (RFC 9112 section 2.2).
    ///
    /// # Errors
    /// See [`BadRequest`]; `buf` is left as it is and the connection must be closed after the answer.
    pub fn request(&mut self, buf: &mut BytesMut) -> Result<Option<RequestHead>, BadRequest> {
        let skip = if buf.starts_with(b"\r\n") { 2 } else { 0 };
        let bytes = &buf[skip..];
        match bytes.first() {
            None => return Ok(None),
            Some(b'\r') if skip == 0 && bytes.len() == 1 => return Ok(None),
            Some(b'\n') => return Err(BadRequest::BareLf),
            // Said at once, so that a TLS handshake or noise need not be followed by a line end.
            Some(first) if !fields::is_tchar(*first) => return Err(BadRequest::RequestLine),
            Some(_) => {}
        }
        let line_max = (METHOD_MAX + self.limits.target_bytes + REQUEST_LINE_REST).min(self.limits.header_bytes);
        if let Some((length, head)) = self.again(bytes, line_max) {
            buf.advance(skip + length);
            return Ok(Some(head));
        }
        match self.scan.end_of_head(bytes, line_max, &self.limits) {
            Ok(None) => Ok(None),
            Ok(Some(length)) => {
                let head = Bytes::copy_from_slice(&bytes[..length]);
                let line_end = memchr(b'\n', &head).map_or(0, |at| at - 1);
                let line = RequestLine::parse(&head[..line_end], &self.limits)?;
                let (at, count, version) = (line_end + 2, self.scan.lines - 1, line.version);
                let section = request::section(&head, at, count, version, &self.limits)?;
                let parsed = line.with(&section)?;
                let is_short = length <= REMEMBERED_MAX;
                self.last = is_short.then(|| Last { bytes: head.slice(at..), version, section });
                buf.advance(skip + length);
                self.scan = Scan::default();
                Ok(Some(parsed))
            }
            Err(BadHead::StartLineTooLong) => Err(request::too_long(bytes)),
            Err(BadHead::BareLf) => Err(BadRequest::BareLf),
            Err(BadHead::EmptyStartLine) => Err(BadRequest::RequestLine),
            Err(BadHead::TooLarge) => Err(BadRequest::HeadTooLarge),
            Err(BadHead::TooManyFields) => Err(BadRequest::TooManyFields),
        }
    }

    /// A head at the front of `bytes` whose fields are those of the last one, and its length. What is wrong with its request
    /// line is found by who parses it whole.
    fn again(&self, bytes: &[u8], line_max: usize) -> Option<(usize, RequestHead)> {
        let last = self.last.as_ref().filter(|_| self.scan.searched == 0)?;
        let at = memchr(b'\n', &bytes[..bytes.len().min(line_max)])? + 1;
        let length = at + last.bytes.len();
        if !bytes[at..].starts_with(&last.bytes) || length > self.limits.header_bytes {
            return None;
        }
        let line = RequestLine::parse(bytes[..at].strip_suffix(b"\r\n")?, &self.limits).ok()?;
        if line.version != last.version {
            return None;
        }
        Some((length, line.with(&last.section).ok()?))
    }

    /// Takes the head of a response to `request_method` from the front of `buf` once it is complete; `None` asks for
    /// more bytes. Between two calls bytes may only be added to `buf`. An interim response (1xx) is a head like others.
    ///
    /// # Errors
    /// See [`BadResponse`]; `buf` is left as it is and the connection must be closed.
    pub fn response(
        &mut self,
        buf: &mut BytesMut,
        request_method: &Method,
    ) -> Result<Option<ResponseHead>, BadResponse> {
        if buf.iter().zip(b"HTTP/").any(|(byte, expected)| byte != expected) {
            return Err(BadResponse::StatusLine); // HTTP/0.9, or what is left of another body
        }
        match self.scan.end_of_head(buf, self.limits.header_bytes, &self.limits) {
            Ok(None) => Ok(None),
            Ok(Some(length)) => {
                let head = Bytes::copy_from_slice(&buf[..length]);
                let parsed = response::parse(&head, self.scan.lines - 1, request_method)?;
                buf.advance(length);
                self.scan = Scan::default();
                Ok(Some(parsed))
            }
            Err(BadHead::BareLf) => Err(BadResponse::BareLf),
            Err(BadHead::EmptyStartLine) => Err(BadResponse::StatusLine),
            Err(BadHead::StartLineTooLong | BadHead::TooLarge) => Err(BadResponse::HeadTooLarge),
            Err(BadHead::TooManyFields) => Err(BadResponse::TooManyFields),
        }
    }
}

impl Scan {
    /// The length of the head at the front of `bytes`, its last empty line included. Each byte is searched once,
    /// however many calls it takes, and what is found does not depend on how many that were: a limit is noticed at the
    /// same byte, and before anything else that is wrong behind it.
    fn end_of_head(&mut self, bytes: &[u8], line_max: usize, limits: &HeadLimits) -> Result<Option<usize>, BadHead> {
        let from = self.searched;
        for at in memchr_iter(b'\n', &bytes[from..]) {
            let line_feed = from + at;
            self.search_to(line_feed + 1, line_max, limits)?;
            if line_feed == self.line_start || bytes[line_feed - 1] != b'\r' {
                return Err(BadHead::BareLf);
            }
            if line_feed - 1 == self.line_start {
                return if self.lines == 0 { Err(BadHead::EmptyStartLine) } else { Ok(Some(self.searched)) };
            }
            self.lines += 1;
            // The start line is no field line.
            if self.lines - 1 > limits.header_count {
                return Err(BadHead::TooManyFields);
            }
            self.line_start = self.searched;
        }
        self.search_to(bytes.len(), line_max, limits)?;
        Ok(None)
    }

    /// Everything before `end` has been searched.
    fn search_to(&mut self, end: usize, line_max: usize, limits: &HeadLimits) -> Result<(), BadHead> {
        self.searched = end;
        if self.lines == 0 && end > line_max {
            return Err(BadHead::StartLineTooLong);
        }
        if end > limits.header_bytes {
            return Err(BadHead::TooLarge);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_head_is_not_kept_for_its_short_fields() {
        let limits = HeadLimits {
            header_bytes: 16 * 1024,
            header_count: 10,
            target_bytes: 8 * 1024,
            underscore_headers: UnderscoreHeaders::Drop,
        };
        for (target, is_kept) in [(100, true), (REMEMBERED_MAX, false)] {
            let mut reader = HeadReader::new(limits);
            let target = "t".repeat(target);
            let mut buf = BytesMut::from(format!("GET /{target} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes());
            assert!(reader.request(&mut buf).unwrap().is_some());
            assert_eq!(reader.last.is_some(), is_kept, "{} bytes", target.len());
        }
    }
}
