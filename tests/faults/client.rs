//! An auditing session: a client of the public contract that writes down everything it is told.
//!
//! Written against the contract alone and independent of the client library: it keeps the latest position of each topic
//! and the latest `at`, brings them back after every loss, and waits as it is told before it comes back.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use rand::{RngExt, seq::IndexedRandom};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

use crate::record::{Clock, Fact, Position, Reason, Told, TopicId};

/// Nothing heard for so many heartbeats: the connection is dead. Nodes send a Ping every `heartbeat.seconds`.
const SILENCE: u32 = 4;
/// How long a connection may take until it is welcomed.
const HANDSHAKE: Duration = Duration::from_secs(12);

/// The topics of a world: names by index.
#[derive(Debug)]
pub(crate) struct Topics {
    pub(crate) names: Vec<String>,
    ids: HashMap<String, TopicId>,
}

impl Topics {
    pub(crate) fn new(names: Vec<String>) -> Self {
        let ids = names.iter().enumerate().map(|(n, name)| (name.clone(), n as TopicId)).collect();
        Self { names, ids }
    }

    pub(crate) fn name(&self, topic: TopicId) -> &str {
        &self.names[topic as usize]
    }

    pub(crate) fn id(&self, name: &str) -> Option<TopicId> {
        self.ids.get(name).copied()
    }

    /// The area-wide topic of a topic.
    pub(crate) fn wide(&self, topic: TopicId) -> Option<TopicId> {
        self.id(self.name(topic).split(':').next()?)
    }
}

/// Where sessions connect: the ports of all nodes, or of the proxies before them.
#[derive(Debug, Default)]
pub(crate) struct Doors(Vec<u16>);

impl Doors {
    pub(crate) fn new(ports: Vec<u16>) -> Self {
        Self(ports)
    }

    /// Any door, but the one that has just failed only where there is no other.
    fn any(&self, failed: Option<u16>) -> u16 {
        let others: Vec<u16> = self.0.iter().copied().filter(|port| Some(*port) != failed).collect();
        others.choose(&mut rand::rng()).copied().unwrap_or(self.0[0])
    }

    fn of(&self, node: usize) -> u16 {
        self.0[node % self.0.len()]
    }
}

/// What a session knows at the moment.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) told: Told,
    pub(crate) positions: BTreeMap<TopicId, Position>,
    pub(crate) at: Option<u64>,
    pub(crate) connected: bool,
    pub(crate) live: bool,
    /// Sources that it was told are late.
    pub(crate) late: Vec<String>,
    pub(crate) node: String,
    /// Seconds, as the node said.
    heartbeat: u32,
}

/// A session, as the world sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) explicit: Vec<TopicId>,
    state: Mutex<State>,
    clock: Clock,
    topics: Arc<Topics>,
    /// The node it tries first; after a loss any will do.
    home: usize,
    /// While set it stays away.
    pub(crate) away: AtomicBool,
    drop_now: Mutex<CancellationToken>,
}

/// A WebSocket without TLS.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// How a connection ended: the close code, and how long the node asked to wait.
#[derive(Default)]
struct End {
    code: Option<u16>,
    wait: Option<u64>,
}

#[derive(Deserialize)]
struct Words {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    topics: Vec<String>,
    position: Option<String>,
    #[serde(default)]
    positions: HashMap<String, String>,
    at: Option<u64>,
    event: Option<Value>,
    reason: Option<String>,
    #[serde(default)]
    live: bool,
    #[serde(default)]
    node: String,
    reconnect_after_ms: Option<u64>,
    #[serde(default)]
    heartbeat: u32,
    #[serde(default)]
    refused: Vec<Value>,
    #[serde(default)]
    late: Vec<Value>,
}

impl Session {
    pub(crate) fn new(
        name: String,
        explicit: Vec<TopicId>,
        topics: Arc<Topics>,
        clock: Clock,
        home: usize,
    ) -> Self {
        let mut follows = explicit.clone();
        follows.extend(explicit.iter().filter_map(|topic| topics.wide(*topic)));
        follows.sort_unstable();
        follows.dedup();
        let state = State { told: Told { name, follows, facts: Vec::new() }, ..State::default() };
        Self {
            explicit,
            state: Mutex::new(state),
            clock,
            topics,
            home,
            away: AtomicBool::new(false),
            drop_now: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the connection (RST), as a laptop that is closed does.
    pub(crate) fn drop_connection(&self) {
        self.drop_now.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    fn note(&self, fact: Fact) {
        let now = self.clock.now();
        self.state().told.facts.push((now, fact));
    }

    /// What it was told last.
    pub(crate) fn tail(&self, length: usize) -> String {
        let state = self.state();
        let facts = &state.told.facts;
        let topic = |fact: &Fact| fact.topic().map_or("", |topic| self.topics.name(topic));
        let last = facts.iter().skip(facts.len().saturating_sub(length));
        let lines: Vec<String> = last.map(|(at, fact)| format!("  {at} ms {} {fact}", topic(fact))).collect();
        format!("session {} at {}\n{}", state.told.name, state.node, lines.join("\n"))
    }

    /// Connects, listens, and comes back after every loss, until the world ends.
    pub(crate) async fn live(self: Arc<Self>, doors: Arc<Doors>) {
        let mut port = doors.of(self.home);
        let mut failures = 0u32;
        loop {
            while self.away.load(Ordering::Relaxed) {
                // Not all of them come back at the same moment.
                let wait = rand::rng().random_range(20..300);
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            let dropped = CancellationToken::new();
            *self.drop_now.lock().unwrap_or_else(PoisonError::into_inner) = dropped.clone();
            let lived = tokio::select! {
                lived = self.once(port) => lived.unwrap_or_default(),
                () = dropped.cancelled() => End::default(),
            };
            let was_welcomed = {
                let mut state = self.state();
                state.live = false;
                std::mem::take(&mut state.connected)
            };
            failures = if was_welcomed { 0 } else { failures.saturating_add(1) };
            if was_welcomed {
                let fact =
                    if dropped.is_cancelled() { Fact::Dropped } else { Fact::Closed { code: lived.code } };
                self.note(fact);
            }
            let most = 300 * 2u64.pow(failures.min(4));
            let wait = lived.wait.unwrap_or_else(|| rand::rng().random_range(20..most));
            tokio::time::sleep(Duration::from_millis(wait)).await;
            port = doors.any((!was_welcomed).then_some(port));
        }
    }

    async fn once(&self, port: u16) -> io::Result<End> {
        let mut socket =
            tokio::time::timeout(HANDSHAKE, self.open(port)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let mut end = End::default();
        loop {
            let patience = {
                let state = self.state();
                if state.connected { Duration::from_secs(1) * state.heartbeat * SILENCE } else { HANDSHAKE }
            };
            let Ok(next) = tokio::time::timeout(patience, socket.next()).await else {
                return Ok(end);
            };
            match next {
                Some(Ok(Message::Text(text))) => {
                    let words: Words = serde_json::from_str(&text).map_err(io::Error::other)?;
                    if words.kind == "closing" {
                        end.wait = words.reconnect_after_ms;
                    }
                    self.hear(words);
                }
                Some(Ok(Message::Close(frame))) => end.code = frame.map(|frame| frame.code.into()),
                // The answer to a Ping waits in the socket until something is written.
                Some(Ok(Message::Ping(_))) => socket.flush().await.map_err(io::Error::other)?,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(end),
            }
        }
    }

    async fn open(&self, port: u16) -> io::Result<Socket> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let mut socket = upgrade(stream, port).await?;
        let connect = self.connect_message();
        socket.send(Message::text(connect.to_string())).await.map_err(io::Error::other)?;
        Ok(socket)
    }

    fn connect_message(&self) -> Value {
        let state = self.state();
        let names: Vec<&str> = self.explicit.iter().map(|topic| self.topics.name(*topic)).collect();
        let mut message = json!({ "type": "connect", "topics": names, "client": state.told.name });
        if !state.told.facts.is_empty() {
            let positions: BTreeMap<&str, String> = state
                .positions
                .iter()
                .map(|(topic, position)| (self.topics.name(*topic), position.to_string()))
                .collect();
            message["resume"] = json!({ "at": state.at, "positions": positions });
        }
        message
    }

    fn hear(&self, words: Words) {
        let now = self.clock.now();
        let mut state = self.state();
        if let Some(at) = words.at {
            state.at = Some(at);
        }
        let position = words.position.as_deref().and_then(Position::parse);
        if matches!(words.kind.as_str(), "welcome" | "status") {
            let names = words.late.iter().filter_map(|late| late["source"].as_str());
            state.late = names.map(str::to_owned).collect();
        }
        match words.kind.as_str() {
            "welcome" => {
                let resuming = !state.told.facts.is_empty();
                (state.connected, state.live) = (true, words.live);
                state.node.clone_from(&words.node);
                state.heartbeat = words.heartbeat;
                state.told.facts.push((now, Fact::Welcome { node: words.node, live: words.live }));
                for topic in state.told.follows.clone() {
                    let given = words.positions.get(self.topics.name(topic)).and_then(|p| Position::parse(p));
                    // Without a new one the old position stays the latest.
                    let asked = state.positions.get(&topic).cloned();
                    if let Some(given) = &given {
                        state.positions.insert(topic, given.clone());
                    }
                    let live = words.live;
                    state.told.facts.push((now, Fact::Start { topic, resuming, live, asked, given }));
                }
                for refused in words.refused {
                    // Nothing that these sessions ask for may be refused: it shows as a topic that is never followed.
                    eprintln!("session {} was refused {refused}", state.told.name);
                }
            }
            "event" => {
                let number =
                    words.event.as_ref().and_then(|event| event["data"]["n"].as_u64()).unwrap_or(u64::MAX);
                let Some(topic) = self.topics.id(&words.topic) else { return };
                if let Some(position) = &position {
                    state.positions.insert(topic, position.clone());
                }
                state.told.facts.push((now, Fact::Event { topic, position, number }));
            }
            "resync" => {
                let reason = Reason::parse(&words.reason.unwrap_or_default());
                for name in words.topics {
                    let Some(topic) = self.topics.id(&name) else { continue };
                    let position = words.positions.get(&name).and_then(|position| Position::parse(position));
                    if let Some(position) = &position {
                        state.positions.insert(topic, position.clone());
                    }
                    state.told.facts.push((now, Fact::Resync { topic, reason, position }));
                }
            }
            "status" => {
                state.live = words.live;
                state.told.facts.push((now, Fact::Status { live: words.live }));
            }
            _ => {}
        }
    }
}

/// The WebSocket handshake on a connection.
pub(crate) async fn upgrade(stream: TcpStream, port: u16) -> io::Result<Socket> {
    let config = WebSocketConfig::default().read_buffer_size(2048).write_buffer_size(0);
    let url = format!("ws://127.0.0.1:{port}/realtime");
    match client_async_with_config(url, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}
