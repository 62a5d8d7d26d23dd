//! Byte ranges of requests (RFC 9110, section 14), as a pure function.

use std::ops::RangeInclusive;

/// What a `Range` field means for a representation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// No range, one that we do not understand, or several: the whole, which is always allowed.
    Whole,
    /// These bytes.
    Part(RangeInclusive<u64>),
    /// Bytes that are not there: 416.
    Unsatisfiable,
}

/// Reads a `Range` field for a representation of `length` bytes.
#[must_use]
pub fn wanted(field: Option<&str>, length: u64) -> Wanted {
    let Some((unit, set)) = field.and_then(|field| field.split_once('=')) else { return Wanted::Whole };
    // Several ranges are answered whole: nobody who plays a video or resumes a download asks for them.
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Wanted::Whole };
    match (position(first), position(last)) {
        (Position::Absent, Position::At(suffix)) => {
            if suffix == 0 || length == 0 {
                Wanted::Unsatisfiable
            } else {
                Wanted::Part(length.saturating_sub(suffix)..=length - 1)
            }
        }
        (Position::At(first), Position::At(last)) if last < first => Wanted::Whole,
        (Position::At(first), _) if first >= length => Wanted::Unsatisfiable,
        (Position::At(first), Position::At(last)) => Wanted::Part(first..=last.min(length - 1)),
        (Position::At(first), Position::Absent) => Wanted::Part(first..=length - 1),
        _ => Wanted::Whole,
    }
}

enum Position {
    Absent,
    At(u64),
    Wrong,
}

fn position(text: &str) -> Position {
    if text.is_empty() {
        Position::Absent
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a position behind everything.
        Position::At(text.parse().unwrap_or(u64::MAX))
    } else {
        Position::Wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_the_rfc_says() {
        let whole = Wanted::Whole;
        let not_there = Wanted::Unsatisfiable;
        let part = |range| Wanted::Part(range);
        for (field, expected) in [
            ("bytes=0-0", part(0..=0)),
            ("bytes=0-499", part(0..=499)),
            ("bytes=500-", part(500..=999)),
            ("bytes=990-5000", part(990..=999)),
            ("bytes=-1", part(999..=999)),
            ("bytes=-5000", part(0..=999)),
            ("Bytes=1-2", part(1..=2)),
            ("bytes=0-99999999999999999999", part(0..=999)),
            ("bytes=1000-", not_there.clone()),
            ("bytes=1000-2000", not_there.clone()),
            ("bytes=99999999999999999999-", not_there.clone()),
            ("bytes=-0", not_there.clone()),
            ("bytes=2-1", whole.clone()),
            ("bytes=0-1,3-4", whole.clone()),
            ("bytes=-", whole.clone()),
            ("bytes=a-b", whole.clone()),
            ("bytes=+1-2", whole.clone()),
            ("bytes", whole.clone()),
            ("lines=0-1", whole.clone()),
        ] {
            assert_eq!(wanted(Some(field), 1000), expected, "{field}");
        }
        assert_eq!(wanted(None, 1000), whole);
        assert_eq!(wanted(Some("bytes=0-0"), 0), not_there);
        assert_eq!(wanted(Some("bytes=-1"), 0), not_there);
    }
}
