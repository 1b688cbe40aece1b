//! Messages that look recorded and are in no log: whoever may publish to a channel of Redis can write them. They are told as a
//! `resync`, counted, and hide no event.

use crate::support::{
    node::{Node, token},
    redis::RedisServer,
};
use serde_json::json;

#[tokio::test]
async fn a_message_that_is_in_no_log_is_told_once_and_asked_for_once() {
    let redis = RedisServer::start();
    let node = Node::start(&[("redis.url", &redis.url())]).await;
    let (mut anna, welcome) = node.session("anna", &["comments:1"]).await;
    let position = welcome["positions"]["comments:1"].as_str().unwrap();
    let (before, _) = position.rsplit_once('-').unwrap();
    let forged = format!("{}-900 {{\"type\":\"a.b\"}}", before.rsplit_once('.').unwrap().1);
    redis.command(&["PUBLISH", "carillon:comments:1", &forged]);
    let resync = anna.message_of("resync").await;
    assert_eq!(
        (&resync["reason"], &resync["topics"]),
        (&json!("invalid"), &json!(["comments:1"])),
        "{resync}"
    );
    assert_eq!(resync["positions"]["comments:1"], json!(position));
    node.publish("comments:1", &json!({"type": "comment.created"})).await;
    assert_eq!(anna.message_of("event").await["position"], json!(format!("{before}-1")));
    let metrics = node.get("/metrics").await.text();
    assert!(metrics.contains("carillon_events_invalid_total{reason=\"not-in-log\"} 1"), "{metrics}");
    assert!(metrics.contains("carillon_history_reads_total 1\n"), "{metrics}");
}

/// What was forged with the next number takes the place of the event that really gets it: whichever comes first, the two
/// are told as a `resync`, and what comes back later is answered by the log.
#[tokio::test]
async fn a_forged_message_hides_no_event_whichever_comes_first() {
    let redis = RedisServer::start();
    let node = Node::start(&[("redis.url", &redis.url())]).await;
    let (mut anna, welcome) = node.session("anna", &["comments:1"]).await;
    let (mut wide, _) = node.session("wide", &["comments:*"]).await;
    let first = welcome["positions"]["comments:1"].as_str().unwrap().to_owned();
    let before = first.rsplit_once('-').unwrap().0;
    let epoch = before.rsplit_once('.').unwrap().1;
    let forge = |number: u64| {
        let message = format!(r#"{epoch}-{number} {{"type":"for.ged"}}"#);
        redis.command(&["PUBLISH", "carillon:comments:1", &message]);
    };
    for (number, forged_first) in [(1, true), (2, false)] {
        let event = json!({"type": "comment.created", "n": number});
        if forged_first {
            forge(number);
            assert_eq!(anna.message_of("event").await["event"]["type"], "for.ged");
            node.publish("comments:1", &event).await;
        } else {
            node.publish("comments:1", &event).await;
            assert_eq!(anna.message_of("event").await["event"]["n"], number);
            forge(number);
        }
        let resync = anna.message_of("resync").await;
        assert_eq!((&resync["reason"], &resync["topics"]), (&json!("invalid"), &json!(["comments:1"])));
        assert_eq!(resync["positions"]["comments:1"], json!(format!("{before}-{number}")));
        wide.message_of("resync").await;
    }
    let resume = json!({"at": welcome["at"], "positions": {"comments:1": first}});
    let mut back = node.socket().await;
    back.send(
        &json!({"type": "connect", "token": token("bo", &["*"]), "topics": ["comments:1"], "resume": resume}),
    )
    .await;
    for number in [1, 2] {
        assert_eq!(back.message_of("event").await["event"]["n"], number, "the log's own");
    }
    let metrics = node.get("/metrics").await.text();
    assert!(metrics.contains("carillon_events_invalid_total{reason=\"not-in-log\"} 2"), "{metrics}");
}

/// Nothing takes the forged number: the next look at the log's end shows it.
#[tokio::test]
async fn a_forged_message_that_nothing_follows_is_told_with_the_next_look_at_the_log() {
    let redis = RedisServer::start();
    let node = Node::start(&[("redis.url", &redis.url())]).await;
    let (mut anna, welcome) = node.session("anna", &["comments:1"]).await;
    let position = welcome["positions"]["comments:1"].as_str().unwrap();
    let id = position.rsplit_once('.').unwrap().1.replace("-0", "-1");
    redis.command(&["PUBLISH", "carillon:comments:1", &format!(r#"{id} {{"type":"for.ged"}}"#)]);
    assert_eq!(anna.message_of("event").await["event"]["type"], "for.ged");
    let resync = anna.message_of("resync").await;
    assert_eq!(
        (&resync["reason"], &resync["positions"]["comments:1"]),
        (&json!("invalid"), &json!(position))
    );
    node.publish("comments:1", &json!({"type": "comment.created"})).await;
    assert_eq!(anna.message_of("event").await["event"]["type"], "comment.created");
}
