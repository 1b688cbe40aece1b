//! The bare receive and send: the least that brings an event from Redis to a socket, to compare a node with.
//!
//! One thread, no client library, nothing checked: what Redis pushes (RESP2) is cut into messages, a hash map says which
//! sockets follow the channel, and each gets one `send(2)` of a frame that is made in memory that is used again. It forgets
//! nothing because it knows nothing: no positions, no tail, no queue.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result, bail, ensure};
use carillon::protocol::time::now_ms;
use rustc_hash::FxHashMap;

/// Bytes that are read at once, at most.
const CHUNK: usize = 64 * 1024;
/// Channels in one `SUBSCRIBE`.
const TOGETHER: usize = 1000;

/// A subscription to Redis whose messages are forwarded.
pub(super) struct Forwarder {
    redis: TcpStream,
    /// The number of each channel.
    channels: FxHashMap<Vec<u8>, usize>,
    /// What was read; a part of a message may be at its end.
    buffer: Vec<u8>,
    frame: Vec<u8>,
    at: u64,
}

impl Forwarder {
    /// Connects, subscribes, and waits until Redis has confirmed that.
    pub(super) fn start(redis: SocketAddr, channels: &[String]) -> Result<Self> {
        let mut redis = TcpStream::connect(redis).context("the bare receive and send cannot reach Redis")?;
        redis.set_nodelay(true)?;
        for some in channels.chunks(TOGETHER) {
            let mut command = format!("*{}\r\n$9\r\nSUBSCRIBE\r\n", some.len() + 1);
            for channel in some {
                command.push_str(&format!("${}\r\n{channel}\r\n", channel.len()));
            }
            redis.write_all(command.as_bytes())?;
        }
        let numbered = channels.iter().enumerate();
        let channels: FxHashMap<_, _> = numbered.map(|(n, name)| (name.clone().into_bytes(), n)).collect();
        let (buffer, frame) = (Vec::with_capacity(2 * CHUNK), Vec::new());
        let mut forwarder = Self { redis, channels, buffer, frame, at: now_ms() };
        let mut confirmed = 0;
        while confirmed < forwarder.channels.len() {
            forwarder.read(|_, _| confirmed += 1)?;
        }
        Ok(forwarder)
    }

    /// Forwards so many events: each to every `stride`th socket, from the one that has its channel's number.
    pub(super) fn forward(&mut self, events: u64, sockets: &mut [TcpStream], stride: usize) -> Result<()> {
        let mut done = 0;
        let mut frame = std::mem::take(&mut self.frame);
        let at = self.at;
        while done < events {
            let mut failed = None;
            self.read(|number, message| {
                done += 1;
                encode(&mut frame, message, at);
                for socket in sockets.iter_mut().skip(number).step_by(stride) {
                    match socket.write(&frame) {
                        Ok(written) if written == frame.len() => {}
                        _ => failed = Some("a socket has no room: send less at a time"),
                    }
                }
            })?;
            if let Some(failed) = failed {
                bail!("the bare receive and send: {failed}");
            }
        }
        self.frame = frame;
        Ok(())
    }

    /// Reads once, and hands over what is complete: a channel's number, and the message (none in what confirms).
    fn read(&mut self, mut take: impl FnMut(usize, &[u8])) -> Result<()> {
        let filled = self.buffer.len();
        self.buffer.resize(filled + CHUNK, 0);
        let count = self.redis.read(&mut self.buffer[filled..])?;
        self.buffer.truncate(filled + count);
        ensure!(count > 0, "Redis has closed the connection of the bare receive and send");
        let mut from = 0;
        while let Some((channel, message, length)) = push(&self.buffer[from..])? {
            let number = self.channels.get(channel).context("a channel that was not asked for")?;
            take(*number, message);
            from += length;
        }
        self.buffer.drain(..from);
        Ok(())
    }
}

/// What Redis pushed.
type Push<'a> = (&'a [u8], &'a [u8], usize);

/// The first push: its channel, its message (empty where a number stands), and its length. `None`: it is not complete.
fn push(bytes: &[u8]) -> Result<Option<Push<'_>>> {
    let Some((head, rest)) = line(bytes) else { return Ok(None) };
    ensure!(head == b"*3", "Redis answers {}", String::from_utf8_lossy(head));
    let Some((_kind, rest)) = text(rest) else { return Ok(None) };
    let Some((channel, rest)) = text(rest) else { return Ok(None) };
    let last =
        if rest.first() == Some(&b':') { line(rest).map(|(_, rest)| (&b""[..], rest)) } else { text(rest) };
    Ok(last.map(|(message, rest)| (channel, message, bytes.len() - rest.len())))
}

/// A bulk string, and what follows it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = line(bytes)?;
    let length = head.iter().skip(1).fold(0, |n, digit| n * 10 + usize::from(digit - b'0'));
    (rest.len() >= length + 2).then(|| (&rest[..length], &rest[length + 2..]))
}

/// A line without its end, and what follows it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    (bytes.len() > end + 1).then(|| (&bytes[..end], &bytes[end + 2..]))
}

/// The frame of a recorded message, `<id> <json>`: as long as a node's. A socket of the floor takes all for events of one topic.
fn encode(frame: &mut Vec<u8>, message: &[u8], at: u64) {
    let space = message.iter().position(|byte| *byte == b' ').unwrap_or(0);
    let (id, json) = (&message[..space], &message[message.len().min(space + 1)..]);
    frame.clear();
    frame.extend_from_slice(&[0x81, 126, 0, 0]);
    frame.extend_from_slice(br#"{"type":"event","topic":"comments:b0","position":"0123456789abcdef."#);
    frame.extend_from_slice(id);
    // Writing into a vector does not fail.
    let _ = write!(frame, r#"","at":{at},"event":"#);
    frame.extend_from_slice(json);
    frame.push(b'}');
    let length = (frame.len() - 4) as u16;
    frame[2..4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_cut_out_of_what_came_and_a_part_waits() {
        let bytes = b"*3\r\n$7\r\nmessage\r\n$3\r\na:b\r\n$4\r\nx\r\ny\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*3\r\n";
        let (channel, message, length) = push(bytes).unwrap().unwrap();
        assert_eq!((channel, message), (&b"a:b"[..], &b"x\r\ny"[..]));
        let (channel, message, more) = push(&bytes[length..]).unwrap().unwrap();
        assert_eq!((channel, message), (&b"c"[..], &b""[..]));
        for end in length + more..=bytes.len() {
            assert!(push(&bytes[length + more..end]).unwrap().is_none(), "a part");
        }
        for end in 0..length {
            assert!(push(&bytes[..end]).unwrap().is_none(), "{end} bytes are a part");
        }
        assert!(push(b"-ERR no\r\n").is_err());
    }

    #[test]
    fn a_reader_takes_the_frame_for_an_event() {
        let mut frame = Vec::new();
        encode(&mut frame, format!("1732000000000-7 {}", crate::plan::event(7, 5, 200)).as_bytes(), 9);
        assert_eq!(crate::plan::read_event(&frame[4..]), Some((0, 7, 5)));
        assert_eq!(usize::from(u16::from_be_bytes([frame[2], frame[3]])), frame.len() - 4);
    }
}
