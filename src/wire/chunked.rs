//! The chunked transfer coding, decoded (RFC 9112 section 7.1).

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use super::{error::BodyError, fields};

/// Bytes of one chunk line: a size and extensions such as signatures, which are below 200.
const CHUNK_LINE_MAX: usize = 4096;

/// Bytes of chunk lines that a body may have beyond as many as its data: else a sender makes us read without end for
/// nothing.
const EXTENSIONS_FREE: u64 = 16 * 1024;

/// Digits of a chunk size: what fits 64 bits. More are refused, zeros in front included.
const SIZE_DIGITS_MAX: usize = 16;

/// Bytes of a trailer section, which is dropped anyway.
const TRAILERS_MAX: usize = 8 * 1024;

/// Where in a chunked body the decoder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a chunk line.
    Size,
    /// So many bytes of data are to come.
    Data(u64),
    /// The CRLF after the data.
    DataEnd,
    /// In the trailer section, of which so many bytes are read.
    Trailers(usize),
    End,
}

/// Decodes one body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of the line at the front of the buffer that hold no LF.
    searched: usize,
    /// Bytes of extensions so far.
    extensions: u64,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { state: State::Size, searched: 0, extensions: 0 }
    }

    pub(super) fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// The next piece of data, never empty; `None` means more bytes are needed or, see [`is_end`](Self::is_end), that
    /// the body has ended. `received` is what came before, `max` the most that the whole body may be.
    pub(super) fn data(&mut self, buf: &mut BytesMut, received: u64, max: u64) -> Result<Option<Bytes>, BodyError> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = self.line(buf, CHUNK_LINE_MAX, BodyError::ChunkLineTooLong)? else {
                        return Ok(None);
                    };
                    let (size, extensions) = chunk_line(&line)?;
                    self.extensions += extensions as u64;
                    if self.extensions > EXTENSIONS_FREE.saturating_add(received) {
                        return Err(BodyError::ChunkLineTooLong);
                    }
                    let total = received.checked_add(size).filter(|total| i64::try_from(*total).is_ok());
                    if total.ok_or(BodyError::ChunkOverflow)? > max {
                        return Err(BodyError::TooLarge);
                    }
                    self.state = if size == 0 { State::Trailers(0) } else { State::Data(size) };
                }
                State::Data(left) => {
                    if buf.is_empty() {
                        return Ok(None);
                    }
                    let (piece, left) = super::body::take(buf, left);
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Some(piece));
                }
                State::DataEnd => match &buf[..] {
                    [] | [b'\r'] => return Ok(None),
                    [b'\r', b'\n', ..] => {
                        buf.advance(2);
                        self.state = State::Size;
                    }
                    [b'\n', ..] => return Err(BodyError::BareLf),
                    _ => return Err(BodyError::ChunkEnd),
                },
                State::Trailers(before) => {
                    let Some(line) = self.line(buf, TRAILERS_MAX - before, BodyError::TrailerTooLarge)? else {
                        return Ok(None);
                    };
                    if line.is_empty() {
                        self.state = State::End;
                        return Ok(None);
                    }
                    fields::check_line(&line).map_err(|_| BodyError::Trailer)?;
                    self.state = State::Trailers(before + line.len() + 2);
                }
                State::End => return Ok(None),
            }
        }
    }

    /// Takes a line, without its CRLF, from the front of `buf`; `max` counts the CRLF.
    fn line(&mut self, buf: &mut BytesMut, max: usize, too_long: BodyError) -> Result<Option<BytesMut>, BodyError> {
        let line_feed = memchr(b'\n', &buf[self.searched..]).map(|at| self.searched + at);
        self.searched = line_feed.map_or(buf.len(), |at| at + 1);
        if self.searched > max {
            return Err(too_long);
        }
        let Some(line_feed) = line_feed else { return Ok(None) };
        if line_feed == 0 || buf[line_feed - 1] != b'\r' {
            return Err(BodyError::BareLf);
        }
        self.searched = 0;
        let mut line = buf.split_to(line_feed + 1);
        line.truncate(line_feed - 1);
        Ok(Some(line))
    }
}

/// `chunk-size [ chunk-ext ]` into the size and the length of the extensions.
fn chunk_line(line: &[u8]) -> Result<(u64, usize), BodyError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 || digits > SIZE_DIGITS_MAX {
        return Err(if digits == 0 { BodyError::ChunkSize } else { BodyError::ChunkOverflow });
    }
    let size = line[..digits]
        .iter()
        .fold(0u64, |sum, digit| sum << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or_default()));
    let rest = &line[digits..];
    match fields::trim(rest).first() {
        None if rest.is_empty() => Ok((size, 0)),
        Some(b';') if is_extensions(rest) => Ok((size, rest.len())),
        Some(b';') => Err(BodyError::ChunkExtension),
        _ => Err(BodyError::ChunkSize),
    }
}

/// `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )` (RFC 9112 section 7.1.1), checked and ignored.
fn is_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(after) = blanks(rest).strip_prefix(b";") else { return false };
        let Some(after) = token(blanks(after)) else { return false };
        rest = after;
        if let Some(value) = blanks(after).strip_prefix(b"=") {
            let value = blanks(value);
            let Some(after) = token(value).or_else(|| quoted(value)) else { return false };
            rest = after;
        }
    }
    true
}

fn blanks(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..]
}

/// What follows the token at the front.
fn token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|byte| fields::is_tchar(**byte)).count();
    (length > 0).then(|| &text[length..])
}

/// What follows the quoted string at the front (RFC 9110 section 5.6.4).
fn quoted(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        let visible = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', escaped, after @ ..] if visible(*escaped) => after,
            [byte, after @ ..] if visible(*byte) && *byte != b'\\' => after,
            _ => return None,
        };
    }
}
