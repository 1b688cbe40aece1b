//! How the task of a session ends, over whichever transport.

use std::time::Duration;

use crate::hub::Closing;

/// How long a client may take for the last bytes, and to close in its turn.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes that are still read of a client after the node's goodbye: room for what was under way, not for a flood.
pub(super) const LAST_BYTES: usize = 1 << 20;

/// How a session ends.
pub(super) enum End {
    /// The node closes. Boxed, because a session's future has room for an end as long as it lives.
    Ours(Box<Closing>),
    /// The client closes, or is gone.
    Theirs,
}

impl From<Result<Closing, ()>> for End {
    fn from(end: Result<Closing, ()>) -> Self {
        end.map_or(Self::Theirs, Self::from)
    }
}

impl From<Closing> for End {
    fn from(closing: Closing) -> Self {
        Self::Ours(Box::new(closing))
    }
}
