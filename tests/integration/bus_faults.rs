//! The link to Redis under faults: each is noticed in time, told, and mended.

use std::time::{Duration, Instant};

use crate::support::{
    bus::{DEADLINE, TestBus, event, numbered, settings, subject, topic},
    proxy::Proxy,
    redis::{RedisServer, free_port},
};
use carillon::{
    bus::{BusError, BusEvent, LinkChange, Settings},
    protocol::EntryId,
};

/// Trouble of the whole link is known within this time (`DESIGN` 3.6).
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// Publishes, and the event arrives.
async fn works(bus: &mut TestBus) {
    let id = bus.bus.publish(topic("comments:1"), numbered(7)).await.unwrap();
    bus.recorded("comments:1", id, &numbered(7)).await;
}

async fn started(url: &str) -> TestBus {
    let mut bus = TestBus::over(url).await;
    bus.follow(&["comments:1", "projects:*"]).await;
    works(&mut bus).await;
    bus
}

/// Waits until the link is up again; whether the lineage changed on the way.
async fn recovered(bus: &mut TestBus) -> bool {
    let changed = bus.until_up_again().await;
    works(bus).await;
    changed
}

#[tokio::test]
async fn redis_may_come_later() {
    let mut redis = RedisServer::start();
    redis.kill();
    let mut bus = TestBus::try_start(settings(Some(&redis.url()))).await.unwrap();
    bus.follow(&["comments:1"]).await;
    let before = Instant::now();
    let error = bus.bus.publish(topic("comments:1"), numbered(1)).await.unwrap_err();
    assert!(matches!(error, BusError::Away(_)) && before.elapsed() < Duration::from_secs(5), "{error}");
    let health = bus.bus.health();
    assert!(!health.live && health.trouble.unwrap().contains(&redis.url()));
    redis.revive();
    bus.until_up().await;
    works(&mut bus).await;
    assert!(bus.bus.health().live && bus.bus.health().trouble.is_none());
    bus.end().await;
}

#[tokio::test]
async fn a_restart_is_another_lineage_and_nothing_of_before_comes_after() {
    for empty in [false, true] {
        let mut redis = RedisServer::with("appendonly yes\nappendfsync always\n");
        let mut bus = started(&redis.url()).await;
        let before = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
        if empty {
            redis.restart_empty();
        } else {
            redis.kill();
        }
        let (reason, _) = bus.until_down().await;
        assert!(!reason.is_empty());
        if !empty {
            redis.revive();
        }
        assert!(bus.until_up_again().await);
        let after = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
        assert_ne!(after.lineage, before.lineage);
        assert_eq!(after.top == before.top, !empty, "{} {}", before.top, after.top);
        works(&mut bus).await;
        bus.end().await;
    }
}

#[tokio::test]
async fn a_lineage_that_changes_on_a_live_link_is_noticed_by_any_answer() {
    let redis = RedisServer::start();
    let mut bus = started(&redis.url()).await;
    let before = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
    redis.command(&["DEBUG", "CHANGE-REPL-ID"]);
    // Either the read finds it, and is repeated over the next link, or a probe was faster.
    let after = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
    assert!(after.lineage != before.lineage && after.top == before.top);
    assert!(bus.until_down().await.1, "not told as a change of lineage");
    recovered(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn a_library_that_is_gone_is_loaded_again() {
    let redis = RedisServer::start();
    let mut bus = started(&redis.url()).await;
    redis.command(&["FUNCTION", "FLUSH"]);
    works(&mut bus).await;
    redis.command(&["FLUSHALL"]);
    works(&mut bus).await;
    assert!(bus.bus.health().live);
    bus.end().await;
}

#[tokio::test]
async fn a_killed_subscriber_comes_back_with_everything() {
    let redis = RedisServer::start();
    let mut bus = started(&redis.url()).await;
    let many = (0..1500).map(|n| subject(&format!("project-items:{n}"))).collect::<Vec<_>>();
    assert!(bus.bus.subscribe(many).await.iter().all(Result::is_ok));
    for _ in 0..3 {
        redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(!bus.until_down().await.1);
        assert!(!recovered(&mut bus).await);
        bus.bus.publish_live(topic("project-items:1499"), numbered(1)).await.unwrap();
        bus.bus.publish_live(topic("projects:5"), numbered(2)).await.unwrap();
        assert_eq!(bus.deliveries_so_far().await.len(), 2);
    }
    redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(!bus.until_down().await.1);
    recovered(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn a_frozen_redis_is_known_in_time_and_publishing_says_so() {
    let redis = RedisServer::start();
    let mut bus =
        TestBus::start(Settings { probe_interval: Duration::from_secs(5), ..settings(Some(&redis.url())) })
            .await;
    bus.follow(&["comments:1"]).await;
    redis.freeze();
    let frozen = Instant::now();
    let error = bus.bus.publish(topic("comments:1"), numbered(1)).await.unwrap_err();
    assert!(matches!(error, BusError::Away(_)) && frozen.elapsed() < Duration::from_secs(5), "{error}");
    bus.until_down().await;
    assert!(frozen.elapsed() < KNOWN_WITHIN, "{:?}", frozen.elapsed());
    assert!(!bus.bus.health().live);
    redis.thaw();
    let thawed = Instant::now();
    bus.until_up().await;
    assert!(thawed.elapsed() < KNOWN_WITHIN, "{:?}", thawed.elapsed());
    works(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn a_network_that_swallows_is_known_in_time() {
    type Set = fn(&crate::support::proxy::Moods, bool);
    let ways: [(&str, Set); 4] = [
        ("answers", |m, on| m.swallow_answers.store(on, std::sync::atomic::Ordering::Relaxed)),
        ("requests", |m, on| m.swallow_requests.store(on, std::sync::atomic::Ordering::Relaxed)),
        ("answers on the pub/sub link", |m, on| {
            m.subscribers_only.store(on, std::sync::atomic::Ordering::Relaxed);
            m.swallow_answers.store(on, std::sync::atomic::Ordering::Relaxed);
        }),
        ("answers on the command line", |m, on| {
            m.commands_only.store(on, std::sync::atomic::Ordering::Relaxed);
            m.swallow_answers.store(on, std::sync::atomic::Ordering::Relaxed);
        }),
    ];
    let one = async |(name, set): (&str, Set)| {
        let redis = RedisServer::start();
        let proxy = Proxy::before(redis.port()).await;
        let settings = settings(Some(&proxy.url()));
        let mut bus = TestBus::start(Settings { probe_interval: Duration::from_secs(5), ..settings }).await;
        bus.follow(&["comments:1"]).await;
        works(&mut bus).await;
        set(proxy.moods(), true);
        let deaf = Instant::now();
        bus.until_down().await;
        assert!(deaf.elapsed() < KNOWN_WITHIN, "{name}: {:?}", deaf.elapsed());
        set(proxy.moods(), false);
        recovered(&mut bus).await;
        bus.end().await;
    };
    futures_util::future::join_all(ways.map(|way| Box::pin(one(way)))).await;
}

#[tokio::test]
async fn a_cut_connection_is_known_at_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let mut bus = started(&proxy.url()).await;
    proxy.cut();
    let cut = Instant::now();
    bus.until_down().await;
    assert!(cut.elapsed() < Duration::from_secs(2), "{:?}", cut.elapsed());
    recovered(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn an_event_with_an_id_survives_a_cut_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let mut bus = started(&proxy.url()).await;
    let before = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap().top;
    let accepted = redis.calls("xadd") + 2;
    // Redis accepts them, and the answers are lost.
    proxy.moods().swallow_answers.store(true, std::sync::atomic::Ordering::Relaxed);
    let publish = |json: &str| {
        let (bus, event) = (bus.bus.clone(), event(json));
        async move { bus.publish(topic("comments:1"), event).await }
    };
    let (named, bare) = (publish(r#"{"type":"a.b","id":"1"}"#), publish(r#"{"type":"a.b"}"#));
    let cut = async {
        while redis.calls("xadd") < accepted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.cut();
        proxy.moods().swallow_answers.store(false, std::sync::atomic::Ordering::Relaxed);
    };
    let (named, bare, ()) =
        Box::pin(tokio::time::timeout(DEADLINE, async { tokio::join!(named, bare, cut) })).await.unwrap();
    assert!(matches!(bare, Err(BusError::Away(_))), "{bare:?}");
    let id = named.unwrap();
    let history = bus.bus.history(topic("comments:1"), before).await.unwrap();
    assert_eq!(history.entries.len(), 2, "{:?}", history.entries);
    assert!(history.entries.iter().any(|(entry, _)| *entry == id));
    bus.until_up().await;
    bus.end().await;
}

#[tokio::test]
async fn a_subscription_that_is_lost_on_a_live_link_is_mended() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let mut bus = started(&proxy.url()).await;
    for request in ["UNSUBSCRIBE carillon:comments:1", "PUNSUBSCRIBE carillon:projects:*", "UNSUBSCRIBE"] {
        let words = request.split(' ').map(|w| format!("${}\r\n{w}\r\n", w.len())).collect::<Vec<_>>();
        proxy.insert(format!("*{}\r\n{}", words.len(), words.concat()).as_bytes());
        bus.until(|event| match event {
            BusEvent::Doubt(_) => Some(()),
            // Without its own probe channel the link is deaf.
            BusEvent::Link(LinkChange::Down { .. }) if request == "UNSUBSCRIBE" => Some(()),
            BusEvent::Link(link) => panic!("{link:?}"),
            _ => None,
        })
        .await;
        if request == "UNSUBSCRIBE" {
            recovered(&mut bus).await;
        }
        works(&mut bus).await;
        bus.bus.publish_live(topic("projects:5"), numbered(2)).await.unwrap();
        assert_eq!(bus.deliveries_so_far().await.len(), 1, "{request}");
    }
    bus.end().await;
}

#[tokio::test]
async fn redis_that_refuses_writes_is_not_deaf() {
    let redis = RedisServer::start();
    let mut bus = started(&redis.url()).await;
    let proof = async |bus: &mut TestBus| {
        bus.until(|event| match event {
            BusEvent::Proof { at, .. } => Some(at),
            BusEvent::Link(link) => panic!("{link:?}"),
            _ => None,
        })
        .await
    };
    for (setting, on, off, code) in
        [("maxmemory", "1", "0", "OOM"), ("min-replicas-to-write", "1", "0", "NOREPLICAS")]
    {
        works(&mut bus).await;
        redis.command(&["CONFIG", "SET", setting, on]);
        while !bus.bus.health().trouble.is_some_and(|text| text.contains(code)) {
            proof(&mut bus).await;
        }
        assert!(bus.bus.health().live);
        let error = bus.bus.publish(topic("comments:1"), numbered(1)).await.unwrap_err();
        assert!(matches!(&error, BusError::Refused(text) if text.starts_with(code)), "{error}");
        let at = proof(&mut bus).await;
        assert!(at > 1_700_000_000_000, "{at}");
        if code == "OOM" {
            bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
            bus.bus.mark(vec!["comments".into()], Duration::ZERO).await.unwrap();
        }
        bus.bus.publish_live(topic("comments:1"), numbered(3)).await.unwrap();
        assert!(matches!(bus.delivery().await.content, carillon::bus::Content::Live(_)));
        redis.command(&["CONFIG", "SET", setting, off]);
        while bus.bus.health().trouble.is_some() {
            proof(&mut bus).await;
        }
        works(&mut bus).await;
    }
    bus.end().await;
}

#[tokio::test]
async fn a_master_that_was_demoted_is_left() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let mut bus = started(&old.url()).await;
    old.command(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]);
    let (reason, _) = bus.until_down().await;
    assert!(
        reason.contains("replica") || reason.contains("READONLY") || reason.contains("UNBLOCKED"),
        "{reason}"
    );
    let error = bus.bus.publish(topic("comments:1"), numbered(1)).await.unwrap_err();
    assert!(matches!(error, BusError::Away(_)), "{error}");
    old.command(&["REPLICAOF", "NO", "ONE"]);
    assert!(recovered(&mut bus).await);
    bus.end().await;
}

#[tokio::test]
async fn a_subscriber_that_redis_cuts_off_for_its_output_comes_back() {
    let redis = RedisServer::with("save \"\"\nclient-output-buffer-limit pubsub 32kb 16kb 1\n");
    let proxy = Proxy::before(redis.port()).await;
    let mut bus = started(&proxy.url()).await;
    let big = event(&format!(r#"{{"type":"a.b","data":"{}"}}"#, "x".repeat(60_000)));
    bus.bus.publish(topic("comments:1"), big).await.unwrap();
    bus.until_down().await;
    recovered(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn nodes_without_redis_do_not_keep_a_shutdown_waiting() {
    let bus =
        TestBus::try_start(settings(Some(&format!("redis://127.0.0.1:{}", free_port())))).await.unwrap();
    let waiting = bus.bus.clone();
    let heads = waiting.history(topic("comments:1"), EntryId::default());
    let (heads, ()) = tokio::join!(heads, bus.end());
    assert!(matches!(heads, Err(BusError::Away(_))));
}
