//! The liveness of a session: the few facts by which the sweep knows what is due for it.
//!
//! Written by the session's task, read by the sweep; plain atomics.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;

use super::sse::text::BEAT_CHUNK;
use crate::{
    hub::{Closing, Outbox, frame},
    mutant,
    protocol::{CloseCode, NodeMessage, Proof},
};

/// How long a client may take to say `connect`, ms.
const CONNECT_WITHIN: u32 = 10_000;
/// How long an owed `resync` may wait.
const OWED_WITHIN: Duration = Duration::from_secs(10);
/// How long before its end a token is warned about, ms: a third of its life, within these. The sweep comes by once a
/// second.
const WARN_AHEAD: std::ops::RangeInclusive<u64> = 2_000..=60_000;

/// How long a session has to bring a new token when its editor's rights have changed, ms.
const REFRESH_WITHIN: u64 = 30_000;
/// How often it is told so, ms.
const REMIND_EVERY: u64 = 8_000;
const NOT_REFRESHED: &str = "the editor's rights have changed, and no new token came within 30 s";

/// How a session is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// RFC 6455.
    WebSocket,
    /// Server-sent events.
    Sse,
    /// Long-poll: each request is answered as soon as there are messages.
    Poll,
}

impl Transport {
    /// The name in configuration and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Poll => "poll",
        }
    }
}

/// What is due for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// A sign of life: a Ping, or a comment line.
    Beat,
    /// `token-expiring`, or (where the CMS is asked) asking again.
    Warn,
    /// The end.
    Close(CloseCode, &'static str),
}

impl Due {
    /// Whether it is due because nothing was heard or written, which may be the fault of the node itself.
    pub(super) fn is_silence(self) -> bool {
        matches!(self, Self::Close(CloseCode::TimedOut | CloseCode::TooSlow, _))
    }
}

/// What the sweep knows of one session.
#[derive(Debug)]
pub struct SessionLiveness {
    outbox: Arc<Outbox>,
    transport: Transport,
    /// When something was last heard (on SSE: written), on the registry's clock.
    heard: AtomicU32,
    /// `connect` came; who it is may still be asked.
    introduced: AtomicBool,
    open: AtomicBool,
    beaten: AtomicBool,
    requests: AtomicU8,
    /// When something of an owed `resync` was last taken by the connection, on the registry's clock; 0: none waits there.
    stuck: AtomicU32,
    /// Whether the identity is asked for again by the node itself.
    renewable: AtomicBool,
    /// When the identity ends, ms since 1970.
    until: AtomicU64,
    /// When to warn of that.
    warn: AtomicU64,
    /// The editor's rights have changed, and the session has not brought a new proof yet.
    refreshing: AtomicBool,
    /// The token, or the CMS' answer, that it was let in with.
    proof: Mutex<Option<Arc<Proof>>>,
    user: OnceLock<Box<str>>,
}

/// What the sweep asks the session's task to do, since only the task can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum TaskRequest {
    /// Write a sign of life.
    Beat = 1,
    /// Ask for the identity again.
    Renew = 2,
}

impl SessionLiveness {
    pub(super) fn new(transport: Transport, outbox: Arc<Outbox>, clock: u32) -> Self {
        Self {
            outbox,
            transport,
            heard: AtomicU32::new(clock),
            introduced: AtomicBool::new(false),
            open: AtomicBool::new(false),
            beaten: AtomicBool::new(false),
            requests: AtomicU8::new(0),
            stuck: AtomicU32::new(0),
            renewable: AtomicBool::new(false),
            until: AtomicU64::new(u64::MAX),
            warn: AtomicU64::new(u64::MAX),
            refreshing: AtomicBool::new(false),
            proof: Mutex::default(),
            user: OnceLock::new(),
        }
    }

    /// What waits to be written to the session.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// How the session is carried.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whose session it is; `None` before `connect`.
    pub fn user(&self) -> Option<&str> {
        self.user.get().map(|user| &**user)
    }

    /// Names the user. `false`: the session had a name already, and keeps it.
    pub(super) fn name(&self, user: &str) -> bool {
        self.user.set(user.into()).is_ok()
    }

    /// Something was heard. Before `connect`, nothing but `connect` counts.
    pub(super) fn heard(&self, clock: u32) {
        if !self.open.load(Relaxed) {
            return;
        }
        self.heard.store(clock, Relaxed);
        self.beaten.store(false, Relaxed);
    }

    /// A `resync` that was owed has left the outbox and waits behind the connection, which last took something at `clock`;
    /// `None`: it has taken everything.
    pub(super) fn owe(&self, clock: Option<u32>) {
        // 0 means that nothing waits, so an odd number is stored; a millisecond more does not matter.
        let clock = clock.filter(|_| !mutant::is("stuck"));
        self.stuck.store(clock.map_or(0, |clock| clock | 1), Relaxed);
    }

    /// Whether an owed `resync` could not be written for too long.
    fn is_too_slow(&self, clock: u32) -> bool {
        let stuck = self.stuck.load(Relaxed);
        let waited =
            Duration::from_millis(clock.wrapping_sub(stuck).cast_signed().max(0).unsigned_abs().into());
        stuck > 0 && waited >= OWED_WITHIN
            || self.outbox.owed_since().is_some_and(|since| since.elapsed() >= OWED_WITHIN)
    }

    /// `connect` came in time.
    pub(super) fn introduced(&self) {
        self.introduced.store(true, Relaxed);
    }

    /// It was accepted.
    pub(super) fn open(&self) {
        self.open.store(true, Relaxed);
    }

    /// The identity holds until then, ms since 1970. `renewable`: the node asks again by itself.
    pub(super) fn hold(&self, until: Option<u64>, now: u64, renewable: bool) {
        self.renewable.store(renewable, Relaxed);
        self.refreshing.store(false, Relaxed);
        self.until.store(until.unwrap_or(u64::MAX), Relaxed);
        let ahead =
            |until: u64| (until.saturating_sub(now) / 3).clamp(*WARN_AHEAD.start(), *WARN_AHEAD.end());
        let warn = until.map_or(u64::MAX, |until| until.saturating_sub(ahead(until)));
        self.warn.store(warn, Relaxed);
    }

    /// What the session was let in with, or goes on with.
    pub(super) fn prove(&self, proof: Arc<Proof>) {
        *self.proof.lock().unwrap_or_else(PoisonError::into_inner) = Some(proof);
    }

    /// See [`SessionLiveness::prove`].
    pub(super) fn proof(&self) -> Option<Arc<Proof>> {
        self.proof.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The editor's rights have changed: the session has to bring a new proof, or the node asks for one, within
    /// [`REFRESH_WITHIN`].
    pub(super) fn refresh(&self, now: u64) {
        if self.refreshing.swap(true, Relaxed) {
            return;
        }
        self.until.fetch_min(now + REFRESH_WITHIN, Relaxed);
        self.remind(now);
    }

    fn remind(&self, now: u64) {
        self.warn.store(now + REMIND_EVERY, Relaxed);
        if self.renewable.load(Relaxed) {
            return self.ask_task(TaskRequest::Renew);
        }
        self.outbox.message(NodeMessage::TokenExpiring { expires_in: 0 });
    }

    /// Tries again later what could not be renewed now, if the identity lasts that long.
    pub(super) fn warn_again(&self, at: u64) {
        self.warn.store(at, Relaxed);
    }

    /// Whether the task is asked for this; asking ends with it.
    pub(super) fn take(&self, request: TaskRequest) -> bool {
        self.requests.fetch_and(!(request as u8), Relaxed) & request as u8 != 0
    }

    /// What is due. `clock`: the registry's; `now`: ms since 1970.
    pub(super) fn due(&self, clock: u32, now: u64, heartbeat: Duration) -> Option<Due> {
        let silent = clock.wrapping_sub(self.heard.load(Relaxed));
        // It was heard after the clock was read.
        let silent = if silent > u32::MAX / 2 { 0 } else { silent };
        if !self.open.load(Relaxed) {
            return (silent >= CONNECT_WITHIN && !self.introduced.load(Relaxed))
                .then_some(Due::Close(CloseCode::TimedOut, "no connect within 10 s"));
        }
        if now >= self.until.load(Relaxed) {
            let why = if self.refreshing.load(Relaxed) { NOT_REFRESHED } else { "the token has expired" };
            return Some(Due::Close(CloseCode::Unauthenticated, why));
        }
        if self.is_too_slow(clock) {
            return Some(Due::Close(
                CloseCode::TooSlow,
                "too slow: a resync could not be written within 10 s",
            ));
        }
        if now >= self.warn.load(Relaxed) {
            return Some(Due::Warn);
        }
        if self.outbox.is_asking() {
            // Nothing is read of a session that waits for an answer of the node.
            return None;
        }
        let heartbeat = heartbeat.as_millis() as u32;
        if silent >= heartbeat.saturating_mul(2) {
            if self.transport == Transport::WebSocket {
                return Some(Due::Close(CloseCode::TimedOut, "nothing heard for two heartbeats"));
            }
            if self.outbox.is_blocked() || self.waits_for_its_task() {
                return Some(Due::Close(CloseCode::TimedOut, "nothing read for two heartbeats"));
            }
        }
        (silent >= heartbeat && !self.beaten.load(Relaxed)).then_some(Due::Beat)
    }

    /// Does what is due.
    pub(super) fn act(&self, due: Due, clock: u32, now: u64) {
        match due {
            Due::Close(code, reason) => {
                self.outbox.close(Closing { code, reason: reason.into(), reconnect_after_ms: None });
            }
            // A token that was made in the moment of the order may have been refused: another is asked for.
            Due::Warn if self.refreshing.load(Relaxed) => self.remind(now),
            Due::Warn => {
                self.warn.store(u64::MAX, Relaxed);
                if self.renewable.load(Relaxed) {
                    return self.ask_task(TaskRequest::Renew);
                }
                let left = self.until.load(Relaxed).saturating_sub(now);
                self.outbox.message(NodeMessage::TokenExpiring { expires_in: left / 1000 });
            }
            Due::Beat if self.transport == Transport::WebSocket => {
                self.beaten.store(true, Relaxed);
                if self.outbox.socket().is_some() {
                    self.outbox.raw(Bytes::from_static(frame::PING));
                } else {
                    self.ask_task(TaskRequest::Beat);
                }
            }
            // What waits for the socket will be the sign of life.
            Due::Beat if self.outbox.is_blocked() => self.beaten.store(true, Relaxed),
            Due::Beat if self.outbox.socket().is_some() => {
                self.heard.store(clock, Relaxed);
                self.outbox.raw(Bytes::from_static(BEAT_CHUNK));
            }
            // Its task says when the connection has taken something.
            Due::Beat if self.transport == Transport::Sse => {
                self.beaten.store(true, Relaxed);
                self.ask_task(TaskRequest::Beat);
            }
            Due::Beat => {
                self.heard.store(clock, Relaxed);
                self.ask_task(TaskRequest::Beat);
            }
        }
    }

    /// Whether a sign of life is due that only the session's task can write, and that the connection has not taken.
    fn waits_for_its_task(&self) -> bool {
        self.beaten.load(Relaxed) && self.transport == Transport::Sse && self.outbox.socket().is_none()
    }

    fn ask_task(&self, request: TaskRequest) {
        self.requests.fetch_or(request as u8, Relaxed);
        self.outbox.nudge();
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
