//! Clients: they connect, keep positions as docs/contract.md says, come back with them, and hop between nodes. What they hear
//! goes to the auditor.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use carillon::{
    hub::Closing,
    protocol::Position,
    session::{Cursor, CursorPlace, PollAnswer, Start, StreamRequest},
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{
    people::Door,
    pipe::Pipe,
    plan::{Part, Way},
    serving::{Body, End, Session},
    wire::{chunk, frame, masked},
    world::{Happening, Served, World},
};

/// How long it may take a client to read what it missed, ms.
const A_LONG_READ: u64 = 10_000;

/// What a client is connected by.
pub(crate) enum Line {
    /// Nothing.
    None,
    /// Bytes of WebSocket frames.
    Pipe(Pipe),
    /// Server-sent events.
    Stream(Body),
    /// A poll that is under way.
    Poll(oneshot::Receiver<Result<PollAnswer, Closing>>),
}

/// An answer that a client waits for.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    /// Since when.
    pub since: u64,
    /// What it will be.
    pub kind: &'static str,
}

/// A client.
pub(crate) struct Client {
    /// How it is connected.
    pub way: Way,
    /// What it wants to follow.
    pub subjects: BTreeSet<String>,
    /// Counts its connections.
    pub life: u64,
    /// Its connection.
    pub line: Line,
    /// Where it stands, by topic.
    pub positions: BTreeMap<String, Position>,
    /// The latest `at`.
    pub at: u64,
    /// Where it stands by the node's own record (SSE, long-poll).
    pub cursor: Option<String>,
    /// It was welcomed on this connection.
    pub welcomed: bool,
    /// It was last told that its node sees Redis.
    pub live: bool,
    /// Where it is connected, and since when.
    pub node: usize,
    /// Since when it is connected.
    pub since: u64,
    /// What it waits for.
    pub waits: VecDeque<Wait>,
    /// It does not read until then.
    pub stalled: u64,
    /// When it came, or comes, back after it was last cut off.
    pub cut_until: u64,
    /// When it last read something of its connection.
    pub read: u64,
    /// When it heard live events, and the `at` that they came with.
    pub lives: Vec<(u64, u64)>,
    buffer: Vec<u8>,
    /// A chunk that is not whole yet.
    chunk: Vec<u8>,
    read_due: bool,
    seen: u64,
}

impl Client {
    /// A client that is not connected.
    pub(crate) fn new(part: &Part) -> Self {
        Self {
            way: part.way,
            subjects: part.subjects.iter().cloned().collect(),
            life: 0,
            line: Line::None,
            positions: BTreeMap::new(),
            at: 0,
            cursor: None,
            welcomed: false,
            live: false,
            node: part.node,
            since: 0,
            waits: VecDeque::new(),
            stalled: 0,
            cut_until: 0,
            read: 0,
            lives: Vec::new(),
            buffer: Vec::new(),
            chunk: Vec::new(),
            read_due: false,
            seen: 0,
        }
    }

    /// How much longer it may take who has just come back to have everything, while it reads: many events are long on a slow line.
    pub(crate) fn long_read(&self, now: u64, slack: u64) -> u64 {
        if now <= self.read + slack { A_LONG_READ } else { 0 }
    }

    /// What it brings back.
    pub(crate) fn resume(&self) -> Value {
        if self.positions.is_empty() && self.at == 0 {
            return Value::Null;
        }
        let positions: BTreeMap<_, _> =
            self.positions.iter().map(|(topic, p)| (topic, p.to_string())).collect();
        json!({ "at": self.at, "positions": positions })
    }

    fn start(&self) -> Start {
        match self.cursor.as_deref().and_then(Cursor::read) {
            // Over SSE, the browser module brings what it keeps by itself, and others bring the cursor.
            Some(cursor) if self.way == Way::Sse && self.life % 4 == 3 => Start::Resume(cursor),
            Some(cursor) => Start::GoOn(cursor),
            None => Start::Fresh,
        }
    }
}

impl World {
    /// A client connects to its node, or tries another one soon.
    pub(crate) fn connect(&mut self, client: usize) {
        if !self.is_ready(client) {
            return;
        }
        let node = self.clients[client].node;
        let life = self.clients[client].life + 1;
        let Some((common, place, caller, tasks)) = self.enter(node) else {
            let nodes = self.nodes.len();
            self.clients[client].node = (node + 1) % nodes;
            return self.at(self.now + 300, Happening::Connect { client, life: life - 1 });
        };
        let me = &mut self.clients[client];
        (me.life, me.since, me.welcomed, me.seen, me.read_due) = (life, self.now, false, 0, false);
        me.buffer.clear();
        me.chunk.clear();
        me.waits.clear();
        me.waits.push_back(Wait { since: self.now, kind: "welcome" });
        let topics: Vec<String> = me.subjects.iter().cloned().collect();
        let pipe = Pipe::new(self.plan.room);
        let stream = StreamRequest { topics, start: me.start(), cursor_in: CursorPlace::Query };
        let door = self.door(client, &common.auth);
        let (door, later) = door.map_or((None, 0), |(door, later)| (Some(door), later));
        let by_message = door.as_ref().is_some_and(Door::is_open);
        self.audit_begin(client);
        let me = &mut self.clients[client];
        let end = match me.way {
            Way::Socket => End::Socket(pipe.node_end()),
            Way::Stream => End::Stream(pipe.node_end()),
            // As over plain TCP, and then, when it comes back, as over TLS.
            Way::Sse if life % 2 == 1 => {
                me.line = Line::Pipe(pipe.clone());
                End::Events(pipe.node_end())
            }
            Way::Sse => {
                let body = Body::default();
                me.line = Line::Stream(Arc::clone(&body));
                End::Body(body)
            }
            Way::Poll => {
                let (sender, receiver) = oneshot::channel();
                me.line = Line::Poll(receiver);
                End::Poll(sender)
            }
        };
        if matches!(me.way, Way::Socket | Way::Stream) {
            me.line = Line::Pipe(pipe);
            if later > 0 {
                me.since += later;
                me.waits.iter_mut().for_each(|wait| wait.since += later);
                self.at(self.now + later, Happening::Introduce { client, life, by_message });
            } else {
                self.introduce(client, by_message);
            }
        }
        let session = Session { common, place, tasks, stream, end };
        self.serve(Served::new(node, session.begin(caller, door)));
    }

    /// A client with a way up says something.
    pub(crate) fn say(&mut self, client: usize, message: &Value) {
        if let Line::Pipe(pipe) = &self.clients[client].line {
            pipe.client_writes(&masked(0x81, message.to_string().as_bytes()));
        }
    }

    /// Follows one subject more or less: by a message, or by coming back with another list.
    pub(crate) fn change(&mut self, client: usize, subject: &str, more: bool) {
        let me = &mut self.clients[client];
        let changed = if more { me.subjects.insert(subject.to_owned()) } else { me.subjects.remove(subject) };
        if !changed || matches!(me.line, Line::None) {
            return;
        }
        if !matches!(me.way, Way::Socket | Way::Stream) {
            return self.hang_up(client, 0, 20, None);
        }
        let kind = if more { "subscribe" } else { "unsubscribe" };
        let answer = if more { "subscribed" } else { "unsubscribed" };
        me.waits.push_back(Wait { since: self.now, kind: answer });
        self.audit_change(client, subject, more);
        self.say(client, &json!({ "type": kind, "topics": [subject] }));
    }

    /// The connection ends after the client has read a share of what was under way; it comes back later.
    pub(crate) fn hang_up(&mut self, client: usize, percent: u8, away: u64, node: Option<usize>) {
        if let Line::Pipe(pipe) = &self.clients[client].line {
            let most = pipe.waiting() * usize::from(percent) / 100;
            let bytes = pipe.client_reads(most);
            self.hear_bytes(client, &bytes);
        }
        let me = &mut self.clients[client];
        if let Line::Pipe(pipe) = &me.line {
            pipe.cut();
        }
        me.line = Line::None;
        me.welcomed = false;
        me.waits.clear();
        me.node = node.unwrap_or(me.node);
        let life = me.life;
        self.at(self.now + away.max(1), Happening::Connect { client, life });
    }

    /// Looks for what has arrived for clients, and lets them read it a little later.
    pub(crate) fn rouse(&mut self) {
        for client in 0..self.clients.len() {
            let me = &mut self.clients[client];
            if me.read_due {
                continue;
            }
            let news = match &me.line {
                Line::None => false,
                Line::Pipe(pipe) => pipe.waiting() > 0 || pipe.is_over(),
                Line::Stream(body) => match &*body.lock().expect("a body") {
                    None => false,
                    Some(Err(_)) => true,
                    Some(Ok(chunks)) => !chunks.is_empty() || chunks.is_closed(),
                },
                Line::Poll(answer) => !answer.is_empty() || answer.is_terminated(),
            };
            if news {
                me.read_due = true;
                let (stalled, life) = (me.stalled, me.life);
                let at = (self.now + self.pick(self.plan.pace + 1)).max(stalled);
                self.at(at, Happening::Read { client, life });
            }
        }
    }

    /// A client reads.
    pub(crate) fn read(&mut self, client: usize) {
        let most = if self.chance(0.3) { 1 + self.pick(200) as usize } else { usize::MAX };
        let me = &mut self.clients[client];
        me.read_due = false;
        if me.stalled > self.now {
            return;
        }
        match &mut me.line {
            Line::None => {}
            Line::Pipe(pipe) => {
                let over = pipe.is_over();
                let bytes = pipe.client_reads(most);
                self.hear_bytes(client, &bytes);
                if over {
                    self.hang_up(client, 0, 100, None);
                }
            }
            Line::Stream(body) => {
                let chunk = match &mut *body.lock().expect("a body") {
                    Some(Ok(chunks)) => chunks.try_recv().map_err(|_| ()),
                    _ => Err(()),
                };
                match chunk {
                    Ok(chunk) => self.hear_text(client, &chunk),
                    Err(()) => self.hang_up(client, 0, 100, None),
                }
            }
            Line::Poll(answer) => match answer.try_recv() {
                Ok(Ok(answer)) => self.hear_answer(client, &answer),
                _ => self.hang_up(client, 0, 200, None),
            },
        }
    }

    /// Frames of a WebSocket, or chunks of server-sent events.
    fn hear_bytes(&mut self, client: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.clients[client].read = self.now;
        }
        if self.clients[client].way == Way::Sse {
            return self.hear_chunks(client, bytes);
        }
        let life = self.clients[client].life;
        self.clients[client].buffer.extend_from_slice(bytes);
        while let Some((opcode, payload)) = frame(&mut self.clients[client].buffer) {
            match opcode {
                0x1 => self.hear(client, &payload),
                0x9 => {
                    if let Line::Pipe(pipe) = &self.clients[client].line {
                        pipe.client_writes(&masked(0x8A, &payload));
                    }
                }
                _ => {}
            }
            if self.clients[client].life != life || matches!(self.clients[client].line, Line::None) {
                return;
            }
        }
    }

    fn hear_chunks(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].chunk.extend_from_slice(bytes);
        while let Some(text) = chunk(&mut self.clients[client].chunk) {
            self.hear_text(client, &text);
            if matches!(self.clients[client].line, Line::None) {
                return;
            }
        }
    }

    /// Server-sent events.
    fn hear_text(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].buffer.extend_from_slice(bytes);
        loop {
            let buffer = &mut self.clients[client].buffer;
            let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") else { return };
            let text: Vec<u8> = buffer.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&text);
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            if let (Some(data), Some(id)) = (field("data: "), field("id: ")) {
                self.clients[client].cursor = Some(id);
                self.hear(client, data.as_bytes());
                self.audit_cursor(client);
            }
            if matches!(self.clients[client].line, Line::None) {
                return;
            }
        }
    }

    /// The answer to a poll; the next one goes to any node.
    fn hear_answer(&mut self, client: usize, answer: &PollAnswer) {
        let me = &mut self.clients[client];
        me.cursor = Some(answer.cursor.text());
        me.line = Line::None;
        let life = me.life;
        self.audit_polled(client, answer);
        for message in &answer.messages {
            self.hear(client, message);
        }
        self.audit_cursor(client);
        if self.clients[client].life != life {
            return;
        }
        let (hop, away) = (self.chance(0.5), self.pick(self.plan.pace + 2));
        let nodes = self.nodes.len();
        let me = &mut self.clients[client];
        if hop {
            me.node = (me.node + 1) % nodes;
        }
        self.at(self.now + away, Happening::Connect { client, life });
    }
}
