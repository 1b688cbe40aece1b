//! What followers of a whole area (`area:*`) have of a feed, see [`AreaProgress`](super::super::area_progress::AreaProgress).

use super::{Feed, Feeds};
use crate::{
    hub::RoomId,
    protocol::{EntryId, Topic},
    relay::area_progress::AreaVerdict,
};

impl Feeds {
    /// Whether a message of a topic that has no feed comes for the first time.
    pub(in crate::relay) fn first_without_feed(&self, topic: &Topic, id: EntryId) -> bool {
        self.early.by_wire(topic, id)
    }

    /// What is done for followers of the whole area with a message of a topic that has a feed.
    pub(in crate::relay) fn by_wire(&mut self, room: RoomId, id: EntryId) -> AreaVerdict {
        self.by_room.get_mut(&room).map_or(AreaVerdict::Pass, |feed| feed.by_wire(id))
    }

    /// What is done for followers of the whole area with an entry that a read has brought.
    pub(in crate::relay) fn hand(&mut self, room: RoomId, id: EntryId) -> AreaVerdict {
        self.by_room.get_mut(&room).map_or(AreaVerdict::Nothing, |feed| feed.handed().by_read(id))
    }

    /// What was held is taken. Whether a message was kept from them that nothing has explained; the caller tells them.
    pub(in crate::relay) fn take_hidden(&mut self, room: RoomId) -> bool {
        self.by_room.get_mut(&room).is_some_and(Feed::take_hidden)
    }

    /// A message was kept from them, and the topic's head will show what it means.
    pub(in crate::relay) fn withhold(&mut self, room: RoomId) {
        if let Some(feed) = self.by_room.get_mut(&room) {
            feed.handed().withhold();
        }
    }

    /// Whether a message was kept from them that only the topic's head could explain, which nobody will see soon. They count as
    /// told; the caller tells them.
    pub(in crate::relay) fn take_withheld(&mut self, room: RoomId) -> bool {
        let doubtful = self.by_room.get_mut(&room).filter(|feed| !feed.is_live());
        doubtful.is_some_and(|feed| feed.handed().take_withheld())
    }
}
