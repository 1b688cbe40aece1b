//! Sentinel and Cluster: the function works in each, and failovers are noticed, told and survived.

use std::{collections::HashSet, time::Duration};

use crate::support::{
    bus::{TestBus, event, numbered, settings, subject, topic},
    cluster::RedisCluster,
    redis::{RedisServer, until},
};
use carillon::{
    bus::{BusError, BusEvent, Content, LinkChange, redis},
    protocol::{EntryId, Kind, Whom},
};

async fn works(bus: &mut TestBus, at: &str) {
    bus.follow(&[at]).await;
    let id = bus.bus.publish(topic(at), numbered(7)).await.unwrap();
    bus.recorded(at, id, &numbered(7)).await;
}

struct Watched {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl Watched {
    fn start() -> Self {
        let master = RedisServer::start();
        let replica = RedisServer::with(&format!("save \"\"\nreplicaof 127.0.0.1 {}\n", master.port()));
        until("the replica is in step", || replica.info("replication", "master_link_status") == "up");
        let sentinels = (0..3).map(|_| RedisServer::sentinel(master.port(), 2)).collect::<Vec<_>>();
        let servers = vec![master, replica];
        for sentinel in &sentinels {
            until("the sentinels know each other", || {
                let answer = sentinel.command(&["SENTINEL", "MASTER", "mymaster"]);
                answer.contains("num-other-sentinels\n2\n") && answer.contains("num-slaves\n1\n")
            });
        }
        Self { servers, sentinels }
    }

    fn url(&self) -> String {
        let hosts = self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect::<Vec<_>>();
        format!("redis-sentinel://{}/mymaster", hosts.join(","))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_failover_is_another_lineage_on_the_new_master() {
    for planned in [true, false] {
        let mut place = tokio::task::spawn_blocking(Watched::start).await.unwrap();
        let mut bus = TestBus::over(&place.url()).await;
        works(&mut bus, "comments:1").await;
        let before = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
        if planned {
            place.sentinels[0].command(&["SENTINEL", "FAILOVER", "mymaster"]);
        } else {
            place.servers[0].kill();
        }
        assert!(bus.until_up_again().await, "the lineage is the old one");
        let after = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
        assert_ne!(after.lineage, before.lineage);
        assert!(place.servers[1].info("replication", "master_replid").starts_with(after.lineage.as_str()));
        works(&mut bus, "comments:1").await;
        bus.end().await;
    }
}

/// A cluster, started where blocking is allowed.
async fn cluster(masters: usize, replicas: usize) -> RedisCluster {
    tokio::task::spawn_blocking(move || RedisCluster::start(masters, replicas)).await.unwrap()
}

fn many() -> Vec<String> {
    (0..40).map(|n| format!("comments:{n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_does_what_one_server_does() {
    let cluster = cluster(3, 0).await;
    let mut bus = TestBus::over(&cluster.url()).await;
    assert!(bus.bus.is_sharded());
    let names = many();
    bus.follow(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut sent = HashSet::new();
    for name in &names {
        let id = bus.bus.publish(topic(name), numbered(1)).await.unwrap();
        sent.insert((name.clone(), Some(id)));
        bus.bus.publish_live(topic(name), numbered(2)).await.unwrap();
        sent.insert((name.clone(), None));
    }
    let got = bus.deliveries_so_far_anywhere(sent.len()).await;
    let got = got.into_iter().map(|delivery| match delivery.content {
        Content::Recorded(id, _) => (delivery.topic.to_string(), Some(id)),
        Content::Live(_) => (delivery.topic.to_string(), None),
        Content::Invalid(id) | Content::Erased(id) => panic!("{id}"),
    });
    assert_eq!(got.collect::<HashSet<_>>(), sent);

    let topics = names.iter().map(|name| topic(name)).collect::<Vec<_>>();
    let heads = bus.bus.heads(topics).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert!(heads.iter().all(|head| head.top.seq == 1));
    assert_eq!(heads.iter().map(|head| head.lineage.as_str()).collect::<HashSet<_>>().len(), 3);
    let history = bus.bus.history(topic("comments:7"), EntryId::default()).await.unwrap();
    assert_eq!(history.entries.len(), 1);
    let twice = event(r#"{"type":"a.b","id":"1"}"#);
    let first = bus.bus.publish(topic("comments:7"), twice.clone()).await.unwrap();
    assert_eq!(bus.bus.publish(topic("comments:7"), twice).await.unwrap(), first);
    let marks = bus.bus.mark(vec!["comments".into()], Duration::from_secs(1)).await.unwrap();
    assert_eq!(bus.bus.marks().await.unwrap().marks, marks.marks);
    bus.bus.announce("{}".into()).await.unwrap();
    assert_eq!(bus.bus.nodes().await.unwrap().len(), 1);
    bus.bus.revoke(Kind::Disconnect, Whom::User("anna".into())).await.unwrap();
    bus.until(|event| matches!(event, BusEvent::Revoked { .. }).then_some(())).await;
    bus.until(|event| matches!(event, BusEvent::Proof { .. }).then_some(())).await;

    let refused = bus.bus.subscribe(vec![subject("comments:*")]).await.remove(0);
    assert!(matches!(&refused, Err(BusError::Refused(text)) if text.contains("cluster")), "{refused:?}");
    let plain = TestBus::try_start(settings(Some(&cluster.servers[0].url()))).await;
    assert!(plain.err().unwrap().to_string().contains("redis-cluster://"));
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_fails_over_is_noticed_and_survived() {
    for planned in [true, false] {
        let mut cluster = cluster(3, 1).await;
        let mut bus = TestBus::over(&cluster.url()).await;
        let names = many();
        for name in &names {
            works(&mut bus, name).await;
        }
        let replica = cluster.replica_of(0);
        if planned {
            let server = cluster.servers.iter().find(|s| s.port() == replica).unwrap();
            server.command(&["CLUSTER", "FAILOVER"]);
        } else {
            cluster.servers[0].kill();
        }
        assert!(bus.until_up_again().await, "planned {planned}: the lineage is the old one");
        // A planned failover settles in two steps, which may be two links.
        bus.all_work(&names).await;
        bus.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_takes_its_subscriptions_along() {
    let cluster = cluster(3, 0).await;
    let mut bus = TestBus::over(&cluster.url()).await;
    works(&mut bus, "comments:1").await;
    let slot: u64 =
        cluster.servers[0].command(&["CLUSTER", "KEYSLOT", "carillon:comments:1"]).trim().parse().unwrap();
    let owner = cluster.owner(slot);
    let to = (owner + 1) % 3;
    let before = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
    cluster.move_slot(slot, owner, to);
    // Nothing tells us but the numbers of subscriptions, or the link that is built anew.
    bus.until(|event| matches!(event, BusEvent::Doubt(_) | BusEvent::Link(LinkChange::Up)).then_some(()))
        .await;
    bus.all_work(&["comments:1".into()]).await;
    let after = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
    assert_ne!(after.lineage, before.lineage);
    assert_eq!(after.top.epoch, before.top.epoch);
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_works_with_exactly_the_rights_that_are_printed() {
    let cluster = cluster(3, 0).await;
    let mut settings = settings(Some(&cluster.url()));
    let target = settings.redis.as_mut().unwrap();
    (target.username, target.password) = (Some("carillon-node".into()), Some("pw".into()));
    for line in redis::acl(&settings, &settings.areas.names().collect::<Vec<_>>())
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let line = line.replace(">CHANGE-ME", ">pw");
        for server in &cluster.servers {
            let answer = server.command(&line.split_whitespace().collect::<Vec<_>>());
            assert_eq!(answer.trim(), "OK", "{line}");
        }
    }
    let mut bus = TestBus::start(settings).await;
    for name in many() {
        works(&mut bus, &name).await;
    }
    let key = "carillon:comments:7";
    let slot = cluster.servers[0].command(&["CLUSTER", "KEYSLOT", key]).trim().parse().unwrap();
    let owner = cluster.owner(slot);
    cluster.move_keys(slot, owner, (owner + 1) % 3);
    bus.bus.publish(topic("comments:7"), numbered(1)).await.unwrap();
    bus.end().await;
}
