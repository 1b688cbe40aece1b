//! Which feeds are behind, and which have caught up since that was last asked.

use std::collections::BTreeSet;

use crate::hub::RoomId;

/// Rooms whose feeds are not live.
#[derive(Debug, Default)]
pub(super) struct BehindRooms {
    rooms: BTreeSet<RoomId>,
    caught_up: BTreeSet<RoomId>,
}

impl BehindRooms {
    /// They are behind from now on.
    pub(super) fn extend(&mut self, rooms: impl IntoIterator<Item = RoomId>) {
        self.rooms.extend(rooms);
    }

    /// It is behind no more.
    pub(super) fn catch_up(&mut self, room: RoomId) {
        if self.rooms.remove(&room) {
            self.caught_up.insert(room);
        }
    }

    /// It is followed no more.
    pub(super) fn forget(&mut self, room: RoomId) {
        self.rooms.remove(&room);
        self.caught_up.remove(&room);
    }

    /// Those that are behind, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = RoomId> {
        self.rooms.iter().copied()
    }

    /// Those that have caught up since the last call.
    pub(super) fn take_caught_up(&mut self) -> BTreeSet<RoomId> {
        std::mem::take(&mut self.caught_up)
    }
}
