//! One connection of a reader: its handshake, its frames, and the check of every event.
//!
//! As cheap as can be, since it shares the machine with what it measures: no task, no copy of whole frames, and JSON is
//! read only where something else than an event comes.

use std::{
    io::{Read, Write},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use mio::net::TcpStream;
use serde::Deserialize;

use super::{
    order::{Figures, Side},
    plan::{NodeAddress, Plan, read_event},
};

/// The nonce of RFC 6455, 1.3, and its answer.
const NONCE: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

/// How far a connection has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConnectionStage {
    /// Before the answer to the handshake.
    Handshake,
    /// Before the `welcome`.
    Joining,
    /// Events come.
    Following,
    /// It is over, and why.
    Ended(String),
}

#[derive(Debug)]
struct Follow {
    topic: u32,
    /// The number of the last event.
    last: u64,
    /// A `resync` has been told since.
    told: bool,
    /// Numbers that are missing.
    missing: Vec<u64>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) side: Side,
    pub(super) stage: ConnectionStage,
    pub(super) began: Instant,
    hello: Vec<u8>,
    join: Vec<u8>,
    follows: Vec<Follow>,
    rest: Vec<u8>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    refused: Vec<serde_json::Value>,
}

impl Connection {
    /// A session of the plan. `last`: the number of the last event so far in a topic.
    pub(super) fn session(
        stream: TcpStream,
        plan: &Plan,
        node: &NodeAddress,
        number: u32,
        last: impl Fn(u32) -> u64,
    ) -> Self {
        let topics: Vec<String> = plan.follows(number).map(|topic| plan.topic(topic)).collect();
        let connect = serde_json::json!({ "type": "connect", "token": plan.token, "topics": topics });
        let follows = plan.follows(number).map(|topic| (topic, last(topic)));
        let side = if number < plan.slow { Side::Slow } else { Side::Node };
        Self {
            hello: handshake(node),
            join: masked(0x81, connect.to_string().as_bytes()),
            stage: ConnectionStage::Handshake,
            ..Self::new(stream, side, follows)
        }
    }

    /// A socket of the floor, to which all events are of topic 0.
    pub(super) fn floor(stream: TcpStream) -> Self {
        Self::new(stream, Side::Floor, [(0, 0)].into_iter())
    }

    fn new(stream: TcpStream, side: Side, follows: impl Iterator<Item = (u32, u64)>) -> Self {
        let follow = |(topic, last)| Follow { topic, last, told: false, missing: Vec::new() };
        Self {
            stream,
            side,
            stage: ConnectionStage::Following,
            began: Instant::now(),
            hello: Vec::new(),
            join: Vec::new(),
            follows: follows.map(follow).collect(),
            rest: Vec::new(),
        }
    }

    /// The topics that it follows.
    pub(super) fn topics(&self) -> impl Iterator<Item = u32> {
        self.follows.iter().map(|follow| follow.topic)
    }

    /// The socket is connected, or has failed to be.
    pub(super) fn writable(&mut self) {
        if self.hello.is_empty() || self.stage != ConnectionStage::Handshake {
            return;
        }
        if let Ok(Some(error)) = self.stream.take_error() {
            self.stage = ConnectionStage::Ended(error.kind().to_string());
            return;
        }
        let hello = std::mem::take(&mut self.hello);
        self.write(&hello);
    }

    /// A kilobyte or less into an empty socket: it fits, or the peer is gone.
    fn write(&mut self, bytes: &[u8]) {
        match self.stream.write(bytes) {
            Ok(n) if n == bytes.len() => {}
            Ok(_) => self.stage = ConnectionStage::Ended("cannot write".into()),
            Err(error) => self.stage = ConnectionStage::Ended(error.kind().to_string()),
        }
    }

    /// Reads what there is. `chunk` is room for it.
    pub(super) fn readable(&mut self, chunk: &mut [u8], figures: &mut Figures) {
        while !matches!(self.stage, ConnectionStage::Ended(_)) {
            match self.stream.read(chunk) {
                Ok(0) => self.stage = ConnectionStage::Ended("closed".into()),
                Ok(n) => {
                    self.take(&chunk[..n], figures);
                    // Edge-triggered: what comes after a short read makes a new edge.
                    if n < chunk.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => self.stage = ConnectionStage::Ended(error.kind().to_string()),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], figures: &mut Figures) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let kept = std::mem::take(&mut self.rest);
        let joined;
        let mut bytes = if kept.is_empty() {
            bytes
        } else {
            joined = [kept.as_slice(), bytes].concat();
            &joined
        };
        if self.stage == ConnectionStage::Handshake {
            let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
                self.rest = bytes.to_vec();
                return;
            };
            self.answered(&bytes[..end]);
            bytes = &bytes[end + 4..];
        }
        while !matches!(self.stage, ConnectionStage::Ended(_))
            && let Some((opcode, from, to)) = frame(bytes)
        {
            self.frame(opcode, &bytes[from..to], to, now, figures);
            bytes = &bytes[to..];
        }
        self.rest = bytes.to_vec();
    }

    fn answered(&mut self, head: &[u8]) {
        let head = String::from_utf8_lossy(head);
        if head.starts_with("HTTP/1.1 101") && head.contains(NONCE.1) {
            self.stage = ConnectionStage::Joining;
            let join = std::mem::take(&mut self.join);
            self.write(&join);
        } else {
            self.stage = ConnectionStage::Ended(head.lines().next().unwrap_or("no answer").to_owned());
        }
    }

    fn frame(&mut self, opcode: u8, payload: &[u8], size: usize, now: u64, figures: &mut Figures) {
        match opcode {
            0x81 => match read_event(payload) {
                Some((topic, n, time)) => {
                    figures.frame_bytes = size;
                    if self.event(topic, n, figures) {
                        figures.latency.note(now.saturating_sub(time) / 1000);
                    }
                }
                None => self.told(payload, figures),
            },
            0x89 => self.write(&masked(0x8A, payload)),
            0x88 => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                self.stage = ConnectionStage::Ended(format!("close {code}"));
            }
            _ => {}
        }
    }

    /// Whether the event is new.
    fn event(&mut self, topic: u32, n: u64, figures: &mut Figures) -> bool {
        let Some(follow) = self.follows.iter_mut().find(|follow| follow.topic == topic) else {
            figures.unordered += 1;
            return false;
        };
        if n <= follow.last {
            if let Some(at) = follow.missing.iter().position(|missing| *missing == n) {
                follow.missing.swap_remove(at);
                // The gap may have been noted in figures that were handed in already.
                figures.lost = figures.lost.saturating_sub(1);
                figures.unordered += 1;
                figures.delivered += 1;
            } else {
                figures.doubled += 1;
            }
            return false;
        }
        let gap = n - follow.last - 1;
        if gap > 0 && follow.told {
            figures.resynced += gap;
        } else if gap > 0 {
            figures.lost += gap;
            follow.missing.extend(follow.last + 1..n);
        }
        follow.last = n;
        follow.told = false;
        figures.delivered += 1;
        true
    }

    fn told(&mut self, payload: &[u8], figures: &mut Figures) {
        let Ok(told) = serde_json::from_slice::<Told>(payload) else {
            self.stage = ConnectionStage::Ended("unreadable message".into());
            return;
        };
        match told.kind.as_str() {
            "welcome" if told.refused.is_empty() => self.stage = ConnectionStage::Following,
            "welcome" => self.stage = ConnectionStage::Ended(format!("refused: {}", told.refused[0])),
            "resync" => {
                *figures.resyncs.entry(told.reason).or_default() += 1;
                for topic in told.topics.iter().filter_map(|topic| Plan::number(topic.as_bytes())) {
                    if let Some(follow) = self.follows.iter_mut().find(|follow| follow.topic == topic) {
                        follow.told = true;
                    }
                }
            }
            _ => {}
        }
    }
}

/// The request of a browser, about as long as browsers' are.
fn handshake(node: &NodeAddress) -> Vec<u8> {
    let lines = [
        format!("GET {} HTTP/1.1", node.path),
        format!("Host: {}", node.host),
        "Connection: Upgrade".into(),
        "Pragma: no-cache".into(),
        "Cache-Control: no-cache".into(),
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) carillon-bench"
            .into(),
        "Upgrade: websocket".into(),
        "Sec-WebSocket-Version: 13".into(),
        "Accept-Encoding: gzip, deflate, br, zstd".into(),
        "Accept-Language: en-GB,en;q=0.9,de;q=0.8".into(),
        format!("Sec-WebSocket-Key: {}", NONCE.0),
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits".into(),
        "\r\n".into(),
    ];
    lines.join("\r\n").into_bytes()
}

/// A client's frame (RFC 6455, 5.3: masked; the mask may be anything, also nothing but zeros).
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 0x7E);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The first frame: its opcode with FIN, and where its payload begins and ends. `None`: it is not complete.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (opcode, length) = (*bytes.first()?, *bytes.get(1)?);
    let (from, length) = match length & 0x7F {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= from + length).then_some((opcode, from, from + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> (Connection, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Connection::floor(TcpStream::from_std(stream)), listener.accept().unwrap().0)
    }

    #[test]
    fn loss_doubles_and_disorder_are_told_apart() {
        let (mut line, _peer) = line();
        let mut figures = Figures::default();
        for n in [1, 2, 4, 5, 3, 5, 6] {
            line.event(0, n, &mut figures);
        }
        assert_eq!((figures.delivered, figures.lost, figures.unordered, figures.doubled), (6, 0, 1, 1));
        line.event(0, 9, &mut figures);
        assert_eq!((figures.delivered, figures.lost), (7, 2));
        line.told(br#"{"type":"resync","topics":["a:b0"],"reason":"slow"}"#, &mut figures);
        line.event(0, 12, &mut figures);
        assert_eq!((figures.delivered, figures.lost, figures.resynced), (8, 2, 2));
        assert!(!figures.is_flawless());
    }

    #[test]
    fn frames_may_come_in_pieces() {
        let (mut line, _peer) = line();
        let mut figures = Figures::default();
        let mut bytes = Vec::new();
        for n in 1..=3 {
            let event = crate::plan::event(n, 5, 300);
            let json = format!(r#"{{"type":"event","topic":"a:b0","at":1,"event":{event}}}"#);
            bytes.extend_from_slice(&carillon::hub::frame::text_frame(&json));
        }
        for piece in bytes.chunks(77) {
            line.take(piece, &mut figures);
        }
        assert_eq!(figures.delivered, 3);
        assert!(figures.is_flawless());
        assert!(line.rest.is_empty());
    }
}
