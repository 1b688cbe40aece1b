//! The link to Redis as the relay sees it: up or down, what it has proven, and what is in doubt.
//!
//! The link is up when every wanted subject is subscribed to and a probe has come back. Then heads are compared, gaps read and
//! marks looked at; after that the node is live. One question (a "look") asks for everything that is in doubt, whatever raised
//! the doubt, and for nothing else.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    feeds::Feeds,
    question::{FeedPlace, Now, Question, Questions, Stamp},
};
use crate::{
    hub::{Hub, RoomId},
    protocol::Subject,
};

/// How long after a look that failed the next one comes: ...
const PAUSE: Duration = Duration::from_millis(500);
/// ... twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// The look at heads and marks that is under way.
#[derive(Debug)]
struct LookUnderWay {
    stamp: Stamp,
    /// It is the first look after the link came back.
    whole: bool,
    /// Whole areas that are in doubt: they have no heads.
    areas: Vec<Subject>,
}

/// What a look was about, once it is answered.
#[derive(Debug)]
pub(super) struct LookDone {
    /// Whether it was the first look after the link came back.
    pub(super) whole: bool,
    /// Whole areas that were in doubt.
    pub(super) areas: Vec<Subject>,
}

/// The state of the link.
#[derive(Debug)]
pub(super) struct Link {
    up: bool,
    /// Everything is in step, and sessions are told so.
    live: bool,
    /// The last proof up to which everything was handed over or told, ms of Redis' clock.
    at: u64,
    /// The last probe that came back over this link, ms of Redis' clock.
    proof: Option<u64>,
    /// Since when `live` is as it is, ms since 1970.
    since: u64,
    /// What people's clocks show in this turn, ms since 1970.
    wall_ms: u64,
    looking: Option<LookUnderWay>,
    /// The first look after the link came back is still to be made.
    whole: bool,
    /// Rooms whose heads are to be compared.
    doubtful: BTreeSet<RoomId>,
    /// Rooms whose heads could not be read.
    unread: BTreeSet<RoomId>,
    /// Marks were to be renewed and were not.
    unmarked: bool,
    /// When `unread` may be looked at again, and how long that pause is.
    pause: Option<(Instant, Duration)>,
}

impl Link {
    /// A link that has never been up.
    pub(super) fn new(now: Now) -> Self {
        Self {
            up: false,
            live: false,
            at: 0,
            proof: None,
            since: now.wall_ms,
            wall_ms: now.wall_ms,
            looking: None,
            whole: false,
            doubtful: BTreeSet::new(),
            unread: BTreeSet::new(),
            unmarked: false,
            pause: None,
        }
    }

    /// Whether the link is up.
    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// Whether everything is in step.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Whether the link is up and its heads have been compared.
    pub(super) fn is_settled(&self) -> bool {
        self.up && !self.whole
    }

    /// The last proof up to which everything was handed over or told, ms of Redis' clock.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Since when it is live, or is not, ms since 1970.
    pub(super) fn since(&self) -> u64 {
        self.since
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, now: Now) {
        self.wall_ms = now.wall_ms;
    }

    /// Since when somebody is live, or is not, who is told so in this turn: over a link that is live, they may have lacked something
    /// until now, or lack it from now on.
    pub(super) fn told_since(&self) -> u64 {
        if self.live { self.since.max(self.wall_ms) } else { self.since }
    }

    /// The link is lost. Returns whether it was live.
    pub(super) fn lose(&mut self, now: Now) -> bool {
        let was_live = self.live;
        *self = Self { at: self.at, since: self.since, ..Self::new(now) };
        if was_live {
            self.since = now.wall_ms;
        }
        was_live
    }

    /// The link is up: everything that was followed is in doubt.
    pub(super) fn regain(&mut self, feeds: &Feeds) {
        let opening: BTreeSet<RoomId> = feeds.opening().collect();
        *self = Self {
            up: true,
            live: self.live,
            at: self.at,
            proof: None,
            since: self.since,
            wall_ms: self.wall_ms,
            looking: None,
            whole: true,
            doubtful: feeds.rooms().filter(|room| !opening.contains(room)).collect(),
            unread: BTreeSet::new(),
            unmarked: false,
            pause: None,
        };
    }

    /// Messages of a room may be missing. While the link is down everything is.
    pub(super) fn doubt(&mut self, room: RoomId, feeds: &mut Feeds) {
        if self.up {
            feeds.doubt(room);
            self.unread.remove(&room);
            self.doubtful.insert(room);
        }
    }

    /// Whether a room is in doubt and not part of the look that is under way.
    pub(super) fn is_doubtful(&self, room: RoomId) -> bool {
        self.doubtful.contains(&room) || self.unread.contains(&room)
    }

    /// A room is gone.
    pub(super) fn forget(&mut self, room: RoomId) {
        self.doubtful.remove(&room);
        self.unread.remove(&room);
    }

    /// Asks for the heads of what is in doubt, unless a look is under way. What could not be read is asked for again after a pause;
    /// marks are then only read, because the first look has renewed them.
    pub(super) fn look(&mut self, hub: &Hub, feeds: &Feeds, questions: &mut Questions, now: Instant) {
        let paused = self.pause.is_some_and(|(until, _)| now < until);
        let fresh = !self.doubtful.is_empty();
        let due = if self.whole { !paused } else { fresh || !paused && !self.unread.is_empty() };
        if !self.up || !due || self.looking.is_some() {
            return;
        }
        let renew = std::mem::take(&mut self.unmarked) || self.whole || fresh;
        let mut rooms = std::mem::take(&mut self.doubtful);
        if !paused {
            rooms.append(&mut self.unread);
        }
        let (mut places, mut areas) = (Vec::new(), Vec::new());
        for room in rooms {
            match hub.subject(room) {
                Some(Subject::Topic(topic)) => {
                    places.push(FeedPlace { topic: topic.clone(), top: feeds.top(room) });
                }
                Some(area) => areas.push(area.clone()),
                None => {}
            }
        }
        let stamp = questions.ask(Question::Look { places, renew });
        self.looking = Some(LookUnderWay { stamp, whole: self.whole, areas });
    }

    /// A look is answered; `None` where it was asked over a link that is lost.
    pub(super) fn looked(&mut self, stamp: Stamp) -> Option<LookDone> {
        let looking = self.looking.take_if(|looking| looking.stamp == stamp)?;
        Some(LookDone { whole: looking.whole, areas: looking.areas })
    }

    /// Everything that was in doubt when the link came back was looked at.
    pub(super) fn settle(&mut self) {
        self.whole = false;
    }

    /// Nothing could be looked at, and no mark renewed: all of it is asked for again after a pause.
    pub(super) fn look_at_all_again(&mut self, rooms: impl Iterator<Item = RoomId>, now: Instant) {
        self.unmarked = true;
        self.look_again(rooms, now);
    }

    /// All that was asked for could be looked at.
    pub(super) fn looked_well(&mut self) {
        if self.unread.is_empty() {
            self.pause = None;
        }
    }

    /// These rooms could not be looked at, or their logs could not be read: they are asked for again after a pause.
    pub(super) fn look_again(&mut self, rooms: impl Iterator<Item = RoomId>, now: Instant) {
        self.unread.extend(rooms);
        // While nothing is in step nobody waits longer than need be.
        let wait = self.pause.filter(|_| !self.whole);
        let wait = wait.map_or(PAUSE, |(_, wait)| (wait * 2).min(LONGEST_PAUSE));
        self.pause = Some((now + wait, wait));
    }

    /// A probe has come back.
    pub(super) fn prove(&mut self, at: u64) {
        self.proof = Some(at);
        // Redis' clock was set back, or another master's is behind: what lies ahead of it proves nothing, and would hide
        // live events once the clock has come that far again.
        self.at = self.at.min(at);
    }

    /// Everything before the last probe was handed over or is owed: `at` moves up to it.
    pub(super) fn advance(&mut self) {
        if let Some(proof) = self.proof {
            self.at = proof;
        }
    }

    /// Whether the node is not live, and nothing keeps it from becoming so.
    pub(super) fn is_about_to_live(&self, feeds: &Feeds) -> bool {
        self.is_settled() && !self.live && feeds.are_live()
    }

    /// Everything is in step.
    pub(super) fn go_live(&mut self, now: Now) {
        self.live = true;
        self.since = now.wall_ms;
    }
}
