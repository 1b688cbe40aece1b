//! What the tests share. Each test file uses a part of it.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

pub mod bus;
pub mod corpus;
pub mod proxy;
pub mod redis;
