//! What `carillon doctor` finds out about Redis.

use std::time::Duration;

use crate::{
    bus_access::works,
    support::{
        bus::{DEADLINE, TestBus, settings},
        cluster::RedisCluster,
        redis::{RedisServer, free_port, until},
    },
};
use carillon::{
    bus::{
        BusEvent, Settings,
        redis::{Finding, Weight, examine},
    },
    shutdown::Tasks,
};

pub(super) async fn looked_at(settings: &Settings) -> Vec<Finding> {
    let tasks = Tasks::new();
    let findings = examine(settings, &tasks).await;
    assert_eq!(tasks.end(DEADLINE).await, 0, "tasks are left");
    findings
}

fn found<'a>(findings: &'a [Finding], what: &str) -> (Weight, &'a str) {
    let finding = findings.iter().find(|f| f.what == what);
    finding.map_or_else(|| panic!("no {what}: {findings:#?}"), |f| (f.weight, f.detail.as_str()))
}

#[tokio::test]
async fn a_server_as_it_should_be_is_all_good() {
    let redis = RedisServer::with("appendonly yes\n");
    let settings = settings(Some(&redis.url()));
    TestBus::start(settings.clone()).await.end().await;
    let findings = looked_at(&settings).await;
    assert!(findings.iter().all(|f| f.weight == Weight::Good), "{findings:#?}");
    for what in ["connection", "server", "library", "memory", "persistence", "round trip", "rights"] {
        found(&findings, what);
    }
}

#[tokio::test]
async fn what_is_less_safe_is_advised() {
    let redis = RedisServer::with(
        "save \"\"\nmaxmemory 100mb\nmaxmemory-policy allkeys-lru\nclient-output-buffer-limit pubsub 1mb 0 0\n",
    );
    let replica = RedisServer::with(&format!("replicaof 127.0.0.1 {}\n", redis.port()));
    until("the replica is in step", || replica.info("replication", "master_link_status") == "up");
    let settings = settings(Some(&redis.url()));
    let findings = looked_at(&settings).await;
    for (what, word) in [
        ("library", "not loaded"),
        ("memory", "noeviction"),
        ("persistence", "appendonly"),
        ("replicas", "min-replicas-to-write"),
        ("output buffer", "client-output-buffer-limit"),
    ] {
        let (weight, detail) = found(&findings, what);
        assert!(weight == Weight::Advice && detail.contains(word), "{what}: {detail}");
    }
    assert_eq!(redis.command(&["FUNCTION", "LIST"]), "", "the doctor changes nothing");
    let findings = looked_at(&crate::support::bus::settings(Some(&replica.url()))).await;
    assert!(found(&findings, "server").1.contains("replica"));
}

#[tokio::test]
async fn what_stands_in_the_way_is_named() {
    let nowhere = settings(Some(&format!("redis://127.0.0.1:{}", free_port())));
    assert!(found(&looked_at(&nowhere).await, "connection").1.contains("cannot be reached"));
    let unreadable = settings(Some("http://127.0.0.1"));
    assert!(found(&looked_at(&unreadable).await, "address").1.contains("redis.url"));
    let redis = RedisServer::with("requirepass x\n");
    assert!(
        found(&looked_at(&settings(Some(&redis.url()))).await, "connection").1.contains("redis.password")
    );

    let redis = RedisServer::start();
    let mut ours = settings(Some(&redis.url()));
    TestBus::start(ours.clone()).await.end().await;
    ours.log_length += 1;
    let findings = looked_at(&ours).await;
    assert!(
        found(&findings, "library").1.contains("log.length") && found(&findings, "library").0 == Weight::Bad
    );
    redis.command(&["ACL", "SETUSER", "default", "-client|info", "-config"]);
    let findings = looked_at(&ours).await;
    assert!(found(&findings, "rights").1.contains("CLIENT INFO"));
    assert!(found(&findings, "configuration").1.contains("CONFIG GET"));
    redis.command(&["ACL", "SETUSER", "default", "resetchannels"]);
    let findings = looked_at(&ours).await;
    let (weight, detail) = found(&findings, "rights");
    assert!(weight == Weight::Bad && detail.contains("&carillon:*"), "{detail}");
}

#[tokio::test]
async fn a_redis_that_refuses_writes_is_named_with_the_remedy() {
    for (lines, why, remedy) in [
        ("maxmemory 100kb\n", "OOM", "maxmemory"),
        ("min-replicas-to-write 1\n", "NOREPLICAS", "min-replicas-to-write"),
    ] {
        let redis = RedisServer::with(&format!("save \"\"\n{lines}"));
        let findings = looked_at(&settings(Some(&redis.url()))).await;
        let (weight, detail) = found(&findings, "writes");
        assert!(weight == Weight::Bad && detail.contains(why) && detail.contains(remedy), "{detail}");
        assert_eq!(redis.command(&["DBSIZE"]).trim(), "0", "the doctor changes nothing");
    }
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::of_one("maxmemory 100kb\n")).await.unwrap();
    let findings = looked_at(&settings(Some(&cluster.url()))).await;
    assert!(found(&findings, "writes").1.contains("OOM"));
}

/// A node says the same sentence when it starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_another_than_the_address_says_is_named() {
    let redis = RedisServer::start();
    let sentinel = RedisServer::sentinel(redis.port(), 1);
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::of_one("")).await.unwrap();
    for (url, what, words) in [
        (sentinel.url(), "server", "is a sentinel: write redis-sentinel://"),
        (cluster.servers[0].url(), "server", "is part of a cluster: write redis-cluster://"),
        (redis.url().replace("redis:", "redis-cluster:"), "connection", "is not a cluster: write redis://"),
        (
            format!("{}/mymaster", redis.url().replace("redis:", "redis-sentinel:")),
            "connection",
            "is no sentinel",
        ),
        (format!("{}/99", redis.url()), "connection", "no database of that number"),
        (format!("{}/1", cluster.url()), "address", "a cluster has only 0"),
    ] {
        let settings = settings(Some(&url));
        let findings = looked_at(&settings).await;
        let (weight, detail) = found(&findings, what);
        assert!(weight == Weight::Bad && detail.contains(words), "{url}: {detail}");
        let started = TestBus::try_start(settings).await;
        let text = started.err().unwrap_or_else(|| panic!("{url}: it started")).to_string();
        assert!(text.contains(words), "{url}: {text}");
    }
}

#[tokio::test]
async fn a_command_that_was_renamed_is_named() {
    for (command, what, words) in [
        ("FUNCTION", "library", "has no command FUNCTION"),
        ("FCALL", "library", "has no command FCALL"),
        ("INFO", "server", "has no command INFO"),
        ("PING", "rights", "has no command PING"),
        ("HELLO", "connection", "hides HELLO"),
        ("SUBSCRIBE", "round trip", "has no command SUBSCRIBE"),
        ("TIME", "rights", "has no command TIME"),
    ] {
        let redis = RedisServer::with(&format!("save \"\"\nrename-command {command} \"\"\n"));
        let findings = looked_at(&settings(Some(&redis.url()))).await;
        let (weight, detail) = found(&findings, what);
        assert!(weight == Weight::Bad && detail.contains(words), "{command}: {detail}");
    }
    let redis = RedisServer::with("save \"\"\nrename-command CONFIG \"\"\nrename-command CLIENT \"\"\n");
    let findings = looked_at(&settings(Some(&redis.url()))).await;
    assert!(findings.iter().all(|finding| finding.weight != Weight::Bad), "{findings:#?}");
    assert!(found(&findings, "configuration").1.contains("CONFIG"));
}

/// A node says the same sentence when it starts.
#[tokio::test]
async fn what_others_have_put_under_our_names_is_named() {
    for key in ["nodes:{carillon}", "live:{carillon}", "revoked:{carillon}", "sources"] {
        let redis = RedisServer::start();
        let key = format!("carillon:{key}");
        redis.command(&["SET", &key, "theirs"]);
        let ours = settings(Some(&redis.url()));
        let findings = looked_at(&ours).await;
        let (weight, detail) = found(&findings, "keys");
        assert!(
            weight == Weight::Bad && detail.contains(&key) && detail.contains("redis.prefix"),
            "{detail}"
        );
        let started = TestBus::try_start(ours.clone()).await;
        let text = started.err().unwrap_or_else(|| panic!("{key}: it started")).to_string();
        assert!(text.contains(&key) && text.contains("DEL"), "{key}: {text}");
        assert_eq!(redis.command(&["GET", &key]).trim(), "theirs", "nothing of others is touched");
        redis.command(&["DEL", &key]);
        TestBus::start(ours).await.end().await;
    }
    for library in ["carillon", "other"] {
        let redis = RedisServer::start();
        let function = if library == "carillon" { "theirs" } else { "carillon_publish" };
        let code =
            format!("#!lua name={library}\nredis.register_function('{function}', function() return 1 end)");
        assert_eq!(redis.command(&["FUNCTION", "LOAD", &code]).trim(), library);
        let ours = settings(Some(&redis.url()));
        if library == "carillon" {
            let findings = looked_at(&ours).await;
            let (weight, detail) = found(&findings, "library");
            assert!(weight == Weight::Bad && detail.contains("FUNCTION DELETE"), "{detail}");
        }
        let started = TestBus::try_start(ours).await;
        let text = started.err().unwrap_or_else(|| panic!("{library}: it started")).to_string();
        assert!(text.contains("not Carillon's") && text.contains("redis.prefix"), "{text}");
    }
}

#[tokio::test]
async fn a_key_that_others_write_under_a_running_node_is_trouble_with_its_name() {
    let redis = RedisServer::start();
    let mut bus = TestBus::over(&redis.url()).await;
    redis.command(&["DEL", "carillon:nodes:{carillon}"]);
    redis.command(&["SET", "carillon:nodes:{carillon}", "theirs"]);
    assert!(bus.bus.nodes().await.unwrap_err().to_string().contains("WRONGTYPE"));
    redis.command(&["DEL", "carillon:nodes:{carillon}"]);
    bus.bus.announce("{}".into()).await.unwrap();
    assert_eq!(bus.bus.nodes().await.unwrap().len(), 1);
    works(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn a_redis_that_closes_quiet_connections_is_named_and_costs_no_link() {
    let redis = RedisServer::with("save \"\"\ntimeout 1\n");
    let ours = settings(Some(&redis.url()));
    let mut bus = TestBus::start(ours.clone()).await;
    works(&mut bus).await;
    // Longer than that: nobody reads a log meanwhile.
    let mut proofs = 0;
    while proofs < 8 {
        match bus.next().await {
            BusEvent::Proof { .. } => proofs += 1,
            BusEvent::Link(link) => panic!("{link:?}"),
            _ => {}
        }
    }
    let findings = looked_at(&ours).await;
    let (weight, detail) = found(&findings, "timeout");
    assert!(weight == Weight::Advice && detail.contains("Set 0"), "{detail}");
    bus.end().await;
}

#[tokio::test]
async fn a_redis_without_free_connections_is_named_and_waited_for() {
    let redis = RedisServer::start();
    let ours = settings(Some(&redis.url()));
    let mut bus = TestBus::start(ours.clone()).await;
    // Three of the node, and the one that asks.
    let in_use = redis.info("clients", "connected_clients");
    assert_eq!(redis.command(&["CONFIG", "SET", "maxclients", &in_use]).trim(), "OK");
    let findings = looked_at(&ours).await;
    let finding = findings.iter().find(|finding| finding.detail.contains("maxclients"));
    assert!(finding.is_some_and(|finding| finding.weight != Weight::Good), "{findings:#?}");

    let mut late = TestBus::try_start(settings(Some(&redis.url()))).await.unwrap();
    while !late.bus.health().trouble.is_some_and(|text| text.contains("maxclients")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    works(&mut bus).await;
    until("there is room again", || redis.command(&["CONFIG", "SET", "maxclients", "1000"]).trim() == "OK");
    late.until_up().await;
    late.end().await;
    bus.end().await;
}
