//! The backends' only reader of the wall clock; everything else is handed the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock, now.
#[must_use]
pub fn now() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    SystemTime::now()
}

/// Milliseconds since the Unix epoch: how a time is stored in the database and written in JSON.
///
/// A time before 1970 counts as 0, one beyond the range of `i64` as its end.
#[must_use]
pub fn unix_ms(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The time that [`unix_ms`] wrote; a negative number is the epoch.
#[must_use]
pub fn from_unix_ms(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_survive_the_round_trip() {
        for ms in [0, 1, 1_795_486_897_123] {
            assert_eq!(unix_ms(from_unix_ms(ms)), ms);
        }
        assert_eq!(unix_ms(from_unix_ms(-5)), 0);
    }
}
