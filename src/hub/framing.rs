//! Framing: what the messages of a session look like on its own socket, where they are not frames that all share.
//!
//! A WebSocket needs none: the same bytes serve every session. A stream of server-sent events puts the session's own
//! cursor behind each message; the JSON is encoded once for all the same.

use bytes::Bytes;
use tokio::time::Instant;

use super::frame::Frame;
use crate::protocol::NodeMessage;

/// Makes messages ready for one session's socket, in the order in which they are written.
pub trait Framing: Send {
    /// Appends an event.
    fn event(&mut self, frame: &Frame, out: &mut Vec<u8>);
    /// Appends another message.
    fn message(&mut self, message: &NodeMessage, out: &mut Vec<u8>);
    /// A sign of life, which says nothing.
    fn beat(&self) -> Bytes;
}

/// What only a session with a framing of its own needs. Boxed, because most sessions have none.
pub(super) struct Framed {
    /// How messages look.
    pub(super) framing: Box<dyn Framing>,
    /// When the socket last took something, while a `resync` for dropped events waits to be taken.
    pub(super) stuck: Option<Instant>,
}
