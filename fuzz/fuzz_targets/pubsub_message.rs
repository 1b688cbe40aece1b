//! A message on a topic's channel.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| carillon_fuzz::pubsub_message::check(data));
