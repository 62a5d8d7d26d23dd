//! Surrogate keys: tags that the origin gives and a purge names.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::reason::Reason;

pub(super) const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
pub(super) const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// Keys of one response: what a page assembled from many parts needs, and what an index entry can bear.
pub const SURROGATE_KEYS_MAX: usize = 256;
/// Bytes of all keys of one response.
pub const SURROGATE_KEYS_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one key.
pub const SURROGATE_KEY_BYTES_MAX: usize = 256;

/// A tag, case-sensitive. Cheap to clone: the index and the stored response share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SurrogateKey(Arc<str>);

impl SurrogateKey {
    /// The tag as a purge names it; `None` when no response could carry it.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= SURROGATE_KEY_BYTES_MAX;
        fits.then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tags of `Surrogate-Key` (between white space) and `Cache-Tag` (between commas), each once.
///
/// # Errors
/// `SurrogateKeys` over a limit: a response of which a purge would not know all keys is not stored.
pub(super) fn parse(fields: &HeaderMap) -> Result<Box<[SurrogateKey]>, Reason> {
    let by_space = fields.get_all(SURROGATE_KEY).iter().map(|line| (line, false));
    let by_comma = fields.get_all(CACHE_TAG).iter().map(|line| (line, true));
    let mut keys = Vec::new();
    let mut bytes = 0;
    for (line, comma) in by_space.chain(by_comma) {
        let line = std::str::from_utf8(line.as_bytes()).map_err(|_| Reason::SurrogateKeys)?;
        for key in line.split(|c: char| if comma { c == ',' } else { c.is_ascii_whitespace() }) {
            let key = key.trim_ascii();
            if key.is_empty() {
                continue;
            }
            bytes += key.len();
            if keys.len() == SURROGATE_KEYS_MAX || bytes > SURROGATE_KEYS_BYTES_MAX {
                return Err(Reason::SurrogateKeys);
            }
            keys.push(SurrogateKey::new(key).ok_or(Reason::SurrogateKeys)?);
        }
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys.into())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parsed(lines: &[(&'static str, String)]) -> Result<Vec<String>, Reason> {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::try_from(value).unwrap());
        }
        parse(&fields).map(|keys| keys.iter().map(|key| key.as_str().to_owned()).collect())
    }

    #[test]
    fn both_fields_give_keys_and_each_key_counts_once() {
        let lines = [
            ("surrogate-key", "course:42  page".to_owned()),
            ("surrogate-key", "page Page".to_owned()),
            ("cache-tag", "a b, course:42,,".to_owned()),
        ];
        assert_eq!(parsed(&lines).unwrap(), ["Page", "a b", "course:42", "page"]);
        assert_eq!(parsed(&[]).unwrap(), [""; 0]);
    }

    #[test]
    fn too_many_or_too_long_keys_are_refused() {
        let many = |n: usize| (0..n).map(|i| format!("k{i}")).collect::<Vec<_>>().join(" ");
        assert_eq!(parsed(&[("surrogate-key", many(256))]).unwrap().len(), 256);
        assert_eq!(parsed(&[("surrogate-key", many(257))]), Err(Reason::SurrogateKeys));
        assert_eq!(parsed(&[("cache-tag", "x".repeat(256))]).unwrap().len(), 1);
        assert_eq!(parsed(&[("cache-tag", "x".repeat(257))]), Err(Reason::SurrogateKeys));
        let bytes = |n: usize| (0..n).map(|i| format!("{i:0>200}")).collect::<Vec<_>>().join(" ");
        assert_eq!(parsed(&[("surrogate-key", bytes(81))]).unwrap().len(), 81);
        assert_eq!(parsed(&[("surrogate-key", bytes(82))]), Err(Reason::SurrogateKeys));
    }
}
