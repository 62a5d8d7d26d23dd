//! Who is in a room and what they say about themselves: the awareness table, pure, with time as an argument.
//!
//! Every y-websocket client sends each awareness change that it *receives* back to the server. A server that relays
//! those echoes sends N^2 messages per change, and one that lets a connection own every id it has mentioned removes
//! everybody when one client leaves. Hence the rules here:
//!
//! - An entry is taken and relayed only when it is newer than what the table has.
//! - A connection owns an id that it *added*. Only the owner can remove it.
//! - When a connection ends, what it owned stays for [`REMOVAL_GRACE`], so that a client that reconnects is never seen
//!   to leave: peers would ignore it until its next renewal, because they compare clocks.
//! - An entry that nobody has renewed for [`EXPIRES_AFTER`] is removed.
//!
//! Removed ids are remembered for [`EXPIRES_AFTER`], or a late echo would bring them back.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    protocol::{AWARENESS_ENTRIES_MAX, AwarenessEntry},
    room::MemberId,
};

/// How long the entries of a lost connection stay: y-websocket reconnects within 2.5 s.
pub const REMOVAL_GRACE: Duration = Duration::from_secs(5);

/// Clients renew their entry every 15 s; two missed renewals mean that nobody is there (y-protocols `outdatedTimeout`).
pub const EXPIRES_AFTER: Duration = Duration::from_secs(30);

/// Bytes of JSON in one entry: a cursor, a name and a colour need a few hundred.
pub const STATE_BYTES_MAX: usize = 4 * 1024;

/// Ids that one connection may own. A client has one; a few allow for several documents behind one socket.
pub const IDS_PER_MEMBER_MAX: usize = 4;

/// The awareness table of a room.
#[derive(Debug, Default)]
pub struct Awareness {
    table: HashMap<u64, Presence>,
}

#[derive(Debug)]
struct Presence {
    clock: u64,
    state: Option<Box<str>>,
    owner: Owner,
    /// When something newer was last heard.
    last_seen: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Member(MemberId),
    /// The owner's connection ended at this moment.
    Left(Instant),
    /// Removed; only the clock is still of use.
    Removed,
}

impl Awareness {
    /// Takes what `from` has sent and returns the entries that are news to the room.
    ///
    /// Entries that are too large, not JSON (a peer's `JSON.parse` would throw) or beyond the limits are left out.
    pub fn receive(&mut self, from: MemberId, entries: Vec<AwarenessEntry>, now: Instant) -> Vec<AwarenessEntry> {
        entries.into_iter().filter(|entry| self.take(from, entry, now)).collect()
    }

    /// The entries that a newcomer has to know.
    pub fn present(&self) -> Vec<AwarenessEntry> {
        self.table
            .iter()
            .filter(|(_, presence)| presence.state.is_some())
            .map(|(&client, presence)| AwarenessEntry { client, clock: presence.clock, state: presence.state.clone() })
            .collect()
    }

    /// Notes that the connection of `member` ended. Nothing is removed before [`REMOVAL_GRACE`] has passed.
    pub fn leave(&mut self, member: MemberId, now: Instant) {
        for presence in self.table.values_mut() {
            if presence.owner == Owner::Member(member) {
                presence.owner = Owner::Left(now);
            }
        }
    }

    /// Removes what has run out and returns the removals to be told to the room.
    pub fn sweep(&mut self, now: Instant) -> Vec<AwarenessEntry> {
        let mut removed = Vec::new();
        self.table.retain(|&client, presence| {
            let quiet = now.saturating_duration_since(presence.last_seen);
            let gone = match presence.owner {
                Owner::Removed => return quiet < EXPIRES_AFTER,
                Owner::Left(since) => now.saturating_duration_since(since) >= REMOVAL_GRACE,
                Owner::Member(_) => false,
            };
            if gone || quiet >= EXPIRES_AFTER {
                presence.remove(now);
                removed.push(AwarenessEntry { client, clock: presence.clock, state: None });
            }
            true
        });
        removed
    }

    /// Whether the entry is news. The clock rule is that of y-protocols `applyAwarenessUpdate`; who may own and remove
    /// is ours.
    fn take(&mut self, from: MemberId, entry: &AwarenessEntry, now: Instant) -> bool {
        if entry.state.as_deref().is_some_and(|json| !is_acceptable(json)) {
            return false;
        }
        let owned = self.table.values().filter(|presence| presence.owner == Owner::Member(from)).count();
        let full = self.table.len() >= AWARENESS_ENTRIES_MAX || owned >= IDS_PER_MEMBER_MAX;
        // A client's first message is its own state, so a connection without an id speaks of itself.
        let introduces_itself = owned == 0;
        let Some(known) = self.table.get_mut(&entry.client) else {
            if full || entry.state.is_none() {
                return false;
            }
            let state = entry.state.clone();
            self.table.insert(
                entry.client,
                Presence { clock: entry.clock, state, owner: Owner::Member(from), last_seen: now },
            );
            return true;
        };
        let newer = entry.clock > known.clock;
        if entry.state.is_none() {
            let removes = known.owner == Owner::Member(from) && entry.clock >= known.clock;
            if removes {
                known.clock = entry.clock;
                known.remove(now);
            }
            return removes;
        }
        let same = entry.clock == known.clock;
        let comes_back = same && introduces_itself && !matches!(known.owner, Owner::Member(_));
        if !newer && !comes_back {
            return false;
        }
        let was_removed = known.owner == Owner::Removed;
        match known.owner {
            Owner::Member(owner) if owner == from => {}
            // The old connection of a client that has already come back may not have noticed its own end.
            Owner::Member(_) if introduces_itself => known.owner = Owner::Member(from),
            Owner::Member(_) => {}
            Owner::Left(_) | Owner::Removed if owned < IDS_PER_MEMBER_MAX => known.owner = Owner::Member(from),
            Owner::Left(_) | Owner::Removed => return false,
        }
        known.clock = entry.clock;
        known.state.clone_from(&entry.state);
        known.last_seen = now;
        newer || was_removed
    }
}

impl Presence {
    fn remove(&mut self, now: Instant) {
        self.state = None;
        self.owner = Owner::Removed;
        self.last_seen = now;
    }
}

fn is_acceptable(json: &str) -> bool {
    json.len() <= STATE_BYTES_MAX && serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: MemberId = MemberId(1);
    const BEN: MemberId = MemberId(2);
    const CAT: MemberId = MemberId(3);

    /// One thing that happens to the table, at a number of seconds after the start.
    enum Step {
        Says(MemberId, u64, u64, &'static str),
        Leaves(MemberId),
        Sweeps,
    }
    use Step::{Leaves, Says, Sweeps};

    fn entry(client: u64, clock: u64, json: &str) -> AwarenessEntry {
        AwarenessEntry { client, clock, state: (json != "null").then(|| json.into()) }
    }

    /// Plays `(second, step, clients told about)` rows, then compares who is present.
    fn play(name: &str, rows: &[(u64, Step, &[u64])], present: &[u64]) {
        let start = Instant::now();
        let mut table = Awareness::default();
        for (row, (second, step, told)) in rows.iter().enumerate() {
            let now = start + Duration::from_secs(*second);
            let news = match step {
                Says(from, client, clock, json) => table.receive(*from, vec![entry(*client, *clock, json)], now),
                Leaves(member) => {
                    table.leave(*member, now);
                    Vec::new()
                }
                Sweeps => table.sweep(now),
            };
            assert_eq!(news.iter().map(|e| e.client).collect::<Vec<_>>(), *told, "{name}, row {row}");
        }
        let mut clients: Vec<_> = table.present().iter().map(|e| e.client).collect();
        clients.sort_unstable();
        assert_eq!(clients, present, "{name}");
    }

    #[test]
    fn only_news_is_relayed() {
        play(
            "echo",
            &[
                (0, Says(ANN, 10, 1, "{}"), &[10]),
                (0, Says(BEN, 20, 0, "{}"), &[20]),
                (0, Says(BEN, 10, 1, "{}"), &[]), // the echo that every y-websocket client sends
                (1, Says(ANN, 10, 2, "{}"), &[10]),
                (1, Says(ANN, 10, 1, "{}"), &[]), // older
            ],
            &[10, 20],
        );
    }

    #[test]
    fn a_leaving_client_takes_only_its_own_entry_along() {
        play(
            "owner",
            &[
                (0, Says(ANN, 10, 1, "{}"), &[10]),
                (0, Says(BEN, 20, 1, "{}"), &[20]),
                (0, Says(BEN, 10, 1, "{}"), &[]),
                (1, Leaves(BEN), &[]),
                (5, Sweeps, &[]),
                (6, Sweeps, &[20]),
            ],
            &[10],
        );
    }

    #[test]
    fn a_client_that_reconnects_within_the_grace_period_is_never_seen_to_leave() {
        play(
            "same clock",
            &[
                (0, Says(ANN, 10, 3, "{}"), &[10]),
                (1, Leaves(ANN), &[]),
                (2, Says(CAT, 10, 3, "{}"), &[]),
                (9, Sweeps, &[]),
            ],
            &[10],
        );
        play(
            "before the old connection has ended",
            &[
                (0, Says(ANN, 10, 3, "{}"), &[10]),
                (1, Says(CAT, 10, 4, "{}"), &[10]),
                (2, Leaves(ANN), &[]),
                (9, Sweeps, &[]),
            ],
            &[10],
        );
    }

    #[test]
    fn a_late_echo_brings_nobody_back() {
        play(
            "echo of one who left",
            &[
                (0, Says(BEN, 20, 1, "{}"), &[20]),
                (0, Says(ANN, 10, 3, "{}"), &[10]),
                (1, Leaves(ANN), &[]),
                (2, Says(BEN, 10, 3, "{}"), &[]),
                (6, Sweeps, &[10]),
                (7, Says(BEN, 10, 3, "{}"), &[]),
            ],
            &[20],
        );
    }

    #[test]
    fn a_client_returns_after_the_grace_period_with_the_clock_it_had() {
        play(
            "return",
            &[
                (0, Says(ANN, 10, 3, "{}"), &[10]),
                (1, Leaves(ANN), &[]),
                (6, Sweeps, &[10]),
                (7, Says(CAT, 10, 3, "{}"), &[10]),
            ],
            &[10],
        );
    }

    #[test]
    fn only_the_owner_removes() {
        play(
            "null",
            &[
                (0, Says(ANN, 10, 3, "{}"), &[10]),
                (0, Says(BEN, 20, 1, "{}"), &[20]),
                (1, Says(BEN, 10, 3, "null"), &[]),
                (1, Says(BEN, 10, 4, "null"), &[]),
                (2, Says(BEN, 20, 2, "null"), &[20]),
                (2, Says(CAT, 99, 1, "null"), &[]), // unknown
            ],
            &[10],
        );
    }

    #[test]
    fn what_nobody_renews_expires_after_30_s() {
        play(
            "expiry",
            &[
                (0, Says(ANN, 10, 1, "{}"), &[10]),
                (0, Says(BEN, 20, 1, "{}"), &[20]),
                (15, Says(ANN, 10, 2, "{}"), &[10]),
                (29, Sweeps, &[]),
                (30, Sweeps, &[20]),
                (45, Sweeps, &[10]),
                (60, Sweeps, &[]),
                (61, Says(BEN, 20, 1, "{}"), &[20]), // its removal is forgotten
            ],
            &[20],
        );
    }

    #[test]
    fn entries_beyond_the_limits_are_left_out() {
        let large = format!("\"{}\"", "x".repeat(STATE_BYTES_MAX));
        let now = Instant::now();
        let mut table = Awareness::default();
        let told = table.receive(ANN, vec![entry(1, 1, &large), entry(2, 1, "{not json"), entry(3, 1, "{}")], now);
        assert_eq!(told, [entry(3, 1, "{}")]);

        let many: Vec<_> = (100..200).map(|client| entry(client, 1, "{}")).collect();
        assert_eq!(table.receive(BEN, many, now).len(), IDS_PER_MEMBER_MAX);

        for member in 10..1_000 {
            table.receive(MemberId(member), vec![entry(1_000 + member, 1, "{}")], now);
        }
        assert_eq!(table.present().len(), AWARENESS_ENTRIES_MAX);
    }
}
