//! The auditor: what was published, what each client was told, and whether that is what docs/contract.md promises.
//!
//! Hearing (`hear.rs`) finds what is wrong in itself: an event twice, out of order, behind a hole, of another log, a
//! `resync` without a reason. The look that is taken once a second finds what is missing: with nothing wrong for ten
//! seconds, everybody has everything.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use carillon::protocol::{EntryId, Lineage, Topic};

use crate::{
    client::Line,
    deeds::topic,
    generate::TOPICS,
    live::{Live, Loss},
    plan::Way,
    world::{SETTLING, World},
};

/// Within which an editor must know, once nothing is wrong any more, ms.
pub(crate) const PROMISED: u64 = 10_000;
/// How long a loss on a link that works may stay unknown, ms.
const UNKNOWN: u64 = 60_000;
/// How long after it was refused a topic may be asked for again, ms.
pub(crate) const ASKED_AGAIN: u64 = 5_000;
/// How long a poll may wait for a message, with all that comes behind it, ms.
const POLL: u64 = 36_000;

/// What was not right.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// In a word; shrinking keeps it.
    pub kind: &'static str,
    /// For people.
    pub text: String,
}

/// A recorded event.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// When, virtual ms.
    pub at: u64,
    /// Its place.
    pub id: EntryId,
    /// Its number; `None` for what is not an event.
    pub number: Option<u64>,
}

/// What a client was told.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Topics in step on this connection.
    pub started: BTreeSet<String>,
    /// Since when it follows, over all connections.
    pub follows: BTreeMap<String, u64>,
    /// When it was last told where a subject starts, or to refetch it.
    pub told: BTreeMap<String, u64>,
    /// Recorded events that came on this connection, by topic and number.
    pub heard: HashSet<(String, u64)>,
    /// Numbers of live events that came on this connection.
    pub live: HashSet<u64>,
    /// Numbers of all events that ever came.
    pub numbers: HashSet<u64>,
    /// Numbers of events that were lost on the way to its node, so that who follows the whole area cannot know.
    pub lost: HashSet<u64>,
    /// The last event of each topic that came by the whole area, since that was last told.
    pub by_area: BTreeMap<String, carillon::protocol::Position>,
    /// The `at` that it brought, in its cursor or by itself.
    pub brought: u64,
    /// When it was last told that it has left something.
    pub left: u64,
    /// Topics that are being followed or left.
    pub changing: BTreeSet<String>,
}

/// The auditor.
pub(crate) struct Audit {
    /// The first thing that was not right.
    pub violation: Option<Violation>,
    /// Redis refuses something until then.
    pub refused_until: u64,
    /// Topics that Redis refuses, and until when.
    pub denied: BTreeMap<String, u64>,
    /// Something is wrong until then.
    pub trouble: u64,
    /// Something other than slowness and lost messages is wrong until then.
    pub unrest: u64,
    /// What each client was told.
    pub views: Vec<View>,
    /// Recorded events by topic, of the log that there is now.
    pub records: BTreeMap<String, Vec<Record>>,
    /// What is at a place.
    pub contents: HashMap<(Lineage, String, EntryId), Option<u64>>,
    /// Live events by number.
    pub live: BTreeMap<u64, Live>,
    /// When a log was last replaced, and when before that; by topic.
    pub replaced: BTreeMap<String, (u64, Option<u64>)>,
    /// When a log was last trimmed by hand.
    pub trimmed: BTreeMap<String, u64>,
    /// When Redis' history changed last.
    pub failed_over: Option<u64>,
    /// When Redis' clock jumped last.
    pub jumped: Option<u64>,
    /// At which node, from when and until when something takes its time, in the order in which that began.
    pub late: Vec<(usize, u64, u64)>,
    /// Until when marks may lie ahead of the clock of a new master.
    pub ahead: u64,
    /// What was lost where its topic is followed by key.
    pub losses: Vec<Loss>,
    /// Until when nodes may find that they have lost messages.
    pub doubtful: u64,
    /// When a link came up last, anywhere.
    pub came_up: u64,
    numbers: u64,
    last_words: Option<u64>,
}

impl Audit {
    /// Nothing has happened yet.
    pub(crate) fn new(clients: usize) -> Self {
        Self {
            violation: None,
            refused_until: 0,
            denied: BTreeMap::new(),
            trouble: 0,
            unrest: 0,
            views: (0..clients).map(|_| View::default()).collect(),
            records: BTreeMap::new(),
            contents: HashMap::new(),
            live: BTreeMap::new(),
            replaced: BTreeMap::new(),
            trimmed: BTreeMap::new(),
            failed_over: None,
            jumped: None,
            late: Vec::new(),
            ahead: 0,
            losses: Vec::new(),
            doubtful: 0,
            came_up: 0,
            numbers: 0,
            last_words: None,
        }
    }

    /// The number of the last event.
    pub(crate) fn numbers(&self) -> u64 {
        self.numbers
    }

    /// The number of the next event.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

/// The topics that a subject brings with it.
pub(crate) fn topics_of(subject: &str) -> Vec<String> {
    let area = subject.split(':').next().unwrap_or_default().to_owned();
    if subject.ends_with(":*") || subject == area { vec![area] } else { vec![subject.to_owned(), area] }
}

impl World {
    /// Something is wrong, and the schedule ends with it.
    #[expect(clippy::needless_pass_by_value, reason = "every caller has just made it")]
    pub(crate) fn violate(&mut self, kind: &'static str, text: String) {
        self.note(|_| format!("!! {kind}: {text}"));
        if self.audit.violation.is_none() {
            self.audit.violation = Some(Violation { kind, text: format!("{} ms: {text}", self.now) });
        }
    }

    /// Something is wrong for a while.
    pub(crate) fn trouble(&mut self, lasts: u64) {
        self.lasting(lasts);
        self.audit.unrest = self.audit.unrest.max(self.now + lasts);
    }

    fn lasting(&mut self, lasts: u64) {
        self.audit.trouble = self.audit.trouble.max(self.now + lasts);
    }

    /// Something takes its time at a node for a while, and marks with it.
    pub(crate) fn lateness(&mut self, node: usize, lasts: u64) {
        self.lasting(lasts);
        self.audit.late.push((node, self.now, self.now + lasts));
    }

    /// Something is wrong that only a check of heads can find.
    pub(crate) fn hidden_trouble(&mut self) {
        self.trouble(UNKNOWN);
    }

    /// Messages were lost on a link that works: live ones may be among them.
    pub(crate) fn hidden_loss(&mut self) {
        self.lasting(UNKNOWN);
        self.audit.doubtful = self.now + UNKNOWN;
    }

    /// How much later than promised is not late: what takes time takes it many times over.
    pub(crate) fn slack(&self) -> u64 {
        self.plan.pace * 60 + 1_500
    }

    /// Something was recorded.
    pub(crate) fn audit_published(&mut self, topic: &Topic, id: EntryId, number: Option<u64>) {
        let name = topic.as_str().to_owned();
        self.note(|_| format!("   {name} {id} is number {number:?}"));
        let at = self.now;
        self.audit.contents.insert((self.redis.lineage.clone(), name.clone(), id), number);
        let records = self.audit.records.entry(name).or_default();
        records.retain(|record| record.id.epoch == id.epoch);
        records.push(Record { at, id, number });
    }

    /// A link has come up.
    pub(crate) fn came_up(&mut self, node: usize) {
        self.note(|_| format!("   node {node}: link up"));
        self.nodes[node].up_since = Some(self.now);
        self.audit.came_up = self.now;
        self.audit.doubtful = self.audit.doubtful.max(self.now);
        self.excuse_sent_before(node);
    }

    /// A node has renewed the marks: the first time after it may have lost something, it had to, however long it stood still.
    pub(crate) fn audit_renewed(&mut self, node: usize, number: u64) {
        let due = self.link(node, number).is_none_or(|link| std::mem::take(&mut link.unmarked));
        if due {
            self.audit.doubtful = self.audit.doubtful.max(self.now);
        }
    }

    /// A link is lost.
    pub(crate) fn went_down(&mut self, node: usize) {
        self.note(|_| format!("   node {node}: link down"));
        self.report.count("bite", "link lost");
        let now = self.now;
        let node = &mut self.nodes[node];
        node.past.extend(node.up_since.take().map(|up| (up, now)));
        self.trouble(0);
    }

    /// Another master has taken over: what it has is also in the new history.
    pub(crate) fn audit_failed_over(&mut self) {
        self.audit.failed_over = Some(self.now);
        let lineage = self.redis.lineage.clone();
        for (name, records) in &mut self.audit.records {
            let top = self.redis.logs.get(&topic(name)).map(|log| log.top);
            records.retain(|record| {
                top.is_some_and(|top| record.id.epoch == top.epoch && record.id.seq <= top.seq)
            });
            for record in records {
                self.audit.contents.insert((lineage.clone(), name.clone(), record.id), record.number);
            }
        }
    }

    /// Logs are gone: one, or all.
    pub(crate) fn audit_replaced(&mut self, name: Option<&str>) {
        // What still comes of a log before may cast doubt on any of its topics, and then marks are renewed.
        self.nodes.iter_mut().flat_map(|node| &mut node.bus.link).for_each(|link| link.unmarked = true);
        for of in TOPICS.iter().filter(|of| name.is_none_or(|name| name == **of)) {
            let before = self.audit.replaced.get(*of).map(|(last, _)| *last);
            self.audit.replaced.insert((*of).to_owned(), (self.now, before));
            self.audit.records.remove(*of);
        }
    }

    /// Logs whose time was over have begun anew.
    pub(crate) fn audit_expired(&mut self) {
        for topic in std::mem::take(&mut self.redis.expired) {
            self.audit_replaced(Some(topic.as_str()));
        }
    }

    /// A log was trimmed.
    pub(crate) fn audit_trimmed(&mut self, name: &str) {
        self.audit.trimmed.insert(name.to_owned(), self.now);
    }

    /// A look at everybody. When the schedule is over and everybody has settled, a last event is published everywhere, and
    /// must reach everybody.
    pub(crate) fn look(&mut self) {
        let last = self.plan.steps.last().map_or(0, |step| step.at);
        self.look_at_orders();
        self.look_at_withheld();
        let quiet = self.now > self.audit.trouble + PROMISED + self.slack();
        if quiet {
            for client in 0..self.clients.len() {
                self.look_at(client);
            }
        }
        match self.audit.last_words {
            None if self.now > last.max(self.audit.trouble.saturating_sub(UNKNOWN)) + SETTLING => {
                self.audit.last_words = Some(self.now);
                for topic in TOPICS {
                    self.publish(topic);
                }
            }
            Some(at) if self.now > at + PROMISED + self.slack() + 1_500 => {
                self.look_at_the_end();
                self.end();
            }
            _ => {}
        }
    }

    fn look_at(&mut self, client: usize) {
        let (now, slack) = (self.now, self.slack());
        let me = &self.clients[client];
        // A poll that goes on is as good as its cursor; whoever has just come back has its ten seconds.
        let came = if me.way == Way::Poll { 0 } else { me.since };
        let since = came.max(me.cut_until).max(me.stalled) + me.long_read(now, slack);
        let is_kept_out = self.people.all.get(client).is_some_and(|person| person.refused.is_some());
        if matches!(me.line, Line::None) || me.stalled > now || is_kept_out {
            return;
        }
        let patience = if me.way == Way::Poll { POLL } else { PROMISED };
        // A node that stands still answers nobody, and may stand still twice while somebody waits.
        let steady = me.stalled.max(self.nodes[me.node].frozen);
        if let Some(wait) = me.waits.front().filter(|wait| now > wait.since.max(steady) + patience + slack) {
            let text = format!("client {client} has waited for {} since {} ms", wait.kind, wait.since);
            return self.violate("unanswered", text);
        }
        if now <= since + PROMISED + slack || (me.way == Way::Poll && me.cursor.is_none()) {
            return;
        }
        let denied = |name: &String| {
            let until = self.audit.denied.get(name);
            until.is_some_and(|until| now <= until + PROMISED + ASKED_AGAIN + slack)
        };
        let denied: BTreeSet<String> =
            me.subjects.iter().flat_map(|subject| topics_of(subject)).filter(denied).collect();
        // What was refused until then does not count from then on.
        let settled = self.audit.views[client].left + PROMISED + slack < now;
        if !me.live && me.way != Way::Poll && denied.is_empty() && settled {
            return self.violate("not live", format!("client {client} still takes its node for blind"));
        }
        let subjects: Vec<String> = me.subjects.iter().cloned().collect();
        for subject in &subjects {
            if subject.ends_with(":*") {
                self.look_at_area(client, subject);
            }
            for name in topics_of(subject).into_iter().filter(|name| !denied.contains(name)) {
                self.look_at_topic(client, &name);
                self.look_at_live(client, &name);
            }
        }
    }
}
