//! Ranges of a stored body (RFC 9110 section 14): which bytes a request gets, and the fields and part heads they need.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{conditional::strong_match, date, meta::Meta, storable::RequestView};

/// Ranges in one request; a request for more is answered whole (RFC 9110 14.2 allows to ignore it). Readers of big
/// documents ask for a handful at a time.
pub const RANGES_MAX: usize = 32;

/// Ranges that are no further apart are sent as one: the gap costs less than the head of a part.
const GAP_MAX: u64 = 80;

/// What of the body is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of it: no range was asked for, or not in a way that counts.
    Whole,
    /// 206 with [`content_range`].
    Single(Range<u64>),
    /// 206 as `multipart/byteranges`; no two overlap, in the order in which they were asked for.
    Many(Vec<Range<u64>>),
    /// 416 with [`unsatisfied_range`].
    Unsatisfiable,
}

/// Which bytes of a representation a 206 carries (RFC 9110 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    /// After the last byte.
    pub end: u64,
    /// Of the complete representation.
    pub length: u64,
}

impl Span {
    /// Of a 206 with one range; `None` for several, and where the complete length is not said.
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let mut lines = fields.get_all(header::CONTENT_RANGE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        let (unit, rest) = line.to_str().ok()?.trim().split_once(' ')?;
        let (range, length) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |digits: &str| -> Option<u64> {
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if is_number { digits.parse().ok() } else { None }
        };
        let (start, last, length) = (number(first)?, number(last)?, number(length)?);
        let holds = unit.eq_ignore_ascii_case("bytes") && start <= last && last < length;
        holds.then_some(Self { start, end: last + 1, length })
    }

    /// Are all these bytes in it?
    pub fn covers(&self, range: &Range<u64>) -> bool {
        self.start <= range.start && range.end <= self.end
    }

    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }
}

impl Selection {
    /// The bytes that are sent of a body of this length, in this order.
    pub fn ranges(&self, length: u64) -> Vec<Range<u64>> {
        match self {
            Self::Whole => Vec::from([Range { start: 0, end: length }]),
            Self::Single(range) => vec![range.clone()],
            Self::Many(ranges) => ranges.clone(),
            Self::Unsatisfiable => Vec::new(),
        }
    }
}

/// `Range` that asks an origin for these bytes of a body of `length`.
pub fn range_field(range: &Range<u64>, length: Option<u64>) -> HeaderValue {
    match length {
        Some(length) if length == range.end => ascii(format!("bytes={}-", range.start)),
        _ => ascii(format!("bytes={}-{}", range.start, range.end.saturating_sub(1))),
    }
}

/// `range` grown to whole slices of a body of `length`, where that is known.
pub fn slices(range: &Range<u64>, slice: u64, length: Option<u64>) -> Range<u64> {
    let start = range.start / slice * slice;
    let end = range.end.div_ceil(slice).saturating_mul(slice);
    start..length.map_or(end, |length| end.min(length))
}

/// The first byte that a request for one range names, where it names one: `bytes=500-999` or `bytes=500-`.
pub fn first_position(range: &HeaderValue) -> Option<u64> {
    let (unit, spec) = range.to_str().ok()?.split_once('=')?;
    let (first, _) = spec.trim().split_once('-')?;
    if spec.contains(',') || !unit.trim().eq_ignore_ascii_case("bytes") || first.is_empty() {
        return None;
    }
    position(first)
}

/// Decides, after the preconditions have been met: `Range` and `If-Range` count only for GET and only on a 200.
pub fn select(request: &RequestView<'_>, meta: &Meta, length: u64) -> Selection {
    let mut lines = request.fields.get_all(header::RANGE).iter();
    let (Some(range), None) = (lines.next(), lines.next()) else {
        return Selection::Whole;
    };
    if request.method != Method::GET || meta.status != StatusCode::OK || !if_range_holds(request, meta) {
        return Selection::Whole;
    }
    match ranges(range.as_bytes(), length).map(coalesce) {
        None => Selection::Whole,
        Some(ranges) => match &*ranges {
            [] => Selection::Unsatisfiable,
            [one] => Selection::Single(one.clone()),
            _ => Selection::Many(ranges),
        },
    }
}

/// RFC 9110 13.1.5: only a strong validator, exactly the stored one.
fn if_range_holds(request: &RequestView<'_>, meta: &Meta) -> bool {
    let mut lines = request.fields.get_all(header::IF_RANGE).iter();
    let Some(validator) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    let text = validator.as_bytes();
    if text.starts_with(b"\"") || text.starts_with(b"W/") {
        return strong_match(text, meta);
    }
    // A date is strong only if the response was made at least a second after it (8.8.2.2).
    date::parse(validator)
        .is_some_and(|asked| meta.last_modified == Some(asked) && date::seconds(meta.date) > date::seconds(asked))
}

/// The satisfiable ranges of a `bytes` range-set, as asked for; `None` when it is to be ignored.
fn ranges(text: &[u8], length: u64) -> Option<Vec<Range<u64>>> {
    let text = std::str::from_utf8(text).ok()?;
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut asked = 0;
    let mut ranges = Vec::new();
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        asked += 1;
        if asked > RANGES_MAX {
            return None;
        }
        let (first, last) = spec.split_once('-')?;
        let range = if first.is_empty() {
            length.saturating_sub(position(last)?)..length
        } else {
            let first = position(first)?;
            let end = match last {
                "" => length,
                last => position(last).filter(|&last| last >= first)?.saturating_add(1),
            };
            first..end.min(length)
        };
        if range.start < range.end {
            ranges.push(range);
        }
    }
    (asked > 0).then_some(ranges)
}

/// `1*DIGIT`; what does not fit lies behind every body.
fn position(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Joins ranges that overlap or nearly touch, so that no byte is sent twice; each stands where its first part stood.
fn coalesce(asked: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(asked.len());
    for mut range in asked {
        let mut place = joined.len();
        let mut at = 0;
        while at < joined.len() {
            let other = &joined[at];
            if range.start <= other.end.saturating_add(GAP_MAX) && other.start <= range.end.saturating_add(GAP_MAX) {
                range = range.start.min(other.start)..range.end.max(other.end);
                place = place.min(at);
                joined.remove(at);
                // The grown range may reach one that it did not reach before.
                at = 0;
            } else {
                at += 1;
            }
        }
        joined.insert(place.min(joined.len()), range);
    }
    joined
}

/// `Content-Range` of a part.
pub fn content_range(range: &Range<u64>, length: u64) -> HeaderValue {
    ascii(format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1)))
}

/// `Content-Range` of a 416.
pub fn unsatisfied_range(length: u64) -> HeaderValue {
    ascii(format!("bytes */{length}"))
}

/// `Content-Type` of a 206 with many ranges. `boundary`: letters and digits that the body does not hold.
pub fn multipart_content_type(boundary: &str) -> HeaderValue {
    HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}"))
        .unwrap_or(HeaderValue::from_static("multipart/byteranges"))
}

/// What goes before the bytes of a range; the first part's too begins with the line end that may precede a boundary.
pub fn part_head(boundary: &str, content_type: Option<&HeaderValue>, range: &Range<u64>, length: u64) -> Vec<u8> {
    let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
    if let Some(content_type) = content_type {
        head.extend_from_slice(b"Content-Type: ");
        head.extend_from_slice(content_type.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"Content-Range: ");
    head.extend_from_slice(content_range(range, length).as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// What goes after the last part.
pub fn multipart_end(boundary: &str) -> Vec<u8> {
    format!("\r\n--{boundary}--\r\n").into_bytes()
}

/// `Content-Length` of the whole multipart body.
pub fn multipart_length(boundary: &str, content_type: Option<&HeaderValue>, ranges: &[Range<u64>], length: u64) -> u64 {
    let part =
        |range: &Range<u64>| part_head(boundary, content_type, range, length).len() as u64 + (range.end - range.start);
    ranges.iter().map(part).sum::<u64>() + multipart_end(boundary).len() as u64
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits and punctuation are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_to_the_letter() {
        for (text, expected) in [
            ("bytes 0-4/10", Some((0, 5, 10))),
            ("Bytes 9-9/10", Some((9, 10, 10))),
            ("bytes 0-10/10", None),
            ("bytes 5-4/10", None),
            ("bytes 0-4/*", None),
            ("bytes */10", None),
            ("bytes +0-4/10", None),
            ("items 0-4/10", None),
            ("bytes 0-18446744073709551616/10", None),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(header::CONTENT_RANGE, HeaderValue::from_static(text));
            let span = expected.map(|(start, end, length)| Span { start, end, length });
            assert_eq!(Span::of(&fields), span, "{text}");
        }
    }

    #[test]
    fn ranges_grow_to_slices() {
        assert_eq!(slices(&(5..6), 4, None), 4..8);
        assert_eq!(slices(&(4..9), 4, Some(10)), 4..10);
        assert_eq!(range_field(&(4..10), Some(10)), "bytes=4-");
        assert_eq!(range_field(&(4..8), Some(10)), "bytes=4-7");
        for (text, expected) in
            [("bytes=5-", Some(5)), ("bytes=5-9", Some(5)), ("bytes=-5", None), ("bytes=1-2,4-5", None)]
        {
            assert_eq!(first_position(&HeaderValue::from_static(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_multipart_body_is_heads_and_bytes_between_boundaries() {
        let body = b"0123456789";
        let content_type = HeaderValue::from_static("text/plain");
        let mut text = Vec::new();
        for range in [0..2, 7..10] {
            text.extend(part_head("edge", Some(&content_type), &range, 10));
            text.extend(&body[range.start as usize..range.end as usize]);
        }
        text.extend(multipart_end("edge"));
        assert_eq!(
            String::from_utf8(text.clone()).unwrap(),
            "\r\n--edge\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--edge\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-9/10\r\n\r\n789\
             \r\n--edge--\r\n"
        );
        assert_eq!(multipart_length("edge", Some(&content_type), &[0..2, 7..10], 10), text.len() as u64);
        assert_eq!(multipart_content_type("edge"), "multipart/byteranges; boundary=edge");
        assert_eq!(unsatisfied_range(10), "bytes */10");
    }
}
