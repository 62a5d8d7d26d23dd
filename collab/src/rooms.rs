//! The rooms of a node: found or opened by name, closed in turn when the node drains.

use std::{
    collections::HashMap,
    fmt,
    panic::AssertUnwindSafe,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    metrics::Metrics,
    protocol::ClientMessage,
    queue::{self, Receiver},
    room::MemberId,
    room_task::{Command, RoomHandle, RoomTask, Shared},
    store::Store,
};

/// Bytes of a room's name, as in the edge's sticky rule.
pub const ROOM_NAME_BYTES_MAX: usize = 128;

/// Sockets that a drain closes in a second: each comes back as a handshake elsewhere within 200 ms, without jitter.
pub const CLOSES_PER_SECOND_MAX: u32 = 200;

/// A room may end in the moment in which somebody joins it; then it is opened anew.
const JOIN_TRIES_MAX: usize = 4;

/// A room's name: `[A-Za-z0-9._:~-]{1,128}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoomName(Arc<str>);

/// Not a room's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a room is named by 1 to {ROOM_NAME_BYTES_MAX} characters of A-Z a-z 0-9 . _ : ~ -")]
pub struct BadRoomName;

impl RoomName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoomName {
    type Err = BadRoomName;

    fn from_str(text: &str) -> Result<Self, BadRoomName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:~-".contains(&byte);
        let good = (1..=ROOM_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
        if good { Ok(Self(text.into())) } else { Err(BadRoomName) }
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why nobody can come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum JoinError {
    /// The node drains and does not open rooms any more.
    #[error("this node is draining; try again")]
    Draining,
    /// The room ended several times while joining.
    #[error("the room is closing; try again")]
    Closing,
}

/// A connection's place in a room. Ended by [`Membership::leave`]; if it is dropped, the room notices within a second.
#[derive(Debug)]
pub struct Membership {
    member: MemberId,
    commands: mpsc::Sender<Command>,
    /// What the room sends to this connection.
    pub queue: Receiver,
}

impl Membership {
    /// Hands a message to the room; waits while the room is busy. An ended room takes nothing: the queue says why.
    pub async fn send(&self, message: ClientMessage) {
        let _room_ended = self.commands.send(Command::Message { from: self.member, message }).await;
    }

    /// Leaves the room.
    pub async fn leave(self) {
        let _room_ended = self.commands.send(Command::Leave { member: self.member }).await;
    }

    #[cfg(test)]
    pub(crate) async fn make_the_room_panic(&self) {
        self.commands.send(Command::Panic).await.expect("the room runs");
    }
}

/// All rooms in memory. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    shared: Shared,
    rooms: Mutex<HashMap<RoomName, RoomHandle>>,
    next_member: AtomicU64,
    tasks: TaskTracker,
}

impl Rooms {
    /// No rooms yet. `draining` is cancelled when the node begins to drain.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics, draining: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            shared: Shared { store, metrics, draining },
            rooms: Mutex::default(),
            next_member: AtomicU64::new(1),
            tasks: TaskTracker::new(),
        }))
    }

    /// How many rooms are in memory.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no room is in memory.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether a connection to this room would be let in now, as far as the node is concerned.
    pub fn is_open(&self, name: &RoomName) -> Result<(), JoinError> {
        if self.0.shared.draining.is_cancelled() && !self.lock().contains_key(name) {
            return Err(JoinError::Draining);
        }
        Ok(())
    }

    /// Lets a connection into a room, which is opened if it is not. A room that cannot take it says so through the
    /// membership's queue.
    pub async fn join(&self, name: &RoomName) -> Result<Membership, JoinError> {
        let member = MemberId(self.0.next_member.fetch_add(1, Ordering::Relaxed));
        for _ in 0..JOIN_TRIES_MAX {
            let handle = self.find_or_open(name)?;
            let (sender, receiver) = queue::queue();
            let joined = handle.commands.send(Command::Join { member, queue: sender }).await;
            if joined.is_ok() {
                return Ok(Membership { member, commands: handle.commands, queue: receiver });
            }
            tokio::task::yield_now().await; // the room has ended; its entry goes with it
        }
        Err(JoinError::Closing)
    }

    /// Closes all rooms, spread over `over`: a room at a time, at most [`CLOSES_PER_SECOND_MAX`] sockets a second, even
    /// if that takes longer. Returns when all rooms have ended.
    pub async fn drain(&self, over: Duration) {
        let rooms: Vec<_> = self.lock().values().cloned().collect();
        let members = |room: &RoomHandle| u32::try_from(room.members.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let total: u32 = rooms.iter().map(members).sum();
        let pause = (over / total.max(1)).max(Duration::from_secs(1) / CLOSES_PER_SECOND_MAX);
        let mut turn = Instant::now();
        let mut left = i64::from(total);
        self.0.shared.metrics.drain_remaining.set(left);
        for room in &rooms {
            sleep_until(turn).await;
            let members = members(room);
            room.close.cancel();
            left -= i64::from(members);
            self.0.shared.metrics.drain_remaining.set(left.max(0));
            turn += pause * members;
        }
        // A room that was opened just before the drain began is not in the list.
        for room in self.lock().values() {
            room.close.cancel();
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn find_or_open(&self, name: &RoomName) -> Result<RoomHandle, JoinError> {
        let mut rooms = self.lock();
        if let Some(handle) = rooms.get(name).filter(|handle| !handle.commands.is_closed()) {
            return Ok(handle.clone());
        }
        if self.0.shared.draining.is_cancelled() {
            return Err(JoinError::Draining);
        }
        let (handle, task) = RoomTask::new(Arc::clone(&name.0), self.0.shared.clone());
        rooms.insert(name.clone(), handle.clone());
        drop(rooms);
        let (this, name, mine) = (self.clone(), name.clone(), handle.commands.clone());
        let metrics = self.0.shared.metrics.clone();
        metrics.rooms.inc();
        self.0.tasks.spawn(async move {
            let retire = || this.forget(&name, &mine);
            if AssertUnwindSafe(task.run(retire)).catch_unwind().await.is_err() {
                tracing::error!(room = %name, "the room ended by a panic; its clients reconnect and bring what they have");
                metrics.room_failures.inc();
            }
            this.forget(&name, &mine);
            metrics.rooms.dec();
        });
        Ok(handle)
    }

    /// Makes a room unknown, unless another one has its name by now.
    fn forget(&self, name: &RoomName, commands: &mpsc::Sender<Command>) {
        let mut rooms = self.lock();
        if rooms.get(name).is_some_and(|handle| handle.commands.same_channel(commands)) {
            rooms.remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RoomName, RoomHandle>> {
        // Nothing under the lock leaves the map half changed.
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
