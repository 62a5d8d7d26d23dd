//! HTTP dates of fields (RFC 9110 5.6.7), read as a cache reads them (RFC 9111 4.2).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The longest HTTP date: `Wednesday, 18-Aug-50 02:01:18 GMT`.
const DATE_BYTES_MAX: usize = 33;

/// The last second that an HTTP date can name: 31 December 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// The date in the field's first line; `None` when the field is missing or no HTTP date.
pub(super) fn field(fields: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    parse(fields.get(name)?)
}

/// Any of the three formats, in any case (RFC 9111 4.2: a cache matches case-insensitively); no zone but GMT.
pub(super) fn parse(value: &HeaderValue) -> Option<SystemTime> {
    let raw = value.as_bytes();
    let mut buffer = [0; DATE_BYTES_MAX];
    let text = buffer.get_mut(..raw.len())?;
    let mut in_word = false;
    for (to, &from) in text.iter_mut().zip(raw) {
        *to = if in_word { from.to_ascii_lowercase() } else { from.to_ascii_uppercase() };
        in_word = from.is_ascii_alphabetic();
    }
    if let Some(zone) = text.last_chunk_mut::<3>().filter(|zone| *zone == b"Gmt") {
        *zone = *b"GMT";
    }
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

/// The IMF-fixdate of a time; times that HTTP cannot write become the nearest that it can.
pub(super) fn format(time: SystemTime) -> HeaderValue {
    let seconds = seconds(time).min(LAST_SECOND);
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    HeaderValue::try_from(text).expect("an HTTP date is visible ASCII")
}

/// Whole seconds since the epoch: what HTTP dates are compared in.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_in_three_formats_and_any_case_but_no_other_way() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", at(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", at(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", at(784_111_777)),
            ("sUN, 06 NOV 1994 08:49:37 gMt", at(784_111_777)),
            ("Sun, 21 Nov 2286 04:46:39 GMT", at(10_000_039_599)),
            ("Thu, 18 Aug 2050 02:01:18 UTC", None),
            ("Thu, 18 Aug 2050 02:01:18 AEST", None),
            ("Thu, 18-Aug-2050 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 2:01:18 GMT", None),
            ("Thu 18 Aug 2050 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02.01.18 GMT", None),
            ("Thu, 18  Aug  2050 02:01:18 GMT", None),
            ("0", None),
            ("", None),
            ("Thu, 18 Aug 2050 02:01:18 GMT, and much more", None),
        ] {
            assert_eq!(parse(&HeaderValue::from_static(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_486_897_999);
        assert_eq!(parse(&format(time)), Some(UNIX_EPOCH + Duration::from_secs(1_795_486_897)));
        assert_eq!(
            format(UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 1000)),
            "Fri, 31 Dec 9999 23:59:59 GMT"
        );
    }
}
