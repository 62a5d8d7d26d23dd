//! The lib0 encoding that Yjs messages are made of: variable-length integers, buffers, strings.
//!
//! A varUint holds 7 bits per byte, least significant first; the top bit says that another byte follows. A buffer is a
//! varUint length and that many bytes; a string is a buffer of UTF-8.

/// Largest integer that a JavaScript peer can hold exactly (`Number.MAX_SAFE_INTEGER`); lib0 refuses larger ones too.
pub const VAR_UINT_MAX: u64 = (1 << 53) - 1;

/// 8 groups of 7 bits reach past [`VAR_UINT_MAX`]; a longer encoding is padding or an attack.
const VAR_UINT_BYTES_MAX: usize = 8;

/// Why bytes are not lib0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lib0Error {
    /// A value goes on past the end of the message.
    #[error("the message ends inside a value")]
    Truncated,
    /// An integer above [`VAR_UINT_MAX`].
    #[error("an integer is above 2^53 - 1")]
    TooLarge,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
}

/// Reads lib0 values off the front of a message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Whether everything has been read.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads an unsigned integer.
    pub fn var_uint(&mut self) -> Result<u64, Lib0Error> {
        let mut value = 0_u64;
        for index in 0..VAR_UINT_BYTES_MAX {
            let (&byte, rest) = self.rest.split_first().ok_or(Lib0Error::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return if value <= VAR_UINT_MAX { Ok(value) } else { Err(Lib0Error::TooLarge) };
            }
        }
        Err(Lib0Error::TooLarge)
    }

    /// Reads a length and that many bytes. Allocates nothing: a length that lies is [`Lib0Error::Truncated`].
    pub fn buffer(&mut self) -> Result<&'a [u8], Lib0Error> {
        let length = self.var_uint()?;
        let length = usize::try_from(length).map_err(|_| Lib0Error::TooLarge)?;
        let (buffer, rest) = self.rest.split_at_checked(length).ok_or(Lib0Error::Truncated)?;
        self.rest = rest;
        Ok(buffer)
    }

    /// Reads a string.
    pub fn string(&mut self) -> Result<&'a str, Lib0Error> {
        std::str::from_utf8(self.buffer()?).map_err(|_| Lib0Error::NotUtf8)
    }
}

/// Appends an unsigned integer in its shortest form.
pub fn write_var_uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub fn write_buffer(out: &mut Vec<u8>, bytes: &[u8]) {
    write_var_uint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    write_buffer(out, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_have_the_bytes_that_lib0_gives_them() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (300, &[0xac, 0x02]),
            (VAR_UINT_MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut out = Vec::new();
            write_var_uint(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(Reader::new(bytes).var_uint(), Ok(value));
        }
    }

    #[test]
    fn what_is_not_lib0_is_an_error_and_never_a_panic() {
        for (bytes, error) in [
            (&[][..], Lib0Error::Truncated),
            (&[0x80], Lib0Error::Truncated),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f], Lib0Error::TooLarge),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], Lib0Error::TooLarge),
        ] {
            assert_eq!(Reader::new(bytes).var_uint(), Err(error), "{bytes:?}");
        }
        assert_eq!(Reader::new(&[5, 1, 2]).buffer(), Err(Lib0Error::Truncated));
        assert_eq!(Reader::new(&[1, 0xff]).string(), Err(Lib0Error::NotUtf8));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(number in 0..=VAR_UINT_MAX, text in ".*", bytes: Vec<u8>) {
            let mut out = Vec::new();
            write_var_uint(&mut out, number);
            write_string(&mut out, &text);
            write_buffer(&mut out, &bytes);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.var_uint(), Ok(number));
            prop_assert_eq!(reader.string(), Ok(text.as_str()));
            prop_assert_eq!(reader.buffer(), Ok(bytes.as_slice()));
            prop_assert!(reader.is_at_end());
        }

        #[test]
        fn any_bytes_can_be_read_without_a_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while !reader.is_at_end() && reader.string().is_ok() {}
        }
    }
}
