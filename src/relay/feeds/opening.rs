//! How feeds come to be in step for the first time, and what it means for one that Redis refuses something.
//!
//! What Redis refuses stays behind alone and is asked for again; a feed that was followed before it was refused is in doubt
//! when it is open again.

use super::{Failed, Feeds};
use crate::{
    bus::{BusError, Head},
    hub::RoomId,
    protocol::Subject,
    relay::{
        feed::{Feed, FeedState},
        question::Stamp,
    },
};

/// What an answer to a subscription means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Opened {
    /// The feed is in step.
    Live,
    /// It was followed before: its head must be compared.
    Doubtful,
    /// It cannot be followed now.
    Refused,
    /// Nobody waits for it.
    Nothing,
}

impl Feeds {
    /// Feeds that are not yet subscribed to.
    pub(in crate::relay) fn opening(&self) -> impl Iterator<Item = RoomId> {
        self.behind().filter(|room| self.get(*room).is_some_and(|feed| feed.state() == FeedState::Opening))
    }

    /// Makes a feed for a room that has none, and returns whether it did.
    pub(in crate::relay) fn open(&mut self, room: RoomId, subject: &Subject) -> bool {
        if self.by_room.contains_key(&room) {
            return false;
        }
        let mut feed = Feed::opening(self.longest);
        if let Subject::Topic(topic) = subject {
            *feed.handed() = self.early.take(topic);
            if topic.is_canary() {
                self.own.insert(room);
            }
        }
        self.by_room.insert(room, feed);
        self.behind.extend([room]);
        true
    }

    /// A subscription that was asked for in question `asked` was confirmed or refused.
    pub(in crate::relay) fn opened(
        &mut self,
        room: RoomId,
        head: Result<Option<Head>, BusError>,
        (asked, latest): (Stamp, Stamp),
    ) -> Opened {
        let Some(feed) = self.by_room.get_mut(&room).filter(|feed| feed.state() == FeedState::Opening) else {
            return Opened::Nothing;
        };
        match head {
            Ok(head) if !feed.was_refused_since(asked) => {
                self.failed.remove(&room);
                self.lineage = head.as_ref().map(|head| head.lineage.clone()).or(self.lineage.take());
                if feed.reopen() {
                    return Opened::Doubtful;
                }
                feed.open(head, latest);
                self.behind.catch_up(room);
                Opened::Live
            }
            head => {
                let lasting = head.is_err_and(|error| error.is_lasting());
                self.failed.insert(room, if lasting { Failed::Refused } else { Failed::Alone });
                Opened::Refused
            }
        }
    }

    /// The head of a feed, or its log, could not be read.
    pub(in crate::relay) fn fail(&mut self, room: RoomId, error: &BusError) {
        let failed = if error.is_alone() { Failed::Alone } else { Failed::WithOthers };
        if self.by_room.contains_key(&room) {
            self.failed.insert(room, failed);
        }
    }

    /// Redis refuses a subscription that it had confirmed. Whether the room has a feed.
    pub(in crate::relay) fn refuse(&mut self, room: RoomId, latest: Stamp) -> bool {
        let Some(feed) = self.by_room.get_mut(&room) else { return false };
        feed.refuse(latest);
        feed.handed().unfollow();
        self.behind.extend([room]);
        self.failed.insert(room, Failed::Alone);
        self.wanted.remove(&room);
        true
    }
}
