//! A WebSocket's bytes, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| carillon_fuzz::frames::check(data));
