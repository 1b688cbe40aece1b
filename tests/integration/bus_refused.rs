//! Topics that Redis refuses while they are followed: the others go on, and nothing is missed when the right is back.

use std::sync::atomic::Ordering;

use carillon::{bus::redis::Publisher, shutdown::Tasks};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{
    bus::{numbered, settings, topic},
    cluster::RedisCluster,
    frames::Ws,
    node::{Node, until, within},
    proxy::Proxy,
    redis::RedisServer,
};

/// What a node needs besides its topics.
const LINK: &str = "&carillon:probe:* &carillon:control:* &carillon:comments*";
const MORE: &str = "&carillon:content &carillon:projects* &carillon:projects:*";

fn allow(servers: &[RedisServer], channels: &[&str]) {
    for server in servers {
        let line = format!("ACL SETUSER node on >pw ~* +@all resetchannels {}", channels.join(" "));
        assert_eq!(server.command(&line.split_whitespace().collect::<Vec<_>>()).trim(), "OK");
        // Redis does so itself where a right is taken away, but for sharded channels.
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub", "USER", "node"]);
    }
}

/// Publishes with rights to everything.
struct Cms(Publisher);

impl Cms {
    async fn over(url: &str) -> Self {
        Self(Publisher::open(settings(Some(url)), &Tasks::new()).await.unwrap())
    }

    async fn publish(&self, at: &str, n: u64) {
        self.0.publish(&topic(at), &numbered(n)).await.unwrap();
    }
}

async fn node_over(url: &str) -> Node {
    Node::start(&[("redis.url", url), ("redis.username", "node"), ("redis.password", "pw")]).await
}

/// What a session is told, until one message is as wanted: statuses, reasons with topics, and the numbers of events.
async fn told(ws: &mut Ws<TcpStream>, last: &str) -> Vec<String> {
    let mut told = Vec::new();
    while told.last().is_none_or(|line| line != last) {
        let message = within(&format!("{last:?} after {told:?}"), ws.message()).await;
        let of = |name: &str| match &message[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match of("type").as_str() {
            "status" => told.push(format!("live {}", of("live"))),
            "resync" => told.push(format!("resync {} {}", of("reason"), of("topics"))),
            "event" => told.push(format!("{} {}", of("topic"), message["event"]["data"])),
            _ => {}
        }
    }
    told
}

async fn a_refused_topic_comes_back(servers: &[RedisServer], url: &str) {
    allow(servers, &[LINK, MORE]);
    let node = node_over(url).await;
    let cms = Cms::over(url).await;
    let (mut anna, _) = node.session("anna", &["comments:42", "projects:1", "content"]).await;
    let (mut bo, _) = node.session("bo", &["comments:42"]).await;
    cms.publish("projects:1", 1).await;
    told(&mut anna, "projects:1 1").await;

    allow(servers, &[LINK]);
    told(&mut bo, "live true").await;
    cms.publish("projects:1", 2).await;
    cms.publish("comments:42", 3).await;
    assert_eq!(told(&mut bo, "comments:42 3").await.len(), 1);
    let of_anna = told(&mut anna, "comments:42 3").await;
    assert_eq!(of_anna.first().map(String::as_str), Some("live false"), "{of_anna:?}");
    assert!(!of_anna.contains(&"live true".into()), "{of_anna:?}");
    assert_eq!(node.get("/readyz").await.status, 200);
    // Who comes now has what there is, and is told.
    let (mut carl, welcome) = node.session("carl", &["comments:42", "projects:1"]).await;
    assert_eq!(welcome["live"], false);

    allow(servers, &[LINK, MORE]);
    let of_anna = told(&mut anna, "live true").await;
    assert!(of_anna.contains(&"projects:1 2".into()), "{of_anna:?}");
    told(&mut carl, "live true").await;
    cms.publish("projects:1", 4).await;
    told(&mut anna, "projects:1 4").await;
    told(&mut carl, "projects:1 4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_refused_after_a_lost_link_holds_up_no_other() {
    let redis = RedisServer::start();
    let url = redis.url();
    a_refused_topic_comes_back(&[redis], &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_a_cluster_refuses_after_a_lost_link_holds_up_no_other() {
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(3, 0)).await.unwrap();
    let url = cluster.url();
    a_refused_topic_comes_back(&cluster.servers, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_area_that_is_refused_holds_up_no_topic_and_is_told_when_it_is_back() {
    let redis = [RedisServer::start()];
    allow(&redis, &[LINK, MORE]);
    let node = node_over(&redis[0].url()).await;
    let cms = Cms::over(&redis[0].url()).await;
    let (mut anna, _) = node.session("anna", &["comments:42", "projects:*"]).await;
    cms.publish("projects:1", 1).await;
    told(&mut anna, "projects:1 1").await;

    allow(&redis, &[LINK, "&carillon:content"]);
    let mut lost = told(&mut anna, "live false").await;
    cms.publish("projects:1", 2).await;
    cms.publish("comments:42", 3).await;
    lost.extend(told(&mut anna, "comments:42 3").await);
    assert!(!lost.contains(&"projects:1 2".into()), "{lost:?}");

    allow(&redis, &[LINK, MORE]);
    let back = told(&mut anna, "live true").await;
    assert!(
        back.iter().any(|line| line.starts_with("resync gap") && line.contains("projects:*")),
        "{back:?}"
    );
    cms.publish("projects:1", 4).await;
    told(&mut anna, "projects:1 4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_to_a_master_that_refuses_it_is_told() {
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(3, 0)).await.unwrap();
    let slot = cluster.servers[0].command(&["CLUSTER", "KEYSLOT", "carillon:projects:1"]);
    let slot = slot.trim().parse().unwrap();
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    allow(&cluster.servers, &[LINK, MORE]);
    allow(&cluster.servers[to..=to], &[LINK, "&carillon:content &carillon:projects"]);
    let node = node_over(&cluster.url()).await;
    let cms = Cms::over(&cluster.url()).await;
    let (mut anna, _) = node.session("anna", &["comments:42", "projects:1"]).await;
    cms.publish("projects:1", 1).await;
    told(&mut anna, "projects:1 1").await;
    cluster.move_slot(slot, from, to);
    told(&mut anna, "live false").await;
    cms.publish("projects:1", 2).await;
    cms.publish("comments:42", 3).await;
    told(&mut anna, "comments:42 3").await;
    allow(&cluster.servers, &[LINK, MORE]);
    // Each master has a history of its own.
    told(&mut anna, r#"resync redis-changed ["projects:1"]"#).await;
    told(&mut anna, "live true").await;
}

/// All rights are missing for a while: neither the node's own channels nor topics can be subscribed to. Live events show that the
/// topics come by their subscriptions again, and not by a comparison of logs.
async fn all_is_refused_and_comes_back(servers: &[RedisServer], url: &str) {
    allow(servers, &[LINK, MORE]);
    let node = node_over(url).await;
    let topics = ["comments:42", "projects:1", "content"];
    let (mut anna, welcome) = node.session("anna", &topics).await;
    assert_eq!(welcome["live"], true);
    allow(servers, &["&other"]);
    told(&mut anna, "live false").await;
    until("a link that is refused", || async {
        node.get("/readyz").await.text().contains("refuses this node a right")
    })
    .await;
    allow(servers, &[LINK, MORE]);
    told(&mut anna, "live true").await;
    for topic in topics {
        let event = json!({"topic": topic, "event": {"type": "a.b", "data": 7}});
        assert_eq!(node.post("/publish?live=1", event.to_string().as_bytes()).await.status, 200);
        told(&mut anna, &format!("{topic} 7")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_refused_with_the_whole_link_come_back_with_it() {
    let redis = RedisServer::start();
    let url = redis.url();
    all_is_refused_and_comes_back(&[redis], &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_a_cluster_refuses_with_the_whole_link_come_back_with_it() {
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(3, 0)).await.unwrap();
    let url = cluster.url();
    all_is_refused_and_comes_back(&cluster.servers, &url).await;
}

/// Whoever follows what Redis refuses costs the others nothing, however often the node asks for it again.
async fn who_is_refused_costs_nobody_anything(refused: usize) {
    let redis = RedisServer::start();
    allow(std::slice::from_ref(&redis), &[LINK]);
    let node = node_over(&redis.url()).await;
    let (mut bo, welcome) = node.session("bo", &["comments:1"]).await;
    assert_eq!(welcome["live"], true);
    let topics: Vec<String> = (0..refused).map(|n| format!("projects:{n}")).collect();
    let _eve = node.session("eve", &topics.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let refusals = || {
        let stats = redis.info("commandstats", "cmdstat_subscribe");
        stats.split(',').find_map(|field| field.strip_prefix("rejected_calls=")?.parse().ok()).unwrap_or(0)
    };
    let (enough, mut n) = (refusals() + 4 * refused, 0);
    within("the node asks again, and again", async {
        while refusals() < enough {
            n += 1;
            let event = json!({"topic": "comments:1", "event": {"type": "a.b", "data": n}});
            assert_eq!(node.post("/publish?live=1", event.to_string().as_bytes()).await.status, 200);
            assert_eq!(told(&mut bo, &format!("comments:1 {n}")).await.len(), 1, "{refused} refused");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_redis_that_refuses_topics_costs_the_others_nothing() {
    futures_util::future::join_all([1, 2, 45].map(who_is_refused_costs_nobody_anything)).await;
}

/// A session that asks for many topics, some of which Redis refuses, while each answer of Redis comes late. All others start where
/// they should, at once.
async fn some_of_many_are_refused_over_a_slow_link(rights: &str, refused: usize) {
    let redis = RedisServer::start();
    let line = format!("ACL SETUSER node on >pw +@all {rights}");
    assert_eq!(redis.command(&line.split_whitespace().collect::<Vec<_>>()).trim(), "OK");
    let proxy = Proxy::before(redis.port()).await;
    let node = node_over(&proxy.url()).await;
    proxy.moods().answers_late.store(100, Ordering::Relaxed);
    let followed = (0..60 - refused).map(|n| format!("comments:{n}"));
    let topics: Vec<String> = followed.chain((0..refused).map(|n| format!("projects:{n}"))).collect();
    let (_anna, welcome) = node.session("anna", &topics.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let positions = welcome["positions"].as_object().unwrap();
    let missing: Vec<&String> = topics.iter().filter(|topic| !positions.contains_key(*topic)).collect();
    assert_eq!(missing, topics[60 - refused..].iter().collect::<Vec<_>>(), "{welcome}");
    assert_eq!(welcome["live"], false, "some are not followed yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_redis_that_refuses_channels_holds_up_no_others() {
    let rights = "~* resetchannels &carillon:probe:* &carillon:control:* &carillon:comments*";
    some_of_many_are_refused_over_a_slow_link(rights, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_redis_that_refuses_keys_holds_up_no_others() {
    let rights = "&* resetkeys ~carillon:[^p]* ~carillon:probe:*";
    some_of_many_are_refused_over_a_slow_link(rights, 1).await;
    some_of_many_are_refused_over_a_slow_link(rights, 45).await;
}
