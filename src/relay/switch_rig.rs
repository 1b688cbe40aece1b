//! What drives the switch in tests: the questions that it has asked, a table that answers them, and what sessions are told.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    bus::{BusError, BusEvent, Content, Delivery, Head, History, LinkChange, Marks, Source, Sources},
    hub::{Hub, Item, Outbox},
    metrics::Metrics,
    protocol::{
        Areas, EntryId, Event, Lineage, NodeMessage, Proof, Resume, Revocations, Subject, Topic,
        message::{Positions, Welcome},
    },
    relay::{
        Command, Now, Request, Settings, Switch, SwitchInput,
        question::{Answer, FeedPlace, Question, Stamp},
    },
    telemetry::traces::Traces,
};

/// The logs and marks of a Redis, and its clock.
pub(super) struct FakeRedis {
    pub(super) lineage: &'static str,
    pub(super) now: u64,
    pub(super) logs: BTreeMap<Topic, (u64, u64)>,
    /// Entries that a log keeps.
    pub(super) length: u64,
    pub(super) marks: BTreeMap<String, u64>,
    pub(super) refused: Vec<&'static str>,
    /// What is said of these.
    pub(super) refusal: &'static str,
    pub(super) marks_refused: bool,
    /// Name, until when, since when.
    pub(super) sources: Vec<(&'static str, u64, u64)>,
    pub(super) sources_refused: bool,
}

/// A switch, the questions that it has asked, and what they are answered from.
pub(super) struct Rig {
    pub(super) switch: Switch,
    pub(super) now: Now,
    pub(super) questions: VecDeque<(Stamp, Question)>,
    pub(super) redis: FakeRedis,
    pub(super) areas: Areas,
}

/// What a session was told, in short.
pub(super) type Told = Vec<String>;

pub(super) fn event(n: u64) -> Event {
    Event::parse(Bytes::from(format!(r#"{{"type":"a.b","n":{n}}}"#)), 1000).unwrap()
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::keeping(1000)
    }

    /// A rig whose logs keep so many entries.
    fn keeping(log_length: usize) -> Self {
        let settings = Settings {
            log_length,
            log_ttl: Duration::from_secs(86_400),
            refetches_per_second: 200,
            linger: Duration::from_secs(30),
            forget_sources: Duration::from_secs(3600),
            revocations: Revocations::default(),
            traces: Traces::off(),
        };
        let now = Now::read();
        let redis = FakeRedis {
            lineage: "cafe",
            now: 1_000_000,
            logs: BTreeMap::new(),
            length: log_length as u64,
            marks: BTreeMap::new(),
            refused: Vec::new(),
            refusal: "NOPERM no",
            marks_refused: false,
            sources: Vec::new(),
            sources_refused: false,
        };
        Self {
            switch: Switch::new(settings, Hub::new(None), Metrics::new(), now),
            now,
            questions: VecDeque::new(),
            redis,
            areas: Areas::new(["comments", "projects"], [], []).unwrap(),
        }
    }

    /// A rig whose link is up and proven.
    pub(super) fn live() -> Self {
        Self::new().proven()
    }

    /// A rig whose link is up and proven, and whose logs keep so many entries.
    pub(super) fn live_keeping(log_length: usize) -> Self {
        Self::keeping(log_length).proven()
    }

    fn proven(self) -> Self {
        let mut rig = self;
        rig.event(BusEvent::Link(LinkChange::Up));
        rig.prove();
        rig.serve();
        assert!(rig.switch.is_live());
        rig
    }

    pub(super) fn topic(&self, text: &str) -> Topic {
        Topic::parse(text, &self.areas).unwrap()
    }

    pub(super) fn take(&mut self, input: SwitchInput<'_>) {
        self.switch.take(input, self.now);
        self.questions.extend(self.switch.end_turn(self.now).questions);
    }

    pub(super) fn event(&mut self, event: BusEvent) {
        self.take(SwitchInput::Events(&mut vec![event]));
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.instant += Duration::from_millis(ms);
        self.redis.now += ms;
    }

    pub(super) fn tick(&mut self) {
        self.pass(1000);
        self.take(SwitchInput::Tick { chance: 0.5 });
    }

    /// These sessions end, and what nobody else follows is empty for so long that it is closed.
    pub(super) fn leave(&mut self, outboxes: impl IntoIterator<Item = Arc<Outbox>>) {
        for outbox in outboxes {
            self.take(SwitchInput::Command(Command::Leave(outbox)));
        }
        self.pass(60_000);
        self.tick();
    }

    pub(super) fn prove(&mut self) {
        let (at, asked) = (self.redis.now, self.now.instant);
        self.event(BusEvent::Proof { at, asked });
    }

    /// Answers every question that there is, and those that follow.
    pub(super) fn serve(&mut self) {
        while let Some((stamp, question)) = self.questions.pop_front() {
            let answer = self.redis.answer(question);
            self.take(SwitchInput::Answer(stamp, answer));
        }
    }

    /// Some seconds pass, in which every question is answered.
    pub(super) fn wait(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.tick();
            self.serve();
        }
    }

    /// A session pings; what it is told by then.
    pub(super) fn ping(&mut self, outbox: &Arc<Outbox>) -> Told {
        self.take(SwitchInput::Command(Command::Ping(Arc::clone(outbox))));
        told(outbox)
    }

    /// Takes the next question of a kind out of the queue.
    pub(super) fn keep(&mut self, kind: impl Fn(&Question) -> bool) -> (Stamp, Question) {
        let at = self.questions.iter().position(|(_, question)| kind(question)).expect("no such question");
        self.questions.remove(at).unwrap()
    }

    pub(super) fn answer(&mut self, (stamp, question): (Stamp, Question)) {
        let answer = self.redis.answer(question);
        self.take(SwitchInput::Answer(stamp, answer));
    }

    pub(super) fn connect(&mut self, topics: &[&str], resume: Option<Resume>, limit: usize) -> Arc<Outbox> {
        let outbox = Outbox::pulled(limit);
        let subjects = topics.iter().map(|topic| Subject::parse(topic, &self.areas).unwrap()).collect();
        let welcome = Box::new(Welcome { user: "anna".into(), ..Welcome::default() });
        let request = Request { subjects, refused: Vec::new(), resume };
        self.take(SwitchInput::Command(Command::Connect {
            outbox: Arc::clone(&outbox),
            welcome,
            proof: Arc::new(Proof::lasting("anna")),
            request,
        }));
        outbox
    }

    /// A session in step, welcomed.
    pub(super) fn join(&mut self, topics: &[&str]) -> Arc<Outbox> {
        let outbox = self.connect(topics, None, 100_000);
        self.serve();
        assert!(told(&outbox)[0].starts_with("welcome live"));
        outbox
    }

    pub(super) fn resume(&self, positions: &[(&str, u64)], at: u64) -> Resume {
        let position = |(topic, seq): &(&str, u64)| {
            let epoch = self.redis.logs[&self.topic(topic)].0;
            ((*topic).to_owned(), format!("{}.{epoch}-{seq}", self.redis.lineage))
        };
        Resume {
            at: Some(at),
            positions: positions.iter().map(position).collect(),
            away: false,
            passed: None,
        }
    }

    /// An event is recorded; it comes by the wire where it is not lost.
    pub(super) fn publish(&mut self, topic: &str, lost: bool) {
        let topic = self.topic(topic);
        let epoch = self.redis.now;
        let (epoch, top) = self.redis.logs.entry(topic.clone()).or_insert((epoch, 0));
        *top += 1;
        let id = EntryId { epoch: *epoch, seq: *top };
        if !lost {
            let content = Content::Recorded(id, event(id.seq));
            self.event(BusEvent::Delivery(Delivery { topic, every: false, content }));
        }
    }

    pub(super) fn arrive(&mut self, topic: &str, content: Content) {
        let topic = self.topic(topic);
        self.event(BusEvent::Delivery(Delivery { topic, every: false, content }));
    }
}

impl FakeRedis {
    pub(super) fn head(&mut self, topic: &Topic) -> Result<Head, BusError> {
        if self.refused.contains(&topic.as_str()) {
            return Err(self.refusal());
        }
        let (epoch, seq) = *self.logs.entry(topic.clone()).or_insert((self.now, 0));
        Ok(Head { lineage: Lineage::new(self.lineage), top: EntryId { epoch, seq } })
    }

    pub(super) fn marks(&self) -> Result<Marks, BusError> {
        if self.marks_refused {
            return Err(BusError::Refused("NOREPLICAS".into()));
        }
        Ok(Marks { now: self.now, marks: self.marks.clone() })
    }

    fn refusal(&self) -> BusError {
        BusError::Refused(self.refusal.into())
    }

    fn sources(&self) -> Result<Sources, BusError> {
        if self.sources_refused {
            return Err(BusError::Refused("NOREPLICAS".into()));
        }
        let source = |(name, until, since): &(&str, u64, u64)| Source {
            name: (*name).into(),
            until: *until,
            since: *since,
        };
        Ok(Sources { now: self.now, list: self.sources.iter().map(source).collect() })
    }

    pub(super) fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Open(subjects) => Answer::Opened(
                subjects
                    .into_iter()
                    .map(|subject| match &subject {
                        Subject::Topic(topic) => {
                            let head = self.head(topic).map(Some);
                            (subject, head)
                        }
                        Subject::Every(_) => {
                            let refuses = self.refused.contains(&subject.to_string().as_str());
                            (subject, if refuses { Err(self.refusal()) } else { Ok(None) })
                        }
                    })
                    .collect(),
            ),
            Question::Close(_) => Answer::Closed,
            Question::Read { topic, after } => {
                let history = self.head(&topic).map(|head| History {
                    entries: ((after.seq + 1).max((head.top.seq + 1).saturating_sub(self.length))
                        ..=head.top.seq)
                        .map(|seq| (EntryId { seq, ..head.top }, Ok(event(seq))))
                        .collect(),
                    head,
                });
                Answer::Read { topic, after, history }
            }
            Question::Marks => Answer::Marks(self.marks()),
            Question::Mark { area, ahead } => {
                if !self.marks_refused {
                    let mark = self.marks.entry(area.clone()).or_default();
                    *mark = (self.now + ahead.as_millis() as u64).max(*mark);
                }
                Answer::Marked { area, marks: self.marks() }
            }
            Question::Look { places, .. } => {
                Answer::Looked { heads: self.heads(places), marks: self.marks() }
            }
            Question::Heads(places) => Answer::Heads(self.heads(places)),
            Question::Sources(_) => Answer::Sources(self.sources()),
        }
    }

    pub(super) fn heads(&mut self, places: Vec<FeedPlace>) -> Vec<(FeedPlace, Result<Head, BusError>)> {
        places
            .into_iter()
            .map(|place| {
                let head = self.head(&place.topic);
                (place, head)
            })
            .collect()
    }
}

/// What an outbox holds: events by topic and number (0: live), messages by what matters of them.
pub(super) fn told(outbox: &Outbox) -> Told {
    let positions = |positions: &Positions| {
        let each = positions.0.iter().map(|(topic, position)| format!(" {topic}={}", position.id.seq));
        each.collect::<String>()
    };
    let list = |topics: &[Subject]| topics.iter().map(|topic| format!(" {topic}")).collect::<String>();
    let short = |item| match item {
        Item::Event(frame) => format!("{} {}", frame.topic(), frame.seq().unwrap_or(0)),
        Item::Message(NodeMessage::Welcome(welcome)) => {
            let live = if welcome.live { "live" } else { "away" };
            format!("welcome {live}{}", positions(&welcome.positions))
        }
        Item::Message(NodeMessage::Subscribed { positions: at, .. }) => {
            format!("subscribed{}", positions(&at))
        }
        Item::Message(NodeMessage::Resync { topics, reason, .. }) => {
            format!("resync {}{}", reason.name(), list(&topics))
        }
        Item::Message(NodeMessage::Status { live, late, .. }) => {
            format!("status {live}{}", late.map(|late| format!(" {late:?}")).unwrap_or_default())
        }
        Item::Message(NodeMessage::Pong { at }) => format!("pong {at}"),
        Item::Message(other) => other.json(),
    };
    outbox.pull(10_000).into_iter().map(short).collect()
}
