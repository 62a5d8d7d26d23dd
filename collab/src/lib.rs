//! The collaboration node of EduHam: rooms in which people edit one document together, over WebSocket.

pub mod lib0;
pub mod protocol;

pub mod awareness;
pub mod document;
pub mod room;
