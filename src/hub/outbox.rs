//! Outboxes: what waits to be written to one session.
//!
//! Events are handed over by the hub without waiting: written to the socket at once where it has room, else queued
//! within a bound. A queue that would grow past the bound loses its *events* (never other messages), and the session
//! is owed a `resync` for their topics. Must not know topics' positions or who follows what.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    frame::Frame,
    notice::{Closing, Notice, Taken},
    queue::{Entry, Item, Queue, Replay},
    socket::Socket,
};
use crate::protocol::NodeMessage;

#[derive(Default)]
struct State {
    queue: Queue,
    blocked: bool,
    ended: bool,
    /// The last words are queued: nothing may follow them.
    sealed: bool,
    broken: bool,
    overflowed: Option<Instant>,
    drained_told: bool,
    closing: Option<Closing>,
    closing_told: bool,
    work: bool,
    /// An answer of the relay is due.
    asking: bool,
    waker: Option<Waker>,
}

/// What waits to be written to one session.
pub struct Outbox {
    state: Mutex<State>,
    socket: Option<Socket>,
    limit: usize,
    /// The hub's name for the session; `u32::MAX` until it has one.
    slot: AtomicU32,
}

impl Outbox {
    /// An outbox that writes to a socket itself. `limit`: bytes of events that may wait (`limits.outbox_bytes`).
    pub fn direct(socket: impl Into<Socket>, limit: usize) -> Arc<Self> {
        Self::new(Some(socket.into()), limit)
    }

    /// An outbox that is emptied by [`Outbox::pull`] (TLS, SSE, long-poll).
    pub fn pulled(limit: usize) -> Arc<Self> {
        Self::new(None, limit)
    }

    fn new(socket: Option<Socket>, limit: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), socket, limit, slot: AtomicU32::new(u32::MAX) })
    }

    /// The socket of a direct outbox, for reading and for readiness.
    pub fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
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
            && let Some(socket) = &self.socket
        {
            return match socket.try_write(frame.bytes()) {
                Ok(n) if n == frame.bytes().len() => Taken::Yes,
                Ok(n) => {
                    state.queue.push_begun(frame, n);
                    state.block();
                    Taken::Yes
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let taken = state.push(frame, self.limit);
                    state.block();
                    taken
                }
                Err(_) => {
                    state.break_off();
                    Taken::Ended
                }
            };
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
            state.queue.push(Entry::Replay(replay));
            self.write_out(&mut state);
        }
    }

    /// Queues a message and writes what the socket takes. Messages are few, and not bounded by bytes.
    pub fn message(&self, message: NodeMessage) {
        let mut state = self.lock();
        if !state.ended && !state.sealed {
            state.queue.push(Entry::Message(Box::new(message)));
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
            state.queue.push(Entry::Message(Box::new(message)));
        }
        if self.socket.is_some() {
            state.queue.push(Entry::Raw(end));
        }
        state.sealed = true;
        self.write_out(&mut state);
    }

    /// Wakes the session's task with [`Notice::Work`].
    pub fn nudge(&self) {
        let mut state = self.lock();
        state.work = true;
        state.wake();
    }

    /// Queues ready bytes (a Ping, a Pong, a close frame) for a socket and writes what it takes. Nothing for others.
    pub fn raw(&self, bytes: Bytes) {
        let mut state = self.lock();
        if !state.ended && !state.sealed && self.socket.is_some() {
            state.queue.push(Entry::Raw(bytes));
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
            state.closing = Some(closing);
            state.wake();
        }
    }

    /// Since when a `resync` has been owed for events that were dropped.
    pub fn owed_since(&self) -> Option<Instant> {
        self.lock().overflowed
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

    /// What there is to do for the session's task. Only one task may wait.
    pub fn poll_notice(&self, cx: &mut Context<'_>) -> Poll<Notice> {
        let mut state = self.lock();
        if state.broken {
            return Poll::Ready(Notice::Broken);
        }
        if let Some(closing) = state.closing.clone().filter(|_| !state.closing_told) {
            state.closing_told = true;
            return Poll::Ready(Notice::Closing(closing));
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

    fn write_out(&self, state: &mut State) {
        let Some(socket) = &self.socket else {
            if !state.queue.is_empty() {
                state.work = true;
                state.wake();
            }
            return;
        };
        while !state.blocked && !state.ended && !state.queue.is_empty() {
            match state.queue.write_to(socket) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => state.block(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => state.break_off(),
            }
        }
        if state.queue.is_empty() {
            state.queue.clear();
            if state.overflowed.is_some() {
                state.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the queue whole: every change is complete before anything can fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, frame: &Frame, limit: usize) -> Taken {
        if self.ended || self.sealed {
            return Taken::Ended;
        }
        if self.queue.event_bytes() + frame.bytes().len() > limit {
            let dropped = self.queue.drop_events(frame);
            self.overflowed.get_or_insert_with(Instant::now);
            self.drained_told = false;
            self.wake();
            return Taken::Overflow(dropped);
        }
        let first = self.queue.is_empty();
        self.queue.push(Entry::Event(frame.clone()));
        if first { Taken::First } else { Taken::Yes }
    }

    fn block(&mut self) {
        self.blocked = true;
        self.work = true;
        self.wake();
    }

    fn break_off(&mut self) {
        self.broken = true;
        self.ended = true;
        self.queue.clear();
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
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
