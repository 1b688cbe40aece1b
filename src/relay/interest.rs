//! What the node subscribes to: rooms to open, rooms to close, and rooms that were left empty and stay open for a while.
//!
//! One question at a time keeps them in order: a subject that is left and wanted again is not closed after it was
//! opened.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::question::{Question, Questions, Stamp};
use crate::{
    hub::{Hub, RoomId},
    protocol::Subject,
};

/// What is to be subscribed to and unsubscribed from.
#[derive(Debug)]
pub(super) struct Interest {
    to_open: BTreeSet<RoomId>,
    to_close: BTreeSet<RoomId>,
    idle: BTreeMap<RoomId, Instant>,
    asked: Option<Stamp>,
    linger: Duration,
}

impl Interest {
    /// No interest. `linger`: how long a room stays open that was left empty.
    pub(super) fn new(linger: Duration) -> Self {
        Self {
            to_open: BTreeSet::new(),
            to_close: BTreeSet::new(),
            idle: BTreeMap::new(),
            asked: None,
            linger,
        }
    }

    /// Somebody has come into a room.
    pub(super) fn enter(&mut self, room: RoomId) {
        self.idle.remove(&room);
        self.to_close.remove(&room);
    }

    /// Rooms must be subscribed to.
    pub(super) fn open(&mut self, rooms: impl IntoIterator<Item = RoomId>) {
        self.to_open.extend(rooms);
    }

    /// Rooms were left empty: they are closed after a while, unless somebody comes.
    pub(super) fn left_empty(&mut self, rooms: impl IntoIterator<Item = RoomId>, now: Instant) {
        let due = now + self.linger;
        self.idle.extend(rooms.into_iter().map(|room| (room, due)));
    }

    /// Rooms that have been empty for long enough are closed.
    pub(super) fn close_idle(&mut self, now: Instant) {
        let due: Vec<RoomId> =
            self.idle.iter().filter(|(_, due)| **due <= now).map(|(room, _)| *room).collect();
        for room in due {
            self.idle.remove(&room);
            self.to_open.remove(&room);
            self.to_close.insert(room);
        }
    }

    /// The link is lost: nothing that was asked will be answered.
    pub(super) fn interrupt(&mut self) {
        self.asked = None;
    }

    /// Whether an answer is due.
    pub(super) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// A question is answered; whether it is the one that is due.
    pub(super) fn answered(&mut self, stamp: Stamp) -> bool {
        self.asked.take_if(|asked| *asked == stamp).is_some()
    }

    /// The rooms to close now: none while an answer is due.
    pub(super) fn closing(&mut self) -> BTreeSet<RoomId> {
        if self.asked.is_some() { BTreeSet::new() } else { std::mem::take(&mut self.to_close) }
    }

    /// Asks to unsubscribe from these, or else to subscribe to what is to be opened.
    pub(super) fn ask(&mut self, closed: Vec<Subject>, hub: &Hub, questions: &mut Questions) {
        if !closed.is_empty() {
            self.asked = Some(questions.ask(Question::Close(closed)));
        } else if self.asked.is_none() && !self.to_open.is_empty() {
            let rooms = std::mem::take(&mut self.to_open);
            let subjects: Vec<Subject> =
                rooms.into_iter().filter_map(|room| hub.subject(room).cloned()).collect();
            if !subjects.is_empty() {
                self.asked = Some(questions.ask(Question::Open(subjects)));
            }
        }
    }
}
