//! A Redis that cannot save to its disk refuses writes and pings (`MISCONF`), and serves all the rest: so do nodes.

use std::fs;

use carillon::bus::BusError;
use serde_json::json;

use crate::support::{
    bus::{TestBus, numbered, subject, topic},
    node::Node,
    redis::{RedisServer, until},
};

/// A server that saves, as most do.
fn saving() -> RedisServer {
    RedisServer::with("save 3600 1\n")
}

/// A directory where the file should be: nothing can be saved.
fn cannot_save(redis: &RedisServer) {
    fs::create_dir(redis.config().with_file_name("dump.rdb")).unwrap();
    save(redis, "err");
    let refused = redis.command(&["PING"]);
    assert!(refused.contains("MISCONF"), "{refused}");
}

fn can_save_again(redis: &RedisServer) {
    fs::remove_dir(redis.config().with_file_name("dump.rdb")).unwrap();
    save(redis, "ok");
}

fn save(redis: &RedisServer, outcome: &str) {
    redis.command(&["BGSAVE"]);
    until("Redis has tried to save", || redis.info("persistence", "rdb_last_bgsave_status") == outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_cannot_save_keeps_its_links_and_its_followers() {
    let redis = saving();
    let mut bus = TestBus::over(&redis.url()).await;
    bus.follow(&["comments:1"]).await;
    cannot_save(&redis);
    // New topics are followed, whole areas as well, and live events come; only nothing is recorded.
    bus.follow(&["comments:2", "projects:*"]).await;
    for at in ["comments:1", "comments:2", "projects:7"] {
        bus.bus.publish_live(topic(at), numbered(1)).await.unwrap();
        assert_eq!(bus.delivery().await.topic.as_str(), at);
    }
    bus.bus.unsubscribe(vec![subject("comments:2")]).await;
    let refused = bus.bus.publish(topic("comments:1"), numbered(2)).await.unwrap_err();
    assert!(matches!(&refused, BusError::Refused(text) if text.contains("MISCONF")), "{refused}");
    bus.stays_up().await;
    // A link that is lost meanwhile is built anew.
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    bus.until_down().await;
    bus.until_up_again().await;
    bus.stays_up().await;
    can_save_again(&redis);
    let id = bus.bus.publish(topic("comments:1"), numbered(3)).await.unwrap();
    bus.recorded("comments:1", id, &numbered(3)).await;
    bus.end().await;
}

/// A live event is not delivered without a mark in Redis, or sessions that are away could not be told of it. Whoever follows its area
/// is then not live, whatever refuses the write.
#[tokio::test(flavor = "multi_thread")]
async fn who_follows_live_events_is_told_when_redis_refuses_writes() {
    let lacks_replicas = |replicas| {
        move |redis: &RedisServer| {
            redis.command(&["CONFIG", "SET", "min-replicas-to-write", replicas]);
        }
    };
    refused_for(cannot_save, can_save_again).await;
    refused_for(lacks_replicas("1"), lacks_replicas("0")).await;
}

async fn refused_for(refuse: impl Fn(&RedisServer), allow: impl Fn(&RedisServer)) {
    let redis = saving();
    let node = Node::start(&[("redis.url", &redis.url())]).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    let (mut bo, _) = node.session("bo", &["projects"]).await;
    refuse(&redis);
    redis.command(&["PUBLISH", "carillon:comments:1", r#"{"type":"a.b"}"#]);
    assert_eq!(anna.message().await["live"], json!(false));
    let (_late, welcome) = node.session("late", &["comments:1"]).await;
    assert_eq!(welcome["live"], json!(false), "{welcome}");
    allow(&redis);
    let resync = anna.message_of("resync").await;
    assert_eq!((&resync["reason"], &resync["topics"]), (&json!("live"), &json!(["comments:1", "comments"])));
    assert_eq!(anna.message().await["live"], json!(true));
    node.publish("comments:1", &json!({"type": "c.d"})).await;
    assert_eq!(anna.message_of("event").await["event"]["type"], "c.d");
    bo.nothing_comes().await;
    assert!(node.get("/metrics").await.text().contains("carillon_link_losses_total 0"));
}
