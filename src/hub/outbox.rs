//! Outboxes: what waits to be written to one session.
//!
//! Events are handed over by the hub without waiting: written to the socket at once where it has room, else queued
//! within a bound. A queue that would grow past the bound loses its *events* (never other messages), and the session
//! is owed a `resync` for their topics.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    frame::Frame,
    framing::{Framed, Framing},
    notice::{Closing, Notice, Taken},
    outbox_state::OutboxState,
    queue::{Item, QueueEntry, Replay},
    socket::Socket,
};
use crate::{
    mutant,
    protocol::{NodeMessage, Reason},
};

/// What waits to be written to one session.
pub struct Outbox {
    state: Mutex<OutboxState>,
    socket: OnceLock<Socket>,
    limit: usize,
    /// The member's id in the hub; `u32::MAX` until it is admitted.
    slot: AtomicU32,
}

impl Outbox {
    /// An outbox that writes to a socket itself. `limit`: bytes of events that may wait (`limits.outbox_bytes`).
    pub fn direct(socket: impl Into<Socket>, limit: usize) -> Arc<Self> {
        let outbox = Self::new(OutboxState::default(), limit);
        let _ = outbox.socket.set(socket.into());
        Arc::new(outbox)
    }

    /// An outbox that is emptied by [`Outbox::pull`] (long-poll; WebSockets over TLS; SSE over TLS and HTTP/2).
    pub fn pulled(limit: usize) -> Arc<Self> {
        Arc::new(Self::new(OutboxState::default(), limit))
    }

    /// An outbox that writes to a socket itself, framed so, as soon as it has one: see [`Outbox::attach`].
    pub fn promised(framing: Box<dyn Framing>, limit: usize) -> Arc<Self> {
        Arc::new(Self::new(
            OutboxState {
                blocked: true,
                framed: Some(Box::new(Framed { framing, stuck: None })),
                ..OutboxState::default()
            },
            limit,
        ))
    }

    fn new(state: OutboxState, limit: usize) -> Self {
        Self { state: Mutex::new(state), socket: OnceLock::new(), limit, slot: AtomicU32::new(u32::MAX) }
    }

    /// Gives a promised outbox its socket. `head` is written first.
    pub fn attach(&self, socket: Socket, head: Bytes) {
        let mut state = self.lock();
        if state.ended || self.socket.set(socket).is_err() {
            return;
        }
        state.queue.push_first(head);
        state.blocked = false;
        self.write_out(&mut state);
    }

    /// The socket of a direct outbox, for reading and for readiness.
    pub fn socket(&self) -> Option<&Socket> {
        self.socket.get()
    }

    /// Reads its first and its last part, see [`super::Hub::touch`].
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.socket.get().is_some()) + u64::from(self.slot.load(Ordering::Relaxed))
    }

    pub(crate) fn slot(&self) -> Option<u32> {
        Some(self.slot.load(Ordering::Relaxed)).filter(|slot| *slot != u32::MAX)
    }

    pub(crate) fn set_slot(&self, slot: Option<u32>) {
        self.slot.store(slot.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Queues an event; nothing is written before [`Outbox::flush`].
    pub fn push(&self, frame: &Frame) -> Taken {
        self.lock().push(frame, self.limit)
    }

    /// Queues an event and writes what the socket takes: the way of a lone event.
    pub fn send(&self, frame: &Frame) -> Taken {
        let mut state = self.lock();
        if state.queue.is_empty()
            && !state.blocked
            && !state.ended
            && !state.sealed
            && let Some(socket) = self.socket.get()
        {
            return state.send(frame, socket, self.limit);
        }
        let taken = state.push(frame, self.limit);
        self.write_out(&mut state);
        taken
    }

    /// Queues a replay and writes what the socket takes.
    pub fn replay(&self, replay: Replay) {
        if replay.is_empty() {
            return;
        }
        let mut state = self.lock();
        if !state.ended && !state.sealed {
            state.queue.push(QueueEntry::Replay(replay));
            self.write_out(&mut state);
        }
    }

    /// Queues a message and writes what the socket takes. Messages are few, and not bounded by bytes.
    pub fn message(&self, message: NodeMessage) {
        let mut state = self.lock();
        if !state.ended && !state.sealed {
            let settles = matches!(&message, NodeMessage::Resync { reason: Reason::Slow, .. });
            state.queue.push(QueueEntry::Message(Box::new(message)));
            if settles {
                state.watch_resync();
            }
            self.write_out(&mut state);
        }
    }

    /// Queues the last message and, for a socket, what ends it (a close frame), and takes nothing after them: no data
    /// may follow a close frame (RFC 6455, 5.5.1). What was queued before is still written.
    pub fn farewell(&self, message: Option<NodeMessage>, end: Bytes) {
        let mut state = self.lock();
        if state.ended || state.sealed {
            return;
        }
        if let Some(message) = message {
            state.queue.push(QueueEntry::Message(Box::new(message)));
        }
        if self.socket.get().is_some() {
            state.queue.push(QueueEntry::Raw(end));
        }
        state.sealed = true;
        self.write_out(&mut state);
    }

    /// Wakes the session's task with [`Notice::Work`] though nothing waits: a sign of life, or a token to renew, is due.
    pub fn nudge(&self) {
        let mut state = self.lock();
        state.work = true;
        state.wake();
    }

    /// Queues ready bytes (a Ping, a Pong, a close frame) for a socket and writes what it takes. Nothing for others.
    pub fn raw(&self, bytes: Bytes) {
        let mut state = self.lock();
        if !state.ended && !state.sealed && self.socket.get().is_some() {
            state.queue.push(QueueEntry::Raw(bytes));
            self.write_out(&mut state);
        }
    }

    /// Writes what the socket takes; wakes the session's task where it must do so itself.
    pub fn flush(&self) {
        self.write_out(&mut self.lock());
    }

    /// The socket has become writable.
    pub fn unblock(&self) {
        let mut state = self.lock();
        state.blocked = false;
        self.write_out(&mut state);
    }

    /// Whether the session's task must wait until the socket is writable, and call [`Outbox::unblock`] then.
    pub fn is_blocked(&self) -> bool {
        self.lock().blocked
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// Asks the session's task to close. The first reason wins.
    pub fn close(&self, closing: Closing) {
        let mut state = self.lock();
        if state.closing.is_none() && !state.ended {
            state.closing = Some(Box::new(closing));
            state.wake();
        }
    }

    /// Since when a `resync` for dropped events has been owed, or has waited for a socket that takes nothing; `None`: none is.
    pub fn owed_since(&self) -> Option<Instant> {
        let state = self.lock();
        let stuck = || state.framed.as_ref()?.stuck.filter(|_| !mutant::is("stuck"));
        state.overflowed.or_else(stuck)
    }

    /// Whether events were dropped, and the `resync` for them is not queued yet.
    pub(crate) fn has_dropped(&self) -> bool {
        self.lock().overflowed.is_some()
    }

    /// The owed `resync` is queued: events are taken again.
    pub(crate) fn settle(&self) {
        let mut state = self.lock();
        state.overflowed = None;
        state.drained_told = false;
    }

    /// Ends the outbox: everything that waits is dropped, nothing more is taken.
    pub fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.queue.clear();
        state.waker = None;
    }

    /// The session has asked something of the relay: until [`Outbox::answered`], nothing more of the client is taken, so
    /// that answers come in the order of the questions.
    pub(crate) fn ask(&self) {
        self.lock().asking = true;
    }

    /// The answer is queued.
    pub(crate) fn answered(&self) {
        let mut state = self.lock();
        if std::mem::take(&mut state.asking) {
            state.wake();
        }
    }

    /// Whether an answer is due.
    pub(crate) fn is_asking(&self) -> bool {
        self.lock().asking
    }

    /// What the session's task has to do next. Only one task may wait for it.
    pub fn poll_notice(&self, cx: &mut Context<'_>) -> Poll<Notice> {
        let mut state = self.lock();
        if state.broken {
            return Poll::Ready(Notice::Broken);
        }
        if let Some(closing) = state.closing.clone().filter(|_| !state.closing_told) {
            state.closing_told = true;
            return Poll::Ready(Notice::Closing(*closing));
        }
        if state.overflowed.is_some() && state.queue.is_empty() && !state.drained_told {
            state.drained_told = true;
            return Poll::Ready(Notice::Drained);
        }
        if std::mem::take(&mut state.work) {
            return Poll::Ready(Notice::Work);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// [`Outbox::poll_notice`] as a future.
    pub async fn notice(&self) -> Notice {
        std::future::poll_fn(|cx| self.poll_notice(cx)).await
    }

    /// Takes up to `most` items out of an outbox that is emptied by its task.
    pub fn pull(&self, most: usize) -> Vec<Item> {
        let mut state = self.lock();
        let mut items = Vec::new();
        while items.len() < most
            && let Some(item) = state.queue.pull()
        {
            items.push(item);
        }
        if !state.queue.is_empty() {
            state.work = true;
        } else if state.overflowed.is_some() {
            state.wake();
        }
        items
    }

    fn write_out(&self, state: &mut OutboxState) {
        state.write_out(self.socket.get());
    }

    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        // A panic elsewhere leaves the queue whole: every change is complete before anything can fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbox({:?})", self.slot())
    }
}

#[cfg(test)]
#[path = "outbox_model.rs"]
mod model;
