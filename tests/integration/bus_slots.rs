//! Slots on their way, masters that come, and subscriptions that change while numbers are compared.

use std::{sync::atomic::Ordering, time::Duration};

use crate::support::{
    bus::{TestBus, numbered, settings, subject, topic},
    cluster::RedisCluster,
    proxy::Proxy,
    redis::{RedisServer, until},
};
use carillon::bus::{BusEvent, Content, LinkChange, Settings};

async fn cluster(masters: usize) -> RedisCluster {
    tokio::task::spawn_blocking(move || RedisCluster::start(masters, 0)).await.unwrap()
}

fn slot(cluster: &RedisCluster, name: &str) -> u64 {
    let key = format!("carillon:{name}");
    cluster.servers[0].command(&["CLUSTER", "KEYSLOT", &key]).trim().parse().unwrap()
}

async fn works(bus: &mut TestBus, at: &str) {
    bus.follow(&[at]).await;
    let id = bus.bus.publish(topic(at), numbered(7)).await.unwrap();
    bus.until(|event| match event {
        BusEvent::Delivery(delivery) => match delivery.content {
            Content::Recorded(got, _) if got == id && delivery.topic.as_str() == at => Some(()),
            _ => None,
        },
        BusEvent::Link(link) => panic!("{link:?}"),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_stays_half_moved_costs_neither_its_topics_nor_others() {
    let cluster = cluster(3).await;
    let mut bus = TestBus::over(&cluster.url()).await;
    let names = (0..12).map(|n| format!("comments:{n}")).collect::<Vec<_>>();
    for name in &names {
        works(&mut bus, name).await;
    }
    let moving = slot(&cluster, "comments:3");
    let owner = cluster.owner(moving);
    cluster.move_keys(moving, owner, (owner + 1) % 3);
    // The first question about it shows where it is by now, and it is followed there.
    let head = bus.bus.heads(vec![topic("comments:3")]).await.remove(0).unwrap();
    assert_eq!(head.top.seq, 1);
    bus.until(|event| match event {
        BusEvent::Doubt(Some(subject)) if subject.to_string() == "comments:3" => Some(()),
        BusEvent::Doubt(other) => panic!("doubted: {other:?}"),
        BusEvent::Link(link) => panic!("{link:?}"),
        _ => None,
    })
    .await;
    for name in &names {
        works(&mut bus, name).await;
    }
    let history = bus.bus.history(topic("comments:3"), head.top).await.unwrap();
    assert_eq!(history.entries.len(), 1);
    cluster.move_slot(moving, owner, (owner + 1) % 3);
    // Redis ends the subscriptions of a slot where it arrives, which the next comparison finds.
    bus.all_work(&names).await;
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_refuses_costs_the_ends_of_its_own_logs_only() {
    let cluster = cluster(3).await;
    let bus = TestBus::over(&cluster.url()).await;
    let names = (0..12).map(|n| format!("comments:{n}")).collect::<Vec<_>>();
    let refused = |name: &str| cluster.owner(slot(&cluster, name)) == 1;
    assert!(names.iter().any(|name| refused(name)) && !names.iter().all(|name| refused(name)));
    cluster.servers[1].command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let heads = bus.bus.heads(names.iter().map(|name| topic(name)).collect()).await;
    for (name, head) in names.iter().zip(&heads) {
        assert_eq!(head.is_err(), refused(name), "{name}: {head:?}");
    }
    assert_eq!(heads.len(), names.len());
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_gets_the_functions_whether_it_is_followed_or_not() {
    let mut cluster = cluster(3).await;
    let mut bus = TestBus::over(&cluster.url()).await;
    works(&mut bus, "comments:1").await;
    let new = cluster.add();
    let unfollowed = slot(&cluster, "comments:unfollowed");
    cluster.move_slot(unfollowed, cluster.owner(unfollowed), new);
    bus.until_up().await;
    let functions = cluster.servers[new].command(&["FUNCTION", "LIST"]);
    assert!(functions.contains("carillon_publish"), "{functions}");
    works(&mut bus, "comments:unfollowed").await;
    works(&mut bus, "comments:1").await;
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_channels_of_a_cluster_are_followed_and_given_up_in_batches() {
    let cluster = cluster(3).await;
    let mut bus = TestBus::over(&cluster.url()).await;
    let subjects = (0..3000).map(|n| subject(&format!("comments:{n}"))).collect::<Vec<_>>();
    assert!(bus.bus.subscribe(subjects.clone()).await.iter().all(Result::is_ok));
    let followed = |least: usize| {
        let counts = cluster.servers.iter().map(|server| {
            let channels = server.command(&["PUBSUB", "SHARDCHANNELS", "carillon:comments:*"]);
            channels.lines().filter(|line| !line.is_empty()).count()
        });
        counts.sum::<usize>() == least
    };
    until("all are followed", || followed(3000));
    works(&mut bus, "comments:2999").await;
    cluster.servers[0].command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    bus.until_up().await;
    until("all are followed again", || followed(3000));
    bus.bus.unsubscribe(subjects).await;
    until("none is followed", || followed(0));
    bus.end().await;
}

/// Between the wish to leave a channel and Redis' word the numbers must agree all the same.
#[tokio::test]
async fn subscriptions_that_change_all_the_time_are_never_taken_for_lost() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let fast = Settings { probe_interval: Duration::from_millis(50), ..settings(Some(&proxy.url())) };
    let mut bus = TestBus::start(fast).await;
    bus.follow(&["comments:stays", "content:*"]).await;
    // Answers take their time: some milliseconds for a short one.
    proxy.moods().answers_per_second.store(20_000, Ordering::Relaxed);
    for n in 0..60 {
        let subjects = vec![subject(&format!("comments:{n}")), subject("projects:*")];
        bus.follow(&[&format!("comments:{n}"), "projects:*"]).await;
        bus.bus.unsubscribe(subjects).await;
    }
    while let Ok(said) = bus.events.try_recv() {
        assert!(!matches!(said, BusEvent::Doubt(_) | BusEvent::Link(LinkChange::Down { .. })), "{said:?}");
    }
    bus.end().await;
}
