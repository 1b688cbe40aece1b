//! A simulated Redis: logs, marks, lineage, clock and refusals as plain values, and the functions' verdicts on them.
//!
//! One call is one atomic step, as in Redis. `likeness.rs` holds it against a real server with the real library. Who is
//! subscribed, and how long anything takes, is the world's business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use carillon::protocol::{EntryId, Event, Lineage, Topic};

/// What a function is called with.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// `_publish`.
    Publish(Topic, Event),
    /// `_heads`.
    Heads(Vec<Topic>),
    /// `_history`: a topic, and after which entry.
    History(Topic, EntryId),
    /// `_probe`.
    Probe,
    /// `_marks`.
    Marks,
    /// `_mark`: areas, and how far ahead, ms.
    Mark(Vec<String>, u64),
}

/// An entry of a log; `None` for what is not an event.
pub(crate) type Entry = (EntryId, Option<Event>);

/// What a function answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// The id that the event got, and whether it is new.
    Published(EntryId, bool),
    /// The ends of logs.
    Heads(Lineage, Vec<EntryId>),
    /// The same, where some were refused; of several calls.
    SomeHeads(Lineage, Vec<Result<EntryId, String>>),
    /// A log's end, and its entries after the asked one.
    History(Lineage, EntryId, Vec<Entry>),
    /// The probe was sent at this time.
    Probe(Lineage, u64),
    /// Redis' clock and all marks.
    Marks(u64, BTreeMap<String, u64>),
}

/// How far ahead of Redis' clock a mark is shown at most, ms (`MARK_AHEAD_MS` of the function library).
const MARK_AHEAD: u64 = 30_000;

/// Why Redis refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Refusal {
    /// `min-replicas-to-write` is not met: everything that may write.
    NoReplicas,
    /// `maxmemory` is reached: what needs memory.
    Oom,
    /// The last snapshot failed: everything that may write.
    MisConf,
}

impl Refusal {
    /// The error's text, as Redis begins it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NoReplicas => "NOREPLICAS Not enough good replicas to write.",
            Self::Oom => {
                "OOM allow-oom flag is not set on the function, can not run it when used memory > 'maxmemory'"
            }
            Self::MisConf => "MISCONF Errors writing to disk",
        }
    }

    fn hits(self, call: &Call) -> bool {
        self != Self::Oom || matches!(call, Call::Publish(..) | Call::Probe)
    }
}

/// A topic's log.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// The last id ever given.
    pub top: EntryId,
    /// What is kept.
    pub entries: VecDeque<(u64, Option<Event>)>,
    until: u64,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Redis {
    /// Its clock as the functions show it, ms since 1970: it never goes back.
    pub clock: u64,
    /// By how much the machine's clock was set back meanwhile, ms.
    behind: u64,
    /// Its history.
    pub lineage: Lineage,
    /// The logs.
    pub logs: BTreeMap<Topic, Log>,
    /// Until when areas have had live events.
    pub marks: BTreeMap<String, u64>,
    /// What is refused at present.
    pub refusal: Option<Refusal>,
    /// Since when, virtual ms.
    pub refused_since: u64,
    /// Until when, virtual ms.
    pub refused_until: u64,
    /// Keys that nodes may not touch at present.
    pub denied: BTreeSet<Topic>,
    names: BTreeMap<(Topic, String), (u64, EntryId)>,
    /// The epochs of logs with entries that functions have seen, which they give to no other log of the topic.
    epochs: BTreeMap<Topic, BTreeSet<u64>>,
    /// Logs whose time was over, and which have begun anew since somebody last looked here.
    pub expired: Vec<Topic>,
    length: usize,
    ttl: u64,
    histories: u32,
}

const DUPLICATES_MS: u64 = 300_000;

impl Redis {
    /// An empty server whose logs keep `length` events for `ttl` ms.
    pub(crate) fn new(length: usize, ttl: u64) -> Self {
        Self {
            clock: 0,
            behind: 0,
            lineage: Lineage::new("00000001"),
            logs: BTreeMap::new(),
            marks: BTreeMap::new(),
            refusal: None,
            refused_since: 0,
            refused_until: 0,
            denied: BTreeSet::new(),
            names: BTreeMap::new(),
            epochs: BTreeMap::new(),
            expired: Vec::new(),
            length,
            ttl,
            histories: 1,
        }
    }

    /// The machine's clock shows this.
    pub(crate) fn pass(&mut self, machine: u64) {
        self.behind += self.clock.saturating_sub(machine + self.behind);
        self.clock = machine + self.behind;
    }

    /// It refuses some calls from now until then, ms.
    pub(crate) fn refuse(&mut self, why: Refusal, now: u64, until: u64) {
        if self.refusal != Some(why) {
            (self.refusal, self.refused_since) = (Some(why), now);
        }
        self.refused_until = self.refused_until.max(until);
    }

    /// Calls a function. The error is Redis' text.
    pub(crate) fn call(&mut self, call: &Call) -> Result<Reply, String> {
        if let Some(refusal) = self.refusal.filter(|refusal| refusal.hits(call)) {
            return Err(refusal.text().into());
        }
        Ok(match call {
            Call::Publish(topic, event) => self.publish(topic, event),
            Call::Heads(topics) => {
                self.permit(topics)?;
                Reply::Heads(self.lineage.clone(), topics.iter().map(|topic| self.head(topic)).collect())
            }
            Call::History(topic, after) => {
                self.permit(std::slice::from_ref(topic))?;
                let top = self.head(topic);
                let from = if after.epoch == top.epoch { after.seq } else { 0 };
                let kept = self.logs[topic].entries.iter().filter(|(seq, _)| *seq > from);
                let entries =
                    kept.map(|(seq, event)| (EntryId { epoch: top.epoch, seq: *seq }, event.clone()));
                Reply::History(self.lineage.clone(), top, entries.collect())
            }
            Call::Probe => Reply::Probe(self.lineage.clone(), self.clock),
            Call::Marks => self.all_marks(),
            Call::Mark(areas, ahead) => {
                for area in areas {
                    let mark = self.marks.entry(area.clone()).or_default();
                    *mark = (*mark).max(self.clock + ahead);
                }
                self.all_marks()
            }
        })
    }

    /// The marks, none further ahead than nodes write them.
    fn all_marks(&mut self) -> Reply {
        for mark in self.marks.values_mut() {
            *mark = (*mark).min(self.clock + MARK_AHEAD);
        }
        Reply::Marks(self.clock, self.marks.clone())
    }

    fn permit(&self, topics: &[Topic]) -> Result<(), String> {
        let denied = topics.iter().any(|topic| self.denied.contains(topic));
        if denied { Err("NOPERM No permissions to access a key".into()) } else { Ok(()) }
    }

    fn publish(&mut self, topic: &Topic, event: &Event) -> Reply {
        let attributes = event.attributes();
        let name = attributes.id.map(|id| {
            let source = attributes.source.unwrap_or_default();
            (topic.clone(), format!("{}:{source}{id}", source.len()))
        });
        if let Some((_, first)) = name
            .as_ref()
            .and_then(|name| self.names.get(name))
            .filter(|(at, _)| self.clock <= at + DUPLICATES_MS)
        {
            return Reply::Published(*first, false);
        }
        let id = self.append(topic, Some(event.clone()));
        if let Some(name) = name {
            self.names.insert(name, (self.clock, id));
        }
        Reply::Published(id, true)
    }

    /// Adds an entry; `None` is what somebody put there by hand and is not an event.
    pub(crate) fn append(&mut self, topic: &Topic, event: Option<Event>) -> EntryId {
        let length = self.length;
        let epoch = self.open(topic).top.epoch;
        self.epochs.entry(topic.clone()).or_default().insert(epoch);
        let log = self.open(topic);
        log.top = log.top.next();
        log.entries.push_back((log.top.seq, event));
        while log.entries.len() > length {
            log.entries.pop_front();
        }
        log.top
    }

    /// The end of a log, which is opened where there is none, and lives on.
    fn head(&mut self, topic: &Topic) -> EntryId {
        let top = self.open(topic).top;
        if top.seq > 0 {
            self.epochs.entry(topic.clone()).or_default().insert(top.epoch);
        }
        top
    }

    fn open(&mut self, topic: &Topic) -> &mut Log {
        let (clock, until) = (self.clock, self.clock + self.ttl);
        if self.logs.get(topic).is_some_and(|log| log.until < clock) {
            self.logs.remove(topic);
            self.expired.push(topic.clone());
        }
        // The real functions give a later epoch than any that they remember. They forget when their server starts anew; so that
        // epochs go back here as well, only none is ever given twice.
        let given = self.epochs.get(topic);
        let mut epoch = clock;
        while given.is_some_and(|given| given.contains(&epoch)) {
            epoch += 1;
        }
        let log = self.logs.entry(topic.clone()).or_insert_with(|| Log {
            top: EntryId { epoch, seq: 0 },
            entries: VecDeque::new(),
            until,
        });
        log.until = until;
        log
    }

    /// The log of a topic while it lives.
    pub(crate) fn log(&self, topic: &Topic) -> Option<&Log> {
        self.logs.get(topic).filter(|log| log.until >= self.clock)
    }

    /// Keeps only the last entries of a log.
    pub(crate) fn trim(&mut self, topic: &Topic, keep: usize) {
        if let Some(log) = self.logs.get_mut(topic) {
            while log.entries.len() > keep {
                log.entries.pop_front();
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn flush(&mut self) {
        self.logs.clear();
        self.marks.clear();
        self.names.clear();
    }

    /// Another master takes over, whose copy lacks the last `lost` entries of each log.
    pub(crate) fn fail_over(&mut self, lost: u64) {
        self.histories += 1;
        (self.clock, self.behind) = (0, 0);
        self.epochs.clear();
        self.lineage = Lineage::new(&format!("{:08x}", self.histories));
        for log in self.logs.values_mut() {
            for _ in 0..lost.min(log.entries.len() as u64) {
                log.entries.pop_back();
                log.top.seq -= 1;
            }
        }
        if lost > 0 {
            self.names.clear();
        }
    }
}
