//! What followers of a whole area (`area:*`) have of this feed, see [`AreaProgress`].

use super::{Feed, FeedState};
use crate::{
    protocol::EntryId,
    relay::area_progress::{AreaProgress, AreaVerdict, LogSight},
};

impl Feed {
    /// What is done for them with a message from Redis.
    pub(in crate::relay) fn by_wire(&mut self, id: EntryId) -> AreaVerdict {
        let sight = match self.state {
            FeedState::Opening => LogSight::Unknown,
            FeedState::Live => LogSight::InStep,
            FeedState::Filling | FeedState::Doubt => LogSight::Doubtful,
        };
        self.handed.by_wire(id, self.log.head().map(|head| head.top), sight, self.log.is_new(id.epoch))
    }

    /// What those who follow the whole area have of it.
    pub(in crate::relay) fn handed(&mut self) -> &mut AreaProgress {
        &mut self.handed
    }

    /// See [`AreaProgress::explain`].
    pub(in crate::relay) fn explain(&mut self) {
        let held = self.held.iter().map(|(id, _)| *id).chain(self.unheld);
        if let Some(head) = self.log.head() {
            self.handed.explain(head.top, held);
        }
    }

    /// See [`AreaProgress::take_hidden`].
    pub(in crate::relay) fn take_hidden(&mut self) -> bool {
        let top = self.log.head().map(|head| head.top).filter(|_| self.is_live());
        top.is_some_and(|top| self.handed.take_hidden(top))
    }
}
