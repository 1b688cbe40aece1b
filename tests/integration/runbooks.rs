//! The runbooks of docs/operations.md: their commands, as they stand there, on real servers, while events are published and
//! editors follow. Nobody may be silently stale, and nobody is told more than the page says.

use std::sync::atomic::{AtomicBool, Ordering};

use carillon::bus::BusError;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{
    load::{Cms, in_step, named},
    node::{Node, Ws, token, until},
    redis::{RedisServer, free_port, until as until_redis},
    runbook::Runbook,
};

async fn is_ready(node: &Node) -> bool {
    node.get("/readyz").await.status == 200
}

/// A session that goes on where another one stood, and all that it is told to read again.
async fn comes_back(node: &Node, user: &str, at: &Value, positions: &Value) -> (Ws<TcpStream>, Vec<Value>) {
    let mut ws = node.socket().await;
    let topics = positions.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let resume = json!({"at": at, "positions": positions});
    ws.send(&json!({"type": "connect", "token": token(user, &["*"]), "topics": topics, "resume": resume}))
        .await;
    let told = told(&mut ws, &topics).await;
    (ws, told)
}

/// The reasons of the resyncs until each of these topics was told.
async fn told(ws: &mut Ws<TcpStream>, topics: &[String]) -> Vec<Value> {
    let (mut reasons, mut missing) = (Vec::new(), topics.to_vec());
    while !missing.is_empty() {
        let resync = ws.message_of("resync").await;
        missing.retain(|topic| !resync["topics"].as_array().unwrap().contains(&json!(topic)));
        reasons.push(resync["reason"].clone());
    }
    reasons
}

/// The next event; nobody is told once more to read `comments:1` again.
async fn next_event(ws: &mut Ws<TcpStream>) -> Value {
    loop {
        let message = ws.message().await;
        let again = message["topics"].as_array().is_some_and(|topics| topics.contains(&json!("comments:1")));
        assert!(!again || message["type"] != "resync", "told twice: {message}");
        if message["type"] == "event" {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_upgraded_while_editors_work() {
    let old = RedisServer::older("save \"\"\n");
    let sentinel = RedisServer::sentinel(old.port(), 1);
    let new = RedisServer::start();
    let url = format!("redis-sentinel://{}/mymaster", sentinel.address());
    let node = Node::start(&[("redis.url", &url)]).await;
    let mut cms = Cms::open(&url).await;
    let names = ["comments:1", "comments:2", "projects:1"].map(str::to_owned);
    let topics = names.iter().map(String::as_str).collect::<Vec<_>>();
    let (mut anna, welcome) = node.session("anna", &topics).await;

    let mut book = Runbook::open(
        "Upgrade Redis while editors work",
        &[
            ("OLD", old.address()),
            ("NEW", new.address()),
            ("SENTINEL", sentinel.address()),
            ("NODE", node.internal.to_string()),
        ],
    );
    let enough = AtomicBool::new(false);
    let steps = async {
        for _ in 0..3 {
            book.step().await;
        }
        // Nodes are with the new server by now: what the old one accepted nobody would see.
        let event = r#"{"type":"a.b"}"#;
        let answer = old.command(&["FCALL", "carillon_publish", "1", "carillon:comments:1", event]);
        assert!(answer.starts_with("NOREPLICAS") || answer.starts_with("READONLY"), "{answer}");
        book.step().await;
        enough.store(true, Ordering::Relaxed);
    };
    let (published, ()) = tokio::join!(cms.publish(&names, &enough), steps);
    book.end();
    // What was published at the end lies in the new server, whatever became of the old one.
    assert!(new.info("replication", "role").starts_with("master"));
    let reasons = in_step(&mut anna, &welcome, &published).await;
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| reason == "redis-changed"), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_restored_is_told_to_everybody_once() {
    let mut redis = RedisServer::with("save \"\"\nappendonly yes\n");
    let node = Node::start(&[("redis.url", &redis.url())]).await;
    let mut cms = Cms::open(&redis.url()).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    let data = redis.config().parent().unwrap().display().to_string();
    let mut book = Runbook::open(
        "Back up and restore Redis",
        &[
            ("REDIS", redis.address()),
            ("DATA", data.clone()),
            ("CONF", redis.config().display().to_string()),
            ("BACKUP", format!("{data}/backup.rdb")),
        ],
    );
    for n in 0..3 {
        cms.insist("comments:1", &named(&format!("before-{n}"))).await;
    }
    book.step().await;
    let mut last = Value::Null;
    for n in 0..2 {
        cms.insist("comments:1", &named(&format!("after-{n}"))).await;
    }
    for _ in 0..5 {
        last = anna.message_of("event").await;
    }
    assert!(last["position"].as_str().unwrap().ends_with("-5"), "{last}");

    book.step().await;
    redis.kill();
    redis.revive();
    book.step().await;
    book.end();
    until("the node to be ready again", || is_ready(&node)).await;
    assert!(redis.command(&["CONFIG", "GET", "appendonly"]).contains("yes"));

    // Anna stayed, and bo comes back with what he had: both know of events that the log has no longer.
    assert_eq!(told(&mut anna, &["comments:1".to_owned()]).await, [json!("redis-changed")]);
    let positions = json!({"comments:1": last["position"]});
    let (mut bo, told_bo) = comes_back(&node, "bo", &last["at"], &positions).await;
    assert_eq!(told_bo, [json!("redis-changed")]);
    // An event that was in the backup is known, one from after it is recorded anew: it is the next thing that both see.
    assert_eq!(cms.insist("comments:1", &named("before-2")).await.seq, 3);
    assert_eq!(cms.insist("comments:1", &named("after-0")).await.seq, 4);
    for ws in [&mut anna, &mut bo] {
        let next = next_event(ws).await;
        assert!(next["position"].as_str().unwrap().ends_with("-4"), "{next}");
    }
    // The next start reads what was restored and what came since. On a busy disk, Redis writes a moment after it has answered.
    until_redis("the log is written", || redis.info("persistence", "aof_buffer_length") == "0");
    redis.kill();
    redis.revive();
    until_redis("the log is loaded", || redis.command(&["XLEN", "carillon:comments:1"]).trim() == "4");
}

/// Six servers that do not know each other yet.
fn members() -> Vec<RedisServer> {
    let member = |_| {
        RedisServer::with(&format!(
            "save \"\"\ncluster-enabled yes\ncluster-config-file {{dir}}/nodes.conf\ncluster-node-timeout 5000\n\
             cluster-port {}\n",
            free_port()
        ))
    };
    (0..6).map(member).collect()
}

/// The chapter about moving, from one Redis to these servers.
fn moving(old: &RedisServer, addresses: &[String], cluster: &str) -> Runbook {
    Runbook::open(
        "Move to a cluster",
        &[
            ("OLD", old.address()),
            ("MEMBERS", addresses.join(" ")),
            ("FIRST", addresses[0].clone()),
            ("NEW_URL", cluster.to_owned()),
            ("CARILLON__AUTH__MODE", "none".into()),
        ],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_moves_to_a_cluster_and_nobody_is_silently_behind() {
    let old = RedisServer::start();
    let members = tokio::task::spawn_blocking(members).await.unwrap();
    let addresses = members.iter().map(RedisServer::address).collect::<Vec<_>>();
    let cluster = format!("redis-cluster://{}", addresses.join(","));
    let (one, two) =
        (Node::start(&[("redis.url", &old.url())]).await, Node::start(&[("redis.url", &old.url())]).await);
    let mut cms = Cms::open(&old.url()).await;
    let (mut anna, _) = one.session("anna", &["comments:1", "projects:1"]).await;
    let (mut bo, _) = two.session("bo", &["comments:1"]).await;
    for name in ["comments:1", "projects:1"] {
        cms.insist(name, &named("first")).await;
    }
    let last = (anna.message_of("event").await, anna.message_of("event").await);
    bo.message_of("event").await;
    let positions = json!({"comments:1": last.0["position"], "projects:1": last.1["position"]});
    assert_eq!(one.post("/disconnect", br#"{"user":"eve of two words"}"#).await.status, 200);

    let mut book = moving(&old, &addresses, &cluster);
    book.step().await;
    until_redis("the cluster is whole", || {
        members.iter().all(|member| member.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    });
    book.step().await;
    // From here on nothing is recorded where half of the nodes would not see it, and every page says so.
    book.step().await;
    book.end();
    for ws in [&mut anna, &mut bo] {
        assert_eq!(ws.message_of("status").await["live"], json!(false));
    }
    let refused = cms.try_once("comments:1", &named("second")).await;
    assert!(matches!(&refused, Err(BusError::Away(_))), "{refused:?}");

    // Node after node, the publisher in between: the second node still waits for the old Redis.
    let three = Node::start(&[("redis.url", &cluster)]).await;
    let mut cms = Cms::open(&cluster).await;
    cms.insist("comments:1", &named("second")).await;
    one.stop();
    anna.closed().await;
    let (mut anna, told) = comes_back(&three, "anna", &last.1["at"], &positions).await;
    assert!(told.iter().all(|reason| reason == "redis-changed"), "{told:?}");
    cms.insist("comments:1", &named("third")).await;
    assert!(anna.message_of("event").await["position"].as_str().unwrap().ends_with("-2"));
    two.stop();
    bo.closed().await;
    let positions = json!({"comments:1": last.0["position"]});
    let (mut bo, told) = comes_back(&three, "bo", &last.0["at"], &positions).await;
    assert_eq!(told, [json!("redis-changed")]);
    cms.insist("comments:1", &named("fourth")).await;
    for ws in [&mut anna, &mut bo] {
        assert!(ws.message_of("event").await["position"].as_str().unwrap().ends_with("-3"));
    }
    eve_stays_out(&three).await;
}

/// Who was shut out before the move.
async fn eve_stays_out(three: &Node) {
    let mut eve = three.socket().await;
    eve.send(
        &json!({"type": "connect", "token": token("eve of two words", &["*"]), "topics": ["comments:1"]}),
    )
    .await;
    assert_eq!(eve.closed().await.0, 4401);
}
