//! Canaries: events that a node sends itself, told in the metrics and in `/status`, and seen by nobody else. Redis and
//! nodes are real.

use serde_json::{Value, json};

use crate::support::{
    cluster::RedisCluster,
    node::{Node, token, until},
    redis::RedisServer,
};

async fn with_canaries(url: &str) -> Node {
    Node::start(&[("redis.url", url), ("node.name", "one"), ("telemetry.canary_seconds", "1")]).await
}

/// How many have come through.
async fn count(node: &Node) -> u64 {
    let text = node.get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix("carillon_canary_latency_seconds_count "));
    line.expect("canaries are counted").parse().unwrap()
}

/// How many topics are said to be followed.
async fn topics(node: &Node) -> u64 {
    let text = node.get("/metrics").await.text();
    text.lines().find_map(|line| line.strip_prefix("carillon_topics ")).unwrap().parse().unwrap()
}

async fn come(node: &Node, more: u64) {
    let before = count(node).await;
    until("canaries to come through", || async { count(node).await >= before + more }).await;
}

async fn canary_of(node: &Node) -> Value {
    node.get("/status").await.json()["this"]["canary"].clone()
}

#[tokio::test]
async fn canaries_come_and_are_told_and_fail_to_come_while_redis_is_away() {
    let mut redis = RedisServer::start();
    let node = with_canaries(&redis.url()).await;
    come(&node, 2).await;
    let told = canary_of(&node).await;
    assert!(told["ms"].as_f64().unwrap() > 0.0 && told["age_seconds"].as_f64().unwrap() < 20.0, "{told}");
    assert!(node.get("/metrics").await.text().contains("\ncarillon_canary_age_seconds "));
    redis.kill();
    until("the age to grow", || async { canary_of(&node).await["age_seconds"].as_f64().unwrap() > 3.0 })
        .await;
    redis.revive();
    come(&node, 2).await;
    assert!(canary_of(&node).await["age_seconds"].as_f64().unwrap() < 20.0);
}

#[tokio::test]
async fn nobody_else_sees_or_names_them_and_no_figure_of_editors_has_them() {
    let redis = RedisServer::start();
    let node = with_canaries(&redis.url()).await;
    come(&node, 3).await;
    assert_eq!(topics(&node).await, 0);
    let topics = ["comments:1", "_canary-one", "_canary", "_canary-one:*", "_canary-*"];
    let mut ws = node.socket().await;
    let connect = json!({"type": "connect", "token": token("anna", &["*"]), "topics": topics});
    ws.send(&connect).await;
    let welcome = ws.message_of("welcome").await;
    let refused: Vec<_> = welcome["refused"].as_array().unwrap().iter().map(|r| r["code"].clone()).collect();
    assert_eq!(refused, vec![json!("bad-topic"); 4], "{welcome}");
    come(&node, 3).await;
    node.publish("comments:1", &json!({"type": "comment.created"})).await;
    assert_eq!(ws.message().await["topic"], "comments:1", "no canary came before it");
    let body = json!({"topic": "_canary-one", "event": {"type": "a.b"}}).to_string();
    let answer = node.post("/publish", body.as_bytes()).await;
    assert_eq!(answer.problem(), (400, "bad-topic".into()));
    let text = node.get("/metrics").await.text();
    for line in ["carillon_deliveries_total 1\n", "carillon_published_total{reason=\"recorded\"} 1\n"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("_canary-"), "{text}");
    assert!(!node.get("/history").await.text().contains("_canary-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn they_fly_over_a_cluster_and_with_the_least_rights_and_not_without_redis() {
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(3, 0)).await.unwrap();
    come(&with_canaries(&cluster.url()).await, 2).await;

    let redis = RedisServer::start();
    let settings = crate::support::bus::settings(Some(&redis.url()));
    let areas: Vec<_> = settings.areas.names().collect();
    let lines = carillon::bus::redis::acl(&settings, &areas).replace("CHANGE-ME", "its");
    let words: Vec<_> = lines.lines().nth(1).unwrap().split(' ').collect();
    assert_eq!(redis.command(&words).trim(), "OK");
    let url = format!("redis://carillon-node:its@127.0.0.1:{}", redis.port());
    come(&with_canaries(&url).await, 2).await;

    let alone = Node::start(&[("telemetry.canary_seconds", "1")]).await;
    assert_eq!(canary_of(&alone).await, Value::Null);
    let off = Node::start(&[("redis.url", &redis.url()), ("telemetry.canary_seconds", "0")]).await;
    assert_eq!(canary_of(&off).await, Value::Null);
    assert!(!off.get("/metrics").await.text().contains("carillon_canary_age_seconds"));
}
