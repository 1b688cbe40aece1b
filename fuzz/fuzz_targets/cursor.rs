//! The cursor that clients of SSE and long-poll bring back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| carillon_fuzz::cursor::check(data));
