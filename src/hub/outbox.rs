//! Outboxes: what waits to be written to one session.
//!
//! Events are handed over by the hub without waiting: written to the socket at once where it has room, else queued
//! within a bound. A queue that would grow past the bound loses its *events* (never other messages), and the session
//! is owed a `resync` for their topics. Must not know topics' positions or who follows what.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, IoSlice},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::frame::{Frame, text_frame};
use crate::protocol::{CloseCode, NodeMessage, Topic};

/// Frames that leave in one write at most.
const GATHER: usize = 64;

/// A piece of an encoded log that is shared by all who replay it. It does not count against the bound: it is pulled
/// as the socket drains.
#[derive(Debug, Clone)]
pub struct Replay {
    frames: Arc<[Frame]>,
    next: usize,
    end: usize,
}

impl Replay {
    /// The frames `next..end`.
    pub fn new(frames: Arc<[Frame]>, next: usize, end: usize) -> Self {
        Self { frames, next, end }
    }

    /// What is still to be written.
    pub fn frames(&self) -> &[Frame] {
        &self.frames[self.next..self.end]
    }

    /// How many events are still to be written.
    pub fn len(&self) -> usize {
        self.end - self.next
    }

    /// Whether there is nothing to replay.
    pub fn is_empty(&self) -> bool {
        self.next >= self.end
    }
}

/// Something to write.
#[derive(Debug)]
pub enum Item {
    /// An event.
    Event(Frame),
    /// Another message.
    Message(NodeMessage),
}

/// Why a session must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The close code.
    pub code: CloseCode,
    /// In a word or a short sentence.
    pub reason: String,
    /// When the client shall come back, ms.
    pub reconnect_after_ms: Option<u64>,
}

/// What an outbox has to say to the task of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// There is something to pull ([`Outbox::pull`]), or the socket must become writable ([`Outbox::is_blocked`]).
    Work,
    /// A `resync` is owed and everything else is written: ask the relay for it (`Relay::drained`).
    Drained,
    /// Say `closing` and close.
    Closing(Closing),
    /// The socket is broken.
    Broken,
}

/// How a frame was taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Written, or queued.
    Yes,
    /// Queued as the first in an empty queue: call [`Outbox::flush`] soon.
    First,
    /// The bound was reached: the events of these topics were dropped, and a `resync` is owed for them.
    Overflow(BTreeSet<Topic>),
    /// The session has ended.
    Ended,
}

enum Entry {
    Event(Frame),
    Replay(Replay),
    /// Bytes for a socket.
    Raw(Bytes),
    /// A message for a session that pulls.
    Message(Box<NodeMessage>),
}

#[derive(Default)]
struct State {
    queue: VecDeque<Entry>,
    /// Bytes of the first entry's first frame that are written already.
    written: usize,
    /// Bytes of queued events.
    events: usize,
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
    waker: Option<Waker>,
}

/// What waits to be written to one session.
pub struct Outbox {
    state: Mutex<State>,
    socket: Option<TcpStream>,
    limit: usize,
    /// The hub's name for the session; `u32::MAX` until it has one.
    slot: AtomicU32,
}

impl Outbox {
    /// An outbox that writes to a socket itself. `limit`: bytes of events that may wait (`limits.outbox_bytes`).
    pub fn direct(socket: TcpStream, limit: usize) -> Arc<Self> {
        Self::new(Some(socket), limit)
    }

    /// An outbox that is emptied by [`Outbox::pull`] (TLS, SSE, long-poll).
    pub fn pulled(limit: usize) -> Arc<Self> {
        Self::new(None, limit)
    }

    fn new(socket: Option<TcpStream>, limit: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), socket, limit, slot: AtomicU32::new(u32::MAX) })
    }

    /// The socket of a direct outbox, for reading and for readiness.
    pub fn socket(&self) -> Option<&TcpStream> {
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
                    state.push(frame, usize::MAX);
                    state.written = n;
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
        if replay.next >= replay.end {
            return;
        }
        let mut state = self.lock();
        if !state.ended && !state.sealed {
            state.queue.push_back(Entry::Replay(replay));
            self.write_out(&mut state);
        }
    }

    /// Queues a message and writes what the socket takes. Messages are few, and not bounded by bytes.
    pub fn message(&self, message: NodeMessage) {
        let mut state = self.lock();
        if !state.ended && !state.sealed {
            state.queue.push_back(self.entry(message));
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
        state.queue.extend(message.map(|message| self.entry(message)));
        if self.socket.is_some() {
            state.queue.push_back(Entry::Raw(end));
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

    fn entry(&self, message: NodeMessage) -> Entry {
        match self.socket {
            Some(_) => Entry::Raw(text_frame(&message.json())),
            None => Entry::Message(Box::new(message)),
        }
    }

    /// Queues ready bytes (a Ping, a Pong, a close frame) for a socket and writes what it takes. Nothing for others.
    pub fn raw(&self, bytes: Bytes) {
        let mut state = self.lock();
        if !state.ended && !state.sealed && self.socket.is_some() {
            state.queue.push_back(Entry::Raw(bytes));
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
        state.queue = VecDeque::new();
        state.events = 0;
        state.waker = None;
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
            && let Some(item) = state.pull()
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
            match state.write_to(socket) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => state.block(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => state.break_off(),
            }
        }
        if state.queue.is_empty() {
            // An idle session keeps no queue: most never need one.
            state.queue = VecDeque::new();
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
        let size = frame.bytes().len();
        if self.events + size > limit {
            return Taken::Overflow(self.drop_events(frame));
        }
        let first = self.queue.is_empty();
        self.events += size;
        self.queue.push_back(Entry::Event(frame.clone()));
        if first { Taken::First } else { Taken::Yes }
    }

    /// Drops all events, but for one that is half written.
    fn drop_events(&mut self, last: &Frame) -> BTreeSet<Topic> {
        let mut topics = BTreeSet::from([last.topic().clone()]);
        let head = if self.written > 0 { self.queue.pop_front() } else { None };
        let mut kept = VecDeque::new();
        self.events = 0;
        match head {
            Some(Entry::Event(frame)) => {
                self.events = frame.bytes().len();
                kept.push_back(Entry::Event(frame));
            }
            Some(Entry::Replay(mut replay)) => {
                topics.extend(replay.frames[replay.next + 1..replay.end].first().map(|f| f.topic().clone()));
                replay.end = replay.next + 1;
                kept.push_back(Entry::Replay(replay));
            }
            Some(entry) => kept.push_back(entry),
            None => {}
        }
        for entry in self.queue.drain(..) {
            match entry {
                Entry::Event(frame) => {
                    topics.insert(frame.topic().clone());
                }
                Entry::Replay(replay) => {
                    topics.extend(replay.frames.get(replay.next).map(|f| f.topic().clone()));
                }
                entry => kept.push_back(entry),
            }
        }
        self.queue = kept;
        self.overflowed.get_or_insert_with(Instant::now);
        self.drained_told = false;
        self.wake();
        topics
    }

    fn pull(&mut self) -> Option<Item> {
        match self.queue.front_mut()? {
            Entry::Replay(replay) if replay.next + 1 < replay.end => {
                replay.next += 1;
                return Some(Item::Event(replay.frames[replay.next - 1].clone()));
            }
            _ => {}
        }
        Some(match self.queue.pop_front()? {
            Entry::Event(frame) => {
                self.events -= frame.bytes().len();
                Item::Event(frame)
            }
            Entry::Replay(replay) => Item::Event(replay.frames[replay.next].clone()),
            Entry::Message(message) => Item::Message(*message),
            Entry::Raw(_) => return self.pull(),
        })
    }

    /// One write of as much as is due.
    fn write_to(&mut self, socket: &TcpStream) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); GATHER];
        let mut count = 0;
        'fill: for entry in &self.queue {
            let pieces: &[Frame] = match entry {
                Entry::Event(frame) => std::slice::from_ref(frame),
                Entry::Replay(replay) => &replay.frames[replay.next..replay.end],
                Entry::Raw(bytes) => {
                    slices[count] = IoSlice::new(bytes);
                    count += 1;
                    if count == GATHER {
                        break 'fill;
                    }
                    continue;
                }
                Entry::Message(_) => continue,
            };
            for frame in pieces {
                slices[count] = IoSlice::new(frame.bytes());
                count += 1;
                if count == GATHER {
                    break 'fill;
                }
            }
        }
        let mut slices = &mut slices[..count];
        IoSlice::advance_slices(&mut slices, self.written);
        let written = if slices.len() == 1 {
            socket.try_write(&slices[0])?
        } else {
            socket.try_write_vectored(slices)?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.advance(written);
        Ok(())
    }

    /// Drops what is written from the front.
    fn advance(&mut self, written: usize) {
        self.written += written;
        while let Some(entry) = self.queue.front_mut() {
            let (size, more) = match entry {
                Entry::Event(frame) => (frame.bytes().len(), false),
                Entry::Replay(replay) => {
                    (replay.frames[replay.next].bytes().len(), replay.next + 1 < replay.end)
                }
                Entry::Raw(bytes) => (bytes.len(), false),
                Entry::Message(_) => (0, false),
            };
            if self.written < size {
                return;
            }
            self.written -= size;
            if more {
                if let Entry::Replay(replay) = entry {
                    replay.next += 1;
                }
            } else if let Some(Entry::Event(_)) = self.queue.pop_front() {
                self.events -= size;
            }
            if self.written == 0 {
                return;
            }
        }
    }

    fn block(&mut self) {
        self.blocked = true;
        self.work = true;
        self.wake();
    }

    fn break_off(&mut self) {
        self.broken = true;
        self.ended = true;
        self.queue = VecDeque::new();
        self.events = 0;
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
