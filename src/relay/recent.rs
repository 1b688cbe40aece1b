//! The last live events, for sessions that come back after a short absence or from another node. They get exactly what they missed
//! if this node has heard everything since their `at`, and they say which live events they had.
//!
//! Live events have no numbers, so a session names those that it had by a digest of their content. If that is ambiguous, or a mark
//! shows that another node has heard a live event that did not come here, the session is told `resync`. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::question::Stamp;
use crate::{
    hub::Frame,
    mutant,
    protocol::{Passed, Topic},
};

/// How long an event is kept, ms of Redis' clock: longer than a cursor names it.
const KEPT: u64 = 60_000;
/// How long a session may have been away, ms of Redis' clock.
const AWAY: u64 = 20_000;
/// How much later than this node another one may hear a live event and mark its area, ms.
const LATER: u64 = 1_000;
/// Events of a topic that are kept, ...
const EVENTS: usize = 32;
/// ... and bytes of all.
const BYTES: usize = 4 << 20;

/// A live event that was delivered.
#[derive(Debug)]
struct Past {
    frame: Frame,
    /// When the first proof after it came, ms of Redis' clock: it was published before that.
    until: Option<u64>,
}

/// The last live events of a topic.
#[derive(Debug, Default)]
struct RecentEvents {
    events: VecDeque<Past>,
    /// From this time on every event is here, ms of Redis' clock; earlier ones were dropped.
    floor: u64,
}

/// The last live events of all topics.
#[derive(Debug, Default)]
pub(super) struct RecentLive {
    /// When proofs came, ms of Redis' clock, and the latest question at each: what was followed before it was heard from then on.
    proofs: VecDeque<(u64, Stamp)>,
    lines: BTreeMap<Topic, RecentEvents>,
    /// The time of the last proof, ms of Redis' clock.
    proven: u64,
    /// When a live event of each area was last heard, ms of Redis' clock.
    heard: BTreeMap<String, u64>,
    bytes: usize,
}

/// A session that comes back to a topic, and what is known of its area.
#[derive(Debug)]
pub(super) struct Absence<'a> {
    /// The topic.
    pub(super) topic: &'a Topic,
    /// Up to when the session was told everything, ms of Redis' clock.
    pub(super) at: u64,
    /// The live events that it has had since.
    pub(super) passed: &'a Passed,
    /// The latest question when the topic was found to be followed.
    pub(super) confirmed: Stamp,
    /// The latest live event that the area's mark may stand for, ms of Redis' clock.
    pub(super) marked: u64,
}

impl RecentLive {
    /// A live event of an area was heard. `now`: ms of Redis' clock.
    pub(super) fn hear(&mut self, area: &str, now: u64) {
        match self.heard.get_mut(area) {
            Some(heard) => *heard = now.max(*heard),
            None => drop(self.heard.insert(area.to_owned(), now)),
        }
    }

    /// A live event was delivered to those who follow its topic.
    pub(super) fn push(&mut self, frame: &Frame) {
        let past = Past { frame: frame.clone(), until: None };
        self.bytes += frame.bytes().len();
        let line = self.lines.entry(frame.topic().clone()).or_default();
        line.events.push_back(past);
        let over = self.bytes.saturating_sub(BYTES);
        self.bytes -= line.drop_first(line.events.len().saturating_sub(EVENTS), over);
    }

    /// A probe of this time has come back, and the last question so far is this one. `at`: when it came at the latest. Both are ms of
    /// Redis' clock. The probe's own time is no bound of what came before it: where Redis refuses writes, or has several masters, it
    /// is read before the probe is sent.
    pub(super) fn prove(&mut self, probe: u64, at: u64, latest: Stamp) {
        if self.proven >= probe {
            // Redis' clock was set back: nothing can be compared with what was before.
            self.forget();
        }
        self.proven = probe;
        self.proofs.push_back((at, latest));
        while self.proofs.front().is_some_and(|(proof, _)| proof + KEPT < at) {
            self.proofs.pop_front();
        }
        let bytes = &mut self.bytes;
        self.lines.retain(|_, line| {
            line.events.iter_mut().for_each(|past| _ = past.until.get_or_insert(at));
            line.floor = line.floor.min(at);
            let old = line.events.iter().take_while(|past| past.until.is_some_and(|until| until + KEPT < at));
            *bytes -= line.drop_first(old.count(), 0);
            !line.events.is_empty() || line.floor + KEPT >= at
        });
    }

    /// Live events were lost, or may have been.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What a session lacks of a topic; `None` where this node cannot say.
    pub(super) fn missed(&self, absence: &Absence<'_>) -> Option<Vec<Frame>> {
        let Absence { topic, at, passed, confirmed, marked } = *absence;
        let heard = self.heard.get(topic.area()).copied().unwrap_or(0);
        if marked > heard + LATER && !mutant::is("unheard") {
            return None;
        }
        let (last, _) = *self.proofs.back()?;
        let since = self.proofs.iter().find(|(_, latest)| *latest > confirmed)?.0;
        let line = self.lines.get(topic);
        let since = since.max(line.map_or(0, |line| line.floor));
        if since > at || at + AWAY < last || mutant::is("recent") {
            return None;
        }
        let mut missed = Vec::new();
        let events = line.into_iter().flat_map(|line| &line.events);
        for past in events.clone().filter(|past| past.until.is_none_or(|until| until > at)) {
            let digest = past.frame.digest();
            match passed.since(digest)? {
                // It had one like this, but it may have been an earlier one, or another of several here.
                Some(had)
                    if since > had
                        || events.clone().filter(|past| past.frame.digest() == digest).count() > 1 =>
                {
                    return None;
                }
                Some(_) => {}
                None => missed.push(past.frame.clone()),
            }
        }
        Some(missed)
    }
}

impl RecentEvents {
    /// Drops the first events: so many, and more until so many bytes are gone. Returns their bytes.
    fn drop_first(&mut self, count: usize, over: usize) -> usize {
        let mut dropped = 0;
        for n in 0.. {
            if n >= count && dropped >= over {
                break;
            }
            let Some(past) = self.events.pop_front() else { break };
            dropped += past.frame.bytes().len();
            self.floor = self.floor.max(past.until.unwrap_or(u64::MAX));
        }
        dropped
    }
}
