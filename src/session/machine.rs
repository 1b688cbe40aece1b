//! What a session says and does: a pure state machine, the same for every transport.
//!
//! `(state, input) -> (state, outputs)`: no sockets, no clock, no tasks. The transport turns outputs into IO in their
//! order, and verdicts about tokens come back as inputs. What is followed is remembered here only to keep the limit
//! and to take back what a new token no longer allows; who gets which event is the relay's business.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{
    allowance::Allowance,
    cursor::{self, CursorPlace},
    liveness::Transport,
};
use crate::{
    auth::{Grant, Identity, LEEWAY},
    hub::Closing,
    protocol::{
        Areas, ClientMessage, CloseCode, ErrorCode, NodeMessage, Proof, Refused, RefusedCode, Resume,
        Subject,
        message::{Connect, Positions, Welcome},
    },
    relay::Request,
};

/// When a client that was refused for a limit shall come back, ms.
pub(crate) const COME_BACK_MS: u64 = 5_000;

/// What all sessions of a node have in common.
#[derive(Debug, Clone)]
pub struct SessionPolicy {
    /// The node's name.
    pub node: String,
    /// The configured areas.
    pub areas: Areas,
    /// Seconds between heartbeats.
    pub heartbeat: u64,
    /// Topics that one session may follow (`limits.topics_per_session`).
    pub topics: usize,
    /// Messages per second that a client may send (`limits.messages_per_second`); 0: any number.
    pub messages_per_second: u32,
    /// Topics per second that a client may follow or leave (`limits.subscriptions_per_second`); 0: any number.
    pub subscriptions_per_second: u32,
    /// Whether `area:*` cannot be followed (sharded pub/sub).
    pub sharded: bool,
}

/// What a session is told.
#[derive(Debug)]
pub enum Input {
    /// A message of the client.
    Message(ClientMessage),
    /// Something of the client that is no message; the reason is for the developer of the client.
    Malformed(String),
    /// The answer to [`Output::Check`]; the error is for the developer of the client.
    Checked(Result<Box<Identity>, String>),
    /// The answer to [`Output::Admit`]: whether this editor may have one more session.
    Admitted(bool),
    /// The identity was asked for again before it ended (`auth.mode = "callback"`); the error is a refusal.
    Renewed(Result<Box<Identity>, String>),
}

/// What a session does, in this order.
#[derive(Debug)]
pub enum Output {
    /// Write a message.
    Say(NodeMessage),
    /// Find out whose token this is; answer with [`Input::Checked`].
    Check(String),
    /// Count a session of this editor; answer with [`Input::Admitted`].
    Admit {
        /// The editor.
        user: String,
    },
    /// The identity holds until then, ms since 1970; `None`: for good.
    Until(Option<u64>),
    /// Ask the relay to welcome the session, whose editor has this proof.
    Connect(Box<Welcome>, Arc<Proof>, Request),
    /// Tell the relay what the session goes on with.
    Renew(Arc<Proof>),
    /// Ask the relay to follow more.
    Subscribe(Request),
    /// Ask the relay to follow less.
    Unsubscribe(Vec<Subject>),
    /// Ask the relay for a `pong`.
    Ping,
    /// Say `closing` and close.
    End(Closing),
}

/// A session.
#[derive(Debug)]
pub struct Machine {
    policy: Arc<SessionPolicy>,
    bounds: SessionBounds,
    phase: Phase,
    allowance: Allowance,
    /// The name of the session that goes on.
    name: Option<Box<str>>,
}

/// What bounds what a session can follow, besides its grant.
#[derive(Debug, Clone, Copy)]
struct SessionBounds {
    transport: Transport,
    /// Whether the positions of all that is followed must fit into a cursor.
    by_cursor: bool,
}

#[derive(Debug)]
enum Phase {
    /// Nothing was said yet; who the handshake proved, if anybody.
    New(Option<Box<Identity>>),
    /// `connect` waits for the verdict on its token, or for admission.
    Waiting(Box<(Connect, Option<Identity>)>),
    Open(Box<Open>),
    Ended,
}

#[derive(Debug)]
struct Open {
    /// Whose session it is: the key of their name.
    key: Box<str>,
    grant: Grant,
    followed: Vec<Subject>,
}

impl Machine {
    /// A session of whoever the handshake proved.
    pub fn new(policy: Arc<SessionPolicy>, transport: Transport, identity: Option<Box<Identity>>) -> Self {
        let bounds = SessionBounds { transport, by_cursor: transport != Transport::WebSocket };
        Self { policy, bounds, phase: Phase::New(identity), allowance: Allowance::default(), name: None }
    }

    /// It is one that was begun before, by this name.
    #[must_use]
    pub fn going_on(mut self, name: Option<Box<str>>) -> Self {
        self.name = name;
        self
    }

    /// The client brings its cursor back there: in a body there is room for all positions.
    #[must_use]
    pub fn with_cursor_in(mut self, place: CursorPlace) -> Self {
        self.bounds.by_cursor &= place == CursorPlace::Query;
        self
    }

    /// Takes an input. `now`: ms since 1970.
    pub fn take(&mut self, input: Input, now: u64) -> Vec<Output> {
        if matches!(self.phase, Phase::Ended) {
            return Vec::new();
        }
        match input {
            Input::Message(message) => self.message(message, now),
            Input::Malformed(reason) => self.end(CloseCode::BadMessage, reason, None),
            Input::Checked(verdict) => self.checked(verdict, now),
            Input::Admitted(true) => self.open(now),
            Input::Admitted(false) => {
                self.end(CloseCode::TryLater, "too-many-sessions of this user", Some(COME_BACK_MS))
            }
            Input::Renewed(Ok(identity)) => self.renew(*identity, now, false),
            Input::Renewed(Err(reason)) => self.end(CloseCode::Unauthenticated, reason, None),
        }
    }

    /// Counts frames that carry no message (Pings, Pongs, pieces of a message) as messages are counted.
    pub(crate) fn affords(&mut self, frames: u32, now: u64) -> bool {
        self.allowance.frames(frames, self.policy.messages_per_second, now)
    }

    fn message(&mut self, message: ClientMessage, now: u64) -> Vec<Output> {
        let policy = Arc::clone(&self.policy);
        if !self.allowance.message(policy.messages_per_second, now) {
            return self.end(CloseCode::TryLater, "too many messages per second", Some(COME_BACK_MS));
        }
        if let ClientMessage::Subscribe { topics, .. } | ClientMessage::Unsubscribe { topics } = &message
            && !self.allowance.topics(policy.subscriptions_per_second, topics.len(), now)
        {
            return self.end(CloseCode::TryLater, "too many topics per second", Some(COME_BACK_MS));
        }
        if let ClientMessage::Unknown(kind) = message {
            let detail =
                format!("there is no message of type {:?}", kind.chars().take(64).collect::<String>());
            return vec![Output::Say(NodeMessage::Error { code: ErrorCode::UnknownType, detail })];
        }
        match (&mut self.phase, message) {
            (Phase::New(_), ClientMessage::Connect(connect)) => self.connect(connect),
            (Phase::New(_), _) => self.end(CloseCode::BadMessage, "the first message must be connect", None),
            (_, ClientMessage::Connect(_)) => self.end(CloseCode::BadMessage, "a second connect", None),
            (Phase::Open(open), ClientMessage::Subscribe { topics, resume }) => {
                vec![Output::Subscribe(open.follow(&policy, self.bounds, topics, resume))]
            }
            (Phase::Open(open), ClientMessage::Unsubscribe { topics }) => open.leave(&policy, &topics),
            (Phase::Open(_), ClientMessage::Token { token }) => vec![Output::Check(token)],
            (Phase::Open(_), ClientMessage::Ping) => vec![Output::Ping],
            // The transport takes no message while a verdict is due.
            (_, _) => Vec::new(),
        }
    }

    fn connect(&mut self, mut connect: Connect) -> Vec<Output> {
        let Phase::New(identity) = &mut self.phase else { return Vec::new() };
        let identity = identity.take();
        if let Some(token) = connect.token.take() {
            self.phase = Phase::Waiting(Box::new((connect, None)));
            return vec![Output::Check(token)];
        }
        let Some(identity) = identity else {
            return self.end(
                CloseCode::Unauthenticated,
                "connect has no token, and none came with the handshake",
                None,
            );
        };
        self.admit(connect, *identity)
    }

    fn admit(&mut self, connect: Connect, identity: Identity) -> Vec<Output> {
        let user = identity.proof.user.to_string();
        self.phase = Phase::Waiting(Box::new((connect, Some(identity))));
        vec![Output::Admit { user }]
    }

    fn checked(&mut self, verdict: Result<Box<Identity>, String>, now: u64) -> Vec<Output> {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Waiting(waiting) => match verdict {
                Ok(identity) => self.admit(waiting.0, *identity),
                Err(reason) => self.end(CloseCode::Unauthenticated, reason, None),
            },
            Phase::Open(open) => {
                let refusal = match &verdict {
                    Ok(identity) if identity.proof.user == open.key => None,
                    Ok(_) => Some("the token is somebody else's: a session belongs to one user".to_owned()),
                    Err(reason) => Some(reason.clone()),
                };
                self.phase = Phase::Open(open);
                match (refusal, verdict) {
                    (None, Ok(identity)) => self.renew(*identity, now, true),
                    (refusal, _) => {
                        let detail = refusal.unwrap_or_default();
                        vec![Output::Say(NodeMessage::Error { code: ErrorCode::BadToken, detail })]
                    }
                }
            }
            other => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    fn open(&mut self, now: u64) -> Vec<Output> {
        let Phase::Waiting(waiting) = std::mem::replace(&mut self.phase, Phase::Ended) else {
            return Vec::new();
        };
        let (connect, Some(identity)) = *waiting else { return Vec::new() };
        let until = end(&identity, now);
        let (user, proof) = (identity.user, identity.proof);
        let mut open = Open { key: proof.user.clone(), grant: identity.grant, followed: Vec::new() };
        let request = open.follow(&self.policy, self.bounds, connect.topics, connect.resume);
        let welcome = Box::new(Welcome {
            session: self.name.take().map_or_else(new_name, Into::into),
            node: self.policy.node.clone(),
            user,
            heartbeat: self.policy.heartbeat,
            expires_in: until.map(|until| until.saturating_sub(now) / 1000),
            at: 0,
            positions: Positions::default(),
            refused: Vec::new(),
            live: false,
            late: None,
        });
        self.phase = Phase::Open(Box::new(open));
        vec![Output::Until(until), Output::Connect(welcome, proof, request)]
    }

    /// A newer identity of the same editor. What it no longer allows ends, and the client is told.
    fn renew(&mut self, identity: Identity, now: u64, tell: bool) -> Vec<Output> {
        let areas = self.policy.areas.clone();
        let Phase::Open(open) = &mut self.phase else { return Vec::new() };
        if identity.proof.user != open.key {
            return self.end(CloseCode::Unauthenticated, "the session now belongs to somebody else", None);
        }
        let until = end(&identity, now);
        open.grant = identity.grant;
        let grant = &open.grant;
        let (kept, lost) = open.followed.drain(..).partition(|subject| grant.allows(subject, &areas));
        open.followed = kept;
        let mut outputs = vec![Output::Until(until), Output::Renew(identity.proof)];
        if tell && let Some(until) = until {
            let expires_in = until.saturating_sub(now) / 1000;
            outputs.push(Output::Say(NodeMessage::TokenAccepted { expires_in }));
        }
        if !lost.is_empty() {
            outputs.push(Output::Unsubscribe(lost));
        }
        outputs
    }

    fn end(
        &mut self,
        code: CloseCode,
        reason: impl Into<String>,
        reconnect_after_ms: Option<u64>,
    ) -> Vec<Output> {
        self.phase = Phase::Ended;
        vec![Output::End(Closing { code, reason: reason.into(), reconnect_after_ms })]
    }
}

/// The name of a session that begins.
fn new_name() -> String {
    format!("{:012x}", rand::random::<u64>() >> 16)
}

/// When the session of an identity ends, ms since 1970. A token that is accepted although it has just ended, because
/// clocks differ, lasts as long as that is allowed.
fn end(identity: &Identity, now: u64) -> Option<u64> {
    let expires = identity.expires?.saturating_mul(1000);
    Some(if expires > now { expires } else { expires.saturating_add(LEEWAY * 1000) })
}

impl Open {
    /// Sorts what is asked for into what may be followed and what is refused.
    fn follow(
        &mut self,
        policy: &SessionPolicy,
        bounds: SessionBounds,
        topics: Vec<String>,
        resume: Option<Resume>,
    ) -> Request {
        let mut request = Request { subjects: Vec::new(), refused: Vec::new(), resume };
        let mut followed: FxHashSet<Subject> = self.followed.iter().cloned().collect();
        let mut asked = FxHashSet::default();
        for topic in topics {
            match self.judge(policy, bounds, &topic, &followed) {
                Ok(subject) => {
                    if followed.insert(subject.clone()) {
                        self.followed.push(subject.clone());
                    }
                    if asked.insert(subject.clone()) {
                        request.subjects.push(subject);
                    }
                }
                Err(code) => request.refused.push(Refused { topic, code }),
            }
        }
        self.followed.shrink_to_fit();
        request
    }

    /// Whether a topic may be followed. `followed`: what is followed already, which costs nothing more.
    fn judge(
        &self,
        policy: &SessionPolicy,
        bounds: SessionBounds,
        topic: &str,
        followed: &FxHashSet<Subject>,
    ) -> Result<Subject, RefusedCode> {
        let subject = Subject::parse(topic, &policy.areas).map_err(|_| RefusedCode::BadTopic)?;
        // A whole area has no positions, so that a poll could never tell what was missed between two.
        if (policy.sharded || bounds.transport == Transport::Poll) && matches!(subject, Subject::Every(_)) {
            return Err(RefusedCode::BadTopic);
        }
        if !self.grant.allows(&subject, &policy.areas) {
            return Err(RefusedCode::Forbidden);
        }
        if followed.contains(&subject) {
            return Ok(subject);
        }
        let fits = !bounds.by_cursor || cursor::has_room(&self.followed, &subject);
        if self.followed.len() >= policy.topics || !fits {
            return Err(RefusedCode::TooMany);
        }
        Ok(subject)
    }

    fn leave(&mut self, policy: &SessionPolicy, topics: &[String]) -> Vec<Output> {
        let subjects: Vec<_> =
            topics.iter().filter_map(|topic| Subject::parse(topic, &policy.areas).ok()).collect();
        let left: FxHashSet<&Subject> = subjects.iter().collect();
        self.followed.retain(|subject| !left.contains(subject));
        vec![Output::Unsubscribe(subjects)]
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
