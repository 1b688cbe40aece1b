//! The audit: was every session told everything, in order, once, or told to refetch?
//!
//! A pure function over what sessions and publishers have recorded. It knows nothing of how nodes work: the rules are
//! those of the contract, and a rule that is broken once is a violation.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use crate::record::{Ack, Fact, Id, Ledger, Ms, Position, Reason, Shout, Told, TopicId};

/// What is audited.
pub(crate) struct Evidence<'a> {
    pub(crate) topics: &'a [String],
    pub(crate) told: &'a [Told],
    pub(crate) ledger: &'a Ledger,
    /// Where the logs end in Redis, after everything has come to rest.
    pub(crate) heads: &'a HashMap<TopicId, Id>,
    /// Reasons for which sessions may be told to refetch; any other `resync` is a failure.
    pub(crate) allowed: &'a [Reason],
    /// Topics in areas where live events are published: only there `live` is a reason.
    pub(crate) live: &'a HashSet<TopicId>,
    /// What was done to the system, and when.
    pub(crate) notes: &'a [(Ms, String)],
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    pub(crate) figures: Figures,
}

/// What was counted on the way.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    pub(crate) sessions: usize,
    pub(crate) recorded: usize,
    pub(crate) shouted: usize,
    pub(crate) delivered: u64,
    pub(crate) reconnects: u64,
    pub(crate) resyncs: BTreeMap<Reason, u64>,
    pub(crate) holes: u64,
    pub(crate) duplicates: u64,
    pub(crate) lost: u64,
}

/// Violations that are printed in full.
const PRINTED: usize = 8;

/// Where a session stands in a topic.
enum Standing {
    /// Not followed yet.
    Outside,
    /// Everything after this position must come.
    At(Position),
    /// A `resync` is due before anything else.
    Owed,
}

struct Course<'a> {
    evidence: &'a Evidence<'a>,
    told: &'a Told,
    topic: TopicId,
    standing: Standing,
    /// When the session began to follow the topic, and when its last start or `resync` came, with the place.
    since: Option<Ms>,
    fresh: (Ms, Option<Id>),
    last_resync: Option<Ms>,
    entries: HashSet<(Id, u64)>,
    numbers: HashMap<u64, Position>,
    live: HashSet<u64>,
    broken: bool,
}

/// Audits everything.
pub(crate) fn audit(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut acks: HashMap<TopicId, Vec<&Ack>> = HashMap::new();
    let mut shouts: HashMap<TopicId, Vec<&Shout>> = HashMap::new();
    for ack in &evidence.ledger.acks {
        acks.entry(ack.topic).or_default().push(ack);
    }
    for shout in &evidence.ledger.shouts {
        shouts.entry(shout.topic).or_default().push(shout);
    }
    verdict.figures.sessions = evidence.told.len();
    verdict.figures.recorded = evidence.ledger.acks.len();
    verdict.figures.shouted = evidence.ledger.shouts.len();
    verdict.violations.extend(evidence.ledger.split.iter().cloned());
    for ack in acks_beyond(evidence) {
        verdict.violations.push(ack);
    }
    for told in evidence.told {
        count(told, &mut verdict.figures);
        for topic in &told.follows {
            let mut course = Course::new(evidence, told, *topic);
            for (at, fact) in &told.facts {
                course.take(*at, fact, &mut verdict);
            }
            let none = Vec::new();
            course.finish(
                acks.get(topic).unwrap_or(&none),
                shouts.get(topic).unwrap_or(&Vec::new()),
                &mut verdict,
            );
        }
    }
    let more = verdict.violations.len().saturating_sub(PRINTED);
    verdict.violations.truncate(PRINTED);
    if more > 0 {
        verdict.violations.push(format!("... and {more} more violations"));
    }
    verdict
}

/// Redis itself must still have what it acknowledged last; otherwise the heads prove nothing.
fn acks_beyond(evidence: &Evidence<'_>) -> Vec<String> {
    let mut missing: Vec<TopicId> = Vec::new();
    for told in evidence.told {
        missing.extend(told.follows.iter().filter(|topic| !evidence.heads.contains_key(topic)));
    }
    missing.sort_unstable();
    missing.dedup();
    missing
        .iter()
        .map(|topic| format!("{}: the end of its log is not known", evidence.topics[*topic as usize]))
        .collect()
}

fn count(told: &Told, figures: &mut Figures) {
    let mut welcomes = 0u64;
    for (_, fact) in &told.facts {
        match fact {
            Fact::Welcome { .. } => welcomes += 1,
            Fact::Event { .. } => figures.delivered += 1,
            Fact::Resync { reason, .. } => *figures.resyncs.entry(*reason).or_default() += 1,
            _ => {}
        }
    }
    figures.reconnects += welcomes.saturating_sub(1);
}

impl<'a> Course<'a> {
    fn new(evidence: &'a Evidence<'a>, told: &'a Told, topic: TopicId) -> Self {
        Self {
            evidence,
            told,
            topic,
            standing: Standing::Outside,
            since: None,
            fresh: (0, None),
            last_resync: None,
            entries: HashSet::new(),
            numbers: HashMap::new(),
            live: HashSet::new(),
            broken: false,
        }
    }

    fn take(&mut self, at: Ms, fact: &Fact, verdict: &mut Verdict) {
        if fact.topic() != Some(self.topic) {
            return;
        }
        match fact {
            // Welcomed while Redis is away: it is resumed as usual when Redis is back.
            Fact::Start { resuming: true, live: false, asked: Some(asked), given: None, .. } => {
                self.since.get_or_insert(at);
                self.standing = Standing::At(asked.clone());
            }
            Fact::Start { resuming, asked, given, .. } => {
                self.start(at, *resuming, asked.as_ref(), given.as_ref(), verdict);
            }
            Fact::Event { position: Some(position), number, .. } => {
                self.event(at, position, *number, verdict);
            }
            Fact::Event { position: None, number, .. } => {
                self.live.insert(*number);
            }
            Fact::Resync { reason, position, .. } => self.resync(at, *reason, position.as_ref(), verdict),
            _ => {}
        }
    }

    fn start(
        &mut self,
        at: Ms,
        resuming: bool,
        asked: Option<&Position>,
        given: Option<&Position>,
        verdict: &mut Verdict,
    ) {
        self.since.get_or_insert(at);
        match (given, asked) {
            (None, _) => self.standing = Standing::Owed,
            (Some(given), Some(asked)) if resuming && given != asked => {
                verdict.figures.holes += 1;
                self.violation(
                    at,
                    &format!("silent jump: resumed at {asked}, but its stream starts at {given}"),
                    verdict,
                );
                self.standing = Standing::At(given.clone());
            }
            (Some(given), None) if resuming => {
                self.violation(
                    at,
                    &format!("came back without a position, was owed a resync and got {given}"),
                    verdict,
                );
                self.standing = Standing::At(given.clone());
            }
            (Some(given), _) => {
                if !resuming {
                    self.fresh = (at, Some(given.id));
                }
                self.standing = Standing::At(given.clone());
            }
        }
    }

    fn event(&mut self, at: Ms, position: &Position, number: u64, verdict: &mut Verdict) {
        if self.evidence.ledger.tried.get(&number) != Some(&self.topic) {
            self.violation(
                at,
                &format!("event n{number} at {position} was never published to this topic"),
                verdict,
            );
        }
        if !self.entries.insert((position.id, number)) {
            verdict.figures.duplicates += 1;
            self.violation(at, &format!("duplicate: n{number} at {position} came a second time"), verdict);
            return;
        }
        if let Some(before) = self.numbers.insert(number, position.clone())
            && before.lineage == position.lineage
            && before.id.epoch == position.id.epoch
        {
            verdict.figures.duplicates += 1;
            self.violation(at, &format!("n{number} came as {before} and again as {position}"), verdict);
        }
        let wrong = match &self.standing {
            Standing::Outside => Some("an event came before the topic was followed".to_owned()),
            Standing::Owed => Some("an event came before the resync that was owed".to_owned()),
            Standing::At(last) if last.lineage != position.lineage => {
                Some(format!("the lineage changed from {last} to {position} without a resync"))
            }
            Standing::At(last) if last.id.epoch != position.id.epoch => {
                Some(format!("the log changed from {last} to {position} without a resync"))
            }
            Standing::At(last) if position.id.seq <= last.id.seq => {
                verdict.figures.duplicates += 1;
                Some(format!("out of order: {position} after {last}"))
            }
            Standing::At(last) if position.id.seq > last.id.seq + 1 => {
                verdict.figures.holes += 1;
                verdict.figures.lost += position.id.seq - last.id.seq - 1;
                Some(format!(
                    "hole: {}..{} are missing, {position} came after {last}",
                    last.id.seq + 1,
                    position.id.seq - 1
                ))
            }
            Standing::At(_) => None,
        };
        if let Some(wrong) = wrong {
            self.violation(at, &wrong, verdict);
        }
        self.standing = Standing::At(position.clone());
    }

    fn resync(&mut self, at: Ms, reason: Reason, position: Option<&Position>, verdict: &mut Verdict) {
        let in_place = reason != Reason::Live || self.evidence.live.contains(&self.topic);
        if !self.evidence.allowed.contains(&reason) || !in_place {
            self.violation(
                at,
                &format!("over budget: resync ({}) is not allowed here", reason.name()),
                verdict,
            );
        }
        self.last_resync = Some(at);
        if let Some(position) = position {
            self.fresh = (at, Some(position.id));
            self.standing = Standing::At(position.clone());
        } else {
            self.violation(at, "a resync without a new starting point", verdict);
            self.standing = Standing::Owed;
        }
    }

    fn finish(mut self, acks: &[&Ack], shouts: &[&Shout], verdict: &mut Verdict) {
        let end = self.told.facts.last().map_or(0, |(at, _)| *at);
        let Some(since) = self.since else {
            self.violation(end, "it never began to follow the topic", verdict);
            return;
        };
        match (&self.standing, self.evidence.heads.get(&self.topic)) {
            (Standing::At(last), Some(head)) if last.id != *head => {
                let what = format!("silently stale: it stands at {last}, the log ends at {head}");
                verdict.figures.holes += 1;
                verdict.figures.lost += head.seq.saturating_sub(last.id.seq);
                self.violation(end, &what, verdict);
            }
            (Standing::Owed | Standing::Outside, _) => {
                self.violation(end, "silently stale: the resync that it was owed never came", verdict);
            }
            _ => {}
        }
        self.check_acks(acks, verdict);
        self.check_shouts(since, shouts, verdict);
    }

    /// What Redis acknowledged after the last start or `resync` must have come, whatever the numbers say: a failover
    /// can use a number twice.
    fn check_acks(&mut self, acks: &[&Ack], verdict: &mut Verdict) {
        let (since, place) = self.fresh;
        for ack in acks {
            let covered = place.is_some_and(|place| place.epoch == ack.id.epoch && ack.id.seq <= place.seq);
            if ack.sent > since && !covered && !self.numbers.contains_key(&ack.number) {
                verdict.figures.lost += 1;
                self.violation(
                    ack.sent,
                    &format!("lost: n{} was acknowledged as {} and never came", ack.number, ack.id),
                    verdict,
                );
            }
        }
    }

    /// A live event came, or something later said that it may have been missed.
    fn check_shouts(&mut self, since: Ms, shouts: &[&Shout], verdict: &mut Verdict) {
        for shout in shouts {
            // In the same millisecond: the clock does not tell which was first.
            let excused = self.last_resync.is_some_and(|resync| resync >= shout.sent);
            if shout.sent > since && !excused && !self.live.contains(&shout.number) {
                verdict.figures.lost += 1;
                let what = format!("live event n{} was missed and no resync said so", shout.number);
                self.violation(shout.sent, &what, verdict);
            }
        }
    }

    /// One violation for each session and topic is enough: what follows is mostly its consequence.
    fn violation(&mut self, at: Ms, what: &str, verdict: &mut Verdict) {
        if std::mem::replace(&mut self.broken, true) {
            return;
        }
        let name = &self.evidence.topics[self.topic as usize];
        let mut text = format!("session {} topic {name} at {}: {what}\n", self.told.name, seconds(at));
        let mine = |fact: &Fact| fact.topic().is_none_or(|topic| topic == self.topic);
        let mut lines: Vec<(Ms, String)> = self
            .told
            .facts
            .iter()
            .filter(|(_, fact)| mine(fact))
            .map(|(at, fact)| (*at, fact.to_string()))
            .collect();
        lines.extend(self.evidence.notes.iter().map(|(at, note)| (*at, format!("## {note}"))));
        lines.sort_by_key(|(at, _)| *at);
        let middle = lines.partition_point(|(line, _)| *line <= at);
        let from = middle.saturating_sub(12);
        for (at, line) in lines.iter().skip(from).take(18) {
            let _ = writeln!(text, "      {} {line}", seconds(*at));
        }
        verdict.violations.push(text);
    }
}

/// Milliseconds as text.
pub(crate) fn seconds(ms: Ms) -> String {
    format!("{:>7.3} s", ms as f64 / 1000.0)
}
