//! A WebSocket client of the tests' own: frames as they are (RFC 6455), nothing hidden, nothing mended.

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::node::{Answer, read_head, within};

/// A WebSocket client on any stream.
pub(crate) struct Ws<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
    pub(crate) answer: Answer,
}

/// A frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Ws<S> {
    /// A handshake as browsers do it; the answer, where it is not 101.
    pub(crate) async fn open(mut stream: S, path: &str, headers: &[(&str, &str)]) -> Result<Self, Answer> {
        let mut head = format!("GET {path} HTTP/1.1\r\n");
        let usual = [
            ("Host", "node.test"),
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let given = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        for (name, value) in usual.iter().filter(|(name, _)| !given(name)).chain(headers) {
            // An empty value leaves a usual header out.
            if !value.is_empty() {
                head += &format!("{name}: {value}\r\n");
            }
        }
        within("the handshake", async {
            stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
            let (mut answer, mut buffer) = read_head(&mut stream).await.expect("an answer to the handshake");
            if answer.status == 101 {
                return Ok(Self { stream, buffer, answer });
            }
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            while buffer.len() < length {
                assert!(stream.read_buf(&mut buffer).await.unwrap() > 0, "a part of the body is missing");
            }
            answer.body = buffer;
            Err(answer)
        })
        .await
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        within("room to write", self.stream.write_all(bytes)).await.unwrap();
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &Value) {
        self.write(&client_frame(0x81, message.to_string().as_bytes())).await;
    }

    /// The next frame; `None`: the connection has ended.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        within("a frame", async {
            loop {
                if let Some(frame) = self.parse() {
                    return Some(frame);
                }
                if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        })
        .await
    }

    fn parse(&mut self) -> Option<Frame> {
        let bytes = &self.buffer;
        let (length, header) = match *bytes.get(1)? {
            126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
            length => (usize::from(length), 2),
        };
        let payload = bytes.get(header..header + length)?.to_vec();
        assert_eq!(bytes[0] & 0xF0, 0x80, "server frames are whole and without reserved bits");
        let opcode = bytes[0] & 0x0F;
        self.buffer.drain(..header + length);
        Some(Frame { opcode, payload })
    }

    /// The next message; Pings and Pongs are passed over.
    pub(crate) async fn message(&mut self) -> Value {
        loop {
            let frame = self.frame().await.expect("a message, not the end");
            match frame.opcode {
                1 => return serde_json::from_slice(&frame.payload).unwrap(),
                8 => panic!("closed: {:?}", close_code(&frame)),
                _ => {}
            }
        }
    }

    /// The next message of a type; others are passed over.
    pub(crate) async fn message_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.message().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// The next Ping. Before it only `status` may come: a node that a busy machine held up says so.
    pub(crate) async fn ping(&mut self) -> Frame {
        loop {
            let frame = self.frame().await.expect("a Ping, not the end");
            if frame.opcode == 9 {
                return frame;
            }
            let text = String::from_utf8_lossy(&frame.payload);
            assert!(
                frame.opcode == 1 && text.contains(r#""type":"status""#),
                "a Ping, not {}: {text}",
                frame.opcode
            );
        }
    }

    /// Passes over everything until `closing`, its close frame and the end, which must agree; answers the close frame.
    pub(crate) async fn closed(&mut self) -> (u16, Value) {
        let mut closing = Value::Null;
        loop {
            let frame = self.frame().await.expect("a close frame before the end");
            match frame.opcode {
                1 => closing = serde_json::from_slice(&frame.payload).unwrap(),
                8 => {
                    let code = close_code(&frame).expect("a close code");
                    assert_eq!(closing["type"], "closing", "before the close frame comes closing");
                    assert_eq!(closing["code"], code);
                    let _ = self.stream.write_all(&client_frame(0x88, &code.to_be_bytes())).await;
                    assert_eq!(self.frame().await, None, "nothing comes after a close frame");
                    return (code, closing);
                }
                _ => {}
            }
        }
    }

    /// Asks for a `pong`, and asserts that nothing comes before it.
    pub(crate) async fn nothing_comes(&mut self) {
        self.send(&json!({"type": "ping"})).await;
        let message = self.message().await;
        assert_eq!(message["type"], "pong", "{message}");
    }
}

pub(crate) fn close_code(frame: &Frame) -> Option<u16> {
    Some(u16::from_be_bytes(frame.payload.get(..2)?.try_into().ok()?))
}

/// A frame as clients send it: masked.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(0x80 | 0x7E);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 0x7F);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x5A, 0x01, 0xFF, 0x80];
    bytes.extend(mask);
    bytes.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
    bytes
}
