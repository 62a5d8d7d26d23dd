//! How a message ends: its version and its framing, and the two fields that say so.

/// The version of HTTP that a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    Http10,
    /// Also what 1.2 to 1.9 are taken for (RFC 9110 section 2.5).
    Http11,
    Http2,
}

/// How the body of a message is delimited (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body at all: a request without one, or a response that cannot have one (HEAD, 1xx, 204, 304).
    None,
    /// Exactly so many bytes.
    Length(u64),
    Chunked,
    /// Until the connection closes. Responses only.
    UntilClose,
}

impl Framing {
    /// The framing that a client of this version understands: HTTP/1.0 knows no chunks, its body ends with the
    /// connection.
    #[must_use]
    pub fn for_client(self, version: Version) -> Self {
        match (self, version) {
            (Self::Chunked, Version::Http10) => Self::UntilClose,
            (framing, _) => framing,
        }
    }
}

/// Why a `Content-Length` is no length.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadLength {
    /// Not `1*DIGIT`.
    Syntax,
    /// Digits, but more than 2^64 - 1.
    Overflow,
}

/// `Content-Length = 1*DIGIT` (RFC 9110 section 8.6); leading zeros are digits like others.
pub(super) fn content_length(value: &[u8]) -> Result<u64, BadLength> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(BadLength::Syntax);
    }
    value.iter().try_fold(0u64, |sum, digit| {
        sum.checked_mul(10).and_then(|sum| sum.checked_add(u64::from(digit - b'0'))).ok_or(BadLength::Overflow)
    })
}

/// What a `Transfer-Encoding` field line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Exactly `chunked`.
    Chunked,
    /// Well-formed, but with another coding: nothing here can undo it.
    Unsupported,
    /// No list of transfer codings, or `chunked` where it must not stand.
    Malformed,
}

/// One `Transfer-Encoding` value. `chunked` must be the last coding and stand once (RFC 9112 section 6.1); an empty
/// list element is refused, because parsers differ on it.
pub(super) fn transfer_coding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let mut chunked_seen = false;
    for element in value.split(|byte| *byte == b',') {
        let coding = super::fields::trim(element);
        // Parameters (`gzip;q=1`) belong to codings that are not supported; their inside does not matter.
        let name = super::fields::trim(coding.split(|byte| *byte == b';').next().unwrap_or_default());
        if chunked_seen || !super::fields::is_token(name) {
            return Coding::Malformed;
        }
        chunked_seen = name.eq_ignore_ascii_case(b"chunked");
        if chunked_seen && name.len() != coding.len() {
            return Coding::Malformed; // `chunked` takes no parameters (RFC 9112 section 7.1)
        }
    }
    Coding::Unsupported
}
