//! Ids of database rows: UUID version 7 as text, so that they sort by the time they were made.

use std::{
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use uuid::{ContextV7, Timestamp, Uuid};

/// Keeps ids of the same millisecond in the order they were made (RFC 9562, section 6.2).
static CONTEXT: Mutex<ContextV7> = Mutex::new(ContextV7::new());

/// A new id: 36 lower-case characters.
#[must_use]
pub fn new_id(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Uuid::new_v7(Timestamp::from_unix(&CONTEXT, since.as_secs(), since.subsec_nanos())).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_sort_by_the_time_they_were_made_also_within_a_millisecond() {
        let start = UNIX_EPOCH + Duration::from_millis(1_795_486_897_000);
        let ids: Vec<_> = (0..200).map(|n| new_id(start + Duration::from_millis(n / 50))).collect();
        assert!(ids.is_sorted() && ids[0].len() == 36, "{ids:?}");
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
    }
}
