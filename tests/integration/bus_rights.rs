//! What the users that `carillon redis-function --acl` prints may do in Redis, and what they may not.

use std::{process::Command, time::Duration};

use crate::{
    bus_access::{with_login, works},
    bus_doctor::looked_at,
    support::{
        bus::{TestBus, numbered, settings, subject, topic},
        redis::RedisServer,
    },
};
use carillon::{
    bus::{
        BusError, BusEvent, Settings,
        redis::{self, Finding, Weight},
    },
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
    refuses_what_a_publisher_may_not(&cli);
    bus.end().await;
}

/// `cli` runs a command as the publisher and gives Redis' answer.
fn refuses_what_a_publisher_may_not(cli: &impl Fn(&[&str]) -> String) {
    let event = r#"{"type":"a.b","id":"1"}"#;
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

/// Everything that a node does in Redis, each of which must work or say why not.
async fn does_all_or_says_why(bus: &mut TestBus, right: &str) {
    let refused = |result: Result<(), BusError>| {
        if let Err(error) = result {
            assert!(matches!(&error, BusError::Refused(text) if text.contains("NOPERM")), "{right}: {error}");
        }
    };
    works(bus).await;
    for result in bus.bus.subscribe(vec![subject("comments:2"), subject("projects:*")]).await {
        refused(result);
    }
    refused(bus.bus.publish_live(topic("projects:1"), numbered(1)).await);
    refused(bus.bus.history(topic("comments:1"), EntryId::default()).await.map(drop));
    refused(bus.bus.mark(vec!["comments".into()], Duration::ZERO).await.map(drop));
    refused(bus.bus.announce("{}".into()).await);
    bus.bus.unsubscribe(vec![subject("comments:2"), subject("projects:*")]).await;
    for _ in 0..3 {
        bus.until(|event| match event {
            BusEvent::Proof { .. } => Some(()),
            BusEvent::Link(link) => panic!("{right}: {link:?}"),
            _ => None,
        })
        .await;
    }
}

#[tokio::test]
async fn each_right_that_is_missing_is_named_or_not_needed() {
    let redis = RedisServer::start();
    let node = with_login(&redis, Some("carillon-node"), Some("pw"));
    apply_acl(&redis, &node);
    let printed = redis::acl(&node, &["comments".to_owned()]);
    let printed = printed.lines().nth(1).unwrap().split(' ').filter_map(|word| word.strip_prefix('+'));
    let mut works_without = Vec::new();
    for right in printed {
        eprintln!("without {right}");
        redis.command(&["FUNCTION", "FLUSH"]);
        redis.command(&["ACL", "SETUSER", "carillon-node", &format!("-{right}")]);
        match TestBus::try_start(node.clone()).await {
            Ok(mut bus) => {
                works_without.push(right);
                bus.until_up().await;
                does_all_or_says_why(&mut bus, right).await;
                bus.end().await;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(&format!("+{right}")) && text.contains("--acl"), "{right}: {text}");
                let findings = looked_at(&node).await;
                let bad = |f: &Finding| f.weight == Weight::Bad && f.detail.contains(&format!("+{right}"));
                assert!(findings.iter().any(bad), "{right}: {findings:#?}");
            }
        }
        redis.command(&["ACL", "SETUSER", "carillon-node", &format!("+{right}")]);
    }
    assert_eq!(works_without, ["psubscribe", "hello", "auth", "select", "client|id", "client|info"]);
}

#[tokio::test]
async fn a_command_that_the_server_does_not_have_is_named() {
    for command in ["FCALL", "FUNCTION", "PUBLISH", "XADD"] {
        let redis = RedisServer::with(&format!("save \"\"\nrename-command {command} \"\"\n"));
        let started = TestBus::try_start(settings(Some(&redis.url()))).await;
        let text = started.err().unwrap_or_else(|| panic!("started without {command}")).to_string();
        assert!(text.contains(command) && text.contains("service"), "{command}: {text}");
    }
}
