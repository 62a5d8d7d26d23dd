//! Step 3, where the store has no answer: who fetches, who waits for another's fetch, and what each of them gets of it.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;

use super::{
    asking::wants_its_own,
    decision::{Fetch, Looked, Step},
    downstream::{ClientGone, ResponseSink},
    exchange::Exchange,
    lookup::Wanted,
    refill::{Ask, Filling, Own, TOLD_MAX, Told},
    synth::Refusal,
};
use crate::{
    cache::{self, CollapseExpired, RequestView, Selection},
    store::{Coming, Failure, Fill, Joined, Lookup, Outcome, Reader},
};

/// Fetches that one request may begin or join: its own, one more after a failure it had no part in, one more for
/// its own variant, and one more for the whole where a part was no success.
const FETCHES_MAX: u32 = 4;
/// Looks in the store beyond the first, each because a fetch has ended meanwhile. Over it the request fetches alone: a
/// response that is replaced all the time keeps nobody from an answer.
const LOOKS_MAX: u32 = 4;

/// What came of a fetch that this request began or joined.
struct Brought {
    outcome: Outcome,
    /// Of the fill that it is in: after an expired wait not the one that was joined.
    reader: Reader,
    is_writer: bool,
    /// The head for this client alone, where it is not the stored one.
    own: Option<http::HeaderMap>,
}

impl Exchange<'_> {
    /// Begins a fetch or waits for the one that runs, and answers from it.
    pub(super) async fn answer_from_fill<S: ResponseSink>(
        &mut self,
        mut wanted: Wanted,
        sink: &mut S,
    ) -> Result<(), ClientGone> {
        let mut collapse = !self.wants_its_own();
        let mut failure = Failure::INTERNAL;
        let (mut fetches, mut looks) = (0, 0);
        while fetches < FETCHES_MAX {
            let ask = self.ask_for(&wanted);
            let is_the_clients = ask.is_the_clients;
            let is_part_of = ask.part_of.is_some();
            let id = wanted.fill_id(&ask, &self.request.fields);
            collapse &= !self.edge.store.is_uncollapsible(id, Instant::now());
            let joined = if collapse { self.join(&wanted, id) } else { Joined::Full };
            let (fill, is_writer) = match joined {
                Joined::Outdated => {
                    if self.answer_from_store(&mut wanted, sink).await? {
                        return Ok(());
                    }
                    looks += 1;
                    collapse = looks < LOOKS_MAX && !self.wants_its_own();
                    continue;
                }
                Joined::Writer(fill) => (fill, true),
                Joined::Waiter(fill) => (fill, false),
                Joined::Full => (Fill::new(), true),
            };
            fetches += 1;
            let brought = if is_writer {
                self.decide(Step::Fetch(Fetch::Writer));
                self.as_writer(&wanted, ask, id, fill, sink).await?
            } else {
                self.as_waiter(&wanted, ask, id, fill, sink).await?
            };
            let Some(Brought { outcome, reader, is_writer, own }) = brought else { return Ok(()) };
            if !is_writer {
                self.decide(Step::Fetch(Fetch::Waiter));
            }
            match outcome {
                Outcome::Storing(coming) if coming.variant.matches(coming.meta.vary(), &self.request.fields) => {
                    self.decide(Step::Store(Ok(coming.meta.lifetime().source)));
                    let selection = self.selection(&coming);
                    let Some(span) = coming.span else {
                        return match selection {
                            Selection::Whole => self.deliver_filling(sink, Filling { coming, own, reader }).await,
                            _ => self.deliver_parts(sink, &wanted, &coming, reader, &selection, is_writer).await,
                        };
                    };
                    if is_the_clients {
                        return self.deliver_filling(sink, Filling { coming, own, reader }).await;
                    }
                    let mut ranges = selection.ranges(span.length).into_iter();
                    if cache::has_strong_validator(&coming.meta) || ranges.all(|range| span.covers(&range)) {
                        if wanted.holding.is_some() {
                            self.decide(Step::Completed);
                        }
                        return self.deliver_parts(sink, &wanted, &coming, reader, &selection, is_writer).await;
                    }
                    // Nothing more could be asked for under it.
                    self.decide(Step::Changed);
                    (wanted.holding, wanted.stale, wanted.whole_only) = (None, None, true);
                }
                Outcome::Freshened(stored) if stored.is_selected_by(&self.request.fields) => {
                    self.decide(Step::Freshened);
                    if self.deliver_stored(sink, &stored, None).await? {
                        return Ok(());
                    }
                    // Some of its body was evicted in this very moment: fetch that.
                    wanted.stale = None;
                    wanted.holding = self.edge.store.found(&wanted.key, &self.request.fields).await;
                    collapse = false;
                }
                // Another variant is coming: those who want this one share a fetch of their own.
                Outcome::Storing(coming) if !is_writer => {
                    wanted.vary = Some(coming.meta.vary().clone());
                    (wanted.stale, wanted.holding) = (None, None);
                    self.decide(Step::Lookup(Looked::VaryMiss));
                }
                Outcome::Changed => {
                    self.decide(Step::Changed);
                    if let Some(found) = wanted.holding.take() {
                        self.edge.store.remove(&found.stored);
                    }
                    wanted.stale = None;
                    // Who asked for a first slice in vain asks for the whole; a file that changed starts anew.
                    wanted.whole_only = !is_part_of;
                }
                // Not for sharing: each for itself, all at once.
                Outcome::Storing(_) | Outcome::Freshened(_) | Outcome::Released(_) => {
                    self.decide(match outcome {
                        Outcome::Released(reason) => Step::Store(Err(reason)),
                        _ => Step::Lookup(Looked::VaryMiss),
                    });
                    (wanted.stale, wanted.holding) = (None, None);
                    collapse = false;
                }
                Outcome::Failed(failed) => {
                    failure = failed;
                    self.decide(Step::Failed);
                    if let Some(found) = &wanted.stale
                        && let Some(found) = self.covering_error(&wanted, found)
                    {
                        self.decide(Step::StaleIfError);
                        if self.deliver_stored(sink, &found.stored, found.soft_purged).await? {
                            return Ok(());
                        }
                    }
                    if is_writer {
                        break;
                    }
                    // A failure that this request had no part in: one new fetch, shared again.
                }
            }
        }
        self.deliver_refusal(sink, &Refusal::Origin(failure)).await
    }

    /// What this request gets of what is coming.
    fn selection(&self, coming: &Coming) -> Selection {
        let view = RequestView { method: &self.request.method, fields: &self.request.fields };
        match coming.complete_length() {
            Some(length) => match cache::select(&view, &coming.meta, length) {
                // What is coming comes in its order.
                Selection::Many(ranges) if !ranges.is_sorted_by_key(|range| range.start) => Selection::Whole,
                selection => selection,
            },
            None => Selection::Whole,
        }
    }

    /// Must this request not be answered by a fetch that began before it?
    fn wants_its_own(&self) -> bool {
        wants_its_own(&self.trace.decision, &self.request.fields, self.edge.fleet.is_trusted())
    }

    /// Runs the fetch and waits for its head; answers itself when the answer is for this client alone.
    async fn as_writer<S: ResponseSink>(
        &mut self,
        wanted: &Wanted,
        ask: Ask,
        id: u128,
        fill: Arc<Fill>,
        sink: &mut S,
    ) -> Result<Option<Brought>, ClientGone> {
        let reader = fill.reader();
        let (client, mut told) = mpsc::channel(TOLD_MAX);
        self.refill(wanted, ask, id, Arc::clone(&fill), wanted.stale.clone(), Some(client));
        // The task always tells the end or drops its side: every step of it has a deadline.
        let own = loop {
            match told.recv().await {
                Some(Told::Interim(status, fields)) => sink.interim(status, &fields).await?,
                Some(Told::Final(seen, own)) => {
                    self.trace.seen = seen;
                    break own;
                }
                None => break Own::Nothing,
            }
        };
        let outcome = fill.outcome().unwrap_or(Outcome::Failed(Failure::INTERNAL));
        let own = match own {
            Own::Nothing => None,
            Own::Head(fields) => Some(fields),
            Own::Whole(response) => {
                if let Outcome::Released(reason) = outcome {
                    self.decide(Step::Store(Err(reason)));
                }
                let rest = self.deliver_origin(sink, *response).await?;
                rest.release(self.edge);
                return Ok(None);
            }
        };
        Ok(Some(Brought { outcome, reader, is_writer: true, own }))
    }

    /// Waits for another's fetch; when the wait runs out becomes a second writer or gives up, as the policy says.
    async fn as_waiter<S: ResponseSink>(
        &mut self,
        wanted: &Wanted,
        ask: Ask,
        id: u128,
        fill: Arc<Fill>,
        sink: &mut S,
    ) -> Result<Option<Brought>, ClientGone> {
        let collapse = &wanted.policy.collapse;
        let mut reader = fill.reader();
        loop {
            let waiting = self.edge.store.waiting();
            let outcome = reader.head(collapse.wait).await;
            drop(waiting);
            if let Some(outcome) = outcome {
                return Ok(Some(Brought { outcome, reader, is_writer: false, own: None }));
            }
            let fill = Arc::clone(reader.fill());
            self.edge.metrics.collapse_expired.inc();
            match collapse.expired {
                CollapseExpired::Error => {
                    self.decide(Step::Fetch(Fetch::WaitExpired));
                    self.deliver_refusal(sink, &Refusal::CollapseExpired).await?;
                    return Ok(None);
                }
                CollapseExpired::Fetch if fill.take_second_writer(Instant::now(), collapse.wait) => {
                    self.decide(Step::Fetch(Fetch::SecondWriter));
                    let second = self.edge.store.replace_fill(id, wanted.url(self.edge.store.seed()), &fill);
                    return self.as_writer(wanted, ask, id, second, sink).await;
                }
                CollapseExpired::Fetch => {}
            }
        }
    }

    /// Joins the fetch under `id` or begins it, unless there is something new in the store by now. Who asks for the whole
    /// because parts are of no use to him has seen what parts are stored.
    pub(super) fn join(&self, wanted: &Wanted, id: u128) -> Joined {
        let is_outdated = || match self.edge.store.lookup(&wanted.key, &self.request.fields) {
            _ if wanted.whole_only => false,
            Lookup::Found(found) => !wanted.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &found.stored)),
            Lookup::VaryMiss(_) => wanted.vary.is_none(),
            Lookup::Miss => false,
        };
        self.edge.store.join_fill(id, wanted.url(self.edge.store.seed()), is_outdated)
    }
}
