//! A room as a value: (member, message) in, messages out. No socket, no clock, no task, no database.

use std::{collections::HashSet, time::Instant};

use bytes::Bytes;

use crate::{
    awareness::Awareness,
    document::{self, BadUpdate, DOC_BYTES_MAX, Document},
    protocol::{ClientMessage, Outgoing},
};

/// Connections in one room: Yjs presence is quadratic, and a class of this size edits no text together.
pub const MEMBERS_MAX: usize = 200;

/// Unsaved updates beyond this many bytes are replaced by the whole document, so that a store that fails for hours
/// costs the memory of one document.
const UNSAVED_BYTES_MAX: usize = 1024 * 1024;

/// One connection in a room; never used twice in the life of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u64);

/// Who gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipients {
    /// One member.
    One(MemberId),
    /// Every member, the sender included: its own echo is what keeps a lone client connected and acknowledges a change.
    All,
}

/// A message and who gets it.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who.
    pub to: Recipients,
    /// What.
    pub message: Outgoing,
}

/// Why a member may not stay after what it has sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not an update, or one that cannot be applied.
    #[error(transparent)]
    BadUpdate(#[from] BadUpdate),
    /// The document would grow beyond [`DOC_BYTES_MAX`].
    #[error("the document is full ({} MiB)", DOC_BYTES_MAX / 1024 / 1024)]
    Full,
}

/// The state of a room.
#[derive(Debug, Default)]
pub struct Room {
    document: Document,
    awareness: Awareness,
    members: HashSet<MemberId>,
    /// Members that have had the presence of the others.
    greeted: HashSet<MemberId>,
    /// At least the bytes of the encoded document; exact after a count.
    bytes: usize,
    unsaved: Vec<Bytes>,
    unsaved_bytes: usize,
    changes: u64,
}

impl Room {
    /// An empty room.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections are in the room.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Lets a connection in; false when [`MEMBERS_MAX`] are there. Nothing is sent: the client speaks first.
    pub fn join(&mut self, member: MemberId) -> bool {
        self.members.len() < MEMBERS_MAX && self.members.insert(member)
    }

    /// Notes that a connection has ended.
    pub fn leave(&mut self, member: MemberId, now: Instant) {
        self.members.remove(&member);
        self.greeted.remove(&member);
        self.awareness.leave(member, now);
    }

    /// Takes a message of a member and says what to send to whom, in this order.
    pub fn receive(&mut self, from: MemberId, message: ClientMessage, now: Instant) -> Result<Vec<Delivery>, Refusal> {
        let reply = |message| Delivery { to: Recipients::One(from), message };
        match message {
            ClientMessage::Step1(state_vector) => {
                let missing = self.document.missing_for(&state_vector)?;
                let mut replies =
                    vec![reply(Outgoing::Step2(missing)), reply(Outgoing::Step1(self.document.state_vector()))];
                if self.greeted.insert(from) {
                    replies.extend(self.presence().map(reply));
                }
                Ok(replies)
            }
            ClientMessage::Step2(update) | ClientMessage::Update(update) => self.update(from, update),
            ClientMessage::Awareness(entries) => {
                Ok(to_all_unless_empty(self.awareness.receive(from, entries, now)).into_iter().collect())
            }
            ClientMessage::QueryAwareness => Ok(self.presence().map(reply).into_iter().collect()),
            ClientMessage::Unknown(_) => Ok(Vec::new()),
        }
    }

    /// Removes presence that has run out.
    pub fn sweep(&mut self, now: Instant) -> Option<Delivery> {
        to_all_unless_empty(self.awareness.sweep(now))
    }

    /// Takes what the store holds: at the start, or what another node has written since. It is saved already.
    pub fn absorb(&mut self, stored: &[u8]) -> Result<Option<Delivery>, BadUpdate> {
        let applied = self.document.apply(stored)?;
        self.bytes += stored.len();
        Ok(applied.news.map(|news| Delivery { to: Recipients::All, message: Outgoing::Update(news) }))
    }

    /// How many updates have changed the document; those of [`Room::absorb`] do not count.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether something has to be saved.
    pub fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// Hands over what has to be saved. What could not be saved comes back through [`Room::unsaved_again`].
    pub fn take_unsaved(&mut self) -> Vec<Bytes> {
        self.unsaved_bytes = 0;
        std::mem::take(&mut self.unsaved)
    }

    /// Takes back what could not be saved.
    pub fn unsaved_again(&mut self, mut updates: Vec<Bytes>) {
        self.unsaved_bytes += updates.iter().map(Bytes::len).sum::<usize>();
        updates.append(&mut self.unsaved);
        self.unsaved = updates;
        self.bound_unsaved();
    }

    /// Marks the whole document as unsaved.
    pub fn unsave_everything(&mut self) {
        let whole = Bytes::from(self.document.encode());
        self.bytes = whole.len();
        // Counted as nothing: more than [`UNSAVED_BYTES_MAX`] must come before the document is encoded again.
        self.unsaved_bytes = 0;
        self.unsaved = vec![whole];
    }

    fn update(&mut self, from: MemberId, update: Bytes) -> Result<Vec<Delivery>, Refusal> {
        if update.len() <= document::EMPTY_UPDATE_BYTES {
            return Ok(Vec::new());
        }
        if self.bytes + update.len() > DOC_BYTES_MAX {
            self.bytes = self.document.encode().len();
            if self.bytes + update.len() > DOC_BYTES_MAX {
                return Err(Refusal::Full);
            }
        }
        let applied = self.document.apply(&update)?;
        if applied.worth_saving {
            self.changes += 1;
            self.bytes += update.len();
            self.unsaved_bytes += update.len();
            self.unsaved.push(update.clone());
            self.bound_unsaved();
        }
        Ok(vec![match applied.news {
            Some(news) => Delivery { to: Recipients::All, message: Outgoing::Update(news) },
            // Known already, or early: nobody else needs it, the sender gets its acknowledgement.
            None => Delivery { to: Recipients::One(from), message: Outgoing::Update(update) },
        }])
    }

    fn presence(&self) -> Option<Outgoing> {
        let present = self.awareness.present();
        (!present.is_empty()).then_some(Outgoing::Awareness(present))
    }

    fn bound_unsaved(&mut self) {
        if self.unsaved_bytes > UNSAVED_BYTES_MAX && self.unsaved.len() > 1 {
            self.unsave_everything();
        }
    }
}

fn to_all_unless_empty(entries: Vec<crate::protocol::AwarenessEntry>) -> Option<Delivery> {
    (!entries.is_empty()).then_some(Delivery { to: Recipients::All, message: Outgoing::Awareness(entries) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use yrs::{ReadTxn, StateVector, Transact, updates::decoder::Decode, updates::encoder::Encode};

    use super::*;
    use crate::{
        document::tests::{Client, text_after, text_of},
        protocol::AwarenessEntry,
    };

    /// A y-websocket client in process: what it is sent waits in its inbox until it reads.
    struct Peer {
        id: MemberId,
        client: Client,
        inbox: Vec<Outgoing>,
    }

    /// A room and its peers; messages are carried between them by hand.
    struct World {
        room: Room,
        peers: Vec<Peer>,
        now: Instant,
    }

    impl World {
        fn new(peers: u64) -> Self {
            let mut world = Self { room: Room::new(), peers: Vec::new(), now: Instant::now() };
            for id in 1..=peers {
                world.peers.push(Peer { id: MemberId(id), client: Client::new(id), inbox: Vec::new() });
                world.connect(id as usize - 1);
            }
            world
        }

        fn send(&mut self, peer: usize, message: ClientMessage) {
            let from = self.peers[peer].id;
            for delivery in self.room.receive(from, message, self.now).unwrap() {
                for peer in &mut self.peers {
                    if delivery.to == Recipients::All || delivery.to == Recipients::One(peer.id) {
                        peer.inbox.push(delivery.message.clone());
                    }
                }
            }
        }

        fn connect(&mut self, peer: usize) {
            assert!(self.room.join(self.peers[peer].id));
            let state = self.peers[peer].client.doc.transact().state_vector().encode_v1();
            self.send(peer, ClientMessage::Step1(state.into()));
        }

        /// A peer reads everything that it was sent and answers as y-websocket does.
        fn read(&mut self, peer: usize) {
            for message in std::mem::take(&mut self.peers[peer].inbox) {
                match message {
                    Outgoing::Update(update) => self.peers[peer].client.apply(&update),
                    Outgoing::Step2(update) => self.peers[peer].client.apply(&update),
                    Outgoing::Step1(state) => {
                        let theirs = StateVector::decode_v1(&state).unwrap();
                        let missing = self.peers[peer].client.doc.transact().encode_state_as_update_v1(&theirs);
                        self.send(peer, ClientMessage::Step2(missing.into()));
                    }
                    // Every y-websocket client sends back what it has learned.
                    Outgoing::Awareness(entries) => self.send(peer, ClientMessage::Awareness(entries)),
                }
            }
        }

        fn settle(&mut self) {
            while let Some(busy) = self.peers.iter().position(|peer| !peer.inbox.is_empty()) {
                self.read(busy);
            }
        }
    }

    #[test]
    fn a_newcomer_gets_step_2_then_step_1_then_who_is_there() {
        let mut world = World::new(2);
        let entry = AwarenessEntry { client: 1, clock: 1, state: Some("{}".into()) };
        world.send(0, ClientMessage::Awareness(vec![entry.clone()]));
        world.peers[1].inbox.clear();
        world.room.leave(MemberId(2), world.now);
        world.connect(1);
        let kinds = |messages: &[Outgoing]| -> Vec<_> {
            messages
                .iter()
                .map(|message| match message {
                    Outgoing::Step1(_) => "step 1",
                    Outgoing::Step2(_) => "step 2",
                    Outgoing::Update(_) => "update",
                    Outgoing::Awareness(_) => "awareness",
                })
                .collect()
        };
        assert_eq!(kinds(&world.peers[1].inbox), ["step 2", "step 1", "awareness"]);
        assert_eq!(world.peers[1].inbox[2], Outgoing::Awareness(vec![entry]));
    }

    #[test]
    fn everybody_hears_an_update_the_sender_too() {
        let mut world = World::new(3);
        world.settle();
        let update = world.peers[0].client.insert(0, "\u{1f600} hi");
        world.send(0, ClientMessage::Update(update.clone()));
        for peer in &world.peers {
            assert_eq!(peer.inbox, [Outgoing::Update(update.clone())]);
        }
    }

    #[test]
    fn an_update_that_everybody_has_is_acknowledged_and_not_relayed() {
        let mut world = World::new(2);
        let update = world.peers[0].client.insert(0, "x");
        world.send(0, ClientMessage::Update(update.clone()));
        world.settle();
        world.room.take_unsaved();
        world.send(0, ClientMessage::Update(update.clone()));
        assert_eq!(world.peers[0].inbox, [Outgoing::Update(update)]);
        assert!(world.peers[1].inbox.is_empty());
        assert!(!world.room.has_unsaved());
    }

    #[test]
    fn echoes_of_presence_end_with_the_first_round() {
        let mut world = World::new(20);
        world.settle();
        let entry = AwarenessEntry { client: 1, clock: 1, state: Some("{}".into()) };
        world.send(0, ClientMessage::Awareness(vec![entry]));
        assert!(world.peers.iter().all(|peer| peer.inbox.len() == 1));
        for peer in 0..world.peers.len() {
            world.read(peer); // echoes
        }
        assert!(world.peers.iter().all(|peer| peer.inbox.is_empty()));
    }

    #[test]
    fn edits_made_while_away_reach_everybody_on_return() {
        let mut world = World::new(2);
        world.settle();
        world.room.leave(MemberId(2), world.now);
        let _unsent = world.peers[1].client.insert(0, "offline");
        let sent = world.peers[0].client.insert(0, "online ");
        world.send(0, ClientMessage::Update(sent));
        world.peers[1].inbox.clear();
        world.connect(1);
        world.settle();
        assert_eq!(world.peers[0].client.text(), world.peers[1].client.text());
        assert_eq!(world.peers[0].client.text().len(), "online offline".len());
        assert_eq!(text_after(&world.room.take_unsaved()), world.peers[0].client.text());
    }

    #[test]
    fn a_full_document_refuses_more_and_keeps_what_it_has() {
        let mut world = World::new(1);
        let big = "x".repeat(DOC_BYTES_MAX / 2);
        world.send(0, ClientMessage::Update(Client::new(98).insert(0, &big)));
        let more = ClientMessage::Update(Client::new(99).insert(0, &big));
        assert_eq!(world.room.receive(MemberId(1), more, world.now), Err(Refusal::Full));
        world.send(0, ClientMessage::Update(Client::new(100).insert(0, "a little more")));
        assert!(world.room.document.encode().len() <= DOC_BYTES_MAX);
        // What is unsaved stays within one document, however much has come.
        assert!(world.room.take_unsaved().iter().map(Bytes::len).sum::<usize>() <= DOC_BYTES_MAX);
    }

    #[test]
    fn a_full_room_lets_nobody_in() {
        let mut room = Room::new();
        for id in 0..MEMBERS_MAX as u64 {
            assert!(room.join(MemberId(id)));
        }
        assert!(!room.join(MemberId(9_999)));
        room.leave(MemberId(0), Instant::now());
        assert!(room.join(MemberId(9_999)));
    }

    #[test]
    fn what_could_not_be_saved_is_kept_in_order() {
        let mut world = World::new(1);
        for text in ["a", "b"] {
            let update = world.peers[0].client.insert(u32::MAX, text);
            world.send(0, ClientMessage::Update(update));
        }
        let failed = world.room.take_unsaved();
        let update = world.peers[0].client.insert(u32::MAX, "c");
        world.send(0, ClientMessage::Update(update));
        world.room.unsaved_again(failed);
        assert_eq!(text_after(&world.room.take_unsaved()), "abc");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Peers type, read late, drop out and come back in any order; in the end all have the same text, and so have
        /// the room and what it wants saved.
        #[test]
        fn a_room_converges(steps in prop::collection::vec((0_usize..3, 0_u8..5, 0_u32..30, "[a-z]{1,3}"), 1..60)) {
            let mut world = World::new(3);
            let mut online = [true; 3];
            let mut saved = Vec::new();
            for (who, what, at, text) in steps {
                match what {
                    0 | 1 => {
                        let client = &world.peers[who].client;
                        let update = if what == 0 { client.insert(at, &text) } else { client.remove(at, 2) };
                        if online[who] {
                            world.send(who, ClientMessage::Update(update));
                        }
                    }
                    2 => world.read(who),
                    3 if online[who] => {
                        online[who] = false;
                        let (id, now) = (world.peers[who].id, world.now);
                        world.room.leave(id, now);
                        world.peers[who].inbox.clear();
                    }
                    3 => {
                        online[who] = true;
                        world.peers[who].inbox.clear();
                        world.connect(who);
                    }
                    _ => saved.extend(world.room.take_unsaved()),
                }
            }
            for (who, online) in online.into_iter().enumerate() {
                if !online {
                    world.peers[who].inbox.clear();
                    world.connect(who);
                }
            }
            world.settle();
            saved.extend(world.room.take_unsaved());
            let text = world.peers[0].client.text();
            prop_assert_eq!(&world.peers[1].client.text(), &text);
            prop_assert_eq!(&world.peers[2].client.text(), &text);
            prop_assert_eq!(&text_of(&world.room.document), &text);
            prop_assert_eq!(&text_after(&saved), &text);
        }
    }
}
