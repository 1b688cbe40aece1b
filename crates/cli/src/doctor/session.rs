//! A session over an open WebSocket: welcome, ping and pong, and how long it lives when nobody says anything.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::{handshake::Socket, hop::Hop, net::PATIENCE, report::Finding};

const ROUND_TRIP: &str = "round trip";
const IDLE: &str = "idle";

/// A welcomed session.
pub(super) struct Session {
    socket: Socket,
    pub(super) welcome: Value,
    taken: Duration,
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The node closed it, with a code and a reason.
    Closed(u16, String),
    /// The connection broke off without a word.
    Cut,
    /// Nothing came within [`PATIENCE`].
    Late,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code, reason) if reason.is_empty() => write!(f, "the node closes it with {code}"),
            Self::Closed(code, reason) => write!(f, "the node closes it with {code}: {reason}"),
            Self::Cut => f.write_str("it breaks off without a word"),
            Self::Late => write!(f, "nothing comes within {} s", PATIENCE.as_secs()),
        }
    }
}

impl Session {
    /// Says `connect`, with a token where there is one, and waits for the welcome.
    pub(super) async fn begin(mut socket: Socket, token: Option<&str>) -> Result<Self, End> {
        let started = Instant::now();
        let mut connect = json!({ "type": "connect", "topics": [], "client": "carillon-doctor" });
        if let Some(token) = token {
            connect["token"] = token.into();
        }
        socket.send(Message::text(connect.to_string())).await.map_err(|_| End::Cut)?;
        let welcome = answer(&mut socket, "welcome").await?;
        Ok(Self { socket, welcome, taken: started.elapsed() })
    }

    /// Says `ping` and waits for `pong`.
    pub(super) async fn round_trip(&mut self) -> Finding {
        let node = self.welcome["node"].as_str().unwrap_or("a node").to_owned();
        let started = Instant::now();
        let said = self.socket.send(Message::text(r#"{"type":"ping"}"#)).await;
        let end = match said {
            Ok(()) => answer(&mut self.socket, "pong").await.err(),
            Err(_) => Some(End::Cut),
        };
        if let Some(end) = end {
            return Finding::bad(
                ROUND_TRIP,
                format!("The session is welcomed by {node}, but a ping gets no pong: {end}."),
                "Something between lets the handshake pass and frames not: inspect what it does with WebSockets (web \
                 application firewall, antivirus).",
            );
        }
        let sentence = format!(
            "{node} welcomes after {} ms, ping to pong takes {} ms.",
            self.taken.as_millis(),
            started.elapsed().as_millis()
        );
        if self.welcome["live"] == false {
            return Finding::bad(
                ROUND_TRIP,
                format!("{sentence} But it says that it has lost sight of Redis: no events arrive."),
                "See the node's log and /readyz for the reason; examine Redis with --redis URL.",
            );
        }
        Finding::good(ROUND_TRIP, sentence)
    }

    /// Says nothing for `span` (Pings are answered) and sees whether the connection is still there.
    pub(super) async fn idle(mut self, span: Duration, hop: &Hop) -> Finding {
        let (started, mut beats) = (Instant::now(), 0);
        let heartbeat = self.welcome["heartbeat"].as_u64().unwrap_or(25);
        let cut = loop {
            match timeout_at(started + span, self.socket.next()).await {
                Err(_) => break None,
                Ok(Some(Ok(Message::Ping(_)))) => beats += 1,
                Ok(Some(Ok(Message::Close(frame)))) => {
                    break Some(frame.map_or(End::Cut, |frame| {
                        End::Closed(frame.code.into(), frame.reason.as_str().to_owned())
                    }));
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => break Some(End::Cut),
            }
        };
        let lived = started.elapsed().as_secs_f64();
        match cut {
            Some(End::Closed(code, reason)) if code != 1006 => Finding::bad(
                IDLE,
                format!("A quiet connection ends after {lived:.1} s: {}.", End::Closed(code, reason)),
                "That is the node's own decision, not a proxy's: see its log.",
            ),
            Some(_) => too_short(lived, heartbeat, beats, hop),
            None => self.lived(span, heartbeat, beats).await,
        }
    }

    /// Whether it does not only look alive.
    async fn lived(mut self, span: Duration, heartbeat: u64, beats: u32) -> Finding {
        let said = self.socket.send(Message::text(r#"{"type":"ping"}"#)).await;
        let seconds = span.as_secs();
        if said.is_err() || answer(&mut self.socket, "pong").await.is_err() {
            return Finding::bad(
                IDLE,
                format!(
                    "After {seconds} s of silence the connection looks open, but nothing passes any more."
                ),
                "A firewall or NAT forgets quiet connections: raise its timeout for established TCP connections, or lower \
                 heartbeat.seconds.",
            );
        }
        let _ = self.socket.close(None).await;
        let sentence = format!("A quiet connection lives for {seconds} s and longer");
        if beats > 0 {
            let beats = if beats == 1 { "a heartbeat".into() } else { format!("{beats} heartbeats") };
            return Finding::good(IDLE, format!("{sentence}; {beats} passed."));
        }
        let mut finding = Finding::good(IDLE, format!("{sentence}; the node's heartbeat is {heartbeat} s."));
        finding.advice = Some(format!("To be sure that heartbeats pass in time: --idle {}.", heartbeat + 5));
        finding
    }
}

fn too_short(lived: f64, heartbeat: u64, beats: u32, hop: &Hop) -> Finding {
    let after = if beats == 0 {
        format!("the node's heartbeat comes only after {heartbeat} s")
    } else {
        format!("although {beats} heartbeats passed")
    };
    let sentence = format!("A quiet connection is cut after {lived:.1} s by {}; {after}.", hop.name());
    let mut advice = hop.allow_silence((heartbeat * 2 + 10).max(60));
    if lived < heartbeat as f64 && lived >= 2.0 {
        let _ = write!(advice, " Or set heartbeat.seconds below {lived:.0}.");
    }
    Finding::bad(IDLE, sentence, advice)
}

/// The next message of this type.
async fn answer(socket: &mut Socket, kind: &str) -> Result<Value, End> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        let message = match timeout_at(deadline, socket.next()).await {
            Err(_) => return Err(End::Late),
            Ok(None | Some(Err(_))) => return Err(last.unwrap_or(End::Cut)),
            Ok(Some(Ok(message))) => message,
        };
        match message {
            Message::Text(text) => {
                let json: Value = serde_json::from_str(&text).unwrap_or_default();
                match json["type"].as_str() {
                    Some(found) if found == kind => return Ok(json),
                    // It has more room for its reason than a Close frame.
                    Some("closing") => last = Some(End::Closed(code(&json), text_of(&json))),
                    _ => {}
                }
            }
            Message::Close(frame) => {
                let closed =
                    frame.map(|frame| End::Closed(frame.code.into(), frame.reason.as_str().to_owned()));
                // Let the other side see the end of it.
                let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
                return Err(last.or(closed).unwrap_or(End::Cut));
            }
            _ => {}
        }
    }
}

fn code(closing: &Value) -> u16 {
    closing["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(1006)
}

fn text_of(closing: &Value) -> String {
    closing["reason"].as_str().unwrap_or_default().to_owned()
}
