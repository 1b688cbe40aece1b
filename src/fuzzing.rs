//! Doors for the fuzz targets in `fuzz/`, in builds with the feature `fuzzing` only: what they drive is private
//! otherwise. Nothing is decided here, or the targets would test this file instead of the program.

use bytes::Bytes;

use crate::{
    bus::message,
    protocol::{EntryId, Event, EventError},
    session::decoder,
};

/// A message on a topic's channel: its id, where it is a recorded one, and the event or what is wrong with it.
pub fn message(payload: Bytes, limit: usize) -> (Option<EntryId>, Result<Event, EventError>) {
    message::read(payload, limit)
}

/// What a decoder has made of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
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
pub struct FrameDecoder {
    decoder: decoder::FrameDecoder,
    limit: usize,
}

impl FrameDecoder {
    /// `limit`: bytes of a message.
    pub fn new(limit: usize) -> Self {
        Self { decoder: decoder::FrameDecoder::default(), limit }
    }

    /// Takes bytes as they came; appends what must be written to `replies`.
    pub fn take(&mut self, bytes: &[u8], replies: &mut Vec<u8>) -> Vec<Incoming> {
        let heard = self.decoder.take(bytes, self.limit, replies).into_iter();
        let door = |heard| match heard {
            decoder::Incoming::Text(text) => Incoming::Text(text),
            decoder::Incoming::Binary => Incoming::Binary,
            decoder::Incoming::Closed(code) => Incoming::Closed(code),
            decoder::Incoming::Broken(closing) => Incoming::Broken(closing.code.number()),
        };
        heard.map(door).collect()
    }

    /// Whether it holds memory for something that has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.decoder.is_open()
    }
}

impl std::fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameDecoder(open: {})", self.is_open())
    }
}
