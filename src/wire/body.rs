//! The one reader and the one writer of bodies.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};

use super::{chunked::Decoder, error::BodyError, framing::Framing};

/// Reads one body from the bytes of a connection.
#[derive(Debug)]
pub struct BodyReader {
    state: Reading,
    received: u64,
    max: u64,
}

#[derive(Debug)]
enum Reading {
    Length(u64),
    Chunked(Decoder),
    UntilClose,
    End,
}

/// What came of a call to [`BodyReader::read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A piece of the body, never empty. It shares the memory of the read buffer: who keeps it for long copies it.
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The body is complete; what is left in the buffer belongs to the next message.
    End,
}

/// Writes one body in its framing.
#[derive(Debug)]
pub struct BodyWriter {
    state: Writing,
}

#[derive(Debug)]
enum Writing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The body is longer or shorter than its head says. The connection must be closed, not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not as long as its head says")]
pub struct LengthMismatch;

impl BodyReader {
    /// A reader for a body framed so, of at most `max` bytes.
    #[must_use]
    pub fn new(framing: Framing, max: Option<u64>) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => Reading::End,
            Framing::Length(length) => Reading::Length(length),
            Framing::Chunked => Reading::Chunked(Decoder::new()),
            Framing::UntilClose => Reading::UntilClose,
        };
        Self { state, received: 0, max: max.unwrap_or(u64::MAX) }
    }

    /// Takes the next piece from the front of `buf`.
    ///
    /// # Errors
    /// See [`BodyError`]; a body that announces too much fails before its first byte is taken.
    pub fn read(&mut self, buf: &mut BytesMut) -> Result<Step, BodyError> {
        let piece = match &mut self.state {
            Reading::End => return Ok(Step::End),
            Reading::Length(left) => {
                if self.received.saturating_add(*left) > self.max {
                    return Err(BodyError::TooLarge);
                }
                if buf.is_empty() {
                    return Ok(Step::More);
                }
                let (piece, rest) = take(buf, *left);
                if rest == 0 {
                    self.state = Reading::End;
                } else {
                    *left = rest;
                }
                piece
            }
            Reading::Chunked(decoder) => match decoder.data(buf, self.received, self.max)? {
                Some(piece) => piece,
                None if decoder.is_end() => {
                    self.state = Reading::End;
                    return Ok(Step::End);
                }
                None => return Ok(Step::More),
            },
            Reading::UntilClose => {
                if buf.is_empty() {
                    return Ok(Step::More);
                }
                // What fits is passed on whatever came with it, so that a result does not depend on the cut.
                let (piece, _) = take(buf, self.max - self.received);
                if piece.is_empty() {
                    return Err(BodyError::TooLarge);
                }
                piece
            }
        };
        self.received += piece.len() as u64;
        Ok(Step::Data(piece))
    }

    /// The peer has closed and all it sent has been read: this ends a body that goes on until then.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] when the body was to go on.
    pub fn eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            Reading::End => Ok(()),
            Reading::UntilClose => {
                self.state = Reading::End;
                Ok(())
            }
            Reading::Length(_) | Reading::Chunked(_) => Err(BodyError::Truncated),
        }
    }

    /// Nothing of the body is left to read.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self.state, Reading::End)
    }

    /// Bytes of data so far, without chunk lines.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }
}

impl BodyWriter {
    /// A writer for a body framed so.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None => Writing::Length(0),
            Framing::Length(length) => Writing::Length(length),
            Framing::Chunked => Writing::Chunked,
            Framing::UntilClose => Writing::UntilClose,
        };
        Self { state }
    }

    /// Adds `data` to `out`, in its framing, without copying it.
    ///
    /// # Errors
    /// [`LengthMismatch`] when this would be more than announced; nothing is added then.
    pub fn data(&mut self, data: Bytes, out: &mut impl Extend<Bytes>) -> Result<(), LengthMismatch> {
        if data.is_empty() {
            return Ok(()); // an empty chunk would end the body
        }
        match &mut self.state {
            Writing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(LengthMismatch)?;
                out.extend([data]);
            }
            Writing::Chunked => {
                let mut line = BytesMut::with_capacity(size_of::<usize>() * 2 + 2).writer();
                // Writing to memory does not fail.
                let _ = write!(line, "{:x}\r\n", data.len());
                out.extend([line.into_inner().freeze(), data, Bytes::from_static(b"\r\n")]);
            }
            Writing::UntilClose => out.extend([data]),
        }
        Ok(())
    }

    /// Adds what ends the body to `out`.
    ///
    /// # Errors
    /// [`LengthMismatch`] when less than announced was written.
    pub fn end(&mut self, out: &mut impl Extend<Bytes>) -> Result<(), LengthMismatch> {
        match self.state {
            Writing::Length(0) | Writing::UntilClose => Ok(()),
            Writing::Length(_) => Err(LengthMismatch),
            Writing::Chunked => {
                out.extend([Bytes::from_static(b"0\r\n\r\n")]);
                Ok(())
            }
        }
    }
}

/// At most `left` bytes from the front of `buf`, and what is left after them.
pub(super) fn take(buf: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
    (buf.split_to(length).freeze(), left - length as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_by_length_leaves_what_follows() {
        let mut body = BodyReader::new(Framing::Length(5), Some(5));
        let mut buf = BytesMut::from(&b"hel"[..]);
        assert_eq!(body.read(&mut buf), Ok(Step::Data("hel".into())));
        assert_eq!(body.read(&mut buf), Ok(Step::More));
        assert_eq!(body.eof(), Err(BodyError::Truncated));
        buf.extend_from_slice(b"loGET");
        assert_eq!(body.read(&mut buf), Ok(Step::Data("lo".into())));
        assert!(body.is_end());
        assert_eq!((body.read(&mut buf), body.eof(), body.received()), (Ok(Step::End), Ok(()), 5));
        assert_eq!(buf, "GET");
    }

    #[test]
    fn a_body_too_long_fails_before_its_first_byte() {
        let mut buf = BytesMut::new();
        assert_eq!(BodyReader::new(Framing::Length(6), Some(5)).read(&mut buf), Err(BodyError::TooLarge));
        let mut buf = BytesMut::from(&b"6\r\n"[..]);
        assert_eq!(BodyReader::new(Framing::Chunked, Some(5)).read(&mut buf), Err(BodyError::TooLarge));
    }

    #[test]
    fn only_a_body_until_close_ends_when_the_peer_closes() {
        for (framing, end) in [
            (Framing::None, Ok(())),
            (Framing::Length(0), Ok(())),
            (Framing::Length(1), Err(BodyError::Truncated)),
            (Framing::Chunked, Err(BodyError::Truncated)),
            (Framing::UntilClose, Ok(())),
        ] {
            let mut body = BodyReader::new(framing, None);
            assert_eq!(body.eof(), end, "{framing:?}");
            assert_eq!(body.is_end(), end.is_ok());
        }
    }

    #[test]
    fn data_is_passed_on_without_copying() {
        let mut buf = BytesMut::from(&b"5\r\nhello\r\n"[..]);
        let place = buf[3..].as_ptr();
        let Ok(Step::Data(data)) = BodyReader::new(Framing::Chunked, None).read(&mut buf) else { panic!("no data") };
        assert_eq!((data.as_ptr(), &data[..]), (place, &b"hello"[..]));
    }

    #[test]
    fn a_body_is_written_in_its_framing() {
        for (framing, expected) in [
            (Framing::Length(10), &b"hellohello"[..]),
            (Framing::Chunked, b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n"),
            (Framing::UntilClose, b"hellohello"),
        ] {
            let (mut writer, mut out) = (BodyWriter::new(framing), Vec::new());
            for piece in ["hello", "", "hello"] {
                assert_eq!(writer.data(piece.into(), &mut out), Ok(()));
            }
            assert_eq!(writer.end(&mut out), Ok(()));
            assert_eq!(out.concat(), expected);
        }
    }

    #[test]
    fn a_body_of_another_length_is_not_written() {
        for framing in [Framing::None, Framing::Length(4)] {
            let (mut writer, mut out) = (BodyWriter::new(framing), Vec::new());
            assert_eq!(writer.data("hello".into(), &mut out), Err(LengthMismatch));
            assert!(out.is_empty());
        }
        let mut short = BodyWriter::new(Framing::Length(6));
        assert_eq!(short.data("hello".into(), &mut Vec::new()), Ok(()));
        assert_eq!(short.end(&mut Vec::new()), Err(LengthMismatch));
    }
}
