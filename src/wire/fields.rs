//! One field line: name, colon, value (RFC 9112 section 5).

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use memchr::{Memchr, memchr};

/// Why a line is no field line; requests and responses name it in their own errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadField {
    /// The line begins with whitespace: the obsolete line folding (RFC 9112 section 5.2).
    Folded,
    MissingColon,
    SpaceBeforeColon,
    Name,
    Value,
}

/// What to do with whitespace between name and colon (RFC 9112 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpaceBeforeColon {
    /// In a request and in trailers: it has been used to hide fields.
    Refuse,
    /// In a response a proxy removes it.
    Remove,
}

/// The field lines of a complete head or trailer section, each checked as it comes.
pub(super) struct FieldLines<'a> {
    head: &'a Bytes,
    at: usize,
    /// Where the lines end, from the first one.
    ends: Memchr<'a>,
    first: usize,
    space: SpaceBeforeColon,
}

/// One checked name and its value. The bytes of the value are checked when it is made.
pub(super) struct Field<'a> {
    pub(super) name: HeaderName,
    head: &'a Bytes,
    value: &'a [u8],
}

impl<'a> FieldLines<'a> {
    /// `head[at..]` consists of lines that end in CRLF, an empty one last.
    pub(super) fn new(head: &'a Bytes, at: usize, space: SpaceBeforeColon) -> Self {
        Self { head, at, ends: Memchr::new(b'\n', &head[at..]), first: at, space }
    }
}

impl<'a> Iterator for FieldLines<'a> {
    type Item = Result<Field<'a>, BadField>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let end = self.first + self.ends.next()?;
        let line = &self.head[self.at..end - 1];
        if line.is_empty() {
            return None;
        }
        self.at = end + 1;
        Some(split(line, self.space).map(|(name, value)| Field { name, head: self.head, value }))
    }
}

impl<'a> Field<'a> {
    /// The value without the whitespace around it, not yet checked.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.value
    }

    /// The value, sharing the bytes of the head.
    ///
    /// # Errors
    /// A control byte other than tab.
    pub(super) fn value(&self) -> Result<HeaderValue, BadField> {
        HeaderValue::from_maybe_shared(self.head.slice_ref(self.value)).map_err(|_| BadField::Value)
    }
}

/// A trailer field line, checked like any other, for a caller that drops it.
pub(super) fn check_line(line: &[u8]) -> Result<(), BadField> {
    let (_, value) = split(line, SpaceBeforeColon::Refuse)?;
    HeaderValue::from_bytes(value).map(drop).map_err(|_| BadField::Value)
}

/// `line` without its CRLF into a name and its value.
#[inline]
fn split(line: &[u8], space: SpaceBeforeColon) -> Result<(HeaderName, &[u8]), BadField> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(BadField::Folded);
    }
    let colon = memchr(b':', line).ok_or(BadField::MissingColon)?;
    let mut name = &line[..colon];
    if let [.., b' ' | b'\t'] = name {
        match space {
            SpaceBeforeColon::Refuse => return Err(BadField::SpaceBeforeColon),
            SpaceBeforeColon::Remove => name = trim(name),
        }
    }
    let name = HeaderName::from_bytes(name).map_err(|_| BadField::Name)?;
    Ok((name, trim(&line[colon + 1..])))
}

/// `text` without optional whitespace (OWS, RFC 9110 section 5.6.3) at both ends.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The elements of a comma-separated list without whitespace around them; empty ones are left out
/// (RFC 9110 section 5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// `token = 1*tchar` (RFC 9110 section 5.6.2)
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_tchar(*byte))
}

/// Whether a token may hold the byte.
pub(super) fn is_tchar(byte: u8) -> bool {
    TCHAR[usize::from(byte)]
}

/// `tchar` by byte: one look per byte of a method.
const TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    loop {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};
