//! What the users that `carillon redis-function --acl` prints may do in Redis, and what they may not.

use std::{process::Command, time::Duration};

use crate::{
    bus_access::{with_login, works},
    bus_doctor::looked_at,
    support::{
        bus::{TestBus, numbered, settings, subject, topic},
        cluster::RedisCluster,
        redis::RedisServer,
    },
};
use carillon::{
    bus::{
        BusError, BusEvent, Content, LinkChange, Settings,
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

    let cli = |args: &[&str]| as_publisher(&redis, args);
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
        assert!(is_refused_right(&answer), "{forbidden:?}: {answer}");
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
    let cli = |args: &[&str]| as_publisher(&redis, args);
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
    // Whole areas are not to be had on a cluster.
    let wide = (!bus.bus.is_sharded()).then(|| subject("projects:*"));
    let subjects = [subject("comments:2")].into_iter().chain(wide).collect::<Vec<_>>();
    for result in bus.bus.subscribe(subjects.clone()).await {
        refused(result);
    }
    refused(bus.bus.publish_live(topic("projects:1"), numbered(1)).await);
    refused(bus.bus.history(topic("comments:1"), EntryId::default()).await.map(drop));
    refused(bus.bus.mark(vec!["comments".into()], Duration::ZERO).await.map(drop));
    refused(bus.bus.announce("{}".into()).await);
    bus.bus.unsubscribe(subjects).await;
    for _ in 0..3 {
        bus.until(|event| match event {
            BusEvent::Proof { .. } => Some(()),
            BusEvent::Link(link) => panic!("{right}: {link:?}"),
            _ => None,
        })
        .await;
    }
}

/// Whether this is Redis' word for a right that is missing: from 7.0, from later ones inside functions, or from our own.
fn is_refused_right(text: &str) -> bool {
    ["NOPERM", "can't run this command", "ACL failure in script"].iter().any(|words| text.contains(words))
}

/// The rights of a printed line.
fn rights_of(line: &str) -> Vec<&str> {
    line.split(' ').filter_map(|word| word.trim_end_matches(')').strip_prefix('+')).collect()
}

/// Starts a node without each right of the line that is printed for nodes, one after the other; those that it starts without.
async fn starts_without(redis: &RedisServer, node: &Settings) -> Vec<String> {
    apply_acl(redis, node);
    let printed = redis::acl(node, &["comments".to_owned()]);
    let mut works_without = Vec::new();
    for right in rights_of(printed.lines().nth(1).unwrap()) {
        eprintln!("without {right}");
        redis.command(&["FUNCTION", "FLUSH"]);
        redis.command(&["ACL", "SETUSER", "carillon-node", &format!("-{right}")]);
        match TestBus::try_start(node.clone()).await {
            Ok(mut bus) => {
                works_without.push(right.to_owned());
                bus.until_up().await;
                does_all_or_says_why(&mut bus, right).await;
                bus.end().await;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(&format!("+{right}")) && text.contains("--acl"), "{right}: {text}");
                let findings = looked_at(node).await;
                let bad = |f: &Finding| f.weight == Weight::Bad && f.detail.contains(&format!("+{right}"));
                assert!(findings.iter().any(bad), "{right}: {findings:#?}");
            }
        }
        redis.command(&["ACL", "SETUSER", "carillon-node", &format!("+{right}")]);
    }
    works_without
}

#[tokio::test]
async fn each_right_that_is_missing_is_named_or_not_needed() {
    let redis = RedisServer::start();
    let node = with_login(&redis, Some("carillon-node"), Some("pw"));
    let works_without = starts_without(&redis, &node).await;
    assert_eq!(works_without, ["psubscribe", "hello", "auth", "select", "client|id", "client|info"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_missing_on_a_cluster_is_named_or_not_needed() {
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::of_one("")).await.unwrap();
    let mut node = settings(Some(&cluster.url()));
    let target = node.redis.as_mut().unwrap();
    (target.username, target.password) = (Some("carillon-node".into()), Some("pw".into()));
    let works_without = starts_without(&cluster.servers[0], &node).await;
    assert_eq!(works_without, ["asking", "hello", "auth", "select", "client|id", "client|info"]);
}

#[tokio::test]
async fn a_right_that_is_taken_from_a_running_node_is_missed_aloud_or_not_at_all() {
    let redis = RedisServer::start();
    let node = with_login(&redis, Some("carillon-node"), Some("pw"));
    apply_acl(&redis, &node);
    let printed = redis::acl(&node, &["comments".to_owned()]);
    let mut bus = TestBus::start(node).await;
    bus.follow(&["comments:1"]).await;
    let mut loud = Vec::new();
    for right in rights_of(printed.lines().nth(1).unwrap()) {
        eprintln!("without {right}");
        redis.command(&["ACL", "SETUSER", "carillon-node", &format!("-{right}")]);
        let event = format!(r#"{{"type":"a.b","id":"{right}"}}"#);
        let id = redis.command(&["FCALL", "carillon_publish", "1", "carillon:comments:1", &event]);
        // The event came, and a probe after it: or the node knows that it can prove nothing.
        let mut came = false;
        let is_loud = bus
            .until(|event| match event {
                BusEvent::Delivery(delivery) => {
                    came |=
                        matches!(delivery.content, Content::Recorded(at, _) if at.to_string() == id.trim());
                    None
                }
                BusEvent::Proof { .. } if came => Some(false),
                BusEvent::Link(LinkChange::Down { .. }) => Some(true),
                _ => None,
            })
            .await;
        if is_loud {
            loud.push(right);
            let trouble = bus.bus.health().trouble;
            assert!(trouble.as_deref().is_some_and(is_refused_right), "{right}: {trouble:?}");
        }
        redis.command(&["ACL", "SETUSER", "carillon-node", &format!("+{right}")]);
        if is_loud {
            bus.until_up().await;
        }
    }
    assert!(["fcall", "publish"].iter().all(|right| loud.contains(right)), "{loud:?}");
    bus.end().await;
}

/// What redis-cli answers to the user of publishers.
fn as_publisher(redis: &RedisServer, args: &[&str]) -> String {
    let port = redis.port().to_string();
    let login = ["-p", &port, "--user", "carillon-publisher", "--pass", "pw", "--no-auth-warning"];
    let output = Command::new("redis-cli").args(login).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Does on the topic with this number what publishers do, without `right`; how often Redis refuses that.
async fn refusals_of_a_publisher(redis: &RedisServer, bus: &mut TestBus, n: usize, right: &str) -> u64 {
    // A topic that is followed and has no event yet, so that all is done that a publisher ever does.
    let at = format!("comments:{n}");
    let key = format!("carillon:{at}");
    bus.follow(&[&at]).await;
    redis.command(&["SET", &key, "1763700000000", "PX", "9000000"]);
    let event = r#"{"type":"a.b","id":"1"}"#;
    let mut refusals = 0;
    for _ in 0..2 {
        let answer = as_publisher(redis, &["FCALL", "carillon_publish", "1", &key, event]);
        assert!(is_refused_right(&answer) || answer.ends_with("-1"), "{right}: {answer}");
        refusals += u64::from(is_refused_right(&answer));
    }
    // What was accepted is on its way, and was recognised; what was refused is not recorded.
    if refusals == 0 {
        let delivery = bus.delivery().await;
        assert!(
            delivery.topic.as_str() == at && matches!(delivery.content, Content::Recorded(..)),
            "{right}"
        );
    }
    let expected = if refusals == 0 { "1" } else { "0" };
    let recorded = redis.command(&["XLEN", &key]);
    assert!(recorded.trim() == expected || recorded.contains("WRONGTYPE"), "{right}: {recorded}");
    let send = if bus.bus.is_sharded() { "SPUBLISH" } else { "PUBLISH" };
    let answer = as_publisher(redis, &[send, &key, event]);
    if is_refused_right(&answer) {
        refusals += 1;
    } else {
        assert_eq!(answer, "1", "{right}");
        assert!(matches!(bus.delivery().await.content, Content::Live(_)), "{right}");
    }
    for args in [
        &["FCALL", "carillon_source", "1", "carillon:sources", "cms", "20"][..],
        &["FCALL", "carillon_positions", "1", &key],
    ] {
        refusals += u64::from(is_refused_right(&as_publisher(redis, args)));
    }
    refusals
}

/// Takes each right of the line that is printed for publishers, one after the other; those that are needed, and the others.
async fn publishes_without(redis: &RedisServer, ours: &Settings) -> (Vec<String>, Vec<String>) {
    let mut bus = TestBus::start(ours.clone()).await;
    let line = redis::acl(ours, &["comments".to_owned()]);
    let line = line.lines().next().unwrap().replace(">CHANGE-ME", ">pw");
    let mut rights = rights_of(&line);
    rights.sort_unstable();
    rights.dedup();
    let (mut needed, mut works_without) = (Vec::new(), Vec::new());
    for (n, right) in rights.iter().enumerate() {
        eprintln!("without {right}");
        let without = line.replace(&format!(" +{right})"), ")").replace(&format!(" +{right} "), " ");
        assert_ne!(without, line, "{right}");
        assert_eq!(redis.command(&without.split_whitespace().collect::<Vec<_>>()).trim(), "OK", "{without}");
        let refusals = refusals_of_a_publisher(redis, &mut bus, n, right).await;
        if refusals == 0 { &mut works_without } else { &mut needed }.push((*right).to_owned());
    }
    bus.end().await;
    (needed, works_without)
}

/// What client libraries send; what only clusters, nodes and logs that were tampered with need; what ends a source.
const DISPENSABLE: &str =
    "auth client|setname exists hdel hello hgetall hlen ping select set xinfo|stream xrevrange";

fn all_of(rights: &[String], words: &str) -> bool {
    rights.iter().all(|right| words.split(' ').any(|word| word == right))
}

#[tokio::test]
async fn a_right_that_a_publisher_lacks_is_an_error_or_not_needed() {
    let redis = RedisServer::start();
    let (needed, works_without) = publishes_without(&redis, &settings(Some(&redis.url()))).await;
    assert!(all_of(&works_without, DISPENSABLE), "{works_without:?}");
    for right in ["del", "hset", "pexpireat", "publish", "xadd"] {
        assert!(needed.iter().any(|needed| needed == right), "{right}: {needed:?}");
    }
}

/// On a cluster, what clients of clusters ask for is dispensable for one that asks the right server.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_a_publisher_lacks_on_a_cluster_is_an_error_or_not_needed() {
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::of_one("")).await.unwrap();
    let ours = settings(Some(&cluster.url()));
    let (needed, works_without) = publishes_without(&cluster.servers[0], &ours).await;
    let asked_by_clients = "cluster|slots cluster|shards cluster|info command asking";
    assert!(all_of(&works_without, &format!("{DISPENSABLE} {asked_by_clients}")), "{works_without:?}");
    for right in ["del", "hset", "pexpireat", "spublish", "xadd"] {
        assert!(needed.iter().any(|needed| needed == right), "{right}: {needed:?}");
    }
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
