//! What the users that `carillon redis-function --acl` prints may do in Redis, and what they may not.

use std::{process::Command, time::Duration};

use crate::{
    bus_access::{with_login, works},
    support::{
        bus::{TestBus, numbered, settings, subject, topic},
        redis::RedisServer,
    },
};
use carillon::{
    bus::{BusEvent, Settings, redis},
    protocol::{EntryId, Kind, Whom},
};

/// Applies the lines that `carillon redis-function --acl` prints, with the password `pw`.
fn apply_acl(redis: &RedisServer, settings: &Settings) {
    for line in redis::acl(settings, &settings.areas.names().collect::<Vec<_>>())
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let line = line.replace(">CHANGE-ME", ">pw");
        let answer = redis.command(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(answer.trim(), "OK", "{line}");
    }
}

#[tokio::test]
async fn a_node_and_a_publisher_work_with_exactly_the_rights_that_are_printed() {
    let redis = RedisServer::start();
    let node = with_login(&redis, Some("carillon-node"), Some("pw"));
    apply_acl(&redis, &node);
    let mut bus = TestBus::start(node).await;
    works(&mut bus).await;
    bus.follow(&["projects:*"]).await;
    bus.bus.publish_live(topic("projects:1"), numbered(1)).await.unwrap();
    let mut heads = bus.bus.heads(vec![topic("comments:1"), topic("projects")]).await;
    assert!(heads.remove(1).is_ok());
    assert_eq!(bus.bus.history(topic("comments:1"), EntryId::default()).await.unwrap().entries.len(), 1);
    assert_eq!(heads.remove(0).unwrap().top.seq, 1);
    bus.bus.mark(vec!["comments".into()], Duration::ZERO).await.unwrap();
    bus.bus.marks().await.unwrap();
    bus.bus.announce("{}".into()).await.unwrap();
    assert_eq!(bus.bus.nodes().await.unwrap().len(), 1);
    bus.bus.revoke(Kind::Disconnect, Whom::User("anna".into())).await.unwrap();
    bus.until(|event| matches!(event, BusEvent::Revoked { .. }).then_some(())).await;
    bus.bus.unsubscribe(vec![subject("projects:*")]).await;

    let cli = |args: &[&str]| {
        let port = redis.port().to_string();
        let login = ["-p", &port, "--user", "carillon-publisher", "--pass", "pw", "--no-auth-warning"];
        let output = Command::new("redis-cli").args(login).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let event = r#"{"type":"a.b","id":"1"}"#;
    assert_eq!(cli(&["FCALL", "carillon_source", "1", "carillon:sources", "cms", "20"]).trim(), "OK");
    assert_eq!(cli(&["FCALL", "carillon_positions", "1", "carillon:comments:1"]).lines().count(), 2);
    let both = ["FCALL", "carillon_publish", "2", "carillon:comments", "carillon:projects:1", event];
    assert_eq!(cli(&both).lines().count(), 2);
    let id = cli(&["FCALL", "carillon_publish", "1", "carillon:comments:1", event]);
    assert!(id.trim().ends_with("-2"), "{id}");
    assert_eq!(cli(&["FCALL", "carillon_publish", "1", "carillon:comments:1", event]), id);
    assert_eq!(cli(&["PUBLISH", "carillon:comments:1", event]).trim(), "1");
    for forbidden in [
        &["FLUSHALL"][..],
        &["GET", "other"],
        &["PUBLISH", "other", "x"],
        &["FUNCTION", "FLUSH"],
        &["CONFIG", "GET", "*"],
        &["SUBSCRIBE", "carillon:comments:1"],
        &["FCALL", "carillon_publish", "1", "other:comments:1", event],
        // What nodes keep, and what logs do not need.
        &["PUBLISH", "carillon:control:{carillon}", r#"{"disconnect":"anna"}"#],
        &["PUBLISH", "carillon:probe:{node-0}", "1 2 3 4 5"],
        &["HSET", "carillon:nodes:{carillon}", "evil", "99999999999999 {}"],
        &["HSET", "carillon:live:{carillon}", "comments", "99999999999999"],
        &["FCALL", "carillon_announce", "1", "carillon:nodes:{carillon}", "evil", "600000", "{}"],
        &["FCALL", "carillon_mark", "1", "carillon:live:{carillon}", "99999999", "content"],
        &["FCALL", "carillon_probe", "1", "carillon:probe:{node-0}", "x"],
        &["FCALL", "carillon_history", "1", "carillon:comments:1", "0-0"],
        &["XRANGE", "carillon:comments:1", "-", "+"],
        &["XTRIM", "carillon:comments:1", "MAXLEN", "0"],
        &["RENAME", "carillon:comments:1", "carillon:comments:2"],
        &["HSET", "carillon:comments:77", "a", "b"],
        &["XADD", "carillon:sources", "*", "a", "b"],
        &["XADD", "carillon:ids:{carillon:comments:1}", "*", "a", "b"],
    ] {
        let answer = cli(forbidden);
        let refused =
            answer.starts_with("NOPERM") || answer.starts_with("ERR The user executing the script can't");
        assert!(refused, "{forbidden:?}: {answer}");
    }
    bus.end().await;
}

#[tokio::test]
async fn a_publisher_of_some_areas_reaches_no_other() {
    let redis = RedisServer::start();
    let ours = settings(Some(&redis.url()));
    let bus = TestBus::start(ours.clone()).await;
    let lines = redis::acl(&ours, &["comments", "content"].map(str::to_owned));
    let line = lines.lines().next().unwrap().replace(">CHANGE-ME", ">pw");
    assert_eq!(redis.command(&line.split_whitespace().collect::<Vec<_>>()).trim(), "OK", "{line}");
    let cli = |args: &[&str]| {
        let port = redis.port().to_string();
        let login = ["-p", &port, "--user", "carillon-publisher", "--pass", "pw", "--no-auth-warning"];
        let output = Command::new("redis-cli").args(login).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let event = r#"{"type":"a.b","id":"1"}"#;
    for at in ["comments", "comments:1", "content:1"] {
        let key = format!("carillon:{at}");
        assert!(cli(&["FCALL", "carillon_publish", "1", &key, event]).trim().ends_with("-1"));
        assert!(!cli(&["PUBLISH", &key, event]).starts_with("NOPERM"));
    }
    for at in ["projects", "projects:1", "notifications:anna", "project-items:1", "content-2"] {
        let key = format!("carillon:{at}");
        for args in [&["FCALL", "carillon_publish", "1", &key, event][..], &["PUBLISH", &key, event]] {
            let answer = cli(args);
            assert!(answer.starts_with("NOPERM"), "{args:?}: {answer}");
        }
        let both = cli(&["FCALL", "carillon_publish", "2", "carillon:comments:1", &key, event]);
        assert!(both.starts_with("NOPERM"), "{both}");
    }
    bus.end().await;
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let redis = RedisServer::start();
    let node = with_login(&redis, Some("carillon-node"), Some("pw"));
    apply_acl(&redis, &node);
    for right in ["fcall", "function|load", "info", "subscribe", "xadd"] {
        redis.command(&["FUNCTION", "FLUSH"]);
        redis.command(&["ACL", "SETUSER", "carillon-node", &format!("-{right}")]);
        let started = TestBus::try_start(node.clone()).await;
        redis.command(&["ACL", "SETUSER", "carillon-node", &format!("+{right}")]);
        // XADD is missed by the first publish only.
        if right == "xadd" {
            let bus = started.unwrap();
            bus.end().await;
            continue;
        }
        let text = started.err().unwrap_or_else(|| panic!("started without {right}")).to_string();
        assert!(text.contains(&format!("+{right}")) && text.contains("--acl"), "{right}: {text}");
    }
    // Without the right to look at its own connection it works all the same.
    redis.command(&["ACL", "SETUSER", "carillon-node", "-client|info"]);
    let mut bus = TestBus::start(node).await;
    works(&mut bus).await;
    for _ in 0..3 {
        bus.until(|event| match event {
            BusEvent::Proof { .. } => Some(()),
            BusEvent::Link(link) => panic!("{link:?}"),
            _ => None,
        })
        .await;
    }
    bus.end().await;
}
