//! What waits in an outbox, in order: events, pieces of logs, messages; and how much of it one write takes.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    frame::{Frame, text_frame},
    framing::Framing,
    notice::Dropped,
    socket::Socket,
};
use crate::{
    mutant,
    protocol::{NodeMessage, Topic},
};

/// Frames that leave in one write at most.
const GATHER: usize = 64;
/// Bytes that are made ready for one write where a session has a framing of its own, roughly.
const BATCH: usize = 16 * 1024;

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

    /// The same events, none of which claims a later proof than `at`; `None`: as they are.
    #[must_use]
    pub fn held_back(self, at: Option<u64>) -> Self {
        let Some(at) = at else { return self };
        let frames: Arc<[Frame]> =
            self.frames().iter().map(|frame| frame.with_at(at.min(frame.at()))).collect();
        Self { next: 0, end: frames.len(), frames }
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

/// Something that waits.
pub(super) enum QueueEntry {
    /// An event, which counts against the bound.
    Event(Frame),
    /// A piece of a log.
    Replay(Replay),
    /// Bytes for a socket.
    Raw(Bytes),
    /// A message. It is encoded only when its turn comes: until then events before it may be dropped, and it must not
    /// claim what they said.
    Message(Box<NodeMessage>),
}

/// What waits, in order.
#[derive(Default)]
pub(super) struct Queue {
    entries: VecDeque<QueueEntry>,
    /// Bytes of the first entry's first frame that are written already.
    written: usize,
    /// Bytes of the events.
    events: usize,
}

impl Queue {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the events that wait.
    pub(super) fn event_bytes(&self) -> usize {
        self.events
    }

    /// Puts something at the end.
    pub(super) fn push(&mut self, entry: QueueEntry) {
        if let QueueEntry::Event(frame) = &entry {
            self.events += frame.bytes().len();
        }
        self.entries.push_back(entry);
    }

    /// Puts bytes before everything else.
    pub(super) fn push_first(&mut self, bytes: Bytes) {
        self.entries.push_front(QueueEntry::Raw(bytes));
    }

    /// Puts an event into an empty queue, of which so many bytes are written already.
    pub(super) fn push_begun(&mut self, frame: &Frame, written: usize) {
        self.push(QueueEntry::Event(frame.clone()));
        self.written = written;
    }

    /// Drops everything, and the room for it: most sessions never need a queue.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Drops all events but one that is half written; `newest`, which had no room, counts as dropped as well. Messages that stay
    /// get the `at` that was true before the dropped events.
    pub(super) fn drop_events(&mut self, newest: &Frame) -> Dropped {
        let mut topics: BTreeSet<Topic> = BTreeSet::new();
        let (mut at, mut live) = (newest.at(), false);
        let head = if self.written > 0 { self.entries.pop_front() } else { None };
        let mut kept = VecDeque::new();
        self.events = 0;
        match head {
            Some(QueueEntry::Event(frame)) => {
                self.events = frame.bytes().len();
                kept.push_back(QueueEntry::Event(frame));
            }
            Some(QueueEntry::Replay(mut replay)) => {
                let dropped = &replay.frames[replay.next + 1..replay.end];
                topics.extend(dropped.first().map(|frame| frame.topic().clone()));
                at = dropped.iter().map(Frame::at).fold(at, u64::min);
                replay.end = replay.next + 1;
                kept.push_back(QueueEntry::Replay(replay));
            }
            Some(entry) => kept.push_back(entry),
            None => {}
        }
        for entry in self.entries.drain(..) {
            match entry {
                QueueEntry::Event(frame) => {
                    at = at.min(frame.at());
                    topics.insert(frame.topic().clone());
                }
                QueueEntry::Replay(replay) => {
                    let dropped = replay.frames();
                    topics.extend(dropped.first().map(|frame| frame.topic().clone()));
                    at = dropped.iter().map(Frame::at).fold(at, u64::min);
                }
                QueueEntry::Message(message)
                    if !topics.is_empty() && message.says_live() && !mutant::is("claims") =>
                {
                    live = true;
                    let told = message.not_live().map(Box::new);
                    kept.extend(told.map(QueueEntry::Message));
                }
                QueueEntry::Message(mut message) => {
                    if !topics.is_empty() && !mutant::is("claims") {
                        message.claim_no_more(at, &topics);
                    }
                    kept.push_back(QueueEntry::Message(message));
                }
                QueueEntry::Raw(bytes) => kept.push_back(QueueEntry::Raw(bytes)),
            }
        }
        self.entries = kept;
        topics.insert(newest.topic().clone());
        Dropped { topics, at, live }
    }

    /// Takes the first thing out, for a session that pulls.
    pub(super) fn pull(&mut self) -> Option<Item> {
        match self.entries.front_mut()? {
            QueueEntry::Replay(replay) if replay.next + 1 < replay.end => {
                replay.next += 1;
                return Some(Item::Event(replay.frames[replay.next - 1].clone()));
            }
            _ => {}
        }
        Some(match self.entries.pop_front()? {
            QueueEntry::Event(frame) => {
                self.events -= frame.bytes().len();
                Item::Event(frame)
            }
            QueueEntry::Replay(replay) => Item::Event(replay.frames[replay.next].clone()),
            QueueEntry::Message(message) => Item::Message(*message),
            QueueEntry::Raw(_) => return self.pull(),
        })
    }

    /// One write of as much as waits, up to [`GATHER`] frames.
    pub(super) fn write_to(&mut self, socket: &Socket) -> io::Result<()> {
        if let Some(QueueEntry::Message(message)) = self.entries.front() {
            let bytes = text_frame(&message.json());
            self.entries[0] = QueueEntry::Raw(bytes);
        }
        let written = match self.only_event() {
            Some(frame) => socket.try_write(&frame.bytes()[self.written..])?,
            None => self.gather(socket)?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.advance(written);
        Ok(())
    }

    /// The event, where one event is all that waits: mostly so when each has a follower of its own.
    fn only_event(&self) -> Option<&Frame> {
        match self.entries.front()? {
            QueueEntry::Event(frame) if self.entries.len() == 1 => Some(frame),
            _ => None,
        }
    }

    /// One write of several pieces.
    fn gather(&self, socket: &Socket) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); GATHER];
        let mut count = 0;
        'fill: for entry in &self.entries {
            let pieces: &[Frame] = match entry {
                QueueEntry::Event(frame) => std::slice::from_ref(frame),
                QueueEntry::Replay(replay) => &replay.frames[replay.next..replay.end],
                QueueEntry::Raw(bytes) => {
                    slices[count] = IoSlice::new(bytes);
                    count += 1;
                    if count == GATHER {
                        break 'fill;
                    }
                    continue;
                }
                QueueEntry::Message(_) => break 'fill,
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
        if slices.len() == 1 { socket.try_write(&slices[0]) } else { socket.try_write_vectored(slices) }
    }

    /// One write of what is due, in the session's own framing. What is framed cannot be dropped any more: the cursor is past it.
    pub(super) fn write_framed(&mut self, socket: &Socket, framing: &mut dyn Framing) -> io::Result<()> {
        if !matches!(self.entries.front(), Some(QueueEntry::Raw(_)) | None) {
            let mut out = Vec::new();
            while out.len() < BATCH && !matches!(self.entries.front(), Some(QueueEntry::Raw(_))) {
                match self.pull() {
                    Some(Item::Event(frame)) => framing.event(&frame, &mut out),
                    Some(Item::Message(message)) => framing.message(&message, &mut out),
                    None => break,
                }
            }
            self.push_first(out.into());
        }
        let Some(QueueEntry::Raw(bytes)) = self.entries.front() else { return Ok(()) };
        let written = socket.try_write_apart(&bytes[self.written..])?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.advance(written);
        Ok(())
    }

    /// Drops what is written from the front.
    fn advance(&mut self, written: usize) {
        self.written += written;
        while let Some(entry) = self.entries.front_mut() {
            let (size, more) = match entry {
                QueueEntry::Event(frame) => (frame.bytes().len(), false),
                QueueEntry::Replay(replay) => {
                    (replay.frames[replay.next].bytes().len(), replay.next + 1 < replay.end)
                }
                QueueEntry::Raw(bytes) => (bytes.len(), false),
                QueueEntry::Message(_) => (0, false),
            };
            if self.written < size {
                return;
            }
            self.written -= size;
            if more {
                if let QueueEntry::Replay(replay) = entry {
                    replay.next += 1;
                }
            } else if let Some(QueueEntry::Event(_)) = self.entries.pop_front() {
                self.events -= size;
            }
            if self.written == 0 {
                return;
            }
        }
    }
}
