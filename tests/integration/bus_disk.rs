//! A Redis that cannot save to its disk refuses writes and pings (`MISCONF`), and serves all the rest: so do nodes.

use std::fs;

use carillon::bus::BusError;
use serde_json::json;

use crate::support::{
    bus::{TestBus, numbered, subject, topic},
    node::{Node, until as soon},
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

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_who_comes_while_redis_cannot_save_is_welcome() {
    let redis = saving();
    let node = Node::start(&[("redis.url", &redis.url())]).await;
    node.publish("comments:1", &json!({"type": "a.b"})).await;
    cannot_save(&redis);
    // Where a log ends is not told by a Redis that refuses writes, because a demoted master would tell the past.
    let (mut anna, welcome) = node.session("anna", &["comments:1", "comments:2"]).await;
    assert_eq!(welcome["live"], json!(false), "{welcome}");
    can_save_again(&redis);
    while anna.message_of("status").await["live"] != json!(true) {}
    node.publish("comments:2", &json!({"type": "e.f"})).await;
    assert_eq!(anna.message_of("event").await["event"]["type"], "e.f");
    soon("the node to be ready", || async { node.get("/readyz").await.status == 200 }).await;
}
