//! Clients of the transports without a way up: streams of server-sent events, and polls.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::node::{Answer, Node, read_head, within};

/// A stream of server-sent events.
pub(crate) struct Events {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
    pub(crate) answer: Answer,
    /// The last cursor.
    pub(crate) id: String,
}

impl Events {
    /// Opens a stream.
    pub(crate) async fn open(node: &Node, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut socket = TcpStream::connect(node.public).await.unwrap();
        let mut head = format!("GET /realtime/events?{query} HTTP/1.1\r\nHost: node.test\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        socket.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        let (answer, buffer) = within("an answer", read_head(&mut socket)).await.unwrap();
        Self { socket, buffer, answer, id: String::new() }
    }

    /// The next chunk of a chunked body; `None`: the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        within("a chunk", async {
            loop {
                let text = unchunked(&self.buffer);
                if let Some((consumed, text)) = text {
                    self.buffer.drain(..consumed);
                    return (!text.is_empty()).then_some(text);
                }
                assert!(
                    self.socket.read_buf(&mut self.buffer).await.unwrap() > 0,
                    "an end without the last chunk"
                );
            }
        })
        .await
    }

    /// The next messages; comments are passed over.
    pub(crate) async fn messages(&mut self) -> Vec<Value> {
        loop {
            let chunk = self.line().await.expect("a message, not the end");
            let mut messages = Vec::new();
            for block in chunk.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')) {
                let fields: Vec<_> = block.lines().map(|line| line.split_once(": ").unwrap()).collect();
                assert_eq!(fields.iter().map(|field| field.0).collect::<Vec<_>>(), ["event", "data", "id"]);
                let message: Value = serde_json::from_str(fields[1].1).unwrap();
                assert_eq!(message["type"], fields[0].1);
                self.id = fields[2].1.to_owned();
                messages.push(message);
            }
            if !messages.is_empty() {
                return messages;
            }
        }
    }

    /// So many messages.
    pub(crate) async fn gather(&mut self, count: usize) -> Vec<Value> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.append(&mut self.messages().await);
        }
        assert_eq!(messages.len(), count, "{messages:?}");
        messages
    }
}

fn unchunked(buffer: &[u8]) -> Option<(usize, String)> {
    let end = buffer.windows(2).position(|two| two == b"\r\n")?;
    let size = usize::from_str_radix(std::str::from_utf8(&buffer[..end]).unwrap(), 16).unwrap();
    let chunk = buffer.get(end + 2..end + 4 + size)?;
    Some((end + 4 + size, String::from_utf8(chunk[..size].to_vec()).unwrap()))
}

/// One poll, answered with 200.
pub(crate) async fn poll(node: &Node, query: &str) -> Value {
    let answer = node.public_get(&format!("/realtime/poll?{query}"), &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store, no-transform"));
    answer.json()
}
