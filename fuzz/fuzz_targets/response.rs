//! Response heads and bodies of one connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| eduham_edge_fuzz::properties::responses(data));
