//! One `Exchange` walks the steps of a request, one file each.

pub mod routing;
pub mod target;
