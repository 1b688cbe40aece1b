//! The last live events, for sessions that hop between nodes: what one of them has missed is known exactly where this node
//! has heard everything since that session was last told everything, and the session says which of it it had.
//!
//! Live events have no numbers, so a session that comes back names those that it had by a digest of their content. Where
//! that cannot be told apart, nothing is claimed: the session is told `resync`. Pure. Must not know sessions or marks.

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
/// Events of a topic that are kept, ...
const EVENTS: usize = 32;
/// ... and bytes of all.
const BYTES: usize = 4 << 20;

/// A live event that was delivered.
#[derive(Debug)]
struct Past {
    frame: Frame,
    /// The first proof after it, ms of Redis' clock: it was published before that.
    until: Option<u64>,
}

/// The last live events of a topic.
#[derive(Debug, Default)]
struct Line {
    events: VecDeque<Past>,
    /// What was published before this is not all here, ms of Redis' clock.
    floor: u64,
}

/// The last live events of all topics.
#[derive(Debug, Default)]
pub(super) struct RecentLive {
    /// Proofs, and the latest question at each: what was followed before it was heard from then on.
    proofs: VecDeque<(u64, Stamp)>,
    lines: BTreeMap<Topic, Line>,
    bytes: usize,
}

impl RecentLive {
    /// A live event was delivered.
    pub(super) fn push(&mut self, frame: &Frame) {
        let past = Past { frame: frame.clone(), until: None };
        self.bytes += frame.bytes().len();
        let line = self.lines.entry(frame.topic().clone()).or_default();
        line.events.push_back(past);
        let over = self.bytes.saturating_sub(BYTES);
        self.bytes -= line.drop_first(line.events.len().saturating_sub(EVENTS), over);
    }

    /// A probe has come back, and the last question so far is this one.
    pub(super) fn prove(&mut self, at: u64, latest: Stamp) {
        if self.proofs.back().is_some_and(|(last, _)| *last >= at) {
            // Redis' clock was set back: nothing can be compared with what was before.
            self.forget();
        }
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

    /// What a session lacks of a topic that was last told everything at `at` and names what it has had since; `None` where
    /// this node cannot say. `confirmed`: the latest question when the topic was found to be followed.
    pub(super) fn missed(
        &self,
        topic: &Topic,
        at: u64,
        confirmed: Stamp,
        passed: &Passed,
    ) -> Option<Vec<Frame>> {
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
                // It had one like this, and which one cannot be told.
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

impl Line {
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
