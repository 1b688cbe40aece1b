//! Sources that fall silent or fall behind: told on every transport, by every node, and over with a report, a good-bye or
//! `carillon source forget`. Redis and nodes are real.

use serde_json::{Value, json};

use crate::support::{
    node::{Node, Ws, token, until, within},
    redis::RedisServer,
    streams::{Events, poll},
};
use tokio::net::TcpStream;

/// Calls `carillon_source` with these arguments.
fn report(redis: &RedisServer, args: &[&str]) {
    let call = [&["FCALL", "carillon_source", "1", "carillon:sources"][..], args].concat();
    assert_eq!(redis.command(&call).trim(), "OK", "{args:?}");
}

fn names(late: &Value) -> Vec<&str> {
    late.as_array()
        .unwrap_or_else(|| panic!("no list: {late}"))
        .iter()
        .map(|l| l["source"].as_str().unwrap())
        .collect()
}

/// The next message that says who is late.
async fn told(ws: &mut Ws<TcpStream>) -> Value {
    let status = ws.message_of("status").await;
    assert_eq!(status["live"], true, "the state stays: {status}");
    status["late"].clone()
}

async fn knows(node: &Node, what: &str, holds: impl Fn(&[Value]) -> bool) {
    until(what, || async {
        let status = node.get("/status").await.json();
        holds(status["this"]["sources"].as_array().unwrap())
    })
    .await;
}

async fn over(redis: &RedisServer) -> Node {
    Node::start(&[("redis.url", &redis.url())]).await
}

#[tokio::test]
async fn what_waits_is_told_on_every_transport_and_by_every_node() {
    let redis = RedisServer::start();
    let (one, two) = (over(&redis).await, over(&redis).await);
    let (mut anna, welcome) = one.session("anna", &["comments:1"]).await;
    assert!(welcome.get("late").is_none(), "without sources nothing is said: {welcome}");
    let bearer = format!("Bearer {}", token("bo", &["*"]));
    let mut stream = Events::open(&two, "topics=comments:1", &[("Authorization", &bearer)]).await;
    assert_eq!(stream.gather(1).await[0]["type"], "welcome");
    let query = format!("topics=comments:1&token={}", token("cy", &["*"]));
    let first = poll(&two, &query).await;
    let next = |answer: &Value| format!("{query}&cursor={}", answer["cursor"].as_str().unwrap());
    let waiting = next(&first);
    let waiting = poll(&two, &waiting);
    let reported = async {
        report(&redis, &["cms", "300", "11000"]);
        let late = told(&mut anna).await;
        assert_eq!(names(&late), ["cms"]);
        assert!(humantime::parse_rfc3339(late[0]["since"].as_str().unwrap()).is_ok(), "{late}");
        assert_eq!(names(&stream.gather(1).await[0]["late"]), ["cms"]);
    };
    let (answer, ()) = tokio::join!(waiting, reported);
    assert_eq!(names(&answer["messages"][0]["late"]), ["cms"], "{answer}");
    // Whoever comes now is told at once; whoever goes on with a cursor knows it already, at the other node too.
    let (mut dan, welcome) = two.session("dan", &["comments:1"]).await;
    assert_eq!((names(&welcome["late"]), &welcome["live"]), (vec!["cms"], &json!(true)));
    let again = next(&answer);
    let again = poll(&one, &again);
    let healthy = async {
        // The poll waits, because there is nothing to tell it.
        knows(&one, "the poll", |_| true).await;
        one.publish("comments:1", &json!({"type": "comment.created"})).await;
    };
    let (answer, ()) = tokio::join!(again, healthy);
    assert_eq!(answer["messages"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(answer["messages"][0]["type"], "event", "{answer}");
    report(&redis, &["cms", "300"]);
    for ws in [&mut anna, &mut dan] {
        assert_eq!(told(ws).await, json!([]));
    }
    let ended =
        stream.messages().await.into_iter().chain(stream.messages().await).find(|m| m["type"] == "status");
    assert_eq!(ended.unwrap()["late"], json!([]));
    knows(&one, "a healthy report", |sources| sources[0]["late"] == false).await;
    let answer = poll(&one, &next(&answer)).await;
    assert_eq!(answer["messages"][0]["late"], json!([]), "over between two polls: {answer}");
    assert_eq!(one.session("eve", &["comments:1"]).await.1["late"], json!([]));
}

#[tokio::test]
async fn silence_is_told_and_a_good_bye_is_none() {
    let redis = RedisServer::start();
    let node = over(&redis).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    report(&redis, &["leaves", "5"]);
    report(&redis, &["vanishes", "5"]);
    knows(&node, "both", |sources| sources.len() == 2).await;
    report(&redis, &["leaves", "0"]);
    assert_eq!(names(&told(&mut anna).await), ["vanishes"]);
    let metrics = node.get("/metrics").await.text();
    assert!(metrics.contains("carillon_source_late{source=\"vanishes\"} 1"), "{metrics}");
    assert!(!metrics.contains("source=\"leaves\""), "{metrics}");
    report(&redis, &["vanishes", "0"]);
    assert_eq!(told(&mut anna).await, json!([]));
    assert!(!node.get("/metrics").await.text().contains("vanishes"));
    assert!(node.session("bo", &["comments:1"]).await.1.get("late").is_none());
}

#[tokio::test]
async fn a_source_that_redis_lost_is_remembered_and_put_back() {
    let mut redis = RedisServer::start();
    let node = over(&redis).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    report(&redis, &["mute", "300", "60000"]);
    assert_eq!(names(&told(&mut anna).await), ["mute"]);
    redis.command(&["FLUSHALL"]);
    until("it to be put back", || async { redis.command(&["HKEYS", "carillon:sources"]).contains("mute") })
        .await;
    redis.restart_empty();
    until("it to be put back", || async { redis.command(&["HKEYS", "carillon:sources"]).contains("mute") })
        .await;
    // A node that starts only now is told by Redis.
    let later = over(&redis).await;
    knows(&later, "the source", |sources| sources.len() == 1 && sources[0]["late"] == true).await;
    assert_eq!(names(&later.session("bo", &["comments:1"]).await.1["late"]), ["mute"]);
    // Nothing of that was told as a change: what comes next is the end of it.
    report(&redis, &["mute", "0"]);
    loop {
        let status = anna.message_of("status").await;
        if status["late"] == json!([]) {
            break;
        }
        assert_eq!(names(&status["late"]), ["mute"], "{status}");
    }
}

#[tokio::test]
async fn a_redis_that_is_away_is_no_late_source() {
    let mut redis = RedisServer::with("appendonly yes\n");
    let node = over(&redis).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    report(&redis, &["cms", "5"]);
    let begun = std::time::Instant::now();
    knows(&node, "the source", |sources| sources.len() == 1).await;
    redis.kill();
    let status = anna.message_of("status").await;
    assert_eq!((&status["live"], &status["late"]), (&json!(false), &json!([])));
    until("the end of its vouching", || async { begun.elapsed().as_secs() > 5 }).await;
    redis.revive();
    loop {
        let status = anna.message_of("status").await;
        assert_eq!(status["late"], json!([]), "{status}");
        if status["live"] == true {
            break;
        }
    }
    report(&redis, &["cms", "300"]);
    knows(&node, "its report", |sources| sources[0]["vouched_seconds"].as_f64().unwrap() > 100.0).await;
    assert_eq!(node.session("bo", &["comments:1"]).await.1["late"], json!([]));
}

#[tokio::test]
async fn who_is_silent_for_too_long_is_forgotten() {
    let redis = RedisServer::start();
    let node = Node::start(&[("redis.url", &redis.url()), ("sources.forget_seconds", "3")]).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    report(&redis, &["cms", "5"]);
    assert_eq!(names(&told(&mut anna).await), ["cms"]);
    assert_eq!(told(&mut anna).await, json!([]));
    knows(&node, "nothing", <[Value]>::is_empty).await;
}

#[tokio::test]
async fn the_command_line_lists_and_forgets_and_the_doctor_names() {
    let redis = RedisServer::start();
    let node = over(&redis).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    let url = redis.url();
    let source = async |args: &[&str]| run(&[&["source"], args, &["--redis", &url]].concat()).await;
    assert!(source(&["list"]).await.1.contains("no publisher vouches for itself"));
    report(&redis, &["cms", "300"]);
    report(&redis, &["old", "300", "60000"]);
    assert_eq!(names(&told(&mut anna).await), ["old"]);
    let (listed, _) = source(&["list"]).await;
    let lines: Vec<_> = listed.lines().collect();
    assert!(
        lines[0].starts_with("cms  well: vouched for") && lines[0].ends_with("nothing waits"),
        "{listed}"
    );
    assert!(lines[1].starts_with("old  late: vouched for"), "{listed}");
    let (listed, _) = source(&["list", "--json"]).await;
    let entry: Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
    assert_eq!((&entry["source"], &entry["late"]), (&json!("old"), &json!(true)), "{listed}");
    assert!(source(&["forget", "no name"]).await.1.contains("is not the name of a source"));
    assert_eq!(source(&["forget", "old"]).await, (String::new(), String::new()));
    assert_eq!(told(&mut anna).await, json!([]));
    assert!(source(&["forget", "old"]).await.1.contains("Redis has no source \"old\""));
    assert!(!source(&["list"]).await.0.contains("old"));
    assert!(run(&["source", "list"]).await.1.contains("none is configured"));
}

/// What the program prints on standard output and on standard error.
async fn run(args: &[&str]) -> (String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_carillon"));
    let command = command.args(args).env("CARILLON__AUTH__MODE", "none").env_remove("CARILLON_CONFIG");
    let output = within("the program", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}
