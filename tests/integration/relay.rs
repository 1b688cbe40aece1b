//! The relay on the memory bus: joining, replay, `resync`s and their reasons, without sockets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use carillon::{
    bus::{self, Bus},
    hub::{Item, Notice, Outbox},
    metrics::Metrics,
    protocol::{
        Areas, Event, NodeMessage, Proof, Reason, Resume, Revocations, Subject, Topic, message::Welcome,
    },
    relay::{Relay, Request, Settings},
    shutdown::Tasks,
    telemetry::traces::Traces,
};

struct Rig {
    bus: Bus,
    relay: Relay,
    metrics: Metrics,
    areas: Areas,
    tasks: Tasks,
}

impl Rig {
    async fn new(log_length: usize) -> Self {
        let areas = Areas::new(["comments", "project-items"], [], []).unwrap();
        let settings = bus::Settings {
            prefix: "carillon".into(),
            node: "n1".into(),
            areas: areas.clone(),
            log_length,
            log_ttl: Duration::from_secs(60),
            event_bytes: 65536,
            probe_interval: Duration::from_millis(50),
            revocations: Revocations::default(),
            generation: 0,
            adopted: bus::Adopted::default(),
            redis: None,
        };
        let (tasks, metrics) = (Tasks::new(), Metrics::new());
        let (bus, events) = Bus::start(settings, metrics.clone(), &tasks).await.unwrap();
        let settings = Settings {
            log_length,
            log_ttl: Duration::from_secs(60),
            refetches_per_second: 200,
            linger: Duration::from_secs(30),
            forget_sources: Duration::from_secs(3600),
            revocations: Revocations::default(),
            traces: Traces::off(),
        };
        let (relay, _fatal) = Relay::start(settings, bus.clone(), events, metrics.clone(), &tasks);
        let rig = Self { bus, relay, metrics, areas, tasks };
        until(|| rig.relay.is_live() && rig.relay.at() > 0).await;
        rig
    }

    fn topic(&self, text: &str) -> Topic {
        Topic::parse(text, &self.areas).unwrap()
    }

    async fn publish(&self, topic: &str, n: usize) {
        self.bus.publish(self.topic(topic), event(n)).await.unwrap();
    }

    async fn connect(&self, topics: &[&str], resume: Option<Resume>, limit: usize) -> Session {
        let outbox = Outbox::pulled(limit);
        let subjects = topics.iter().map(|t| Subject::parse(t, &self.areas).unwrap()).collect();
        let welcome = Welcome { user: "anna".into(), ..Welcome::default() };
        let request = Request { subjects, refused: Vec::new(), resume };
        let proof = Arc::new(Proof::lasting(&welcome.user));
        self.relay.connect(&outbox, Box::new(welcome), proof, request).await;
        let mut session = Session { outbox, relay: self.relay.clone(), welcome: None };
        let NodeMessage::Welcome(welcome) = session.message().await else { panic!("not a welcome") };
        session.welcome = Some(*welcome);
        session
    }
}

struct Session {
    outbox: Arc<Outbox>,
    relay: Relay,
    welcome: Option<Welcome>,
}

impl Session {
    async fn next(&self) -> Item {
        let wait = async {
            loop {
                if let Some(item) = self.outbox.pull(1).pop() {
                    return item;
                }
                if self.outbox.notice().await == Notice::Drained {
                    self.relay.drained(&self.outbox).await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), wait).await.expect("nothing came within 5 s")
    }

    async fn message(&self) -> NodeMessage {
        match self.next().await {
            Item::Message(message) => message,
            Item::Event(frame) => panic!("an event came: {frame:?}"),
        }
    }

    /// The number that the test wrote into the next event.
    async fn number(&self) -> usize {
        match self.next().await {
            Item::Event(frame) => number(frame.event()),
            Item::Message(message) => panic!("not an event: {message:?}"),
        }
    }

    async fn resync(&self) -> (Vec<String>, Reason) {
        match self.message().await {
            NodeMessage::Resync { topics, reason, .. } => {
                (topics.iter().map(ToString::to_string).collect(), reason)
            }
            other => panic!("not a resync: {other:?}"),
        }
    }

    fn resume(&self) -> Resume {
        let welcome = self.welcome.as_ref().unwrap();
        let positions = welcome.positions.0.iter().map(|(t, p)| (t.to_string(), p.to_string())).collect();
        Resume { at: Some(welcome.at), positions, ..Resume::default() }
    }
}

fn event(n: usize) -> Event {
    Event::parse(Bytes::from(format!(r#"{{"type":"comment.created","data":{{"n":{n}}}}}"#)), 65536).unwrap()
}

fn number(event: &[u8]) -> usize {
    let value: serde_json::Value = serde_json::from_slice(event).unwrap();
    value["data"]["n"].as_u64().unwrap() as usize
}

async fn until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("not within 5 s");
}

#[tokio::test]
async fn a_session_gets_what_it_follows_from_its_position_on() {
    let rig = Rig::new(100).await;
    rig.publish("comments:42", 0).await;
    let session = rig.connect(&["comments:42"], None, 65536).await;
    let welcome = session.welcome.as_ref().unwrap();
    assert!(welcome.live);
    let topics: Vec<String> = welcome.positions.0.iter().map(|(topic, _)| topic.to_string()).collect();
    assert_eq!(topics, ["comments:42", "comments"]);
    assert_eq!(welcome.positions.0[0].1.id.seq, 1);
    assert_eq!(welcome.positions.0[1].1.id.seq, 0);
    rig.publish("comments:41", 1).await;
    rig.publish("comments:42", 2).await;
    rig.publish("comments", 3).await;
    assert_eq!(session.number().await, 2);
    assert_eq!(session.number().await, 3);
    assert_eq!(rig.tasks.end(Duration::from_secs(5)).await, 0, "tasks are left");
}

#[tokio::test]
async fn a_session_that_comes_back_gets_exactly_what_it_missed() {
    let rig = Rig::new(1000).await;
    let first = rig.connect(&["comments:42"], None, 65536).await;
    rig.relay.leave(&first.outbox).await;
    for n in 0..200 {
        rig.publish("comments:42", n).await;
    }
    let reads = rig.metrics.history_reads.get();
    let mut back = Vec::new();
    for _ in 0..20 {
        back.push(rig.connect(&["comments:42"], Some(first.resume()), 1000).await);
    }
    for session in &back {
        assert_eq!(session.welcome.as_ref().unwrap().positions, first.welcome.as_ref().unwrap().positions);
        for n in 0..200 {
            assert_eq!(session.number().await, n);
        }
    }
    assert!(rig.metrics.history_reads.get() <= reads + 1, "the log was read more than once");
    rig.publish("comments:42", 200).await;
    assert_eq!(back[7].number().await, 200);
}

#[tokio::test]
async fn what_the_log_no_longer_holds_is_a_resync() {
    let rig = Rig::new(10).await;
    let first = rig.connect(&["comments:42"], None, 65536).await;
    rig.relay.leave(&first.outbox).await;
    for n in 0..60 {
        rig.publish("comments:42", n).await;
    }
    let second = rig.connect(&["comments:42"], Some(first.resume()), 65536).await;
    // The node's own tail may reach further back than the log; a position before both cannot be served.
    let old = first.resume();
    assert_eq!(second.resync().await, (vec!["comments:42".to_owned()], Reason::Trimmed));
    assert!(second.welcome.as_ref().unwrap().positions.0.iter().all(|(topic, _)| topic.is_wide()));
    rig.publish("comments:42", 60).await;
    assert_eq!(second.number().await, 60);

    let mut other = old.clone();
    other.positions.insert("comments:42".into(), "0000.1-1".into());
    let third = rig.connect(&["comments:42"], Some(other), 65536).await;
    assert_eq!(third.resync().await, (vec!["comments:42".to_owned()], Reason::RedisChanged));
    let mut none = old.clone();
    none.positions.insert("comments:42".into(), "nonsense".into());
    none.positions.remove("comments");
    let fourth = rig.connect(&["comments:42", "comments:*"], Some(none), 65536).await;
    let (mut topics, reason) = fourth.resync().await;
    topics.sort();
    assert_eq!(
        (topics, reason),
        (vec!["comments".into(), "comments:*".into(), "comments:42".into()], Reason::NoPosition)
    );
    let mut ahead = old;
    let position = second.resume().positions["comments"].clone();
    ahead.positions.insert("comments".into(), format!("{position}7"));
    let fifth = rig.connect(&["comments"], Some(ahead), 65536).await;
    assert_eq!(fifth.resync().await, (vec!["comments".to_owned()], Reason::LogReplaced));
}

#[tokio::test]
async fn a_slow_session_loses_events_and_is_told_so_once() {
    let rig = Rig::new(1000).await;
    let slow = rig.connect(&["comments:42"], None, 2000).await;
    let quick = rig.connect(&["comments:42"], None, 1 << 20).await;
    for n in 0..100 {
        rig.publish("comments:42", n).await;
    }
    for n in 0..100 {
        assert_eq!(quick.number().await, n);
    }
    assert_eq!(slow.resync().await, (vec!["comments:42".to_owned()], Reason::Slow));
    rig.publish("comments:42", 100).await;
    assert_eq!(slow.number().await, 100);
    assert_eq!(rig.metrics.overflows.get(), 1);
}

#[tokio::test]
async fn a_whole_area_is_followed_without_doubles() {
    let rig = Rig::new(100).await;
    let session = rig.connect(&["comments:*", "comments:42"], None, 65536).await;
    for (n, topic) in
        ["comments:41", "comments:42", "comments", "project-items:42", "comments:43"].iter().enumerate()
    {
        rig.publish(topic, n).await;
    }
    for n in [0, 1, 2, 4] {
        assert_eq!(session.number().await, n);
    }
    rig.relay.unsubscribe(&session.outbox, vec![Subject::parse("comments:42", &rig.areas).unwrap()]).await;
    let NodeMessage::Unsubscribed { topics } = session.message().await else { panic!("not unsubscribed") };
    assert_eq!(topics.len(), 1, "the area stays implied by comments:*");
    rig.publish("comments:42", 5).await;
    assert_eq!(session.number().await, 5);
    rig.relay.unsubscribe(&session.outbox, vec![Subject::parse("comments:*", &rig.areas).unwrap()]).await;
    let NodeMessage::Unsubscribed { topics } = session.message().await else { panic!("not unsubscribed") };
    assert_eq!(topics.iter().map(ToString::to_string).collect::<Vec<_>>(), ["comments:*", "comments"]);
}

#[tokio::test]
async fn live_events_leave_a_mark_for_those_who_are_away() {
    let rig = Rig::new(100).await;
    let here = rig.connect(&["comments:42"], None, 65536).await;
    let away = rig.connect(&["comments:42", "project-items:1"], None, 65536).await;
    rig.relay.leave(&away.outbox).await;
    rig.bus.publish_live(rig.topic("comments:42"), event(7)).await.unwrap();
    assert_eq!(here.number().await, 7);
    rig.publish("project-items:1", 8).await;
    let back = rig.connect(&["comments:42", "project-items:1"], Some(away.resume()), 65536).await;
    let (mut topics, reason) = back.resync().await;
    topics.sort();
    assert_eq!((topics, reason), (vec!["comments".to_owned(), "comments:42".to_owned()], Reason::Live));
    assert_eq!(back.number().await, 8, "an area without live events is replayed");

    let mark = rig.relay.mark("comments").unwrap();
    until(|| rig.relay.at() > mark).await;
    let again = rig
        .connect(&["comments:42"], Some(Resume { at: Some(rig.relay.at()), ..here.resume() }), 65536)
        .await;
    rig.publish("comments:42", 9).await;
    assert_eq!(again.number().await, 9, "whoever was in step after the mark is not told anything");
}
