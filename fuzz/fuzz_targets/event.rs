//! The event envelope, as every door reads it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| carillon_fuzz::event::check(data));
