//! The grammar of topics, and what a grant makes of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| carillon_fuzz::topic::check(data));
