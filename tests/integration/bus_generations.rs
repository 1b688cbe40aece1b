//! Settings that change while nodes run (`settings.generation`): an area is added, a log lengthened, an area taken away, and
//! all of it taken back, on real nodes that are replaced one after the other.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{
    node::{Node, config, token, until, within},
    redis::RedisServer,
    streams::{Events, poll},
};
use serde_json::json;

const MORE: &str = "comments,project-items,projects,notifications,content,tree";
const FEWER: &str = "comments,project-items,projects,notifications";

fn settings<'a>(url: &'a str, generation: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("redis.url", url), ("settings.generation", generation)], more].concat()
}

async fn start(url: &str, generation: &str, more: &[(&str, &str)]) -> Node {
    Node::start(&settings(url, generation, more)).await
}

/// What the function answers to an event of this topic.
fn publish(redis: &RedisServer, topic: &str, n: usize) -> String {
    let event = json!({"type": "comment.created", "data": {"n": n}}).to_string();
    redis.command(&["FCALL", "carillon_publish", "1", &format!("carillon:{topic}"), &event]).trim().to_owned()
}

fn is_position(answer: &str) -> bool {
    answer
        .split_once('-')
        .is_some_and(|(epoch, seq)| epoch.parse::<u64>().is_ok() && seq.parse::<u64>().is_ok())
}

/// A setting of the library that is loaded.
fn loaded(redis: &RedisServer, name: &str) -> String {
    let answer = redis.command(&["FCALL", "carillon_settings", "0"]);
    let mut lines = answer.lines().skip_while(|line| *line != name);
    lines.nth(1).unwrap_or_default().to_owned()
}

async fn takes(node: &Node, topic: &str) -> bool {
    let body = json!({"topic": topic, "event": {"type": "a.b"}}).to_string();
    node.post("/publish", body.as_bytes()).await.status == 200
}

#[tokio::test]
async fn an_area_is_added_and_a_log_lengthened_without_a_refused_publish_or_a_resync() {
    let redis = RedisServer::start();
    let url = redis.url();
    let old = start(&url, "0", &[]).await;
    let (mut anna, _) = old.session("anna", &["comments:1"]).await;
    let done = AtomicBool::new(false);
    let publishing = async {
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            let answer = publish(&redis, "comments:1", count);
            assert!(is_position(&answer), "event {count}: {answer}");
            count += 1;
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        count
    };
    let rolling = async {
        let new = start(&url, "1", &[("areas.names", MORE), ("log.length", "2000")]).await;
        assert_eq!(
            (loaded(&redis, "generation").as_str(), loaded(&redis, "log_length").as_str()),
            ("1", "2000")
        );
        assert!(is_position(&publish(&redis, "tree:1", 0)), "the new area takes events at once");
        // The old node takes them as well, and its sessions follow it.
        assert!(takes(&old, "tree:1").await, "the old node has not looked");
        let (mut bo, welcome) = old.session("bo", &["tree:1"]).await;
        assert_eq!(welcome["refused"], json!([]), "{welcome}");
        new.publish("tree:1", &json!({"type": "page.moved"})).await;
        assert_eq!(bo.message_of("event").await["topic"], "tree:1");
        // It keeps them when it is restarted with its own configuration.
        let again = start(&url, "0", &[]).await;
        assert_eq!(
            (loaded(&redis, "generation").as_str(), loaded(&redis, "areas").contains("tree")),
            ("1", true)
        );
        assert!(takes(&again, "tree:1").await);
        done.store(true, Ordering::Relaxed);
    };
    let (count, ()) = within("the rolling restart", async { tokio::join!(publishing, rolling) }).await;
    for n in 0..count {
        let message = anna.message().await;
        assert_eq!(
            (&message["type"], &message["event"]["data"]["n"]),
            (&json!("event"), &json!(n)),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_area_that_is_taken_away_ends_its_subscriptions_on_every_transport() {
    let redis = RedisServer::start();
    let url = redis.url();
    let old = start(&url, "3", &[]).await;
    let (mut anna, _) = old.session("anna", &["content:1", "comments:1"]).await;
    let bearer = format!("Bearer {}", token("bo", &["*"]));
    let mut stream = Events::open(&old, "topics=content:1", &[("Authorization", &bearer)]).await;
    stream.gather(1).await;
    let query = format!("topics=content:1,comments:1&token={}", token("cy", &["*"]));
    let cursor = poll(&old, &query).await["cursor"].clone();
    let new = start(&url, "4", &[("areas.names", FEWER)]).await;
    let answer = publish(&redis, "content:1", 0);
    assert!(
        answer.starts_with("TOPIC") && answer.contains("content") && answer.contains("project-items"),
        "{answer}"
    );
    let ended = json!({"type": "unsubscribed", "topics": ["content:1", "content"]});
    assert_eq!(anna.message_of("unsubscribed").await, ended);
    assert_eq!(stream.messages().await, vec![ended]);
    let next = format!("{query}&cursor={}", cursor.as_str().unwrap());
    let answer = poll(&old, &next).await;
    assert_eq!(answer["messages"][0], json!({"type": "unsubscribed", "topics": ["content:1"]}), "{answer}");
    // The rest goes on.
    new.publish("comments:1", &json!({"type": "comment.created"})).await;
    assert_eq!(anna.message_of("event").await["topic"], "comments:1");
    let body = json!({"topic": "content:1", "event": {"type": "a.b"}}).to_string();
    let refused = old.post("/publish", body.as_bytes()).await;
    assert_eq!(refused.problem(), (400, "bad-topic".to_owned()), "{refused:?}");
    let (_, welcome) = old.session("dan", &["content:1", "comments:1"]).await;
    assert_eq!(welcome["refused"], json!([{"topic": "content:1", "code": "bad-topic"}]));
}

#[tokio::test]
async fn going_back_raises_the_number_and_equal_numbers_must_agree() {
    let redis = RedisServer::start();
    let url = redis.url();
    let (one, two) = (start(&url, "0", &[]).await, start(&url, "1", &[("areas.names", FEWER)]).await);
    until("the area to be gone", || async { !takes(&one, "content:1").await }).await;
    let config = crate::support::node::config(&settings(&url, "1", &[]));
    let refused = Node::launch(config).stopped().await.unwrap_err().to_string();
    assert!(
        refused.contains("areas.names is") && refused.contains("raise settings.generation above 1"),
        "{refused}"
    );
    assert_eq!(loaded(&redis, "areas"), FEWER_SORTED);
    let back = start(&url, "2", &[]).await;
    for node in [&one, &two, &back] {
        until("the area to be back", || takes(node, "content:1")).await;
    }
    // Somebody puts the old library back by hand: the next probe mends it.
    let (old, _) = run(&["redis-function"], &[("CARILLON__AREAS__NAMES", FEWER)]).await;
    redis.command(&["FUNCTION", "LOAD", "REPLACE", &old]);
    until("the library to be put right", || async { loaded(&redis, "generation") == "2" }).await;
}

/// As the library lists them.
const FEWER_SORTED: &str = "comments,notifications,project-items,projects";

#[tokio::test]
async fn a_library_that_is_lost_comes_back_with_the_settings_that_count() {
    let redis = RedisServer::start();
    let url = redis.url();
    let old = start(&url, "0", &[]).await;
    let new = start(&url, "7", &[("areas.names", MORE), ("limits.event_bytes", "1000")]).await;
    until("the old node to adopt them", || takes(&old, "tree:1")).await;
    new.stop();
    new.stopped().await.unwrap();
    redis.command(&["FUNCTION", "FLUSH"]);
    until("the library to be loaded", || async { loaded(&redis, "generation") == "7" }).await;
    assert_eq!((loaded(&redis, "event_bytes").as_str(), takes(&old, "tree:1").await), ("1000", true));
    let body = json!({"topic": "tree:1", "event": {"type": "a.b", "data": "x".repeat(1000)}}).to_string();
    assert_eq!(old.post("/publish", body.as_bytes()).await.problem().1, "bad-event");
}

#[tokio::test]
async fn the_printed_library_is_that_of_the_configuration_and_says_so() {
    let (text, _) =
        run(&["redis-function"], &[("CARILLON__SETTINGS__GENERATION", "5"), ("CARILLON__LOG__LENGTH", "77")])
            .await;
    assert!(text.contains("the library of one configuration"), "{text}");
    assert!(text.contains("local GENERATION = 5 ") && text.contains("local LOG_LENGTH = 77 "), "{text}");
}

/// What the program prints on standard output and on standard error.
async fn run(args: &[&str], environment: &[(&str, &str)]) -> (String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.args(args).env("CARILLON__AUTH__MODE", "none").env_remove("CARILLON_CONFIG");
    command.envs(environment.iter().copied());
    let output = within("the program", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn how_editors_are_named_is_not_adopted() {
    let redis = RedisServer::start();
    let url = redis.url();
    let folding = start(&url, "1", &[("auth.fold_subject", "true")]).await;
    let other = Node::launch(config(&settings(&url, "0", &[])));
    let error = other.stopped().await.unwrap_err().to_string();
    assert!(error.contains("auth.fold_subject is \"true\" there and \"false\" here"), "{error}");
    assert!(takes(&folding, "notifications:ANNA").await);
    drop(start(&url, "0", &[("auth.fold_subject", "true"), ("log.length", "99")]).await);
}
