//! Names for requests: `X-Request-Id` and `traceparent`.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use http::HeaderValue;

/// Makes request ids: a random prefix of the process and a scrambled counter, so that ids are unique without
/// a random number per request.
#[derive(Debug)]
pub struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub fn new() -> Self {
        Self { process: random(), next: AtomicU64::new(random()) }
    }

    pub fn next(&self) -> RequestId {
        // An odd multiplier is a bijection: consecutive counters look unlike each other and never meet.
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        RequestId::from_parts(self.process, count.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

/// 64 bits that nobody outside the process can guess.
pub fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// 128 bits in 32 lower-case hexadecimal digits; the trace id as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId([u8; 32]);

impl RequestId {
    pub fn from_parts(high: u64, low: u64) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (half, bits) in text.chunks_exact_mut(16).zip([high, low]) {
            for (pair, byte) in half.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
                pair[0] = DIGITS[usize::from(byte >> 4)];
                pair[1] = DIGITS[usize::from(byte & 15)];
            }
        }
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are text")
    }

    pub fn value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("hexadecimal digits are a field value")
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Our span of the trace, as W3C Trace Context has it: 16 digits.
    pub fn span(&self) -> &[u8] {
        &self.0[16..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_hexadecimal() {
        let ids = RequestIds::new();
        let (one, two) = (ids.next(), ids.next());
        assert_ne!(one, two);
        assert!(one.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(one.span().len(), 16);
    }
}
