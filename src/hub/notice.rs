//! What an outbox says: to the task of its session, and to whoever hands it a frame.

use std::collections::BTreeSet;

use crate::protocol::{CloseCode, NodeMessage, Topic};

/// Why a session must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The close code.
    pub code: CloseCode,
    /// A word or a short sentence, for the client's developer.
    pub reason: String,
    /// When the client shall come back, ms.
    pub reconnect_after_ms: Option<u64>,
}

impl Closing {
    /// The message that comes just before the close.
    pub fn message(&self) -> NodeMessage {
        NodeMessage::closing(self.code, &*self.reason, self.reconnect_after_ms)
    }
}

/// What an outbox has to say to the task of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// There is something to pull ([`super::Outbox::pull`]), or the socket must become writable ([`super::Outbox::is_blocked`]).
    Work,
    /// A `resync` is owed and everything else is written: ask the relay for it (`Relay::drained`).
    Drained,
    /// Say `closing` and close.
    Closing(Closing),
    /// The socket is broken.
    Broken,
}

/// Events that an outbox has dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Their topics.
    pub topics: BTreeSet<Topic>,
    /// The smallest `at` that one of them carried, ms of Redis' clock: up to there the session was told everything.
    pub at: u64,
    /// A `status` with `live:true` that waited behind them was dropped as well: it is not true without them.
    pub live: bool,
}

/// How a frame was taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Written, or queued.
    Yes,
    /// Queued as the first in an empty queue: call [`super::Outbox::flush`] soon.
    First,
    /// The bound was reached: these events were dropped, and a `resync` is owed for them.
    Overflow(Dropped),
    /// The session has ended.
    Ended,
}
