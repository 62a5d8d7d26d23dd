//! What the law keeps of a stored response as bytes, for tiers that outlive the process.
//!
//! V1. Numbers are little-endian. What does not decode is no response: tiers check their bytes before, so that is another
//! version's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use strum::IntoEnumIterator as _;

use super::{
    freshness::{Lifetime, LifetimeSource},
    meta::Meta,
    surrogate::{SURROGATE_KEYS_MAX, SurrogateKey},
    vary::Vary,
};

const VERSION: u8 = 1;
/// Field lines of a head; what an origin may send at most is far below.
const FIELDS_MAX: usize = 4_096;

impl Meta {
    /// Appends itself to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_u32(out, self.status.as_u16().into());
        put_duration(out, self.corrected_initial_age);
        put_time(out, self.response_time);
        put_duration(out, self.lifetime.duration);
        out.push(source_byte(self.lifetime.source));
        for window in [self.stale_while_revalidate, self.stale_if_error] {
            out.push(window.is_some().into());
            put_duration(out, window.unwrap_or_default());
        }
        out.push(self.no_cache.into());
        out.push(self.never_stale.into());
        put_time(out, self.date);
        out.push(self.last_modified.is_some().into());
        put_time(out, self.last_modified.unwrap_or(UNIX_EPOCH));
        match &self.vary {
            Vary::None => put_u32(out, 0),
            Vary::Star => put_u32(out, u32::MAX),
            Vary::Fields(names) => {
                put_u32(out, names.len() as u32);
                names.iter().for_each(|name| put_bytes(out, name.as_str().as_bytes()));
            }
        }
        put_u32(out, self.surrogate_keys.len() as u32);
        self.surrogate_keys.iter().for_each(|key| put_bytes(out, key.as_str().as_bytes()));
        put_u32(out, self.fields.len() as u32);
        for (name, value) in &self.fields {
            put_bytes(out, name.as_str().as_bytes());
            put_bytes(out, value.as_bytes());
        }
    }

    /// What [`Meta::encode`] wrote, and nothing behind it.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = bytes;
        let from = &mut from;
        if byte(from)? != VERSION {
            return None;
        }
        let status = StatusCode::from_u16(u16::try_from(u32(from)?).ok()?).ok()?;
        let corrected_initial_age = duration(from)?;
        let response_time = time(from)?;
        let lifetime = Lifetime { duration: duration(from)?, source: source(byte(from)?)? };
        let stale_while_revalidate = window(from)?;
        let stale_if_error = window(from)?;
        let (no_cache, never_stale) = (flag(from)?, flag(from)?);
        let date = time(from)?;
        let has_last_modified = flag(from)?;
        let last_modified = Some(time(from)?).filter(|_| has_last_modified);
        let vary = match u32(from)? {
            0 => Vary::None,
            u32::MAX => Vary::Star,
            count if count as usize <= FIELDS_MAX => {
                Vary::Fields((0..count).map(|_| HeaderName::from_bytes(text(from)?).ok()).collect::<Option<_>>()?)
            }
            _ => return None,
        };
        let count = u32(from)? as usize;
        let key = |from: &mut &[u8]| SurrogateKey::new(std::str::from_utf8(text(from)?).ok()?);
        let surrogate_keys = (0..count.min(SURROGATE_KEYS_MAX + 1)).map(|_| key(from)).collect::<Option<_>>()?;
        let count = u32(from)? as usize;
        if count > FIELDS_MAX {
            return None;
        }
        let mut fields = HeaderMap::with_capacity(count);
        for _ in 0..count {
            let name = HeaderName::from_bytes(text(from)?).ok()?;
            fields.append(name, HeaderValue::from_bytes(text(from)?).ok()?);
        }
        from.is_empty().then_some(Self {
            status,
            has_etag: fields.contains_key(header::ETAG),
            fields,
            corrected_initial_age,
            response_time,
            lifetime,
            stale_while_revalidate,
            stale_if_error,
            no_cache,
            never_stale,
            date,
            last_modified,
            vary,
            surrogate_keys,
        })
    }
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}

fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    out.extend_from_slice(&duration.as_secs().to_le_bytes());
    put_u32(out, duration.subsec_nanos());
}

/// Times before 1970, which only a date of an origin can be, count as that.
fn put_time(out: &mut Vec<u8>, time: SystemTime) {
    put_duration(out, time.duration_since(UNIX_EPOCH).unwrap_or_default());
}

fn array<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*first)
}

fn byte(from: &mut &[u8]) -> Option<u8> {
    array::<1>(from).map(|[byte]| byte)
}

fn flag(from: &mut &[u8]) -> Option<bool> {
    match byte(from)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn u32(from: &mut &[u8]) -> Option<u32> {
    array(from).map(u32::from_le_bytes)
}

fn text<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32(from)? as usize;
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(text)
}

fn duration(from: &mut &[u8]) -> Option<Duration> {
    let seconds = array(from).map(u64::from_le_bytes)?;
    let nanos = u32(from)?;
    // Sums of a few must not overflow, whatever was read.
    (nanos < 1_000_000_000 && seconds < u64::MAX / 16).then(|| Duration::new(seconds, nanos))
}

fn time(from: &mut &[u8]) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(duration(from)?)
}

fn window(from: &mut &[u8]) -> Option<Option<Duration>> {
    let is_there = flag(from)?;
    duration(from).map(|window| Some(window).filter(|_| is_there))
}

fn source_byte(source: LifetimeSource) -> u8 {
    match source {
        LifetimeSource::None => 0,
        LifetimeSource::ForceTtl => 1,
        LifetimeSource::SMaxage => 2,
        LifetimeSource::MaxAge => 3,
        LifetimeSource::Expires => 4,
        LifetimeSource::StatusTtl => 5,
        LifetimeSource::DefaultTtl => 6,
        LifetimeSource::Heuristic => 7,
        LifetimeSource::TtlRule => 8,
    }
}

fn source(byte: u8) -> Option<LifetimeSource> {
    LifetimeSource::iter().find(|source| source_byte(*source) == byte)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{RequestView, ResponseView, Times, VariantKey, policy::Policy, store},
        *,
    };

    fn stored(lines: &[(&'static str, &'static str)]) -> Meta {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::from_static(value));
        }
        let request = HeaderMap::new();
        let view = RequestView { method: &http::Method::GET, fields: &request };
        let response = ResponseView { status: StatusCode::OK, fields: &fields, complete_length: Some(3) };
        let at = UNIX_EPOCH + Duration::from_millis(1_795_486_897_400);
        let times = Times { request_time: at, response_time: at + Duration::from_millis(30) };
        store(&view, &response, times, &Policy::default()).expect("storable")
    }

    fn samples() -> Vec<Meta> {
        vec![
            stored(&[("cache-control", "max-age=60")]),
            stored(&[
                ("cache-control", "max-age=60, stale-while-revalidate=5"),
                ("cache-control", "stale-if-error=7"),
                ("vary", "accept-language, accept-encoding"),
                ("surrogate-key", "course:42 page"),
                ("last-modified", "Tue, 24 Nov 2026 07:00:00 GMT"),
                ("etag", "\"a\""),
                ("x-a", "1"),
                ("x-b", "2"),
                ("x-a", "3"),
            ]),
            stored(&[("cache-control", "s-maxage=0, no-cache"), ("age", "5"), ("etag", "\"b\"")]),
        ]
    }

    fn bytes(meta: &Meta) -> Vec<u8> {
        let mut out = Vec::new();
        meta.encode(&mut out);
        out
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        for meta in samples() {
            let read = Meta::decode(&bytes(&meta)).expect("it was written");
            assert_eq!(format!("{read:?}"), format!("{meta:?}"));
            let lines = |meta: &Meta| meta.fields.iter().map(|line| format!("{line:?}")).collect::<Vec<_>>();
            assert_eq!(lines(&read), lines(&meta), "in the same sequence");
        }
    }

    #[test]
    fn every_source_of_a_lifetime_has_its_byte() {
        for of in LifetimeSource::iter() {
            assert_eq!(source(source_byte(of)), Some(of));
        }
        assert_eq!(source(u8::MAX), None);
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_none() {
        for meta in samples() {
            let whole = bytes(&meta);
            assert!((0..whole.len()).all(|cut| Meta::decode(&whole[..cut]).is_none()));
            assert!(Meta::decode(&[&whole[..], b"x"].concat()).is_none());
        }
    }

    #[test]
    fn changed_bytes_never_make_it_panic() {
        for meta in samples() {
            let whole = bytes(&meta);
            for at in 0..whole.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut bad = whole.clone();
                    bad[at] ^= flip;
                    if let Some(read) = Meta::decode(&bad) {
                        let _ = (read.age(read.date + Duration::from_secs(1)), read.ttl(read.response_time));
                        let _ = VariantKey::of(&read.vary, &HeaderMap::new());
                    }
                }
            }
        }
    }
}
