//! What a client sends over a WebSocket: bytes in, messages out.
//!
//! tungstenite does the protocol (masks, fragments, control frames, UTF-8). Its context holds about a kilobyte, and
//! clients are silent nearly always, so it exists only while something has begun and not ended. What it wants to be
//! written (pongs, the echo of a close frame) is handed back as bytes.

use std::io::{self, Cursor, Read, Write};

use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{
        Role, WebSocketConfig, WebSocketContext,
        frame::{
            FrameHeader,
            coding::{Data, OpCode},
        },
    },
};

use crate::{hub::Closing, protocol::CloseCode};

/// What a context reads at a time.
const READ_BUFFER: usize = 1024;

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary,
    /// The client closes (or has answered our close); its code, where it gave one.
    Closed(Option<u16>),
    /// The client broke the protocol.
    Broken(Closing),
}

/// The reading half of a WebSocket.
#[derive(Default)]
pub(crate) struct FrameDecoder {
    context: Option<Box<WebSocketContext>>,
    boundary: FrameBoundary,
}

impl FrameDecoder {
    /// Takes bytes as they came; appends what must be written to `replies`. Nothing is heard after `Closed` or
    /// `Broken`. `limit`: bytes of a message (`limits.message_bytes`).
    pub(crate) fn take(&mut self, bytes: &[u8], limit: usize, replies: &mut Vec<u8>) -> Vec<Incoming> {
        let mut heard = Vec::new();
        self.boundary.pass(bytes);
        let context = self.context.get_or_insert_with(|| {
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER)
                .write_buffer_size(READ_BUFFER)
                .max_message_size(Some(limit))
                .max_frame_size(Some(limit));
            Box::new(WebSocketContext::new(Role::Server, Some(config)))
        });
        let mut wire = DecoderIo { bytes, replies };
        let ended = loop {
            match context.read(&mut wire) {
                Ok(Message::Text(text)) => heard.push(Incoming::Text(text.as_str().to_owned())),
                Ok(Message::Binary(_)) => heard.push(Incoming::Binary),
                Ok(Message::Close(frame)) => {
                    heard.push(Incoming::Closed(frame.map(|frame| frame.code.into())));
                    // Writes the answer.
                    let _ = context.flush(&mut wire);
                    break true;
                }
                Ok(_) => {}
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => break false,
                Err(error) => {
                    heard.push(verdict(&error, limit));
                    break true;
                }
            }
        };
        if ended || self.boundary.at_rest() {
            self.context = None;
        }
        heard
    }

    /// How many frames came since this was asked last that carry no message: control frames, and pieces of messages.
    pub(crate) fn frames(&mut self) -> u32 {
        std::mem::take(&mut self.boundary.counted)
    }

    /// Whether something has begun that has not ended.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn is_open(&self) -> bool {
        self.context.is_some()
    }
}

/// Why a client that sends too many frames is closed.
pub(super) fn too_many_frames() -> Incoming {
    Incoming::Broken(Closing {
        code: CloseCode::TryLater,
        reason: "too many frames per second".into(),
        reconnect_after_ms: Some(super::machine::COME_BACK_MS),
    })
}

/// Message-level trouble is ours (4400), broken framing the protocol's (1002). Who says too much at once may come back and
/// say less: topics that follow `connect` can be subscribed to one by one.
fn verdict(error: &Error, limit: usize) -> Incoming {
    let (code, reason) = match error {
        Error::Capacity(_) => {
            return Incoming::Broken(Closing {
                code: CloseCode::TooBig,
                reason: format!(
                    "a message has at most {limit} bytes (limits.message_bytes): connect with fewer topics, and subscribe to \
                     the others"
                ),
                reconnect_after_ms: Some(super::machine::COME_BACK_MS),
            });
        }
        Error::Utf8(e) => (CloseCode::BadMessage, format!("not UTF-8: {e}")),
        Error::Protocol(e) => (CloseCode::Protocol, e.to_string()),
        Error::ConnectionClosed | Error::AlreadyClosed => return Incoming::Closed(None),
        other => (CloseCode::Protocol, other.to_string()),
    };
    Incoming::Broken(Closing { code, reason, reconnect_after_ms: None })
}

/// A stream that ends for the moment where the bytes end.
struct DecoderIo<'a> {
    bytes: &'a [u8],
    replies: &'a mut Vec<u8>,
}

impl Read for DecoderIo<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.read(buffer)
    }
}

impl Write for DecoderIo<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Follows where frames begin and end, to know when no frame and no message is open.
#[derive(Default)]
struct FrameBoundary {
    /// The start of a header that is not complete.
    header: [u8; 14],
    filled: u8,
    /// Payload that is still to come.
    payload: u64,
    /// Whether a fragmented message is open.
    fragments: bool,
    /// See [`FrameDecoder::frames`].
    counted: u32,
}

impl FrameBoundary {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[usize::from(self.filled)] = bytes[0];
            self.filled += 1;
            bytes = &bytes[1..];
            match FrameHeader::parse(&mut Cursor::new(&self.header[..usize::from(self.filled)])) {
                Ok(None) => {}
                Ok(Some((header, length))) => {
                    self.filled = 0;
                    self.payload = length;
                    if matches!(header.opcode, OpCode::Control(_) | OpCode::Data(Data::Continue)) {
                        self.counted = self.counted.saturating_add(1);
                    }
                    match header.opcode {
                        OpCode::Data(Data::Continue) if header.is_final => self.fragments = false,
                        OpCode::Data(Data::Text | Data::Binary) => self.fragments = !header.is_final,
                        _ => {}
                    }
                }
                // The context says what is wrong, and that is the end of the session.
                Err(_) => self.filled = 0,
            }
        }
    }

    fn at_rest(&self) -> bool {
        self.filled == 0 && self.payload == 0 && !self.fragments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked client frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length => {
                bytes.push(0x80 | 0x7E);
                bytes.extend((length as u16).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(payload.iter().enumerate().map(|(i, b)| b ^ [1, 2, 3, 4][i % 4]));
        bytes
    }

    #[test]
    fn messages_are_heard_whole_however_the_bytes_arrive() {
        let mut wire = frame(0x81, b"one");
        wire.extend(frame(0x01, b"t"));
        wire.extend(frame(0x89, b"ping"));
        wire.extend(frame(0x80, b"wo"));
        wire.extend(frame(0x81, &[b'x'; 3000]));
        let all =
            [Incoming::Text("one".into()), Incoming::Text("two".into()), Incoming::Text("x".repeat(3000))];
        for size in [1, 2, 7, 100, wire.len()] {
            let mut decoder = FrameDecoder::default();
            let mut replies = Vec::new();
            let heard: Vec<_> =
                wire.chunks(size).flat_map(|chunk| decoder.take(chunk, 4096, &mut replies)).collect();
            assert_eq!(heard, all, "in pieces of {size}");
            assert_eq!(replies, b"\x8A\x04ping", "in pieces of {size}");
            assert!(decoder.context.is_none(), "a context is kept at rest");
        }
    }

    #[test]
    fn the_context_is_kept_while_a_message_is_open() {
        let mut decoder = FrameDecoder::default();
        assert_eq!(decoder.take(&frame(0x01, b"t"), 4096, &mut Vec::new()), []);
        assert!(decoder.context.is_some());
        assert_eq!(decoder.take(&frame(0x80, b"wo"), 4096, &mut Vec::new()), [Incoming::Text("two".into())]);
        assert!(decoder.context.is_none());
    }

    #[test]
    fn trouble_has_its_code() {
        let code = |bytes: &[u8]| match FrameDecoder::default().take(bytes, 4096, &mut Vec::new()).pop() {
            Some(Incoming::Broken(closing)) => closing.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&frame(0x81, b"\xff\xfe")), CloseCode::BadMessage);
        assert_eq!(code(&frame(0x81, &[b'x'; 4097])), CloseCode::TooBig);
        assert_eq!(code(&frame(0xC1, b"rsv")), CloseCode::Protocol);
        assert_eq!(code(&frame(0x83, b"opcode")), CloseCode::Protocol);
        assert_eq!(code(&frame(0x09, b"fragmented ping")), CloseCode::Protocol);
        assert_eq!(code(&frame(0x80, b"continues nothing")), CloseCode::Protocol);
        assert_eq!(code(b"\x81\x03raw"), CloseCode::Protocol);
    }

    #[test]
    fn a_close_is_answered() {
        let mut replies = Vec::new();
        let heard = FrameDecoder::default().take(&frame(0x88, &[0x03, 0xE8]), 4096, &mut replies);
        assert_eq!(heard, [Incoming::Closed(Some(1000))]);
        assert_eq!(replies, [0x88, 2, 0x03, 0xE8]);
    }
}
