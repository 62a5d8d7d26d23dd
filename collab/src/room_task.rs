//! The task of one room: carries messages between its members' queues and the [`Room`], and the document to the store.
//!
//! A room never waits for a member (their queues close when they overflow) nor for the store (saving is a task of its
//! own). If the store fails, the document stays in memory and saving is tried again. A panic ends this room alone; its
//! members reconnect and bring what they have.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    document,
    metrics::Metrics,
    protocol::{ClientMessage, Outgoing},
    queue::{self, Charge, CloseReason},
    room::{Delivery, MemberId, Recipients, Refusal, Room},
    store::{Seq, Store, StoreError, Stored},
};

/// Commands waiting for a room; members wait to add theirs, which holds back their sockets.
pub const COMMANDS_MAX: usize = 256;

/// Changes are saved when nobody has changed anything for this long...
const SAVE_AFTER_QUIET: Duration = Duration::from_secs(2);
/// ...or when the oldest is this old.
const SAVE_AFTER: Duration = Duration::from_secs(10);
/// A store that fails is tried again after this long, then twice as long, and so on.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// At most this long.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How often presence is swept and ended connections are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often an occupied room looks for what another node has stored: after a failure the members of a room may be on
/// two nodes for a while.
const CATCH_UP_EVERY: Duration = Duration::from_secs(5);
/// How long an empty room stays in memory: a class that reloads its pages finds it there.
const UNLOAD_AFTER: Duration = Duration::from_secs(10);

/// A document is folded into a snapshot after this many rows...
const COMPACT_ROWS: usize = 200;
/// ...or this many bytes of rows.
const COMPACT_BYTES: usize = 256 * 1024;

/// How long a room that closes waits for its members to go, and for the store to take the last changes.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What a room is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Let a connection in, or say through its queue why not.
    Join { member: MemberId, queue: queue::Sender },
    /// A member has sent a message.
    Message { from: MemberId, message: ClientMessage },
    /// A connection has ended.
    Leave { member: MemberId },
    #[cfg(test)]
    Panic,
}

/// What others hold of a room.
#[derive(Debug, Clone)]
pub struct RoomHandle {
    /// Where commands go.
    pub commands: mpsc::Sender<Command>,
    /// Cancelled when it is the room's turn to close.
    pub close: CancellationToken,
    /// Connections in the room, as of now.
    pub members: Arc<AtomicUsize>,
}

/// What all rooms of a node share.
#[derive(Clone)]
pub struct Shared {
    /// Where documents are kept.
    pub store: Arc<dyn Store>,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when the node begins to drain: everything is saved at once, in case the end comes early.
    pub draining: CancellationToken,
}

/// A room and its surroundings.
pub struct RoomTask {
    name: Arc<str>,
    shared: Shared,
    handle: RoomHandle,
    commands: mpsc::Receiver<Command>,
    room: Room,
    queues: HashMap<MemberId, queue::Sender>,
    /// How far the store has been read.
    seq: Seq,
    /// Rows since the last snapshot, and their bytes, as far as this node knows.
    rows: (usize, usize),
    work: Option<JoinHandle<Done>>,
    /// When the oldest unsaved change was made.
    changed_first: Option<Instant>,
    changed_last: Instant,
    /// Not before this moment, after failures.
    retry: Option<(Instant, Duration)>,
    empty_since: Option<Instant>,
    caught_up: Instant,
}

/// What the store has done for a room.
enum Done {
    Saved { updates: Vec<Bytes>, result: Result<Saved, StoreError> },
    CaughtUp(Result<Stored, StoreError>),
}

struct Saved {
    seq: Seq,
    bytes: usize,
    /// What others wrote in between.
    others: Option<Stored>,
    compacted: bool,
}

impl RoomTask {
    /// A room that is not running yet.
    pub fn new(name: Arc<str>, shared: Shared) -> (RoomHandle, Self) {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let handle = RoomHandle { commands: sender, close: CancellationToken::new(), members: Arc::default() };
        let now = Instant::now();
        let task = Self {
            name,
            shared,
            handle: handle.clone(),
            commands,
            room: Room::new(),
            queues: HashMap::new(),
            seq: 0,
            rows: (0, 0),
            work: None,
            changed_first: None,
            changed_last: now,
            retry: None,
            empty_since: Some(now),
            caught_up: now,
        };
        (handle, task)
    }

    /// Runs the room until it is closed or has been empty for a while. `retire` is asked to make the room unknown to
    /// newcomers.
    pub async fn run(mut self, retire: impl FnOnce()) {
        match self.shared.store.load(&self.name, 0).await {
            Ok(stored) => {
                self.rows = (stored.updates.len(), stored.updates.iter().map(Bytes::len).sum());
                self.absorb(&stored);
            }
            Err(error) => {
                tracing::error!(room = %self.name, %error, "the document cannot be loaded: the room stays closed");
                retire();
                return self.dismiss(CloseReason::StoreUnavailable).await;
            }
        }
        self.serve().await;
        retire();
        self.close().await;
    }

    /// Everything between loading and closing.
    async fn serve(&mut self) {
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (close, draining) = (self.handle.close.clone(), self.shared.draining.clone());
        let mut save_all = false;
        loop {
            let save_at = self.save_at(save_all);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return, // not while we hold a sender ourselves
                },
                done = wait_for(&mut self.work) => self.done(done),
                () = sleep_until(save_at.unwrap_or_else(Instant::now)), if save_at.is_some() => self.save(),
                now = sweep.tick() => {
                    self.sweep(now);
                    if self.is_idle(now) {
                        return;
                    }
                }
                () = draining.cancelled(), if !save_all => save_all = true,
                () = close.cancelled() => return,
            }
        }
    }

    /// When the next saving is due, if one is.
    fn save_at(&self, at_once: bool) -> Option<Instant> {
        let first = self.changed_first.filter(|_| self.work.is_none())?;
        let due = if at_once || self.room.is_empty() {
            self.changed_last
        } else {
            (self.changed_last + SAVE_AFTER_QUIET).min(first + SAVE_AFTER)
        };
        Some(self.retry.map_or(due, |(not_before, _)| due.max(not_before)))
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Join { queue, .. } if queue.is_closed() => {} // the connection ended while it waited
            Command::Join { member, queue } if self.room.join(member) => drop(self.queues.insert(member, queue)),
            Command::Join { queue, .. } => queue.close(CloseReason::RoomFull),
            Command::Leave { member } => self.leave(member, now),
            Command::Message { from, message } if self.queues.contains_key(&from) => {
                let before = self.room.changes();
                match self.room.receive(from, message, now.into_std()) {
                    Ok(deliveries) => self.deliver(deliveries),
                    Err(refusal) => self.refuse(from, &refusal, now),
                }
                if self.room.changes() != before {
                    self.changed_first.get_or_insert(now);
                    self.changed_last = now;
                }
            }
            // What a member sent before it was closed.
            Command::Message { .. } => {}
            #[cfg(test)]
            Command::Panic => panic!("asked to"),
        }
        self.count_members(now);
    }

    fn refuse(&mut self, member: MemberId, refusal: &Refusal, now: Instant) {
        tracing::info!(room = %self.name, %refusal, "member refused");
        let reason = match refusal {
            Refusal::BadUpdate(_) => CloseReason::Malformed,
            Refusal::Full => CloseReason::TooLarge,
        };
        if let Some(queue) = self.queues.get(&member) {
            queue.close(reason);
        }
        self.leave(member, now);
    }

    fn leave(&mut self, member: MemberId, now: Instant) {
        self.room.leave(member, now.into_std());
        self.queues.remove(&member);
    }

    fn deliver(&mut self, deliveries: impl IntoIterator<Item = Delivery>) {
        let mut slow = Vec::new();
        for Delivery { to, message } in deliveries {
            let charge = if matches!(message, Outgoing::Step2(_)) { Charge::Answer } else { Charge::Full };
            let frame = message.encode();
            let mut push = |member: MemberId, queue: &queue::Sender| {
                if queue.push(frame.clone(), charge).is_err() {
                    slow.push(member);
                }
            };
            match to {
                Recipients::One(member) => {
                    if let Some(queue) = self.queues.get(&member) {
                        push(member, queue);
                    }
                }
                Recipients::All => self.queues.iter().for_each(|(&member, queue)| push(member, queue)),
            }
        }
        let now = Instant::now();
        for member in slow {
            self.shared.metrics.send_queue_overflows.inc();
            self.leave(member, now);
        }
    }

    /// Takes what the store has. What cannot be read stays there, where an operator finds it: nothing that holds it is
    /// compacted.
    fn absorb(&mut self, stored: &Stored) {
        for update in &stored.updates {
            match self.room.absorb(update) {
                Ok(delivery) => self.deliver(delivery),
                Err(error) => {
                    tracing::error!(room = %self.name, %error, "a stored update cannot be read and is left out");
                }
            }
        }
        self.seq = self.seq.max(stored.seq);
    }

    fn sweep(&mut self, now: Instant) {
        let gone: Vec<_> = self.queues.iter().filter(|(_, queue)| queue.is_closed()).map(|(&id, _)| id).collect();
        for member in gone {
            self.leave(member, now);
        }
        let removals = self.room.sweep(now.into_std());
        self.deliver(removals);
        self.count_members(now);
        if self.work.is_none() && !self.room.is_empty() && now.duration_since(self.caught_up) >= CATCH_UP_EVERY {
            self.caught_up = now;
            let (store, name, seq) = (Arc::clone(&self.shared.store), Arc::clone(&self.name), self.seq);
            self.work = Some(tokio::spawn(async move { Done::CaughtUp(store.load(&name, seq).await) }));
        }
    }

    fn count_members(&mut self, now: Instant) {
        self.handle.members.store(self.room.len(), Ordering::Relaxed);
        if !self.room.is_empty() {
            self.empty_since = None;
        } else if self.empty_since.is_none() {
            self.empty_since = Some(now);
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        let empty = self.empty_since.is_some_and(|since| now.duration_since(since) >= UNLOAD_AFTER);
        empty && self.work.is_none() && !self.room.has_unsaved() && self.commands.is_empty()
    }

    fn save(&mut self) {
        let updates = self.room.take_unsaved();
        self.changed_first = None;
        let bytes: usize = updates.iter().map(Bytes::len).sum();
        let compact = self.rows.0 + 1 >= COMPACT_ROWS || self.rows.1 + bytes >= COMPACT_BYTES;
        let (store, name, seq) = (Arc::clone(&self.shared.store), Arc::clone(&self.name), self.seq);
        self.work = Some(tokio::spawn(async move {
            let result = save(&*store, &name, seq, &updates, compact).await;
            Done::Saved { updates, result }
        }));
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        self.work = None;
        let now = Instant::now();
        match done {
            Ok(Done::Saved { result: Ok(saved), .. }) => {
                self.shared.metrics.flushes.inc();
                self.retry = None;
                self.rows = (self.rows.0 + 1, self.rows.1 + saved.bytes);
                if let Some(others) = saved.others {
                    self.rows.0 += others.updates.len();
                    self.absorb(&others);
                }
                if saved.compacted {
                    self.shared.metrics.compactions.inc();
                    self.rows = (0, 0);
                }
                self.seq = self.seq.max(saved.seq);
            }
            Ok(Done::Saved { updates, result: Err(error) }) => {
                self.shared.metrics.flush_failures.inc();
                let wait = self.retry.map_or(RETRY_FIRST, |(_, last)| (last * 2).min(RETRY_MAX));
                tracing::error!(room = %self.name, %error, retry_in = ?wait, "changes not saved: kept in memory");
                self.retry = Some((now + wait, wait));
                self.room.unsaved_again(updates);
                self.changed_first.get_or_insert(now);
            }
            Ok(Done::CaughtUp(Ok(others))) => {
                self.rows.0 += others.updates.len();
                self.absorb(&others);
            }
            Ok(Done::CaughtUp(Err(error))) => tracing::warn!(room = %self.name, %error, "the store cannot be read"),
            Err(error) => {
                // The updates are lost with the task that held them; the document still has them.
                self.shared.metrics.flush_failures.inc();
                tracing::error!(room = %self.name, %error, "saving ended by a panic: the whole document is saved next");
                self.room.unsave_everything();
                self.retry = Some((now + RETRY_FIRST, RETRY_FIRST));
                self.changed_first.get_or_insert(now);
            }
        }
    }

    /// Saves, says goodbye to all, takes what they still send, saves again.
    async fn close(mut self) {
        let give_up = Instant::now() + CLOSE_MAX;
        self.save_before(give_up).await;
        for queue in self.queues.values() {
            queue.close(CloseReason::Restart);
        }
        while !self.room.is_empty() {
            let Ok(Some(command)) = timeout_at(give_up, self.commands.recv()).await else { break };
            match command {
                // Found the room before it was retired.
                Command::Join { queue, .. } => queue.close(CloseReason::Restart),
                other => self.obey(other),
            }
        }
        self.save_before(give_up + CLOSE_MAX).await;
        if self.room.has_unsaved() {
            tracing::error!(room = %self.name, "the room ends with changes that could not be saved; its clients hold them");
        }
        self.dismiss(CloseReason::Restart).await;
    }

    async fn save_before(&mut self, give_up: Instant) {
        while self.work.is_some() || self.room.has_unsaved() {
            if self.work.is_none() {
                if let Some((not_before, _)) = self.retry {
                    sleep_until(not_before.min(give_up)).await;
                }
                self.save();
            }
            let Ok(done) = timeout_at(give_up, wait_for(&mut self.work)).await else { return };
            self.done(done);
            if Instant::now() >= give_up {
                return;
            }
        }
    }

    /// Sends everybody away who waits to come in.
    async fn dismiss(mut self, reason: CloseReason) {
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            if let Command::Join { queue, .. } = command {
                queue.close(reason);
            }
        }
    }
}

/// Waits for the work, or for ever when there is none.
async fn wait_for(work: &mut Option<JoinHandle<Done>>) -> Result<Done, tokio::task::JoinError> {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn save(
    store: &dyn Store,
    name: &str,
    known: Seq,
    updates: &[Bytes],
    compact: bool,
) -> Result<Saved, StoreError> {
    let merged = document::merge(updates)?;
    let bytes = merged.len();
    let seq = store.append(name, merged).await?;
    let others = if seq > known + 1 { Some(store.load(name, known).await?) } else { None };
    // A compaction that fails is tried again with the next saving; the changes are safe.
    let compacted = compact
        && store.compact(name).await.unwrap_or_else(|error| {
            tracing::warn!(room = name, %error, "compaction failed");
            false
        });
    Ok(Saved { seq, bytes, others, compacted })
}
