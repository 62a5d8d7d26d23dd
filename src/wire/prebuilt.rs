//! Response heads that are written once and sent often.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, StatusCode};

use super::{
    framing::{Framing, Version},
    write,
};

/// Holes of one head.
pub const HOLES_MAX: usize = 4;

/// A response head as text, but for what differs from answer to answer: holes in values, and how the message ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prebuilt {
    status: StatusCode,
    text: Box<[u8]>,
    /// Where the text has holes, in order, and which.
    holes: [(u32, u8); HOLES_MAX],
    count: u8,
}

/// How a message ends, and whether the connection stays. See [`write_response_head`](super::write_response_head).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    pub version: Version,
    pub framing: Framing,
    /// Where no body follows.
    pub announced_length: Option<u64>,
    pub keep_alive: bool,
}

impl Prebuilt {
    /// The head with these fields. `holes`: which part of a field's only value differs each time: the bytes before it and
    /// its length. A field that is not there has no hole.
    ///
    /// # Panics
    /// When there are more than [`HOLES_MAX`], or a hole lies outside its value: whoever asks has just made them.
    #[must_use]
    pub fn new(status: StatusCode, fields: &HeaderMap, holes: &[(&HeaderName, usize, usize)]) -> Self {
        assert!(holes.len() <= HOLES_MAX, "a head has few holes");
        let mut text = BytesMut::new();
        write::put_status(&mut text, status);
        let mut found = [(0, 0); HOLES_MAX];
        let mut count = 0;
        for (name, value) in fields.iter().filter(|(name, _)| !write::is_framing(name)) {
            write::put(&mut text, &[name.as_str().as_bytes(), b": "]);
            let value = value.as_bytes();
            match holes.iter().position(|(holed, ..)| *holed == name) {
                None => text.put_slice(value),
                Some(hole) => {
                    let (_, before, length) = holes[hole];
                    text.put_slice(&value[..before]);
                    let at = u32::try_from(text.len()).expect("a head is small");
                    found[usize::from(count)] = (at, hole as u8);
                    count += 1;
                    text.put_slice(&value[before + length..]);
                }
            }
            text.put_slice(b"\r\n");
        }
        Self { status, text: text[..].into(), holes: found, count }
    }

    /// Writes the head, with `fillings` in its holes by their numbers. They are of visible ASCII.
    pub fn write(&self, out: &mut BytesMut, fillings: &[&[u8]; HOLES_MAX], ending: Ending) {
        const REST: usize = 128;
        let filled: usize = fillings.iter().map(|filling| filling.len()).sum();
        out.reserve(self.text.len() + filled + REST);
        let mut from = 0;
        for (at, hole) in &self.holes[..usize::from(self.count)] {
            let (at, filling) = (*at as usize, fillings[usize::from(*hole)]);
            debug_assert!(filling.iter().all(|byte| byte.is_ascii_graphic()), "a value that was not checked");
            write::put(out, &[&self.text[from..at], filling]);
            from = at;
        }
        out.put_slice(&self.text[from..]);
        write::put_ending(out, self.status, ending);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn a_prebuilt_head_is_the_head_that_is_written_anew() {
        let fields = |age: &str, control: &str, id: &str| {
            let mut fields = HeaderMap::new();
            for (name, value) in [
                ("content-type", "text/plain"),
                ("cache-control", control),
                ("x-a", "1"),
                ("x-a", "2"),
                ("content-length", "9"),
                ("age", age),
                ("x-request-id", id),
            ] {
                fields.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            fields
        };
        let id = HeaderName::from_static("x-request-id");
        let first = fields("17", "max-age=60, private", "abc");
        let holes = [(&header::AGE, 0, 2), (&id, 0, 3), (&header::CACHE_CONTROL, 8, 2), (&header::VIA, 0, 0)];
        let prebuilt = Prebuilt::new(StatusCode::OK, &first, &holes);
        for (version, framing, announced_length, keep_alive) in [
            (Version::Http11, Framing::Length(1), None, true),
            (Version::Http11, Framing::None, Some(1), false),
            (Version::Http10, Framing::Length(0), None, true),
        ] {
            let (mut written, mut expected) = (BytesMut::new(), BytesMut::new());
            let fillings: [&[u8]; HOLES_MAX] = [b"1234", b"defg", b"5", b"not there"];
            prebuilt.write(&mut written, &fillings, Ending { version, framing, announced_length, keep_alive });
            let fields = fields("1234", "max-age=5, private", "defg");
            let status = StatusCode::OK;
            super::super::write_response_head(
                &mut expected,
                version,
                status,
                &fields,
                framing,
                announced_length,
                keep_alive,
            );
            assert_eq!(written, expected);
        }
    }
}
