//! What `carillon doctor` finds out about Redis.

use crate::support::{
    bus::{DEADLINE, TestBus, settings},
    cluster::RedisCluster,
    redis::{RedisServer, free_port, until},
};
use carillon::{
    bus::{
        Settings,
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
        ("PING", "connection", "has no command PING"),
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
