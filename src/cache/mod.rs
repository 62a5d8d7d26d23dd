//! The law: what a shared cache may keep and what it may answer with. Pure: no I/O, no clock.

mod pattern;
mod policy;

pub use pattern::Glob;
pub use policy::{Bypass, ClientDirectives, Collapse, CollapseExpired, Policy, QueryRule, SetCookie, StatusTtl};
