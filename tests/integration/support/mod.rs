//! What the tests share: real servers, nodes and clients, and waiting with a deadline.

pub(crate) mod bus;
pub(crate) mod cluster;
pub(crate) mod corpus;
pub(crate) mod frames;
pub(crate) mod node;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod streams;
pub(crate) mod ways;
