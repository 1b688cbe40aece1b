//! The little of Redis' protocol that the tests speak: a client for one connection, and the length of a frame.
//!
//! Written for the tests, so that publishers and heads do not depend on the library that the nodes use.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Error(String),
    Number(i64),
    Nothing,
    List(Vec<Value>),
}

impl Value {
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn list(&self) -> &[Value] {
        if let Self::List(items) = self { items } else { &[] }
    }

    pub(crate) fn number(&self) -> Option<i64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }
}

/// Reads one value; the number of bytes that it took. `None`: more must come.
pub(crate) fn parse(bytes: &[u8]) -> io::Result<Option<(Value, usize)>> {
    let Some(end) = bytes.windows(2).skip(1).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let end = end + 1;
    let line = String::from_utf8_lossy(&bytes[1..end]).into_owned();
    let after = end + 2;
    let length = || line.parse::<i64>().map_err(|_| io::Error::other(format!("not a length: {line:?}")));
    match bytes[0] {
        b'+' | b',' | b'#' | b'(' => Ok(Some((Value::Text(line), after))),
        b'-' => Ok(Some((Value::Error(line), after))),
        b':' => Ok(Some((Value::Number(length()?), after))),
        b'_' => Ok(Some((Value::Nothing, after))),
        b'$' | b'=' | b'!' => {
            let Ok(size) = usize::try_from(length()?) else { return Ok(Some((Value::Nothing, after))) };
            if bytes.len() < after + size + 2 {
                return Ok(None);
            }
            let text = String::from_utf8_lossy(&bytes[after..after + size]).into_owned();
            Ok(Some((Value::Text(text), after + size + 2)))
        }
        b'*' | b'>' | b'~' | b'%' | b'|' => {
            let Ok(mut count) = usize::try_from(length()?) else { return Ok(Some((Value::Nothing, after))) };
            if matches!(bytes[0], b'%' | b'|') {
                count *= 2;
            }
            let (mut items, mut at) = (Vec::with_capacity(count), after);
            for _ in 0..count {
                let Some((item, size)) = parse(&bytes[at..])? else { return Ok(None) };
                items.push(item);
                at += size;
            }
            Ok(Some((Value::List(items), at)))
        }
        other => Err(io::Error::other(format!("not RESP: {:?}", char::from(other)))),
    }
}

/// A command as it goes over the wire.
pub(crate) fn encode(args: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
    bytes
}

/// A connection on which one command at a time is asked.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> io::Result<Self> {
        let stream = within(TcpStream::connect(("127.0.0.1", port))).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Asks; an error answer of Redis is a [`Value::Error`].
    pub(crate) async fn ask(&mut self, args: &[&str]) -> io::Result<Value> {
        within(self.exchange(args)).await
    }

    async fn exchange(&mut self, args: &[&str]) -> io::Result<Value> {
        self.stream.write_all(&encode(args)).await?;
        self.next().await
    }

    /// The next that Redis says, whenever that is.
    pub(crate) async fn next(&mut self) -> io::Result<Value> {
        loop {
            if !self.buffer.is_empty()
                && let Some((value, size)) = parse(&self.buffer)?
            {
                self.buffer.drain(..size);
                return Ok(value);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed"));
            }
        }
    }
}

/// One question on a connection of its own.
pub(crate) async fn ask(port: u16, args: &[&str]) -> io::Result<Value> {
    Connection::open(port).await?.ask(args).await
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
