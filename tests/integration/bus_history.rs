//! A Redis that does not let functions use INFO: nodes find out by themselves whose history an answer is from.

use std::{fs, process::Command};

use crate::{
    bus_access::{with_login, works},
    bus_doctor::looked_at,
    support::{
        bus::{TestBus, numbered, settings, topic},
        cluster::RedisCluster,
        redis::RedisServer,
    },
};
use carillon::{
    bus::{BusError, Settings, redis, redis::Weight},
    protocol::{EntryId, Lineage},
};

/// Loads the library of these settings as it behaves where functions may not use INFO: it says AUTH instead, which no Redis
/// lets functions use, so that the refusal is Redis' own.
fn load_where_functions_may_not_ask(server: &RedisServer, settings: &Settings) {
    let text = redis::library(settings);
    let refused = text.replace("try('INFO', 'replication')", "try('AUTH', 'replication')");
    assert_ne!(refused, text);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), refused).unwrap();
    let load = Command::new("redis-cli")
        .args(["-p", &server.port().to_string(), "-x", "FUNCTION", "LOAD", "REPLACE"])
        .stdin(fs::File::open(file.path()).unwrap())
        .output();
    let answer = String::from_utf8(load.unwrap().stdout).unwrap();
    assert_eq!(answer.trim(), "carillon");
}

fn lineage_of(server: &RedisServer) -> Lineage {
    Lineage::new(&server.info("replication", "master_replid"))
}

#[tokio::test]
async fn a_node_works_and_notices_another_history() {
    let redis = RedisServer::start();
    let ours = settings(Some(&redis.url()));
    load_where_functions_may_not_ask(&redis, &ours);
    let mut bus = TestBus::start(ours.clone()).await;
    works(&mut bus).await;
    let head = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
    assert_eq!((head.lineage, head.top.seq), (lineage_of(&redis), 1));
    let history = bus.bus.history(topic("comments:1"), EntryId::default()).await.unwrap();
    assert_eq!((history.head.lineage, history.entries.len()), (lineage_of(&redis), 1));

    redis.command(&["DEBUG", "CHANGE-REPL-ID"]);
    let (reason, changed) = bus.until_down().await;
    assert!(changed, "{reason}");
    bus.until_up().await;
    let head = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
    assert_eq!(head.lineage, lineage_of(&redis));
    works_again(&mut bus).await;

    let positions = redis.command(&["FCALL", "carillon_positions", "1", "carillon:comments:1"]);
    assert!(positions.contains("not allowed") && positions.contains("GET /positions"), "{positions}");
    let findings = looked_at(&ours).await;
    let finding = findings.iter().find(|finding| finding.what == "functions").unwrap();
    assert!(finding.weight == Weight::Advice && finding.detail.contains("INFO"), "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.weight != Weight::Bad), "{findings:#?}");
    bus.end().await;
}

/// Publishes to a topic that is followed.
async fn works_again(bus: &mut TestBus) {
    bus.follow(&["comments:2"]).await;
    let id = bus.bus.publish(topic("comments:2"), numbered(8)).await.unwrap();
    bus.recorded("comments:2", id, &numbered(8)).await;
}

#[tokio::test]
async fn a_full_redis_is_read_all_the_same() {
    let redis = RedisServer::start();
    let ours = settings(Some(&redis.url()));
    load_where_functions_may_not_ask(&redis, &ours);
    let mut bus = TestBus::start(ours).await;
    works(&mut bus).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let mut heads = bus.bus.heads(vec![topic("comments:1"), topic("comments:2")]).await;
    assert!(matches!(heads.remove(1), Err(BusError::Refused(text)) if text.starts_with("OOM")));
    assert_eq!(heads.remove(0).unwrap().lineage, lineage_of(&redis));
    let history = bus.bus.history(topic("comments:1"), EntryId::default()).await.unwrap();
    assert_eq!(history.entries.len(), 1);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    works_again(&mut bus).await;
    bus.end().await;
}

/// The right is taken from a user: the node is told so, before it starts and while it runs.
#[tokio::test]
async fn a_user_that_may_not_use_it_at_all_is_named() {
    let redis = RedisServer::with("save \"\"\nuser anna on >pw ~* &* +@all\n");
    let ours = with_login(&redis, Some("anna"), Some("pw"));
    let mut bus = TestBus::start(ours.clone()).await;
    redis.command(&["ACL", "SETUSER", "anna", "-info"]);
    let (reason, _) = bus.until_down().await;
    assert!(reason.contains("NOPERM") && reason.contains("info"), "{reason}");
    let started = TestBus::try_start(ours).await;
    let text = started.err().unwrap_or_else(|| panic!("it started")).to_string();
    assert!(text.contains("+info"), "{text}");
    redis.command(&["ACL", "SETUSER", "anna", "+info"]);
    bus.until_up().await;
    works(&mut bus).await;
    bus.end().await;
}

/// The masters of a cluster have a history each, and the answer of one that is about to become a master has its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_works_and_its_slots_move() {
    let mut cluster = tokio::task::spawn_blocking(|| RedisCluster::start(3, 0)).await.unwrap();
    let ours = settings(Some(&cluster.url()));
    for server in &cluster.servers {
        load_where_functions_may_not_ask(server, &ours);
    }
    let mut bus = TestBus::start(ours.clone()).await;
    works(&mut bus).await;
    works_again(&mut bus).await;
    let topics = (0..20).map(|n| topic(&format!("comments:{n}"))).collect::<Vec<_>>();
    let lineages = cluster.servers.iter().map(lineage_of).collect::<Vec<_>>();
    for head in bus.bus.heads(topics).await {
        assert!(lineages.contains(&head.unwrap().lineage));
    }
    let fourth = cluster.add();
    load_where_functions_may_not_ask(&cluster.servers[fourth], &ours);
    let key = "carillon:comments:1";
    let slot = cluster.servers[0].command(&["CLUSTER", "KEYSLOT", key]).trim().parse().unwrap();
    cluster.move_keys(slot, cluster.owner(slot), fourth);
    let head = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
    assert_eq!((head.lineage, head.top.seq), (lineage_of(&cluster.servers[fourth]), 1), "asked with ASKING");
    bus.end().await;
}
