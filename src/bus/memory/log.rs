//! Logs in memory, numbered, trimmed and forgotten as Redis' streams are, and the ids that were seen lately.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::protocol::{EntryId, Event, Topic};

/// How long a duplicate is recognised (docs/contract.md 3.1).
const DUPLICATES_FOR: Duration = Duration::new(5 * 60, 0);

/// The last events of one topic.
#[derive(Debug)]
pub(super) struct MemoryLog {
    length: usize,
    top: EntryId,
    until: Instant,
    events: VecDeque<Event>,
}

impl MemoryLog {
    pub(super) fn top(&self) -> EntryId {
        self.top
    }

    pub(super) fn append(&mut self, event: Event) -> EntryId {
        self.top = self.top.next();
        if self.events.len() == self.length {
            self.events.pop_front();
        }
        self.events.push_back(event);
        self.top
    }

    /// The entries after `after`, oldest first; all where it is of another epoch.
    pub(super) fn after(&self, after: EntryId) -> Vec<(EntryId, Event)> {
        let first = self.top.seq + 1 - self.events.len() as u64;
        let from = if after.epoch == self.top.epoch { after.seq.saturating_add(1) } else { 0 };
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let numbered = (first..).zip(&self.events).skip(skip);
        numbered.map(|(seq, event)| (EntryId { epoch: self.top.epoch, seq }, event.clone())).collect()
    }
}

/// All logs.
#[derive(Debug)]
pub(super) struct Logs {
    length: usize,
    ttl: Duration,
    last_epoch: u64,
    open: HashMap<Topic, MemoryLog>,
}

impl Logs {
    /// Logs that keep `length` events (at least one) for `ttl`.
    pub(super) fn new(length: usize, ttl: Duration) -> Self {
        Self { length: length.max(1), ttl, last_epoch: 0, open: HashMap::new() }
    }

    /// The log of a topic, opened at `now` (ms) where there is none; its time to live starts anew.
    pub(super) fn open(&mut self, topic: Topic, now: u64) -> &mut MemoryLog {
        let clock = Instant::now();
        if self.open.get(&topic).is_some_and(|log| log.until <= clock) {
            self.open.remove(&topic);
        }
        let (length, ttl, last_epoch) = (self.length, self.ttl, &mut self.last_epoch);
        let log = self.open.entry(topic).or_insert_with(|| {
            *last_epoch = now.max(*last_epoch + 1);
            let top = EntryId { epoch: *last_epoch, seq: 0 };
            MemoryLog { length, top, until: clock, events: VecDeque::new() }
        });
        log.until = clock + ttl;
        log
    }

    /// Forgets the logs whose time has come.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        self.open.retain(|_, log| log.until > now);
    }
}

/// The names (`source`, `id`) of one topic's events of the last five minutes.
#[derive(Debug, Default)]
pub(super) struct Recent {
    ids: HashMap<(String, String), (Instant, EntryId)>,
    order: VecDeque<(Instant, (String, String))>,
}

impl Recent {
    /// The id that an event of this name got, if that was not too long ago.
    pub(super) fn seen(&mut self, name: &(String, String)) -> Option<EntryId> {
        self.forget();
        self.ids.get(name).map(|(_, id)| *id)
    }

    pub(super) fn remember(&mut self, name: (String, String), id: EntryId) {
        let now = Instant::now();
        self.order.push_back((now, name.clone()));
        self.ids.insert(name, (now, id));
    }

    /// Whether nothing would be recognised any more.
    pub(super) fn is_over(&mut self) -> bool {
        self.forget();
        self.ids.is_empty()
    }

    fn forget(&mut self) {
        let now = Instant::now();
        while self.order.front().is_some_and(|(when, _)| now - *when > DUPLICATES_FOR) {
            let gone = self.order.pop_front();
            self.ids.remove(&gone.map(|(_, name)| name).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Areas;
    use bytes::Bytes;

    fn event() -> Event {
        Event::parse(Bytes::from_static(b"{\"type\":\"a.b\"}"), 100).unwrap()
    }

    #[test]
    fn a_log_keeps_the_last_and_answers_from_any_place() {
        let areas = Areas::new(["comments"], [], []).unwrap();
        let mut logs = Logs::new(3, Duration::from_secs(1));
        let log = logs.open(Topic::parse("comments", &areas).unwrap(), 7);
        for _ in 0..5 {
            log.append(event());
        }
        let seqs = |after: EntryId| log.after(after).iter().map(|(id, _)| id.seq).collect::<Vec<_>>();
        assert_eq!(seqs(EntryId { epoch: 7, seq: 0 }), [3, 4, 5]);
        assert_eq!(seqs(EntryId { epoch: 7, seq: 4 }), [5]);
        assert!(seqs(EntryId { epoch: 7, seq: 5 }).is_empty());
        assert!(seqs(EntryId { epoch: 7, seq: u64::MAX }).is_empty());
        assert_eq!(seqs(EntryId { epoch: 6, seq: 4 }), [3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_ran_out_is_opened_with_a_new_epoch() {
        let areas = Areas::new(["comments"], [], []).unwrap();
        let topic = Topic::parse("comments", &areas).unwrap();
        let mut logs = Logs::new(3, Duration::from_secs(10));
        logs.open(topic.clone(), 7).append(event());
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(
            logs.open(topic.clone(), 7).top(),
            EntryId { epoch: 7, seq: 1 },
            "following keeps it alive"
        );
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(logs.open(topic, 7).top(), EntryId { epoch: 8, seq: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_duplicate_is_recognised_for_five_minutes() {
        let mut recent = Recent::default();
        let name = (String::new(), "1".to_owned());
        recent.remember(name.clone(), EntryId::default());
        tokio::time::advance(DUPLICATES_FOR).await;
        assert!(recent.seen(&name).is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(recent.seen(&name).is_none() && recent.is_over());
    }
}
