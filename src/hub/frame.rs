//! Frames: an event encoded once per node, as the bytes that go to every socket.
//!
//! Server frames are not masked (RFC 6455, 5.1), so the same bytes serve all sessions.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::protocol::{EntryId, Event, Lineage, Topic};

/// The longest header of a server's frame: opcode, and a length of nine bytes.
const ROOM: usize = 10;
/// Opcode of a text frame with FIN set (RFC 6455, 5.2).
const TEXT: u8 = 0x81;
/// Opcode of a close frame with FIN set.
const CLOSE: u8 = 0x88;
/// A Ping without payload.
pub const PING: &[u8] = &[0x89, 0x00];

/// An event as a ready `event` message. Cheap to clone.
#[derive(Clone)]
pub struct Frame(Arc<Encoded>);

struct Encoded {
    topic: Topic,
    position: Option<(Lineage, EntryId)>,
    at: u64,
    /// See [`Frame::digest`]; made when it is first asked for.
    digest: OnceLock<u64>,
    /// Room for the longest header, its end filled with the header, and the message.
    bytes: Vec<u8>,
    /// Where the header begins.
    start: u8,
    /// Where the publisher's object begins; behind it there is one brace.
    event: usize,
}

impl Frame {
    /// Encodes an event. `at` is the last proof, ms of Redis' clock; `position` is absent on a live event.
    ///
    /// The publisher's bytes are copied and let go: they may be a small part of what was read from Redis at once.
    pub fn new(topic: Topic, position: Option<(Lineage, EntryId)>, at: u64, event: &Event) -> Self {
        Self::encode(topic, position, at, event.json())
    }

    fn encode(topic: Topic, position: Option<(Lineage, EntryId)>, at: u64, event: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(ROOM + event.len() + topic.as_str().len() + 112);
        bytes.extend_from_slice(&[0; ROOM]);
        bytes.extend_from_slice(br#"{"type":"event","topic":"#);
        // Writing into a vector does not fail.
        let _ = serde_json::to_writer(&mut bytes, topic.as_str());
        if let Some((lineage, id)) = &position {
            bytes.extend_from_slice(br#","position":""#);
            bytes.extend_from_slice(lineage.as_str().as_bytes());
            bytes.push(b'.');
            put_number(&mut bytes, id.epoch);
            bytes.push(b'-');
            put_number(&mut bytes, id.seq);
            bytes.push(b'"');
        }
        bytes.extend_from_slice(br#","at":"#);
        put_number(&mut bytes, at);
        bytes.extend_from_slice(br#","event":"#);
        let begin = bytes.len();
        bytes.extend_from_slice(event);
        bytes.push(b'}');
        let mut header = [0; ROOM];
        let mut left = &mut header[..];
        put_header(&mut left, TEXT, bytes.len() - ROOM);
        let length = ROOM - left.len();
        let start = ROOM - length;
        bytes[start..ROOM].copy_from_slice(&header[..length]);
        Self(Arc::new(Encoded {
            topic,
            position,
            at,
            digest: OnceLock::new(),
            bytes,
            start: start as u8,
            event: begin,
        }))
    }

    /// The same event with another `at`, for a session that is owed something.
    #[must_use]
    pub fn with_at(&self, at: u64) -> Self {
        Self::encode(self.0.topic.clone(), self.0.position.clone(), at, self.event())
    }

    /// Where it was published.
    pub fn topic(&self) -> &Topic {
        &self.0.topic
    }

    /// Its place in the log; `None` for a live event.
    pub fn position(&self) -> Option<&(Lineage, EntryId)> {
        self.0.position.as_ref()
    }

    /// Its number in the log's epoch; `None` for a live event.
    pub fn seq(&self) -> Option<u64> {
        self.0.position.as_ref().map(|(_, id)| id.seq)
    }

    /// The last proof when it was encoded, ms of Redis' clock.
    pub fn at(&self) -> u64 {
        self.0.at
    }

    /// The publisher's object, as JSON on one line.
    pub fn event(&self) -> &[u8] {
        &self.0.bytes[self.0.event..self.0.bytes.len() - 1]
    }

    /// A hash of topic and event, the same on all nodes: live events have no other name.
    pub fn digest(&self) -> u64 {
        *self.0.digest.get_or_init(|| {
            let hash = Sha256::new()
                .chain_update(self.0.topic.as_str())
                .chain_update([0])
                .chain_update(self.event());
            hash.finalize().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
        })
    }

    /// The WebSocket frame.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes[usize::from(self.0.start)..]
    }

    /// The message as JSON on one line.
    pub fn json(&self) -> &[u8] {
        &self.0.bytes[ROOM..]
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.json()))
    }
}

/// A text frame around `json`.
pub fn text_frame(json: &str) -> Bytes {
    let mut bytes = BytesMut::with_capacity(json.len() + 10);
    put_header(&mut bytes, TEXT, json.len());
    bytes.put_slice(json.as_bytes());
    bytes.freeze()
}

/// A close frame; `reason` is cut to what fits into a control frame (RFC 6455, 5.5: 125 bytes).
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(123)];
    let mut bytes = BytesMut::with_capacity(reason.len() + 4);
    put_header(&mut bytes, CLOSE, reason.len() + 2);
    bytes.put_u16(code);
    bytes.put_slice(reason.as_bytes());
    bytes.freeze()
}

/// A number in decimal digits, without the machinery of `fmt`: every event has three of them.
fn put_number(bytes: &mut Vec<u8>, number: u64) {
    // Writing into a vector does not fail.
    let _ = serde_json::to_writer(bytes, &number);
}

/// Opcode and payload length (RFC 6455, 5.2).
fn put_header(out: &mut impl BufMut, opcode: u8, length: usize) {
    out.put_u8(opcode);
    match length {
        0..=125 => out.put_u8(length as u8),
        126..=0xFFFF => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_message_behind_its_header() {
        let event = Event::parse(Bytes::from_static(br#"{"type":"a.b"}"#), 99).unwrap();
        let areas = crate::protocol::Areas::new(["comments"], [], []).unwrap();
        let topic = Topic::parse("comments:\"4\"", &areas).unwrap();
        let at = (Lineage::new("0f"), EntryId { epoch: 5, seq: 1 });
        let frame = Frame::new(topic, Some(at), 7, &event);
        let json =
            r#"{"type":"event","topic":"comments:\"4\"","position":"0f.5-1","at":7,"event":{"type":"a.b"}}"#;
        assert_eq!(std::str::from_utf8(frame.json()).unwrap(), json);
        assert_eq!(frame.bytes()[..2], [0x81, json.len() as u8]);
        assert!(std::str::from_utf8(frame.with_at(9).json()).unwrap().contains(r#""at":9,"#));
    }

    #[test]
    fn lengths_take_one_three_or_nine_bytes() {
        for (length, header) in [(125, 2), (126, 4), (65535, 4), (65536, 10)] {
            assert_eq!(text_frame(&"x".repeat(length)).len(), length + header);
        }
        assert_eq!(close_frame(1012, &"ä".repeat(100)).len(), 4 + 122);
    }
}
