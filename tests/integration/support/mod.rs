//! What the tests share: real servers, nodes and clients, and waiting with a deadline.

use std::path::Path;

pub(crate) mod bus;
pub(crate) mod cluster;
pub(crate) mod corpus;
pub(crate) mod frames;
pub(crate) mod load;
pub(crate) mod node;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod runbook;
pub(crate) mod streams;
pub(crate) mod ways;

/// The folder of the repository: these tests belong to the crate of the program, two folders down.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}
