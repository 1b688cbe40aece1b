//! What `carillon doctor` finds out about Redis.

use crate::support::{
    bus::{DEADLINE, TestBus, settings},
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
