//! A Redis that is set up in another way than we advise: nobody may be silently stale there either.

use serde_json::json;

use crate::support::{
    node::{Node, until, within},
    redis::RedisServer,
};

async fn node(redis: &RedisServer, prefix: &str) -> Node {
    Node::start(&[("redis.url", &redis.url()), ("redis.prefix", prefix)]).await
}

#[tokio::test]
async fn who_follows_a_log_that_redis_has_thrown_away_is_told() {
    for policy in ["allkeys-random", "volatile-random"] {
        let redis = RedisServer::start();
        let node = node(&redis, "carillon").await;
        let (mut anna, _) = node.session("anna", &["comments:1"]).await;
        for n in 0..3 {
            node.publish("comments:1", &json!({"type": "comment.created", "data": n})).await;
            anna.message_of("event").await;
        }
        let used: u64 = redis.info("memory", "used_memory").parse().unwrap();
        redis.command(&["CONFIG", "SET", "maxmemory", &(used + 1_000_000).to_string()]);
        redis.command(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let filler = "x".repeat(50_000);
        let mut n = 0;
        until("the log to be thrown away", || {
            n += 1;
            // With an end, as `volatile-*` asks for; what has none stays.
            redis.command(&["SET", &format!("other:{n}"), &filler, "EX", "600"]);
            let is_gone = redis.command(&["EXISTS", "carillon:comments:1"]).trim() == "0";
            async move { is_gone }
        })
        .await;
        redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
        until("the node to be ready", || async { node.get("/readyz").await.status == 200 }).await;
        node.publish("comments:1", &json!({"type": "comment.created", "data": 3})).await;
        let resync = within("anna to be told", anna.message_of("resync")).await;
        assert!(resync["topics"].as_array().unwrap().contains(&json!("comments:1")), "{policy}: {resync}");
        assert_eq!(resync["reason"], "log-replaced", "{policy}");
    }
}

#[tokio::test]
async fn two_sites_on_one_redis_see_nothing_of_each_other() {
    let redis = RedisServer::start();
    let (ours, theirs) = (node(&redis, "carillon").await, node(&redis, "carillon_test").await);
    let (mut anna, _) = ours.session("anna", &["comments:1", "comments:*"]).await;
    let (mut bo, _) = theirs.session("bo", &["comments:1", "comments:*"]).await;
    theirs.publish("comments:1", &json!({"type": "comment.created", "data": "theirs"})).await;
    theirs.publish_live("comments:1", &json!({"type": "comment.created", "data": "theirs, live"})).await;
    assert_eq!(theirs.post("/disconnect", br#"{"user":"anna"}"#).await.status, 200);
    for data in ["theirs", "theirs, live"] {
        assert_eq!(bo.message_of("event").await["event"]["data"], data);
    }
    ours.publish("comments:1", &json!({"type": "comment.created", "data": "ours"})).await;
    let event = anna.message().await;
    assert_eq!((&event["type"], &event["event"]["data"]), (&json!("event"), &json!("ours")));
    let metrics = ours.get("/metrics").await.text();
    let mut invalid = metrics.lines().filter(|line| line.starts_with("carillon_events_invalid_total"));
    assert!(invalid.all(|line| line.ends_with(" 0")), "{metrics}");
}
