//! What nodes tell each other: the purge log, and who is a member.
//!
//! All edges on one Redis are a fleet. Every purge becomes an entry of one stream, numbered densely by the same Lua call that appends it
//! (`script`); every node reads the stream, applies each entry in turn, and says in its next beat how far it is. Number and stream lie
//! in one hash slot, so a cluster serves as well.
//!
//! **Nothing is missed.** An entry's number is its stream id, so a gap shows. With every beat a node names the last entry that it has
//! applied; if the log does not hold that very entry (trimmed away, or Redis was restored to an earlier state) or has another epoch, the
//! node may have missed something, and everything that it stored until then counts as purged. A log that has lost entries which some
//! node has seen begins a new epoch, so that every other node does the same.
//!
//! **Who is behind is known.** A beat renews a lease by Redis's own clock. A node counts its lease from the moment *before* it sent the
//! beat, so it knows that it is cut off before others count it as lost. What it does then is `when_cut_off`. A node that has never read
//! the log uses nothing stored without asking its origin ([`Fleet::is_trusted`]).
//!
//! **What cannot be published waits** in memory, in order, and acts on its own node meanwhile. A node that stops tries once more; what
//! it cannot tell then is lost, and it says so. A purge that is answered 503 is to be sent again if its node ends before Redis is back.
//!
//! A node without Redis is its own fleet: everything here answers at once, and nothing is sent.

mod beat;
mod config;
mod cursor;
mod history;
mod lease;
mod log;
mod member;
mod node;
mod order;
mod pending;
mod publish;
mod script;

pub use config::{Config, LEASE_MIN, WhenCutOff};
pub use history::{History, Record};
pub use member::{Member, MemberState, Members};
pub use node::{Acknowledged, Fleet, Issued, Joined, NodeCard, Sink, Standing};
pub use order::{Order, Url};
