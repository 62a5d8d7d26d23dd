//! Beats: this node says how far it is, keeps its lease, and learns how far the log and the others are.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{
    Fleet, Members, Sink, Standing,
    cursor::Place,
    node::{Acknowledged, Link, chance},
    script::Beat,
};
use crate::redis::Error;

/// Beats in a lease: one may be lost, and another late, before the lease lapses.
const BEATS_PER_LEASE: u32 = 5;
/// The longest between two beats, so that a lag of seconds shows in the metric whatever the lease.
const BEAT_LONGEST: Duration = Duration::from_secs(2);
/// Between two looks at who has acknowledged, at first and at most.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_LONGEST: Duration = Duration::from_millis(50);

/// What a beat was answered.
pub(super) enum Beaten {
    /// The name is another's.
    Held(String),
    /// The log goes on from where this node is, and ends here.
    GoesOn { last: u64 },
    /// It does not; this node has forgotten everything and begins at its end.
    Anew,
}

impl Fleet {
    pub(super) fn beat_every(&self) -> Duration {
        (self.config.lease / BEATS_PER_LEASE).min(BEAT_LONGEST)
    }

    pub(super) async fn keep_beating(&self, link: &Link, sink: &dyn Sink) {
        let mut caught_up = Instant::now();
        // After a cut, where the log ended when it was heard of again.
        let mut behind: Option<u64> = None;
        loop {
            let sent = Instant::now();
            let beaten = self.beat(link, sink, "").await;
            let was_cut_off = !self.is_connected();
            let mut again = false;
            match beaten {
                Ok(Beaten::GoesOn { last }) => {
                    let position = self.position();
                    if was_cut_off {
                        behind.get_or_insert(last);
                    }
                    if behind.is_none_or(|target| position >= target) {
                        behind = None;
                        self.lease.renew(sent, self.config.lease);
                        self.joined.store(true, Ordering::Release);
                        self.set_standing(Standing::Member);
                    }
                    if position >= last {
                        caught_up = sent;
                    }
                    self.look(link).await;
                }
                Ok(Beaten::Anew) => {
                    (behind, again) = (None, true);
                }
                Ok(Beaten::Held(_)) => {
                    tracing::error!(node = self.card.id, "another live node has this id; give each its own node.id");
                }
                Err(error) => tracing::debug!(%error, "no beat"),
            }
            let connected = self.is_connected();
            if !connected && *self.standing.borrow() == Standing::Member {
                tracing::warn!("cut off from the fleet");
                self.set_standing(Standing::CutOff);
            }
            let lag = caught_up.elapsed();
            let usual = self.beat_every() * 2;
            self.metrics.purge_lag.set(if connected && lag < usual { 0.0 } else { lag.as_secs_f64() });
            self.metrics.fleet_connected.set(i64::from(connected));
            if !again {
                tokio::select! {
                    () = tokio::time::sleep(self.beat_every()) => {}
                    () = self.beat_now.notified() => {}
                }
            }
        }
    }

    fn set_standing(&self, standing: Standing) {
        self.standing.send_if_modified(|present| std::mem::replace(present, standing) != standing);
    }

    /// Says how far this node is, and learns how far the log is.
    pub(super) async fn beat(&self, link: &Link, sink: &dyn Sink, takes_over: &str) -> Result<Beaten, Error> {
        let place = self.place().clone();
        // To say how far this node is acknowledges what is before.
        sink.made_durable().await;
        // A card of texts and a word always serialises.
        let card = serde_json::to_string(&self.card).unwrap_or_default();
        let fresh = chance();
        let command = link.keys.beat(&Beat {
            fresh: &fresh,
            node: &self.card.id,
            incarnation: &self.incarnation,
            lease: self.config.lease,
            card: &card,
            epoch: &place.epoch,
            n: place.n,
            id: &place.id,
            takes_over,
        });
        let reply: Vec<String> = link.commands.query(&command).await?;
        Ok(match <[String; 4]>::try_from(reply) {
            Ok([epoch, n, id, goes_on]) => {
                let n = n.parse().map_err(|_| Error::Nonsense)?;
                if goes_on == "1" {
                    return Ok(Beaten::GoesOn { last: n });
                }
                let mut present = self.place();
                if *present == place {
                    if !place.epoch.is_empty() {
                        tracing::warn!(n, "the purge log does not go on from here; everything stored counts as purged");
                    }
                    sink.forget_all();
                    *present = Place { epoch, n, id };
                    present.tell(sink);
                    drop(present);
                    self.applied.send_replace(());
                }
                Beaten::Anew
            }
            Err(mut held) => Beaten::Held(held.pop().unwrap_or_default()),
        })
    }

    /// Looks who else is there.
    async fn look(&self, link: &Link) -> Option<Members> {
        let asked = Instant::now();
        let reply = link.commands.query(&link.keys.members(self.config.history)).await.ok()?;
        let mut members = Members { at: Some(Instant::now()), ..Members::parse(reply) };
        let mut known = self.known_members();
        let ago = known.at.map(|at| asked.saturating_duration_since(at));
        members.remember(&known, ago.unwrap_or_default(), self.config.history);
        known.clone_from(&members);
        self.metrics.fleet_nodes.set(i64::try_from(members.live().count()).unwrap_or(i64::MAX));
        Some(members)
    }

    /// How far an order has come that acts on this node, as far as it is known without asking.
    pub fn acknowledged_here(&self) -> Acknowledged {
        let members = self.known_members();
        let lost = members.lost().map(|member| member.card.id.clone()).collect();
        Acknowledged { live: members.live().count().max(1), acknowledged: 1, lost, complete: true }
    }

    /// Waits until every live node has applied entry `n`, up to `timeout`.
    pub async fn acknowledged(&self, epoch: &str, n: u64, timeout: Duration) -> Acknowledged {
        let Some(link) = &self.link else { return self.acknowledged_here() };
        let deadline = Instant::now() + timeout;
        let mut pause = LOOK_FIRST;
        let mut seen = Acknowledged { complete: false, ..self.acknowledged_here() };
        loop {
            if let Some(members) = self.look(link).await {
                let (live, acknowledged) = (members.live().count(), members.acknowledged(epoch, n));
                let is_known = members.knows_everybody(self.config.lease);
                let complete = is_known && live > 0 && acknowledged == live && !members.someone_may_serve_older();
                let lost = members.lost().map(|member| member.card.id.clone()).collect();
                seen = Acknowledged { live, acknowledged, lost, complete };
                if is_known && live > 0 && acknowledged == live {
                    return seen;
                }
            }
            if Instant::now() + pause >= deadline {
                return seen;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_LONGEST);
        }
    }

    /// How far entry `n` of the log of now has come.
    pub async fn acknowledged_now(&self, n: u64) -> Acknowledged {
        let epoch = self.place().epoch.clone();
        self.acknowledged(&epoch, n, Duration::ZERO).await
    }

    /// The fleet as Redis knows it now; `None` where it cannot be asked.
    pub async fn members(&self) -> Option<Members> {
        match &self.link {
            Some(link) => self.look(link).await,
            None => None,
        }
    }
}
