//! The rooms of the edge that are fuzzed, and the properties that must hold for every input.

pub mod driver;
pub mod properties;
pub mod records;

#[path = "../../src/store/disk/orders.rs"]
pub mod orders;
#[path = "../../src/store/disk/record.rs"]
pub mod record;
#[path = "../../src/proxy/target.rs"]
pub mod target;
#[path = "../../src/wire/mod.rs"]
pub mod wire;

pub mod proxy {
    //! The part of `proxy` that reads outside data, under its path in the edge.

    pub use crate::target;
}
