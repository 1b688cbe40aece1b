//! The state of an outbox, behind its lock: what waits, and what the session's task is owed.

use std::{io, task::Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    frame::Frame,
    framing::Framed,
    notice::{Closing, Taken},
    queue::{Queue, QueueEntry},
    socket::Socket,
};

/// See [`super::Outbox`].
#[derive(Default)]
pub(super) struct OutboxState {
    pub(super) queue: Queue,
    pub(super) blocked: bool,
    pub(super) ended: bool,
    /// The last words are queued: nothing may follow them.
    pub(super) sealed: bool,
    pub(super) broken: bool,
    pub(super) overflowed: Option<Instant>,
    pub(super) drained_told: bool,
    pub(super) closing: Option<Box<Closing>>,
    pub(super) closing_told: bool,
    pub(super) work: bool,
    /// An answer of the relay is due.
    pub(super) asking: bool,
    pub(super) waker: Option<Waker>,
    /// How messages look on the socket; `None`: frames of a WebSocket.
    pub(super) framed: Option<Box<Framed>>,
}

impl OutboxState {
    /// Writes an event at once to a socket for which nothing waits.
    pub(super) fn send(&mut self, frame: &Frame, socket: &Socket, limit: usize) -> Taken {
        if self.framed.is_some() {
            return self.send_framed(frame, socket);
        }
        match socket.try_write(frame.bytes()) {
            Ok(n) if n == frame.bytes().len() => Taken::Yes,
            Ok(n) => {
                self.queue.push_begun(frame, n);
                self.block();
                Taken::Yes
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let taken = self.push(frame, limit);
                self.block();
                taken
            }
            Err(_) => {
                self.break_off();
                Taken::Ended
            }
        }
    }

    /// Writes an event at once in the session's own framing.
    fn send_framed(&mut self, frame: &Frame, socket: &Socket) -> Taken {
        let Some(framed) = &mut self.framed else { return Taken::Ended };
        let mut bytes = Vec::with_capacity(frame.json().len() + 256);
        framed.framing.event(frame, &mut bytes);
        let written = match socket.try_write_apart(&bytes) {
            Ok(n) if n == bytes.len() => return Taken::Yes,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.break_off();
                return Taken::Ended;
            }
        };
        // The cursor is past this event already, so the rest of it stays, whatever the bound.
        self.queue.push_first(Bytes::from(bytes).slice(written..));
        self.block();
        Taken::Yes
    }

    /// Queues an event, or drops all events where there is no room.
    pub(super) fn push(&mut self, frame: &Frame, limit: usize) -> Taken {
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
        self.queue.push(QueueEntry::Event(frame.clone()));
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

    /// A `resync` for dropped events is queued. In a stream of server-sent events, a sign of life is put behind it: the socket
    /// takes that only when the `resync` is on its way, and until then the `resync` counts as stuck.
    pub(super) fn watch_resync(&mut self) {
        if let Some(framed) = &mut self.framed {
            framed.stuck = Some(Instant::now());
            self.queue.push(QueueEntry::Raw(framed.framing.beat()));
        }
    }

    /// The socket has taken something.
    fn took(&mut self) {
        if let Some(framed) = &mut self.framed {
            framed.stuck = framed.stuck.map(|_| Instant::now());
        }
    }

    /// Wakes the session's task.
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Writes what the socket takes; wakes the session's task where it must do so itself.
    pub(super) fn write_out(&mut self, socket: Option<&Socket>) {
        let Some(socket) = socket else {
            if !self.queue.is_empty() {
                self.work = true;
                self.wake();
            }
            return;
        };
        while !self.blocked && !self.ended && !self.queue.is_empty() {
            let Self { queue, framed, .. } = &mut *self;
            let written = match framed {
                Some(framed) => queue.write_framed(socket, &mut *framed.framing),
                None => queue.write_to(socket),
            };
            match written {
                Ok(()) => self.took(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.block(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.break_off(),
            }
        }
        if self.queue.is_empty() {
            self.queue.clear();
            if let Some(framed) = &mut self.framed {
                framed.stuck = None;
            }
            if self.overflowed.is_some() {
                self.wake();
            }
        }
    }
}
