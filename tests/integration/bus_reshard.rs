//! Publishing while slots move: no event twice, nothing in the way of the move, and nobody silently behind.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use carillon::bus::BusError;
use serde_json::json;

use crate::support::{
    bus::{TestBus, numbered, subject, topic},
    cluster::RedisCluster,
    load::{Cms, in_step, named},
    node::{Node, until},
};

async fn cluster() -> RedisCluster {
    tokio::task::spawn_blocking(|| RedisCluster::start(3, 0)).await.unwrap()
}

fn slot(cluster: &RedisCluster, key: &str) -> u64 {
    cluster.servers[0].command(&["CLUSTER", "KEYSLOT", key]).trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_repeated_while_its_slot_moves_is_recorded_once() {
    let cluster = cluster().await;
    let bus = TestBus::over(&cluster.url()).await;
    for (at, log_first) in [("comments:1", true), ("comments:2", false)] {
        let log = format!("carillon:{at}");
        let ids = format!("carillon:ids:{{{log}}}");
        let before = format!("carillon:ids-before:{{{log}}}");
        let first = bus.bus.publish(topic(at), named("A")).await.unwrap();
        let (slot, here) = (slot(&cluster, &log), |key: &str, at: usize| {
            cluster.servers[at]
                .command(&["CLUSTER", "GETKEYSINSLOT", &slot(&cluster, &log).to_string(), "9"])
                .contains(key)
        });
        let from = cluster.owner(slot);
        let to = (from + 1) % 3;
        cluster.open_slot(slot, from, to);
        let hash = if here(&ids, from) { ids } else { before };
        let mut keys = [log.as_str(), hash.as_str()];
        if !log_first {
            keys.reverse();
        }
        cluster.migrate(&keys[..1], from, to);
        // Nobody can tell whether it is a duplicate, or another is none; both may be tried again.
        for id in ["A", "B"] {
            let refused = bus.bus.publish(topic(at), named(id)).await;
            assert!(
                matches!(&refused, Err(BusError::Away(text)) if text.contains("TRYAGAIN")),
                "{refused:?}"
            );
        }
        bus.bus.publish(topic(at), numbered(1)).await.unwrap();
        cluster.migrate(&keys[1..], from, to);
        cluster.move_slot(slot, from, to);
        assert_eq!(bus.bus.publish(topic(at), named("A")).await.unwrap(), first);
        assert_eq!(bus.bus.publish(topic(at), named("B")).await.unwrap().seq, 3);
    }
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_left_while_its_slot_moves_takes_no_link_down() {
    let cluster = cluster().await;
    let mut bus = TestBus::over(&cluster.url()).await;
    let log = "carillon:comments:1";
    bus.bus.publish(topic("comments:1"), numbered(1)).await.unwrap();
    bus.follow(&["comments:1"]).await;
    let slot = slot(&cluster, log);
    let (from, to) = (cluster.owner(slot), (cluster.owner(slot) + 1) % 3);
    let followers = |at: usize| {
        let answer = cluster.servers[at].command(&["PUBSUB", "SHARDNUMSUB", log]);
        answer.trim().lines().last().unwrap().to_owned()
    };
    cluster.open_slot(slot, from, to);
    cluster.migrate(&[log], from, to);
    // The answer ASK tells where the slot goes, and the next look follows it there.
    until("the topic to be followed at both", || async {
        let _ = bus.bus.publish(topic("comments:1"), numbered(2)).await;
        followers(from) == "1" && followers(to) == "1"
    })
    .await;
    bus.bus.unsubscribe(vec![subject("comments:1")]).await;
    assert_eq!((followers(from), followers(to)), ("0".into(), "0".into()));
    bus.stays_up().await;
    bus.end().await;
}

/// A node goes on with all topics but those of one slot, also over a new link, and follows new ones.
async fn all_others_go_on(cluster: &RedisCluster, down: usize, torn: &str) {
    let node = Node::start(&[("redis.url", &cluster.url())]).await;
    let there = cluster.servers.iter().enumerate().filter(|(at, _)| *at != down);
    let there = there.map(|(_, server)| server).collect::<Vec<_>>();
    let (mut anna, _) = node.session("anna", &["projects"]).await;
    let (_bo, welcome) = node.session("bo", &[torn]).await;
    assert_eq!(welcome["live"], json!(false), "{welcome}");
    for server in &there {
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    for live in [false, true] {
        assert_eq!(anna.message_of("status").await["live"], json!(live));
    }
    let (mut carl, welcome) = node.session("carl", &["content:new"]).await;
    assert_eq!(welcome["live"], json!(true), "{welcome}");
    node.publish("projects", &json!({"type": "a.b"})).await;
    assert_eq!(anna.message_of("event").await["topic"], "projects");
    node.publish("content:new", &json!({"type": "c.d"})).await;
    assert_eq!(carl.message_of("event").await["event"]["type"], "c.d");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_heir_is_down_concerns_no_other_topic() {
    let mut cluster = tokio::task::spawn_blocking(|| {
        let mut cluster = RedisCluster::start(3, 0);
        cluster.add();
        cluster
    })
    .await
    .unwrap();
    let slot = slot(&cluster, "carillon:comments:1");
    cluster.open_slot(slot, cluster.owner(slot), 3);
    cluster.servers[3].kill();
    all_others_go_on(&cluster, 3, "comments:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_about_which_masters_do_not_agree_concerns_no_other_topic() {
    let cluster = cluster().await;
    let slot = slot(&cluster, "carillon:comments:1");
    let (from, to) = (cluster.owner(slot), (cluster.owner(slot) + 1) % 3);
    let heir = cluster.servers[to].command(&["CLUSTER", "MYID"]);
    cluster.servers[from].command(&["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", heir.trim()]);
    all_others_go_on(&cluster, usize::MAX, "comments:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resharding_under_load_costs_no_event_and_nobody_is_silently_behind() {
    let cluster = Arc::new(cluster().await);
    let node = Node::start(&[("redis.url", &cluster.url())]).await;
    let mut cms = Cms::open(&cluster.url()).await;
    // Slots are taken from the first on, so these move.
    let all = (0..2000).map(|n| format!("comments:{n}"));
    let names =
        all.filter(|name| slot(&cluster, &format!("carillon:{name}")) < 300).take(12).collect::<Vec<_>>();
    let topics = names.iter().map(String::as_str).collect::<Vec<_>>();
    let (mut anna, welcome) = node.session("anna", &topics).await;

    let enough = AtomicBool::new(false);
    let moving = async {
        let moved = Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || moved.reshard(300, 0, 1)).await.unwrap();
        enough.store(true, Ordering::Relaxed);
    };
    let (published, ()) = tokio::join!(cms.publish(&names, &enough), moving);
    assert!(names.iter().all(|name| cluster.owner(slot(&cluster, &format!("carillon:{name}"))) == 1));
    // Each was recorded once, and is known.
    for name in &names {
        let seqs = published.iter().filter(|((at, _), _)| at == name).map(|(_, id)| id.seq);
        let seqs = seqs.collect::<Vec<_>>();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "{name}");
    }
    for ((name, n), id) in &published {
        let again = cms.insist(name, &named(&format!("{name}-{n}"))).await;
        assert_eq!(again, *id, "{name} {n}");
    }
    until("the node to be ready again", || async { node.get("/readyz").await.status == 200 }).await;
    // What anna was not given she was told to fetch.
    in_step(&mut anna, &welcome, &published).await;
}
