//! This node's place in the purge log, and what of the log comes next: pure, so that every broken log is a row of a test.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{Order, Sink};

/// An entry of the log as Redis gives it: the stream id, then names and values.
pub(super) type Raw = (String, HashMap<String, Vec<u8>>);

/// The last entry that was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Empty: none yet.
    pub(super) epoch: String,
    pub(super) n: u64,
    pub(super) id: String,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) n: u64,
    pub(super) id: String,
    /// The id of the entry before it.
    pub(super) prev: String,
    pub(super) node: String,
    /// By the clock of `node`.
    pub(super) at: SystemTime,
    pub(super) order: Order,
}

/// What an entry is to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The one that follows.
    Follows,
    /// Applied already.
    Known,
    /// Something between is missing, or the log is not the one that was read so far.
    Gap,
}

impl Place {
    pub(super) fn next(&self, entry: &Entry) -> Next {
        if entry.n <= self.n {
            Next::Known
        } else if entry.n == self.n + 1 && entry.prev == self.id {
            Next::Follows
        } else {
            Next::Gap
        }
    }

    /// Has it kept beside what is stored.
    pub(super) fn tell(&self, sink: &dyn Sink) {
        // Two texts and a number always serialise.
        sink.reached(&serde_json::to_string(self).unwrap_or_default());
    }

    pub(super) fn advance(&mut self, entry: &Entry) {
        self.n = entry.n;
        self.id.clone_from(&entry.id);
    }
}

impl Entry {
    /// Reads an entry. What cannot be read as an order may have meant anything: then it means everything.
    pub(super) fn parse((stream_id, mut fields): Raw) -> Option<Self> {
        let n = stream_id.strip_suffix("-0")?.parse().ok()?;
        let mut text = |name: &str| {
            let value = fields.remove(name).unwrap_or_default();
            String::from_utf8(value).unwrap_or_default()
        };
        let at = Duration::from_millis(text("at").parse().unwrap_or_default());
        let order = text("order");
        let order = serde_json::from_str(&order).unwrap_or_else(|error| {
            tracing::warn!(n, %error, "an entry of the purge log cannot be read; everything counts as purged");
            Order::everything()
        });
        Some(Self { n, id: text("id"), prev: text("prev"), node: text("node"), at: UNIX_EPOCH + at, order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64, id: &str, prev: &str) -> Entry {
        let at = UNIX_EPOCH;
        Entry { n, id: id.into(), prev: prev.into(), node: "e1".into(), at, order: Order::default() }
    }

    #[test]
    fn only_the_entry_that_follows_the_last_one_is_next() {
        let place = Place { epoch: "e".into(), n: 5, id: "five".into() };
        for (name, entry, expected) in [
            ("the next", entry(6, "six", "five"), Next::Follows),
            ("the same", entry(5, "five", "four"), Next::Known),
            ("an older one", entry(1, "one", ""), Next::Known),
            ("one too far", entry(7, "seven", "six"), Next::Gap),
            ("the next of another past", entry(6, "six", "other"), Next::Gap),
        ] {
            assert_eq!(place.next(&entry), expected, "{name}");
        }
    }

    #[test]
    fn an_order_that_cannot_be_read_means_everything() {
        let fields = |order: &str| {
            let pairs = [("id", "a"), ("prev", "b"), ("node", "n"), ("at", "1500"), ("order", order)];
            pairs.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into_iter().collect()
        };
        let parsed = Entry::parse(("7-0".into(), fields(r#"{"hosts":["a.test"],"soft":true}"#))).unwrap();
        assert_eq!((parsed.n, parsed.at), (7, UNIX_EPOCH + Duration::from_millis(1500)));
        assert_eq!(parsed.order, Order { hosts: vec!["a.test".into()], soft: true, ..Order::default() });
        let newer = [r#"{"tags":["x"]}"#, r#"{"urls":[{"host":"a.test","target":"/","scheme":"http"}]}"#];
        for order in ["", "{", r#"{"urls":7}"#].into_iter().chain(newer) {
            assert_eq!(Entry::parse(("7-0".into(), fields(order))).unwrap().order, Order::everything(), "{order}");
        }
        assert_eq!(Entry::parse(("7-1".into(), fields("{}"))), None, "no entry of ours");
    }
}
