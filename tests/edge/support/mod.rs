//! The vocabulary of these tests: an edge in this process, an origin that is told what to say, clients, gates.
//!
//! Everything is on port 0 of the loopback. Time of day is a clock that tests move ([`Edge::advance`]); nothing sleeps:
//! a test holds things with a [`Gate`] and waits for events, or for counters with [`gate::eventually`].

#![expect(clippy::expect_used, reason = "a test that cannot set itself up has failed")]

pub mod client;
pub mod edge;
pub mod gate;
#[path = "../../support/lines.rs"]
pub mod lines;
pub mod origin;
pub mod redis_deployments;
#[path = "../../support/redis_server.rs"]
pub mod redis_server;

pub use client::{Answer, Ask, Connection, ask, get};
pub use edge::{Apart, Edge, configured, edge, waiting};
pub use gate::{Gate, eventually, eventually_async, within};
pub use lines::Lines;
pub use origin::{Asked, Origin, Page, cacheable, origin, page, raw, reset};
pub use redis_server::RedisServer;
