//! The steps of an event's way that have a span.

use std::time::Instant;

/// A step of an event's way that has a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// `POST /publish`, until Redis has answered.
    Publish,
    /// On a node, until it is written to, or waits for, the socket of each follower.
    Deliver {
        /// When its turn came.
        since: Instant,
    },
}
