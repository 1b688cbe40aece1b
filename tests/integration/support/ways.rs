//! Every way in: each place where a transport takes a token, and what became of it.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::node::{Node, Ws, read_head, within};

/// The name of the cookie that nodes of these tests read.
pub(crate) const COOKIE: &str = "session";

/// A transport, and where the token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// WebSocket, in `connect`.
    Connect,
    /// With the handshake or the request, in `Authorization`.
    Bearer(Carrier),
    /// In the cookie.
    Cookie(Carrier),
    /// In `token=`.
    Query(Carrier),
}

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    WebSocket,
    Sse,
    Poll,
}

use Carrier::{Poll, Sse, WebSocket};

/// All that there are.
pub(crate) const ALL: [Way; 9] = [
    Way::Connect,
    Way::Bearer(WebSocket),
    Way::Cookie(WebSocket),
    Way::Bearer(Sse),
    Way::Cookie(Sse),
    Way::Query(Sse),
    Way::Bearer(Poll),
    Way::Cookie(Poll),
    Way::Query(Poll),
];

impl Way {
    fn carrier(self) -> Carrier {
        match self {
            Self::Connect => WebSocket,
            Self::Bearer(carrier) | Self::Cookie(carrier) | Self::Query(carrier) => carrier,
        }
    }

    /// Tries to get in: the `welcome`, or the status or close code of the refusal.
    pub(crate) async fn enter(
        self,
        node: &Node,
        token: &str,
        topics: &[&str],
        more: &[(&str, &str)],
    ) -> Result<Value, u16> {
        let shown = match self {
            Self::Bearer(_) => Some(("Authorization", format!("Bearer {token}"))),
            Self::Cookie(_) => Some(("Cookie", format!("a=b; {COOKIE}={token}"))),
            Self::Connect | Self::Query(_) => None,
        };
        let mut headers: Vec<(&str, &str)> = more.to_vec();
        headers.extend(shown.as_ref().map(|(name, value)| (*name, value.as_str())));
        let mut query = format!("topics={}", topics.iter().map(|t| encoded(t)).collect::<Vec<_>>().join(","));
        if matches!(self, Self::Query(_)) {
            query += &format!("&token={token}");
        }
        match self.carrier() {
            WebSocket => {
                let stream = TcpStream::connect(node.public).await.unwrap();
                let mut ws = Ws::open(stream, "/realtime", &headers).await.map_err(|answer| answer.status)?;
                let mut connect = json!({"type": "connect", "topics": topics});
                if self == Self::Connect {
                    connect["token"] = token.into();
                }
                ws.send(&connect).await;
                let frame = ws.frame().await.expect("an answer to connect");
                let message: Value = serde_json::from_slice(&frame.payload).unwrap();
                if message["type"] == "welcome" { Ok(message) } else { Err(code_of(&message)) }
            }
            Sse => welcome_of_stream(node, &query, &headers).await,
            Poll => {
                headers.push(("Host", "node.test"));
                let answer = node.public_get(&format!("/realtime/poll?{query}"), &headers).await;
                if answer.status == 200 {
                    Ok(answer.json()["messages"][0].clone())
                } else {
                    Err(answer.status)
                }
            }
        }
    }
}

fn code_of(message: &Value) -> u16 {
    assert_eq!(message["type"], "closing", "neither welcome nor the end");
    u16::try_from(message["code"].as_u64().unwrap()).unwrap()
}

async fn welcome_of_stream(node: &Node, query: &str, headers: &[(&str, &str)]) -> Result<Value, u16> {
    let mut socket = TcpStream::connect(node.public).await.unwrap();
    let mut head = format!("GET /realtime/events?{query} HTTP/1.1\r\nHost: node.test\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    within("the welcome of a stream", async {
        socket.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        let (answer, mut buffer) = read_head(&mut socket).await.expect("an answer");
        if answer.status != 200 {
            return Err(answer.status);
        }
        loop {
            let text = String::from_utf8_lossy(&buffer);
            if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: "))
                && let Ok(message) = serde_json::from_str(data)
            {
                return Ok(message);
            }
            assert!(socket.read_buf(&mut buffer).await.unwrap() > 0, "an end before the welcome");
        }
    })
    .await
}

/// A topic in a query: what could be taken for something else is percent-encoded.
fn encoded(topic: &str) -> String {
    let mut text = String::new();
    for byte in topic.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.:*".contains(&byte) {
            text.push(byte.into());
        } else {
            write!(text, "%{byte:02X}").unwrap();
        }
    }
    text
}
