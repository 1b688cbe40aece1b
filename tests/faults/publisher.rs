//! Publishers: they write numbered events, try again with the same `id` until Redis accepts, and keep what it said.
//!
//! They use Redis directly, as a CMS does. What they know is the truth that sessions are held against.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    client::Topics,
    door::{Door, Place, Trouble},
    process::until,
    record::{Ack, Clock, Id, Ledger, Shout, TopicId},
    resp::Value,
    watch::PROMISE,
};

/// What all publishers of a world share.
#[derive(Debug)]
pub(crate) struct Press {
    pub(crate) place: Place,
    pub(crate) topics: Arc<Topics>,
    pub(crate) clock: Clock,
    ledger: Mutex<Ledger>,
    next: AtomicU64,
    /// While set nothing new is published.
    paused: AtomicBool,
    pub(crate) stopped: AtomicBool,
    busy: AtomicU64,
}

/// The key of a topic's log, and its channel.
pub(crate) fn key(topic: &str) -> String {
    format!("carillon:{topic}")
}

impl Press {
    pub(crate) fn new(place: Place, topics: Arc<Topics>, clock: Clock) -> Self {
        Self {
            place,
            topics,
            clock,
            ledger: Mutex::default(),
            next: AtomicU64::new(1),
            paused: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            busy: AtomicU64::new(0),
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Comes back when no publish is under way.
    pub(crate) async fn idle(&self) -> anyhow::Result<()> {
        until("publishers come to rest", PROMISE, || async { self.busy.load(Ordering::Acquire) == 0 }).await
    }

    /// Nothing new is published; comes back when what was under way has been accepted.
    pub(crate) async fn rest(&self) -> anyhow::Result<()> {
        self.paused.store(true, Ordering::Relaxed);
        self.idle().await
    }

    /// Publishers go on after [`Press::rest`].
    pub(crate) fn go_on(&self) {
        self.paused.store(false, Ordering::Relaxed);
    }

    /// A number that was never used, noted as tried.
    pub(crate) fn number(&self, topic: TopicId) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.ledger().tried.insert(number, topic);
        number
    }

    /// Publishes so many recorded events a second, until the world ends.
    pub(crate) async fn record(self: Arc<Self>, topics: Vec<TopicId>, rate: f64, seed: u64) {
        let mut door = Door::new(self.place.clone());
        let mut turns = Turns::new(topics, rate, seed);
        while let Some(topic) = turns.next(&self).await {
            let number = self.number(topic);
            self.insist(&mut door, topic, number).await;
            // Now and then the answer is taken for lost, and the publish repeated: it must not be recorded twice.
            if turns.random.random_ratio(1, 20) {
                self.repeat(&mut door, topic, number).await;
            }
            self.busy.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Tries until Redis accepts, or the world ends.
    async fn insist(&self, door: &mut Door, topic: TopicId, number: u64) {
        loop {
            let sent = self.clock.now();
            match self.try_once(door, topic, number, 0).await {
                Ok(id) => {
                    self.ledger().acks.push(Ack { topic, number, id, sent });
                    return;
                }
                Err(trouble) => self.count(&trouble),
            }
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) fn count(&self, trouble: &Trouble) {
        let mut ledger = self.ledger();
        match trouble {
            Trouble::Refused(_) => ledger.refused += 1,
            Trouble::Unanswered(_) => ledger.unanswered += 1,
        }
    }

    /// Publishes once.
    pub(crate) async fn try_once(
        &self,
        door: &mut Door,
        topic: TopicId,
        number: u64,
        size: usize,
    ) -> Result<Id, Trouble> {
        let channel = key(self.topics.name(topic));
        let answer =
            door.ask(&channel, &["FCALL", "carillon_publish", "1", &channel, &event(number, size)]).await?;
        let id = answer.text().and_then(Id::parse);
        id.ok_or_else(|| Trouble::Refused(format!("not an id: {answer:?}")))
    }

    /// Publishes so many events to a topic one after another, without a pause; `size` bytes of padding in each.
    pub(crate) async fn burst(&self, topic: TopicId, count: usize, size: usize) -> anyhow::Result<()> {
        let mut door = Door::new(self.place.clone());
        for _ in 0..count {
            let (number, sent) = (self.number(topic), self.clock.now());
            let id = self.try_once(&mut door, topic, number, size).await;
            let id = id.map_err(|trouble| anyhow::anyhow!("a publish failed: {trouble}"))?;
            self.ledger().acks.push(Ack { topic, number, id, sent });
        }
        Ok(())
    }

    /// Repeats a publish that was accepted. The answer is the first id, unless Redis has forgotten it meanwhile: then a
    /// second entry is one that publishers must expect.
    async fn repeat(&self, door: &mut Door, topic: TopicId, number: u64) {
        let sent = self.clock.now();
        match self.try_once(door, topic, number, 0).await {
            Ok(id) => {
                let mut ledger = self.ledger();
                if !ledger.acks.iter().rev().take(5000).any(|ack| ack.number == number && ack.id == id) {
                    ledger.acks.push(Ack { topic, number, id, sent });
                }
            }
            Err(trouble) => self.count(&trouble),
        }
    }

    /// Publishes so many live events a second, until the world ends.
    pub(crate) async fn shout(self: Arc<Self>, topics: Vec<TopicId>, rate: f64, seed: u64) {
        let mut door = Door::new(self.place.clone());
        let mut turns = Turns::new(topics, rate, seed);
        while let Some(topic) = turns.next(&self).await {
            self.shout_once(&mut door, topic).await;
            self.busy.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Publishes one live event.
    pub(crate) async fn shout_once(&self, door: &mut Door, topic: TopicId) {
        let (number, sent) = (self.number(topic), self.clock.now());
        let channel = key(self.topics.name(topic));
        match door.publish(&channel, &event(number, 0)).await {
            // A live event that no node was there to receive leaves no trace: nobody is promised anything.
            Ok(Value::Number(receivers)) if receivers > 0 => {
                self.ledger().shouts.push(Shout { topic, number, sent });
            }
            Ok(_) => {}
            Err(trouble) => self.count(&trouble),
        }
    }
}

/// When a publisher publishes, and to which topic.
struct Turns {
    topics: Vec<TopicId>,
    pace: tokio::time::Interval,
    random: StdRng,
}

impl Turns {
    /// `rate`: turns in a second.
    fn new(topics: Vec<TopicId>, rate: f64, seed: u64) -> Self {
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { topics, pace, random: StdRng::seed_from_u64(seed) }
    }

    /// Waits for the next turn, which counts as busy from then on. `None`: the world ends.
    async fn next(&mut self, press: &Press) -> Option<TopicId> {
        loop {
            self.pace.tick().await;
            if press.stopped.load(Ordering::Relaxed) {
                return None;
            }
            if press.paused.load(Ordering::Relaxed) {
                continue;
            }
            if let Some(topic) = self.topics.choose(&mut self.random) {
                press.busy.fetch_add(1, Ordering::AcqRel);
                return Some(*topic);
            }
        }
    }
}

/// The event with a number; `size` bytes of padding.
pub(crate) fn event(number: u64, size: usize) -> String {
    let padding = "x".repeat(size);
    format!(
        r#"{{"id":"n{number}","type":"comment.created","source":"faults","data":{{"n":{number},"padding":"{padding}"}}}}"#
    )
}
