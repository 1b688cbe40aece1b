//! Doors for the fuzz targets in `fuzz/`, in builds with the feature `fuzzing` only: what they drive is private
//! otherwise. Nothing is decided here, or the targets would test this file instead of the program.

use bytes::Bytes;

use crate::{
    bus::message,
    protocol::{EntryId, Event, EventError},
    session::intake,
};

/// A message on a topic's channel: its id, where it is a recorded one, and the event or what is wrong with it.
pub fn message(payload: Bytes, limit: usize) -> (Option<EntryId>, Result<Event, EventError>) {
    message::read(payload, limit)
}

/// What an intake has heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary,
    /// The client closes.
    Closed(Option<u16>),
    /// The client broke the protocol; the close code.
    Broken(u16),
}

/// The reading half of a WebSocket.
pub struct Intake(intake::Intake);

impl Intake {
    /// `limit`: bytes of a message.
    pub fn new(limit: usize) -> Self {
        Self(intake::Intake::new(limit))
    }

    /// Takes bytes as they came; appends what must be written to `replies`.
    pub fn take(&mut self, bytes: &[u8], replies: &mut Vec<u8>) -> Vec<Heard> {
        let heard = self.0.take(bytes, replies).into_iter();
        let door = |heard| match heard {
            intake::Heard::Text(text) => Heard::Text(text),
            intake::Heard::Binary => Heard::Binary,
            intake::Heard::Closed(code) => Heard::Closed(code),
            intake::Heard::Broken(closing) => Heard::Broken(closing.code.number()),
        };
        heard.map(door).collect()
    }

    /// Whether it holds memory for something that has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Intake(open: {})", self.is_open())
    }
}
