//! `carillon forget`: a log is gone at once, whoever follows its topic is told once, on every node, and nothing else is
//! touched. Redis and nodes are real.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{
    cluster::RedisCluster,
    node::{Node, Ws, request, token, within},
    redis::RedisServer,
    streams::{Events, poll},
};

/// The program's exit code, and what it prints on standard output and on standard error.
async fn forget(args: &[&str]) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_carillon"));
    let command = command.arg("forget").args(args);
    let command = command.env("CARILLON__AUTH__MODE", "none").env_remove("CARILLON_CONFIG");
    let output = within("the program", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn named(id: &str) -> Value {
    json!({"type": "comment.created", "id": id, "data": {"text": "to be erased"}})
}

/// The one `resync` for the topic, and then the event that is published next.
async fn is_told_once(ws: &mut Ws<TcpStream>, at: &str) {
    let resync = ws.message_of("resync").await;
    assert_eq!((&resync["topics"], &resync["reason"]), (&json!([at]), &json!("log-replaced")), "{resync}");
    let start = resync["positions"][at].as_str().unwrap();
    assert!(start.ends_with("-0"), "{resync}");
    let next = ws.message().await;
    assert_eq!(next["type"], "event", "{next}");
    assert_eq!(next["position"].as_str().unwrap(), format!("{}1", &start[..start.len() - 1]));
}

/// What Redis has under the prefix that says anything of this text.
fn dump(redis: &RedisServer, key: &str) -> String {
    redis.command(&["XRANGE", key, "-", "+"])
}

#[tokio::test]
async fn followers_on_every_node_and_transport_are_told_once_and_the_log_is_gone() {
    let redis = RedisServer::start();
    let (one, two) = (over(&redis).await, over(&redis).await);
    let (mut anna, _) = one.session("anna", &["comments:1", "comments:2"]).await;
    let (mut bo, _) = two.session("bo", &["comments:1"]).await;
    let (mut wide, _) = two.session("cy", &["comments:*"]).await;
    let bearer = format!("Bearer {}", token("di", &["*"]));
    let mut stream = Events::open(&two, "topics=comments:1", &[("Authorization", &bearer)]).await;
    assert_eq!(stream.gather(1).await[0]["type"], "welcome");
    for id in ["a", "b"] {
        one.publish("comments:1", &named(id)).await;
        one.publish("comments:2", &named(id)).await;
    }
    let was = (bo.message_of("event").await, bo.message_of("event").await).1;
    let query = format!("topics=comments:1&token={}", token("ed", &["*"]));
    let away = poll(&two, &query).await["cursor"].as_str().unwrap().to_owned();
    for _ in 0..4 {
        anna.message_of("event").await;
        wide.message_of("event").await;
    }
    assert!(stream.gather(2).await.iter().all(|message| message["type"] == "event"));

    let answer = forget(&["comments:1", "--redis", &redis.url()]).await;
    assert_eq!(answer, (0, "comments:1: 2 events erased\n".into(), String::new()));
    assert!(dump(&redis, "carillon:comments:1").contains("WRONGTYPE"), "an empty log is a string");
    let companions = ["carillon:ids:{carillon:comments:1}", "carillon:ids-before:{carillon:comments:1}"];
    assert_eq!(redis.command(&["EXISTS", companions[0], companions[1]]).trim(), "0");
    assert!(dump(&redis, "carillon:comments:2").contains("to be erased"));

    let told = stream.gather(1).await;
    assert_eq!((&told[0]["type"], &told[0]["reason"]), (&json!("resync"), &json!("log-replaced")));
    let told = wide.message_of("resync").await;
    assert_eq!((&told["topics"], &told["reason"]), (&json!(["comments:*"]), &json!("log-replaced")));
    // A repeated id is known no longer.
    one.publish("comments:1", &named("a")).await;
    is_told_once(&mut anna, "comments:1").await;
    is_told_once(&mut bo, "comments:1").await;
    assert_eq!(wide.message().await["type"], "event");
    assert_eq!(stream.gather(1).await[0]["type"], "event");

    // Who was away finds another log.
    let back = poll(&two, &format!("{query}&cursor={away}")).await;
    assert_eq!(back["messages"][0]["reason"], "log-replaced", "{back}");
    let mut fay = one.socket().await;
    let positions = json!({"comments:1": was["position"]});
    let resume = json!({"at": was["at"], "positions": positions});
    let connect =
        json!({"type": "connect", "token": token("fay", &["*"]), "topics": ["comments:1"], "resume": resume});
    fay.send(&connect).await;
    assert_eq!(fay.message_of("resync").await["reason"], "log-replaced");
}

async fn over(redis: &RedisServer) -> Node {
    Node::start(&[("redis.url", &redis.url())]).await
}

#[tokio::test]
async fn quiet_and_private_topics_are_erased_and_what_is_not_there_is_said() {
    let redis = RedisServer::start();
    let node = over(&redis).await;
    let (mut anna, _) = node.session("anna", &["comments:1", "notifications:anna"]).await;
    node.publish("notifications:anna", &named("a")).await;
    anna.message_of("event").await;
    let url = redis.url();
    let topics = ["comments:1", "notifications:anna", "comments:77", "comments:1"];
    let (code, out, _) = forget(&[&topics[..], &["--json", "--redis", &url]].concat()).await;
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = [("comments:1", true, 0), ("notifications:anna", true, 1), ("comments:77", false, 0)];
    let expected: Vec<_> = expected
        .iter()
        .map(|(topic, found, events)| json!({"topic": topic, "found": found, "events": events}))
        .collect();
    assert_eq!((code, lines), (0, expected));
    let mut told = Vec::new();
    while told.len() < 2 {
        let resync = anna.message_of("resync").await;
        told.extend(resync["topics"].as_array().unwrap().iter().cloned());
    }
    told.sort_by_key(Value::to_string);
    assert_eq!(told, [json!("comments:1"), json!("notifications:anna")]);
    for at in ["comments:1", "notifications:anna"] {
        node.publish(at, &named("b")).await;
        let next = anna.message().await;
        assert_eq!((&next["type"], &next["topic"]), (&json!("event"), &json!(at)), "{next}");
    }
    assert_eq!(redis.command(&["EXISTS", "carillon:comments:77"]).trim(), "0");

    // One bad topic, and nothing is done; each is named.
    let args = ["comments:1", "nowhere:1", "comments:*", "notifications:%61nna", "--redis", &url];
    let (code, out, said) = forget(&args).await;
    assert_eq!((code, out.as_str()), (2, ""), "{said}");
    for part in ["\"nowhere\"", "comments:*", "notifications:anna", "nothing was erased"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(dump(&redis, "carillon:comments:1").contains("to be erased"));
    let (code, _, said) = forget(&["comments:1"]).await;
    assert!(code == 2 && said.contains("none is configured"), "{said}");
    let (code, _, said) = forget(&["comments:1", "comments:2", "--redis", "redis://127.0.0.1:1"]).await;
    assert!(code == 1 && said.contains("2 of 2 topics were not erased"), "{said}");
}

#[tokio::test]
async fn a_publishers_rights_do_for_its_areas_and_for_no_other() {
    let redis = RedisServer::start();
    let node = over(&redis).await;
    for at in ["comments:1", "content:1"] {
        node.publish(at, &named("a")).await;
    }
    let mut settings = crate::support::bus::settings(Some(&redis.url()));
    settings.prefix = "carillon".into();
    let acl = carillon::bus::redis::acl(&settings, &["comments".to_owned()]);
    let line = acl.lines().next().unwrap().replace("CHANGE-ME", "hers");
    let words = words_of(&line);
    assert_eq!(redis.command(&words.iter().map(String::as_str).collect::<Vec<_>>()).trim(), "OK");
    let url = format!("redis://carillon-publisher:hers@127.0.0.1:{}", redis.port());
    let (code, out, said) = forget(&["content:1", "comments:1", "--redis", &url]).await;
    assert_eq!((code, out.as_str()), (1, "comments:1: 1 event erased\n"), "{said}");
    assert!(said.contains("content:1 was not erased") && said.contains("NOPERM"), "{said}");
    assert!(said.contains("1 of 2 topics were not erased") && !said.contains("hers"), "{said}");
    assert!(dump(&redis, "carillon:content:1").contains("to be erased"));
}

/// The words of an ACL line; a selector in parentheses is one.
fn words_of(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut open = false;
    for word in line.split(' ') {
        if open {
            let last: &mut String = words.last_mut().unwrap();
            *last = format!("{last} {word}");
        } else {
            words.push(word.to_owned());
        }
        open = (open || word.starts_with('(')) && !word.ends_with(')');
    }
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_each_master_erases_its_own() {
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(3, 0)).await.unwrap();
    let node = Node::start(&[("redis.url", &cluster.url())]).await;
    let topics = ["comments:1", "comments:2", "comments:3", "projects"];
    let (mut anna, _) = node.session("anna", &topics).await;
    for at in topics {
        node.publish(at, &named("a")).await;
        anna.message_of("event").await;
    }
    let (code, out, said) = forget(&[&topics[..], &["--redis", &cluster.url()]].concat()).await;
    assert_eq!((code, out.matches("1 event erased").count()), (0, 4), "{out} {said}");
    let mut told = Vec::new();
    while told.len() < topics.len() {
        let resync = anna.message_of("resync").await;
        assert_eq!(resync["reason"], "log-replaced");
        told.extend(resync["topics"].as_array().unwrap().iter().cloned());
    }
    for at in topics {
        node.publish(at, &named("a")).await;
        let next = anna.message().await;
        assert_eq!((&next["type"], &next["topic"]), (&json!("event"), &json!(at)), "{next}");
        assert!(next["position"].as_str().unwrap().ends_with("-1"), "{next}");
    }
    let answer = request(node.internal, "GET", "/readyz", &[], b"").await;
    assert_eq!(answer.status, 200);
}
