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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use bytes::Bytes;
    use futures::future::BoxFuture;

    use super::*;
    use crate::{
        document::tests::{Client, text_after},
        protocol::Outgoing,
        queue::{CloseReason, Next},
        room::MEMBERS_MAX,
        store::{Seq, StoreError, Stored},
    };

    /// A store in memory that several nodes may share, and that fails while it is told to.
    #[derive(Default)]
    pub(crate) struct MemoryStore {
        rows: Mutex<HashMap<String, Vec<Bytes>>>,
        failing: AtomicBool,
        compactions: AtomicUsize,
    }

    impl MemoryStore {
        pub(crate) fn text(&self, document: &str) -> String {
            text_after(self.rows.lock().unwrap().get(document).map_or(&[], Vec::as_slice))
        }

        fn rows(&self, document: &str) -> usize {
            self.rows.lock().unwrap().get(document).map_or(0, Vec::len)
        }

        fn check(&self) -> Result<(), StoreError> {
            if self.failing.load(Ordering::SeqCst) { Err(StoreError::Contended) } else { Ok(()) }
        }
    }

    impl Store for MemoryStore {
        fn load<'a>(&'a self, document: &'a str, after: Seq) -> BoxFuture<'a, Result<Stored, StoreError>> {
            async move {
                self.check()?;
                let rows = self.rows.lock().unwrap().get(document).cloned().unwrap_or_default();
                let seq = rows.len() as Seq;
                Ok(Stored { updates: rows.into_iter().skip(after as usize).collect(), seq })
            }
            .boxed()
        }

        fn append<'a>(&'a self, document: &'a str, update: Bytes) -> BoxFuture<'a, Result<Seq, StoreError>> {
            async move {
                self.check()?;
                let mut rows = self.rows.lock().unwrap();
                let rows = rows.entry(document.to_owned()).or_default();
                rows.push(update);
                Ok(rows.len() as Seq)
            }
            .boxed()
        }

        fn compact<'a>(&'a self, _document: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
            async move {
                self.check()?;
                self.compactions.fetch_add(1, Ordering::SeqCst);
                Ok(true)
            }
            .boxed()
        }
    }

    /// The rooms of a node over `store`.
    pub(crate) fn rooms_over(store: &Arc<MemoryStore>) -> Rooms {
        Rooms::new(Arc::clone(store) as Arc<dyn Store>, Metrics::new(), CancellationToken::new())
    }

    pub(crate) fn name(text: &str) -> RoomName {
        text.parse().unwrap()
    }

    async fn join(rooms: &Rooms, room: &str) -> Membership {
        rooms.join(&name(room)).await.unwrap()
    }

    /// Sends an edit and waits until it has come back.
    async fn edit(member: &mut Membership, client: &Client, text: &str) {
        let update = client.insert(u32::MAX, text);
        member.send(ClientMessage::Update(update.clone())).await;
        let echo = Outgoing::Update(update).encode();
        loop {
            match member.queue.next().await {
                Next::Frame(frame) if frame == echo => return,
                Next::Frame(_) => {}
                Next::Close(reason) => panic!("closed: {reason:?}"),
            }
        }
    }

    /// What a client sees that joins now.
    async fn text_for_newcomer(rooms: &Rooms, room: &str) -> String {
        let mut member = join(rooms, room).await;
        member.send(ClientMessage::Step1(Bytes::from_static(&[0]))).await;
        let Next::Frame(frame) = member.queue.next().await else { panic!("an answer comes first") };
        let ClientMessage::Step2(update) = ClientMessage::decode(&frame).unwrap() else { panic!("step 2 comes first") };
        member.leave().await;
        text_after(&[update])
    }

    async fn seconds(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[test]
    fn names_are_those_of_the_edges_sticky_rule() {
        for good in ["a", "course:42~1", "A.b_c-9", &"x".repeat(ROOM_NAME_BYTES_MAX)] {
            assert!(good.parse::<RoomName>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "é", "a%20b", &"x".repeat(ROOM_NAME_BYTES_MAX + 1)] {
            assert_eq!(bad.parse::<RoomName>(), Err(BadRoomName), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_saved_together_once_it_is_quiet() {
        let (store, client) = (Arc::new(MemoryStore::default()), Client::new(7));
        let rooms = rooms_over(&store);
        let mut member = join(&rooms, "r").await;
        for letter in ["a", "b", "c"] {
            edit(&mut member, &client, letter).await;
            seconds(1).await;
        }
        assert_eq!(store.rows("r"), 0, "somebody has typed a second ago");
        seconds(2).await;
        assert_eq!((store.rows("r"), store.text("r").as_str()), (1, "abc"));
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_saved_after_ten_seconds_though_it_is_never_quiet() {
        let (store, client) = (Arc::new(MemoryStore::default()), Client::new(7));
        let rooms = rooms_over(&store);
        let mut member = join(&rooms, "r").await;
        for _ in 0..11 {
            edit(&mut member, &client, "x").await;
            seconds(1).await;
        }
        assert_eq!(store.rows("r"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn presence_does_not_put_off_saving() {
        let (store, client) = (Arc::new(MemoryStore::default()), Client::new(7));
        let rooms = rooms_over(&store);
        let mut member = join(&rooms, "r").await;
        edit(&mut member, &client, "x").await;
        for clock in 1..4 {
            seconds(1).await;
            let state = Some("{}".into());
            let entry = crate::protocol::AwarenessEntry { client: 7, clock, state };
            member.send(ClientMessage::Awareness(vec![entry])).await;
        }
        assert_eq!(store.text("r"), "x");
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_fails_the_room_goes_on_and_saves_all_of_it_later() {
        let (store, client) = (Arc::new(MemoryStore::default()), Client::new(7));
        let rooms = rooms_over(&store);
        assert_eq!(text_for_newcomer(&rooms, "r").await, ""); // it is loaded
        let mut member = join(&rooms, "r").await;
        store.failing.store(true, Ordering::SeqCst);
        edit(&mut member, &client, "a").await;
        seconds(60).await;
        edit(&mut member, &client, "b").await;
        member.leave().await;
        seconds(60).await;
        assert_eq!(rooms.len(), 1, "a room with unsaved changes stays, though nobody is there");
        assert!(rooms.0.shared.metrics.flush_failures.get() > 2);
        assert_eq!(text_for_newcomer(&rooms, "r").await, "ab");
        store.failing.store(false, Ordering::SeqCst);
        seconds(60).await;
        assert_eq!(store.text("r"), "ab");
        assert!(rooms.is_empty(), "saved and empty: unloaded");
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_whose_document_cannot_be_loaded_lets_nobody_see_an_empty_one() {
        let store = Arc::new(MemoryStore::default());
        let rooms = rooms_over(&store);
        store.failing.store(true, Ordering::SeqCst);
        let mut member = join(&rooms, "r").await;
        assert_eq!(member.queue.next().await, Next::Close(CloseReason::StoreUnavailable));
        store.failing.store(false, Ordering::SeqCst);
        assert_eq!(text_for_newcomer(&rooms, "r").await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_room_is_saved_at_once_unloaded_later_and_loaded_again() {
        let (store, client) = (Arc::new(MemoryStore::default()), Client::new(7));
        let rooms = rooms_over(&store);
        let mut member = join(&rooms, "r").await;
        edit(&mut member, &client, "kept").await;
        member.leave().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(store.text("r"), "kept");
        assert_eq!(rooms.len(), 1);
        seconds(15).await;
        assert!(rooms.is_empty());
        assert_eq!(text_for_newcomer(&rooms, "r").await, "kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_one_room_and_its_document_comes_back() {
        let (store, client) = (Arc::new(MemoryStore::default()), Client::new(7));
        let rooms = rooms_over(&store);
        let mut member = join(&rooms, "r").await;
        let mut other = join(&rooms, "other").await;
        edit(&mut member, &client, "kept").await;
        seconds(5).await;
        member.make_the_room_panic().await;
        while let Next::Frame(_) = member.queue.next().await {}
        assert_eq!(member.queue.next().await, Next::Close(CloseReason::RoomFailed));
        assert_eq!(text_for_newcomer(&rooms, "r").await, "kept");
        edit(&mut other, &Client::new(8), "lives").await;
        assert_eq!(rooms.0.shared.metrics.room_failures.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn two_nodes_with_one_room_hear_of_each_other_through_the_store() {
        let store = Arc::new(MemoryStore::default());
        let (one, two) = (rooms_over(&store), rooms_over(&store));
        let (mut ann, mut ben) = (join(&one, "r").await, join(&two, "r").await);
        edit(&mut ann, &Client::new(7), "a").await;
        edit(&mut ben, &Client::new(8), "b").await;
        seconds(20).await;
        let text = text_for_newcomer(&one, "r").await;
        assert_eq!(text.len(), 2);
        assert_eq!(text_for_newcomer(&two, "r").await, text);
        assert_eq!(store.text("r"), text);
        assert!(matches!(ann.queue.next().await, Next::Frame(_)), "who is there is told");
    }

    #[tokio::test(start_paused = true)]
    async fn many_rows_are_compacted() {
        let (store, client) = (Arc::new(MemoryStore::default()), Client::new(7));
        let rooms = rooms_over(&store);
        let mut member = join(&rooms, "r").await;
        for _ in 0..200 {
            edit(&mut member, &client, "x").await;
            seconds(3).await;
        }
        assert_eq!(store.compactions.load(Ordering::SeqCst), 1);
        edit(&mut member, &client, &"x".repeat(300 * 1024)).await;
        seconds(3).await;
        assert_eq!(store.compactions.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_room_sends_newcomers_away_for_now() {
        let rooms = rooms_over(&Arc::default());
        let mut inside = Vec::new();
        for _ in 0..MEMBERS_MAX {
            inside.push(join(&rooms, "r").await);
        }
        let mut late = join(&rooms, "r").await;
        assert_eq!(late.queue.next().await, Next::Close(CloseReason::RoomFull));
        inside.pop(); // its connection is gone without a word
        seconds(2).await;
        assert_eq!(text_for_newcomer(&rooms, "r").await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_cut_off_and_the_others_go_on() {
        let (store, client) = (Arc::new(MemoryStore::default()), Client::new(7));
        let rooms = rooms_over(&store);
        let (mut quick, mut slow) = (join(&rooms, "r").await, join(&rooms, "r").await);
        for _ in 0..crate::queue::QUEUED_MESSAGES_MAX + 1 {
            edit(&mut quick, &client, "x").await;
        }
        assert_eq!(slow.queue.next().await, Next::Close(CloseReason::Overflow));
        assert_eq!(rooms.0.shared.metrics.send_queue_overflows.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_saves_at_once_closes_room_by_room_and_opens_none() {
        let store = Arc::new(MemoryStore::default());
        let rooms = rooms_over(&store);
        let start = Instant::now();
        let mut sockets = Vec::new();
        for room in 0..4 {
            for member in 0..5 {
                let mut membership = join(&rooms, &format!("r{room}")).await;
                if member == 0 {
                    edit(&mut membership, &Client::new(7), "kept").await;
                }
                sockets.push(tokio::spawn(async move {
                    let reason = loop {
                        if let Next::Close(reason) = membership.queue.next().await {
                            break reason;
                        }
                    };
                    let at = start.elapsed();
                    membership.leave().await;
                    (reason, at)
                }));
            }
        }
        rooms.0.shared.draining.cancel();
        let draining = tokio::spawn({
            let rooms = rooms.clone();
            async move { rooms.drain(Duration::from_secs(10)).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        for room in 0..4 {
            assert_eq!(store.text(&format!("r{room}")), "kept", "before its turn");
        }
        assert_eq!(rooms.join(&name("new")).await.unwrap_err(), JoinError::Draining);
        draining.await.unwrap();
        assert!(rooms.is_empty());

        let mut turns: Vec<_> = Vec::new();
        for socket in sockets {
            let (reason, at) = socket.await.unwrap();
            assert_eq!(reason, CloseReason::Restart);
            turns.push(at.as_millis() / 100);
        }
        turns.sort_unstable();
        turns.dedup();
        assert_eq!(turns, [0, 25, 50, 75], "a room at a time, spread over ten seconds");
    }
}
