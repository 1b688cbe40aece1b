//! One suite for both buses: what holds over Redis holds in memory.

use std::time::Duration;

use crate::support::{
    bus::{TestBus, event, numbered, settings, topic},
    redis::RedisServer,
};
use carillon::{
    bus::{BusError, BusEvent, Content, LinkChange, Settings},
    protocol::{EntryId, Event, Kind, Revocation, Whom},
};

/// Where a test runs: with its own Redis, or with none.
struct Place {
    redis: Option<RedisServer>,
}

impl Place {
    fn settings(&self) -> Settings {
        settings(self.redis.as_ref().map(RedisServer::url).as_deref())
    }

    async fn start(&self) -> TestBus {
        TestBus::start(self.settings()).await
    }
}

macro_rules! both {
    ($($(#[doc = $doc:literal])* async fn $name:ident($place:ident: &Place) $body:block)*) => {
        mod cases {
            use super::*;
            $($(#[doc = $doc])* pub(crate) async fn $name($place: &Place) $body)*
        }
        mod memory {
            use super::*;
            $(#[tokio::test] async fn $name() { cases::$name(&Place { redis: None }).await })*
        }
        mod redis {
            use super::*;
            $(#[tokio::test] async fn $name() { cases::$name(&Place { redis: Some(RedisServer::start()) }).await })*
        }
    };
}

fn refusal<T: std::fmt::Debug>(result: Result<T, BusError>) -> String {
    match result {
        Err(BusError::Event(text)) => text,
        other => panic!("instead of a refused event: {other:?}"),
    }
}

both! {
    async fn events_are_numbered_from_one_and_arrive_in_order(place: &Place) {
        let mut bus = place.start().await;
        bus.follow(&["comments:42"]).await;
        let opened = bus.bus.heads(vec![topic("comments:42")]).await.remove(0).unwrap();
        assert_eq!(opened.top.seq, 0);
        for n in 1..=20 {
            let id = bus.bus.publish(topic("comments:42"), numbered(n)).await.unwrap();
            assert_eq!(id, EntryId { epoch: opened.top.epoch, seq: n });
        }
        for n in 1..=20 {
            bus.recorded("comments:42", EntryId { epoch: opened.top.epoch, seq: n }, &numbered(n)).await;
        }
        let heads = bus.bus.heads(vec![topic("comments:42"), topic("comments:43")]).await;
        let heads = heads.into_iter().map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!((heads[0].top.seq, heads[1].top.seq), (20, 0));
        assert_eq!(heads[0].lineage, opened.lineage);
        bus.end().await;
    }

    async fn only_what_is_wanted_arrives(place: &Place) {
        let mut bus = place.start().await;
        bus.follow(&["comments:1", "projects"]).await;
        bus.follow(&["projects"]).await;
        for at in ["comments:1", "comments:2", "comments", "projects", "projects:1"] {
            bus.bus.publish(topic(at), numbered(1)).await.unwrap();
            bus.bus.publish_live(topic(at), numbered(2)).await.unwrap();
        }
        let got = bus.deliveries_so_far().await;
        let got = got.iter().map(|d| (d.topic.as_str(), matches!(d.content, Content::Recorded(..)), d.every));
        let wanted = ["comments:1", "projects"];
        assert_eq!(got.collect::<Vec<_>>(), wanted.map(|at| [(at, true, false), (at, false, false)]).concat());
        bus.bus.unsubscribe(vec![crate::support::bus::subject("comments:1")]).await;
        bus.bus.publish(topic("comments:1"), numbered(3)).await.unwrap();
        assert!(bus.deliveries_so_far().await.is_empty());
        bus.end().await;
    }

    async fn a_whole_area_is_followed_without_seeing_anything_twice(place: &Place) {
        let mut bus = place.start().await;
        bus.follow(&["comments:*", "comments:1", "comments"]).await;
        for _ in 0..3 {
            for at in ["comments:1", "comments:2", "comments", "projects:1"] {
                // The same words three times are three events.
                bus.bus.publish_live(topic(at), numbered(1)).await.unwrap();
            }
        }
        let id = bus.bus.publish(topic("comments:3"), numbered(2)).await.unwrap();
        let got = bus.deliveries_so_far().await;
        let seen = got.iter().map(|d| (d.topic.as_str(), d.every)).collect::<Vec<_>>();
        let round = [("comments:1", false), ("comments:2", true), ("comments", false)];
        assert_eq!(seen, [round.as_slice(), &round, &round, &[("comments:3", true)]].concat());
        assert!(matches!(&got[9].content, Content::Recorded(got, _) if *got == id));
        bus.end().await;
    }

    async fn a_log_is_read_from_any_place_and_trimmed(place: &Place) {
        let mut bus = place.start().await;
        let at = topic("comments:1");
        let mut ids = Vec::new();
        for n in 1..=15 {
            ids.push(bus.bus.publish(at.clone(), numbered(n)).await.unwrap());
        }
        let read = async |after: EntryId| {
            let history = bus.bus.history(topic("comments:1"), after).await.unwrap();
            assert_eq!(history.head.top, ids[14]);
            let seq = |(id, event): &(EntryId, Result<Event, _>)| {
                assert_eq!(event.as_ref().unwrap(), &numbered(id.seq));
                id.seq
            };
            history.entries.iter().map(seq).collect::<Vec<_>>()
        };
        let epoch = ids[0].epoch;
        assert_eq!(read(EntryId { epoch, seq: 12 }).await, [13, 14, 15]);
        assert_eq!(read(EntryId { epoch, seq: 15 }).await, [0; 0]);
        assert_eq!(read(EntryId { epoch, seq: 99 }).await, [0; 0]);
        assert_eq!(read(EntryId { epoch, seq: u64::MAX }).await, [0; 0]);
        assert_eq!(read(EntryId { epoch, seq: 1 }).await, (6..=15).collect::<Vec<_>>(), "the log keeps ten");
        assert_eq!(read(EntryId { epoch: epoch - 1, seq: 14 }).await, (6..=15).collect::<Vec<_>>());
        let fresh = bus.bus.history(topic("comments:2"), EntryId::default()).await.unwrap();
        assert_eq!((fresh.head.top.seq, fresh.entries.len()), (0, 0));
        assert!(bus.deliveries_so_far().await.is_empty());
        bus.end().await;
    }

    async fn a_duplicate_gets_the_first_id_and_is_not_delivered(place: &Place) {
        let mut bus = place.start().await;
        bus.follow(&["comments:1", "comments:2"]).await;
        let publish = async |at: &str, json: &str| bus.bus.publish(topic(at), event(json)).await.unwrap();
        let first = publish("comments:1", r#"{"type":"a.b","id":"1","source":"x"}"#).await;
        assert_eq!(publish("comments:1", r#"{"type":"a.c","id":"1","source":"x"}"#).await, first);
        assert_eq!(publish("comments:1", r#"{"id":"\u0031","source":"\u0078","type":"a.b"}"#).await, first);
        assert_eq!(publish("comments:1", r#"{"type":"a.b","id":"1","source":"y"}"#).await.seq, 2);
        let bare = publish("comments:1", r#"{"type":"a.b","id":"1"}"#).await;
        assert_eq!(bare.seq, 3, "no source is a source of its own");
        assert_eq!(publish("comments:1", r#"{"type":"a.b","id":"1"}"#).await, bare);
        assert_eq!(publish("comments:2", r#"{"type":"a.b","id":"1","source":"x"}"#).await.seq, 1);
        assert_eq!(publish("comments:1", r#"{"type":"a.b","source":"x"}"#).await.seq, 4);
        assert_eq!(publish("comments:1", r#"{"type":"a.b","source":"x"}"#).await.seq, 5, "no id, no duplicate");
        assert_eq!(bus.deliveries_so_far().await.len(), 6);
        bus.end().await;
    }

    async fn events_of_one_topic_are_published_in_one_step_all_or_none(place: &Place) {
        let mut bus = place.start().await;
        bus.follow(&["comments:1"]).await;
        let all = async |events: &[&str]| {
            let events = events.iter().map(|json| event(json)).collect();
            bus.bus.publish_all(topic("comments:1"), events).await
        };
        let named = r#"{"type":"a.b","id":"1","source":"x"}"#;
        let seqs = |ids: Vec<EntryId>| ids.into_iter().map(|id| id.seq).collect::<Vec<_>>();
        assert_eq!(seqs(all(&[r#"{"type":"a.b"}"#, named, named]).await.unwrap()), [1, 2, 2], "a duplicate among them");
        assert_eq!(seqs(all(&[named, r#"{"type":"a.c"}"#]).await.unwrap()), [2, 3], "a duplicate of an earlier one");
        let big = format!(r#"{{"type":"a.b","data":"{}"}}"#, "x".repeat(65536));
        assert!(refusal(all(&[r#"{"type":"a.d"}"#, &big]).await).contains("65536"));
        assert_eq!(seqs(all(&[r#"{"type":"a.e"}"#]).await.unwrap()), [4], "none of those before was taken");
        assert_eq!(bus.deliveries_so_far().await.len(), 4);
        bus.end().await;
    }

    async fn what_is_bad_is_refused_with_its_reason(place: &Place) {
        let mut bus = place.start().await;
        bus.follow(&["notifications:anna", "content:1", "comments:1"]).await;
        let big = event(&format!(r#"{{"type":"a.b","data":"{}"}}"#, "x".repeat(65536)));
        assert!(refusal(bus.bus.publish(topic("comments:1"), big.clone()).await).contains("65536"));
        assert!(refusal(bus.bus.publish_live(topic("comments:1"), big).await).contains("65536"));
        let text = refusal(bus.bus.publish(topic("notifications:%61nna"), numbered(1)).await);
        assert!(text.contains("notifications:anna"), "{text}");
        refusal(bus.bus.publish_live(topic("notifications:%61nna"), numbered(1)).await);
        let text = refusal(bus.bus.publish_live(topic("content:1"), numbered(1)).await);
        assert!(text.contains("areas.recorded_only"), "{text}");
        let figures = bus.metrics.text();
        assert!(figures.contains("carillon_published_total{reason=\"refused\"} 5\n"), "{figures}");
        assert!(bus.deliveries_so_far().await.is_empty());
        bus.end().await;
    }

    async fn marks_only_go_forward(place: &Place) {
        let bus = place.start().await;
        assert!(bus.bus.marks().await.unwrap().marks.is_empty());
        let ahead = Duration::from_secs(20);
        let marks = bus.bus.mark(vec!["comments".into(), "projects".into()], ahead).await.unwrap();
        assert_eq!(marks.marks["comments"], marks.now + 20_000);
        let later = bus.bus.mark(vec!["comments".into()], Duration::from_secs(1)).await.unwrap();
        assert_eq!(later.marks, marks.marks);
        let read = bus.bus.marks().await.unwrap();
        assert!(read.now >= later.now && read.marks == marks.marks && read.marks.len() == 2);
        bus.end().await;
    }

    async fn an_order_to_disconnect_and_the_states_of_nodes_reach_all(place: &Place) {
        let mut bus = place.start().await;
        for (kind, whom) in [
            (Kind::Disconnect, Whom::User("DOMAIN\\Änna \"x\"".into())),
            (Kind::Disconnect, Whom::Session("s 1".into())),
            (Kind::Refresh, Whom::User("bo".into())),
        ] {
            let at = bus.bus.revoke(kind, whom.clone()).await.unwrap();
            let told = bus.until(|event| match event {
                BusEvent::Revoked { orders: told, .. } => Some(told),
                _ => None,
            });
            assert_eq!(told.await, [Revocation { kind, whom, at }]);
        }
        assert!(bus.bus.nodes().await.unwrap().is_empty());
        bus.bus.announce("{\"sessions\":1}".into()).await.unwrap();
        bus.bus.announce("{\"sessions\":2}".into()).await.unwrap();
        let nodes = bus.bus.nodes().await.unwrap();
        assert_eq!(nodes.into_iter().collect::<Vec<_>>(), [(bus.settings.node.clone(), "{\"sessions\":2}".into())]);
        // Three probe intervals later it is forgotten.
        for _ in 0..5 {
            bus.until(|event| matches!(event, BusEvent::Proof { .. }).then_some(())).await;
        }
        assert!(bus.bus.nodes().await.unwrap().is_empty());
        bus.end().await;
    }

    async fn proof_comes_after_what_it_proves(place: &Place) {
        let mut bus = TestBus::try_start(place.settings()).await.unwrap();
        assert!(matches!(bus.next().await, BusEvent::Link(LinkChange::Up)));
        let BusEvent::Proof { at: first, .. } = bus.next().await else { panic!("no proof with the link") };
        bus.follow(&["comments:1"]).await;
        let marked = bus.bus.marks().await.unwrap().now;
        assert!(first <= marked && marked < first + 60_000);
        bus.bus.publish(topic("comments:1"), numbered(1)).await.unwrap();
        let accepted = bus.bus.marks().await.unwrap().now;
        let mut delivered = false;
        let proven = bus.until(|event| match event {
            BusEvent::Delivery(_) => { delivered = true; None }
            BusEvent::Proof { at, .. } => (at >= accepted).then_some(delivered),
            _ => None,
        });
        assert!(proven.await);
        let health = bus.bus.health();
        assert!(health.live && health.trouble.is_none() && health.version.is_some() && health.round_trip.is_some());
        bus.end().await;
    }

    async fn a_queue_that_overflows_is_told_as_doubt(place: &Place) {
        let mut bus = place.start().await;
        bus.follow(&["comments:1"]).await;
        let count = carillon::bus::QUEUE as u64 + 2000;
        let publishes = (0..count).collect::<Vec<_>>();
        for batch in publishes.chunks(256) {
            let batch = batch.iter().map(|n| bus.bus.publish_live(topic("comments:1"), numbered(*n)));
            futures_util::future::try_join_all(batch).await.unwrap();
        }
        let (mut delivered, mut doubts) = (0, 0);
        let last = bus.bus.marks().await.unwrap().now;
        bus.until(|event| {
            match event {
                BusEvent::Delivery(_) => delivered += 1,
                BusEvent::Doubt(None) => doubts += 1,
                BusEvent::Proof { at, .. } if at > last => return Some(()),
                BusEvent::Link(link) => panic!("{link:?}"),
                _ => {}
            }
            None
        })
        .await;
        assert!(doubts == 1 && delivered < count, "{doubts} doubts, {delivered} of {count} delivered");
        bus.end().await;
    }

    async fn a_log_that_ran_out_is_another_epoch(place: &Place) {
        let bus = TestBus::start(Settings { log_ttl: Duration::from_millis(50), ..place.settings() }).await;
        let first = bus.bus.publish(topic("comments:1"), numbered(1)).await.unwrap();
        let mut again = first;
        while again.epoch == first.epoch {
            tokio::time::sleep(Duration::from_millis(60)).await;
            again = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap().top;
        }
        assert!(again.seq == 0 && again.epoch > first.epoch);
        assert_eq!(bus.bus.publish(topic("comments:1"), numbered(2)).await.unwrap(), again.next());
        bus.end().await;
    }
}
