//! What the tests share. Each test file uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod bus;
pub mod proxy;
pub mod redis;
