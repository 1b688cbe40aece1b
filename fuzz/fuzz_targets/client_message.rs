//! What a client says: the message, and a whole conversation with the session machine.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| carillon_fuzz::client_message::check(data));
