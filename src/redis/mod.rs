//! The only owner of Redis connections: one [`Redis`] per use, with its own connection, deadline and breaker.
//!
//! A use that blocks (`XREAD BLOCK`) or moves large values has a connection of its own, since everything behind it on the same one
//! would wait. Nothing connects before it is needed, so a dead Redis does not stop a start; connecting is a task of its own that
//! callers wait for no longer than their deadline; and after failures Redis is left alone for a moment, in which every call fails at
//! once. Addresses may be one server, a cluster or sentinels: [`Url`].

mod command;
mod config;
mod connection;
mod owner;

pub use ::redis::FromRedisValue;
pub use command::Command;
pub use config::{Address, BadUrl, Config, Deployment, Url};
pub use owner::{Error, Purpose, Redis};
