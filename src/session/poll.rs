//! Sessions over long-poll: each poll is a short session that goes on where its cursor says.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Caller, Cursor, CursorPlace, ITEMS, Session, SessionContext, SessionSlot, Start, StreamRequest,
    Transport, cursor::refused_digest, machine::Input,
};
use crate::{
    hub::{Closing, Item, Notice, Outbox},
    protocol::{
        Areas, ClientMessage, Late, NodeMessage, Reason, Subject,
        message::{Positions, Welcome},
        time::{now_ms, rfc3339},
    },
};

/// How long a poll waits for a message.
const WAIT: Duration = Duration::from_secs(25);
/// How long more messages are gathered behind the first one.
const GATHER: Duration = Duration::from_millis(5);
/// How long a poll that has only `resync` (`live`) to tell waits for the mark to pass: before that, the next poll
/// would be told the same.
const MARK: Duration = Duration::from_secs(5);
/// How long the relay may take to say until when everything was told.
const PROOF: Duration = Duration::from_secs(2);
/// Bytes of messages in one answer, roughly; the next poll gets the rest.
const MOST: usize = 1 << 20;

/// The answer to a poll.
#[derive(Debug)]
pub struct PollAnswer {
    /// Where the client then stands.
    pub cursor: Cursor,
    /// Where the client brings it back.
    pub cursor_in: CursorPlace,
    /// Messages as JSON.
    pub messages: Vec<Vec<u8>>,
}

/// Answers a poll. `Err`: it was refused before it began. Ends early, with whatever there is, when `asker` is gone.
pub async fn serve(
    context: Arc<SessionContext>,
    slot: SessionSlot,
    caller: Caller,
    request: StreamRequest,
    mut asker: oneshot::Sender<Result<PollAnswer, Closing>>,
) {
    let outbox = Outbox::pulled(context.outbox_bytes);
    let first = !matches!(request.start, Start::GoOn(_));
    let cursor_in = request.cursor_in;
    let (cursor, connect) = request.begin();
    let session = Session::begin(context, slot, Transport::Poll, outbox, caller)
        .with_cursor_in(cursor_in)
        .going_on(cursor.session.clone());
    let answer = PollAnswer { cursor, cursor_in, messages: Vec::new() };
    let mut poll =
        Poll { session, first, answer, bytes: 0, proven: false, live_areas: Vec::new(), other: false };
    if let Some(closing) = poll.session.take(Input::Message(ClientMessage::Connect(connect))).await {
        poll.session.leave(Some(&closing)).await;
        let _ = asker.send(Err(closing));
        return;
    }
    let closing = tokio::select! {
        biased;
        closing = poll.run() => closing,
        () = asker.closed() => None,
    };
    if let Some(closing) = &closing {
        // Whoever comes back begins anew, as over a WebSocket.
        poll.answer.cursor.session = None;
        poll.put(&closing.message());
    }
    let _ = asker.send(Ok(poll.answer));
    poll.session.leave(closing.as_ref()).await;
}

struct Poll {
    session: Session,
    /// Whether there was no cursor: then the `welcome` is the answer.
    first: bool,
    answer: PollAnswer,
    bytes: usize,
    /// The relay has said until when everything was told.
    proven: bool,
    /// Areas of `resync` (`live`) messages.
    live_areas: Vec<String>,
    /// Whether there is another message than `resync` (`live`).
    other: bool,
}

impl Poll {
    /// Gathers the answer. `Some`: the session ends so.
    async fn run(&mut self) -> Option<Closing> {
        let end = Instant::now() + WAIT;
        while self.answer.messages.is_empty() && Instant::now() < end {
            if let Some(closing) = self.listen(end).await {
                return Some(closing);
            }
        }
        if self.listen(Instant::now() + GATHER).await.is_some() {
            // The next poll is told.
            return None;
        }
        self.pass_marks().await;
        // A ping: its `pong` comes behind all that was told, with the `at` up to which that is everything.
        self.session.take(Input::Message(ClientMessage::Ping)).await;
        let end = Instant::now() + PROOF;
        while !self.proven && self.bytes < MOST && Instant::now() < end {
            if self.listen(end).await.is_some() {
                return None;
            }
        }
        None
    }

    /// Takes what comes next, until then.
    async fn listen(&mut self, until: Instant) -> Option<Closing> {
        let outbox = Arc::clone(self.session.outbox());
        let notice = tokio::time::timeout_at(until, outbox.notice()).await.ok()?;
        if notice == Notice::Work {
            while self.bytes < MOST && !self.take() {}
        }
        match self.session.notice(notice).await {
            Some(Ok(closing)) => Some(closing),
            _ => None,
        }
    }

    /// Takes some items; whether that was all.
    fn take(&mut self) -> bool {
        let items = self.session.outbox().pull(ITEMS);
        let all = items.len() < ITEMS;
        for item in items {
            match item {
                Item::Event(frame) => {
                    self.answer.cursor.pass(&frame);
                    self.keep(frame.json().to_vec());
                    self.other = true;
                }
                Item::Message(message) => self.message(&message),
            }
        }
        all
    }

    fn message(&mut self, message: &NodeMessage) {
        if let NodeMessage::Welcome(welcome) = message {
            self.answer.cursor.session = Some(welcome.session.as_str().into());
            if self.first {
                self.answer.cursor.refused = refused_digest(&welcome.refused);
            }
        }
        match message {
            NodeMessage::Welcome(welcome) if !self.first => return self.welcomed_again(welcome),
            NodeMessage::Pong { .. } => {
                self.proven = true;
                return self.answer.cursor.note(message);
            }
            // The next poll brings a token anyway. Only `expires_in` 0 (rights have changed) must be told now.
            NodeMessage::TokenExpiring { expires_in: 1.. } => return,
            NodeMessage::Resync { topics, reason: Reason::Live, .. } => {
                self.live_areas.extend(topics.iter().map(|subject| subject.area().to_owned()));
            }
            // It comes behind the `resync`, whose mark is waited for all the same.
            NodeMessage::Status { live: true, late, .. }
                if late.as_ref().map_or(0, Late::digest) == self.answer.cursor.late => {}
            _ => self.other = true,
        }
        self.put(message);
    }

    /// A client that goes on is told only what is new in its `welcome`.
    fn welcomed_again(&mut self, welcome: &Welcome) {
        let known: Vec<_> = self.answer.cursor.topics().map(str::to_owned).collect();
        // An area that is refused by name is followed all the same with one of its keys.
        let refused: BTreeSet<_> = welcome.refused.iter().map(|refused| refused.topic.as_str()).collect();
        let kept = known.iter().filter(|topic| !refused.contains(topic.as_str()));
        let implied: BTreeSet<_> = kept.filter_map(|topic| Some(topic.split_once(':')?.0)).collect();
        let is_lost = |topic: &String| known.contains(topic) && !implied.contains(topic.as_str());
        let lost: Vec<_> = welcome.refused.iter().filter(|refused| is_lost(&refused.topic)).collect();
        let topics: Vec<_> = lost.iter().filter_map(|refused| subject(&refused.topic)).collect();
        if !topics.is_empty() {
            self.put(&NodeMessage::Unsubscribed { topics });
        }
        // What it asks for anew and may not follow is told once, since it asks with every poll.
        let told = std::mem::replace(&mut self.answer.cursor.refused, refused_digest(&welcome.refused));
        let news = welcome.refused.iter().filter(|refused| !known.contains(&refused.topic));
        let refused: Vec<_> = news.cloned().collect();
        if told != self.answer.cursor.refused && !refused.is_empty() {
            self.put(&NodeMessage::Subscribed { at: welcome.at, positions: Positions::default(), refused });
        }
        let late = welcome.late.as_ref().map_or(0, Late::digest);
        if self.answer.cursor.away == welcome.live || self.answer.cursor.late != late {
            // Who was told that sources are late is told that none is, also by a node that knows of no sources.
            let told = welcome.late.clone().or_else(|| (self.answer.cursor.late != 0).then(Late::default));
            self.put(&NodeMessage::Status { live: welcome.live, since: rfc3339(now_ms()), late: told });
        }
        self.answer.cursor.note(&NodeMessage::Welcome(Box::new(welcome.clone())));
        self.other |= !self.answer.messages.is_empty();
    }

    /// Waits until the marks of live events have passed, where there is nothing else to tell.
    async fn pass_marks(&mut self) {
        let relay = self.session.context.relay.clone();
        let end = Instant::now() + MARK;
        let ahead = |area: &String| relay.mark(area).is_some_and(|mark| relay.at() < mark);
        while !self.other && self.live_areas.iter().any(ahead) && Instant::now() < end {
            if self.listen(end.min(Instant::now() + GATHER * 10)).await.is_some() {
                return;
            }
        }
    }

    fn put(&mut self, message: &NodeMessage) {
        self.answer.cursor.note(message);
        self.keep(message.json().into_bytes());
    }

    fn keep(&mut self, json: Vec<u8>) {
        self.bytes += json.len();
        self.answer.messages.push(json);
    }
}

/// A topic that the client followed, perhaps of an area that is there no longer.
fn subject(topic: &str) -> Option<Subject> {
    let area = topic.split(':').next()?;
    Subject::parse(topic, &Areas::new([area], [], []).ok()?).ok()
}
