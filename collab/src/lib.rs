//! The collaboration node of EduHam: rooms in which people edit one document together, over WebSocket.
//!
//! Unmodified y-websocket clients connect to `/rt/v1/collab/{room}`. From the wire inwards: [`lib0`] reads integers and
//! buffers, [`protocol`] messages; [`session`] carries them between a socket and its room, [`queue`] bounds what waits for
//! a slow reader. A room is a value ([`room`], with its [`awareness`] and its [`document`]) that turns a message into
//! deliveries; [`room_task`] gives it time, queues and a [`store`]; [`rooms`] finds it by name; [`node`] is the HTTP side.
//!
//! The edge routes all members of a room to one node. Nothing breaks where it does not: updates commute, every node adds
//! what it has to the same table, and looks there for what others have added.

pub mod lib0;
pub mod protocol;

pub mod awareness;
pub mod document;
pub mod room;

pub mod metrics;
pub mod queue;
pub mod session;
pub mod store;

pub mod room_task;
pub mod rooms;

pub mod node;
pub mod settings;
