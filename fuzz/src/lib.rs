//! What must hold for every input, one file per fuzz target, and the oracles that give a second opinion.
//!
//! A property that fails panics. Inputs are bytes from outside: what cannot be built from them is returned from early.

pub mod client_message;
pub mod cursor;
pub mod event;
pub mod frames;
pub mod function;
pub mod pubsub_message;
pub mod topic;
#[path = "../../tests/corpus/verdict.rs"]
pub mod verdict;

use carillon::protocol::Areas;

/// The areas of every target: one public, one private.
///
/// # Panics
/// Never: the names are good.
pub fn areas() -> Areas {
    Areas::new(["comments", "notifications"], ["notifications"], []).expect("areas")
}

/// The largest event, small so that fuzzers reach it.
pub const EVENT_BYTES: usize = 2048;
