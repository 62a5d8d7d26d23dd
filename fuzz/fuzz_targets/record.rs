//! Records of the disk tier.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| eduham_edge_fuzz::records::records(data));
