//! What one editor may use of a node, over all their sessions and transports: limits per session alone could be passed by opening more
//! sessions.
//!
//! Honest work stays far below. Pure; the caller knows the time.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

use super::allowance::TokenBucket;
use crate::protocol::Subject;

/// An hour, ms.
const HOUR: u64 = 3_600_000;
/// How long an editor without sessions is remembered for the sake of the budgets per second, ms.
const SECONDS: u64 = 5_000;

/// How much one editor may use; 0: any amount.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budgets {
    /// Sessions at the same time, polls under way among them.
    pub sessions: usize,
    /// Sessions, polls and tokens that begin in a second.
    pub requests_per_second: u32,
    /// Topics in a second that were not followed in this hour before.
    pub topics_per_second: u32,
    /// Different topics in an hour.
    pub topics_per_hour: usize,
}

/// What an editor has used.
#[derive(Debug, Default)]
pub(super) struct EditorUsage {
    pub(super) sessions: usize,
    requests: TokenBucket,
    topics: TokenBucket,
    /// Hashes of the topics that were followed in this hour.
    seen: HashSet<u64>,
    hour: u64,
    last: u64,
}

impl EditorUsage {
    /// Counts something that begins.
    pub(super) fn request(&mut self, budgets: &Budgets, now: u64) -> bool {
        self.last = now;
        self.requests.take(1, budgets.requests_per_second, now)
    }

    /// Counts a topic. One that was followed in this hour costs nothing.
    pub(super) fn follow(
        &mut self,
        budgets: &Budgets,
        hasher: &RandomState,
        subject: &Subject,
        now: u64,
    ) -> bool {
        self.last = now;
        if now.saturating_sub(self.hour) >= HOUR {
            self.hour = now;
            self.seen = HashSet::new();
        }
        let hash = hasher.hash_one(subject);
        if self.seen.contains(&hash) {
            return true;
        }
        let many = budgets.topics_per_hour > 0 && self.seen.len() >= budgets.topics_per_hour;
        if many || !self.topics.take(1, budgets.topics_per_second, now) {
            return false;
        }
        if budgets.topics_per_hour > 0 {
            self.seen.insert(hash);
        }
        true
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_forgotten(&self, now: u64) -> bool {
        let hour_is_over = self.seen.is_empty() || now.saturating_sub(self.hour) >= HOUR;
        self.sessions == 0 && hour_is_over && now.saturating_sub(self.last) >= SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Areas;

    fn subject(number: u32) -> Subject {
        let areas = Areas::new(["comments"], [""; 0], [""; 0]).unwrap();
        Subject::parse(&format!("comments:{number}"), &areas).unwrap()
    }

    #[test]
    fn new_topics_are_counted_and_known_ones_are_not() {
        let budgets = Budgets { topics_per_second: 10, topics_per_hour: 30, ..Budgets::default() };
        let (hasher, mut editor) = (RandomState::new(), EditorUsage::default());
        let now = 1_763_700_000_000;
        let mut follow = |number, now| editor.follow(&budgets, &hasher, &subject(number), now);
        assert!((0..20).all(|number| follow(number, now)), "a burst passes");
        assert!(!follow(20, now) && follow(3, now), "what is known costs nothing");
        assert!((20..30).all(|number| follow(number, now + 2_000)));
        assert!(!follow(30, now + 60_000) && follow(29, now + 60_000), "enough for this hour");
        assert!(follow(30, now + HOUR), "a new hour");
        assert!(!editor.is_forgotten(now + HOUR + SECONDS) && editor.is_forgotten(now + 2 * HOUR));
    }

    #[test]
    fn requests_are_counted_and_forgotten() {
        let budgets = Budgets { requests_per_second: 2, ..Budgets::default() };
        let mut editor = EditorUsage::default();
        let now = 1_763_700_000_000;
        assert_eq!((0..9).filter(|_| editor.request(&budgets, now)).count(), 4);
        assert!(!editor.is_forgotten(now) && editor.is_forgotten(now + SECONDS));
    }
}
