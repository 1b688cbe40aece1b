//! Server-sent events as text (HTML, 9.2): each message with its type, the JSON on one line, and the cursor behind it.
//!
//! The JSON of an event is encoded once for all sessions; the cursor is the session's own.

use std::io::Write;

use bytes::Bytes;

use super::super::cursor::{Cursor, CursorPlace};
use crate::{
    hub::{Frame, Framing},
    protocol::NodeMessage,
};

/// What is said first, so that a proxy that buffers is found out at once.
pub(super) const GREETING: &[u8] = b": carillon\n\n";
/// A sign of life.
pub(super) const BEAT: &[u8] = b":\n\n";
/// A sign of life as a chunk (RFC 9112, 7.1).
pub(in crate::session) const BEAT_CHUNK: &[u8] = b"3\r\n:\n\n\r\n";
/// The last chunk.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Where a session stands, and where its client brings the cursor back.
#[derive(Debug)]
pub(in crate::session) struct SseText {
    /// Where it stands.
    pub cursor: Cursor,
    /// Where its client brings it back.
    pub place: CursorPlace,
}

impl SseText {
    /// Appends an event.
    pub(super) fn event(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        self.cursor.pass(frame);
        let id = self.cursor.text_for(self.place);
        append(&pieces("event", frame.json(), &id), out);
    }

    /// Appends another message.
    pub(super) fn message(&mut self, message: &NodeMessage, out: &mut Vec<u8>) {
        self.cursor.note(message);
        let id = self.cursor.text_for(self.place);
        append(&pieces(message.name(), message.json().as_bytes(), &id), out);
    }
}

/// The same, each message in a chunk of its own.
#[derive(Debug)]
pub(in crate::session) struct SseChunks(pub SseText);

impl Framing for SseChunks {
    fn event(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        self.0.cursor.pass(frame);
        let id = self.0.cursor.text_for(self.0.place);
        append_chunk(&pieces("event", frame.json(), &id), out);
    }

    fn message(&mut self, message: &NodeMessage, out: &mut Vec<u8>) {
        self.0.cursor.note(message);
        let id = self.0.cursor.text_for(self.0.place);
        append_chunk(&pieces(message.name(), message.json().as_bytes(), &id), out);
    }

    fn beat(&self) -> Bytes {
        Bytes::from_static(BEAT_CHUNK)
    }
}

/// The head of an answer and the greeting.
pub(super) fn with_greeting(mut head: Vec<u8>) -> Vec<u8> {
    append_chunk(&[GREETING], &mut head);
    head
}

fn pieces<'a>(name: &'a str, json: &'a [u8], id: &'a str) -> [&'a [u8]; 7] {
    [b"event: ", name.as_bytes(), b"\ndata: ", json, b"\nid: ", id.as_bytes(), b"\n\n"]
}

fn append(pieces: &[&[u8]], out: &mut Vec<u8>) {
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

fn append_chunk(pieces: &[&[u8]], out: &mut Vec<u8>) {
    let size: usize = pieces.iter().map(|piece| piece.len()).sum();
    // Writing into a vector does not fail.
    let _ = write!(out, "{size:x}\r\n");
    append(pieces, out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Areas, EntryId, Event, Lineage, Topic};

    #[test]
    fn a_chunk_is_one_message_with_the_cursor_behind_it() {
        let areas = Areas::new(["comments"], [], []).unwrap();
        let topic = Topic::parse("comments:4", &areas).unwrap();
        let event = Event::parse(Bytes::from_static(br#"{"type":"a.b"}"#), 99).unwrap();
        let frame = Frame::new(topic, Some((Lineage::new("0f"), EntryId { epoch: 5, seq: 1 })), 7, &event);
        let text = || SseText { cursor: Cursor::default(), place: CursorPlace::Query };
        let (mut plain, mut chunked) = (Vec::new(), Vec::new());
        text().event(&frame, &mut plain);
        SseChunks(text()).event(&frame, &mut chunked);
        let mut told = Cursor::default();
        told.pass(&frame);
        let json = String::from_utf8_lossy(frame.json()).into_owned();
        let block = format!("event: event\ndata: {json}\nid: {}\n\n", told.text());
        assert_eq!(String::from_utf8_lossy(&plain), block);
        assert_eq!(String::from_utf8_lossy(&chunked), format!("{:x}\r\n{block}\r\n", block.len()));
        let pong = NodeMessage::Pong { at: 9 };
        chunked.clear();
        SseChunks(text()).message(&pong, &mut chunked);
        told.at = 9;
        let block = format!("event: pong\ndata: {}\nid: {}\n\n", pong.json(), told.text());
        assert_eq!(String::from_utf8_lossy(&chunked), format!("{:x}\r\n{block}\r\n", block.len()));
    }
}
