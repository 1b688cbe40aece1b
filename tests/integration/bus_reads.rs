//! Logs are read in pages that join, and a long log never costs the link.

use std::sync::atomic::Ordering;

use crate::support::{
    bus::{TestBus, event, settings, topic},
    node::Node,
    proxy::Proxy,
    redis::RedisServer,
};
use carillon::{
    bus::{BusError, BusEvent, History, LinkChange, Settings},
    protocol::EntryId,
};
use futures_util::future::join_all;
use serde_json::json;

fn long_logs(url: &str) -> Settings {
    Settings { log_length: 1000, ..settings(Some(url)) }
}

/// Publishes so many events of so many bytes; the position before the first.
async fn fill(bus: &TestBus, at: &str, count: u64, bytes: usize) -> EntryId {
    let before = bus.bus.heads(vec![topic(at)]).await.remove(0).unwrap().top;
    let json = event(&format!(r#"{{"type":"a.b","data":"{}"}}"#, "x".repeat(bytes)));
    for _ in 0..count {
        bus.bus.publish(topic(at), json.clone()).await.unwrap();
    }
    before
}

fn seqs(history: &History) -> Vec<u64> {
    history.entries.iter().map(|(id, _)| id.seq).collect()
}

#[tokio::test]
async fn a_log_of_many_pages_is_read_whole_from_any_place() {
    let redis = RedisServer::start();
    let bus = TestBus::start(long_logs(&redis.url())).await;
    for (at, bytes) in [("comments:small", 200), ("comments:large", 20_000)] {
        let start = fill(&bus, at, 60, bytes).await;
        for seq in [0, 1, 20, 58, 59, 60] {
            let history = bus.bus.history(topic(at), EntryId { seq, ..start }).await.unwrap();
            assert_eq!(seqs(&history), (seq + 1..=60).collect::<Vec<_>>(), "{at} after {seq}");
            assert_eq!(history.head.top.seq, 60);
            assert!(history.entries.iter().all(|(_, event)| event.is_ok()));
        }
    }
    bus.end().await;
}

#[tokio::test]
async fn many_long_logs_at_once_are_all_read_whole() {
    let redis = RedisServer::start();
    let bus = TestBus::start(long_logs(&redis.url())).await;
    let names = (0..12).map(|n| format!("comments:{n}")).collect::<Vec<_>>();
    for name in &names {
        fill(&bus, name, 40, 20_000).await;
    }
    let reads = names.iter().map(|name| bus.bus.history(topic(name), EntryId::default()));
    for history in join_all(reads).await {
        assert_eq!(seqs(&history.unwrap()), (1..=40).collect::<Vec<_>>());
    }
    bus.end().await;
}

/// At this pace the log takes longer than a probe may.
#[tokio::test]
async fn a_long_log_over_a_slow_link_costs_neither_the_link_nor_the_reader() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let mut bus = TestBus::start(long_logs(&proxy.url())).await;
    let before = fill(&bus, "comments:1", 500, 50_000).await;
    proxy.moods().answers_per_second.store(4_000_000, Ordering::Relaxed);
    let history = bus.bus.history(topic("comments:1"), before).await.unwrap();
    assert_eq!(seqs(&history), (1..=500).collect::<Vec<_>>());
    while let Ok(said) = bus.events.try_recv() {
        assert!(!matches!(said, BusEvent::Link(LinkChange::Down { .. })), "{said:?}");
    }
    bus.end().await;
}

#[tokio::test]
async fn a_connection_for_logs_that_is_deaf_is_replaced() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let mut bus = TestBus::start(long_logs(&proxy.url())).await;
    let before = fill(&bus, "comments:1", 3, 100).await;
    assert_eq!(seqs(&bus.bus.history(topic("comments:1"), before).await.unwrap()), [1, 2, 3]);
    proxy.moods().readers_only.store(true, Ordering::Relaxed);
    proxy.moods().swallow_answers.store(true, Ordering::Relaxed);
    let unanswered = bus.bus.history(topic("comments:1"), before).await;
    assert!(matches!(unanswered, Err(BusError::Away(_))), "{unanswered:?}");
    let (reason, _) = bus.until_down().await;
    assert!(reason.contains("a page of a log did not come"), "{reason}");
    proxy.moods().swallow_answers.store(false, Ordering::Relaxed);
    bus.until_up().await;
    assert_eq!(seqs(&bus.bus.history(topic("comments:1"), before).await.unwrap()), [1, 2, 3]);
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_gets_all_that_a_lost_link_has_missed_however_much_that_is() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let node = Node::start(&[("redis.url", &proxy.url())]).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    let text = "x".repeat(1_000);
    let events = (0..400).map(|n| format!(r#"{{"type":"a.b","data":{{"n":{n},"text":"{text}"}}}}"#));
    let events = events.collect::<Vec<_>>();
    proxy.cut();
    let publish = ["FCALL", "carillon_publish", "1", "carillon:comments:1"];
    redis.command(&publish.into_iter().chain(events.iter().map(String::as_str)).collect::<Vec<_>>());
    for live in [false, true] {
        if live {
            for n in 0..400 {
                let message = anna.message().await;
                assert_eq!((&message["type"], &message["event"]["data"]["n"]), (&json!("event"), &json!(n)));
            }
        }
        assert_eq!(anna.message().await["live"], json!(live));
    }
}
