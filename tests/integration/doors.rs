//! The doors to a node that stands on a real Redis: what publishers, operators and the commands meet there.

use std::{
    io::Write,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::node::{Node, SECRET, Ws, until};
use crate::support::program::taken_out;
use crate::support::redis::RedisServer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const EVENT: &str = r#"{"type":"a.b"}"#;

/// Runs the program beside the node that the test has in its own process.
async fn carillon(
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &str,
    dir: &std::path::Path,
) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.args(arguments).env_clear().envs(taken_out()).envs(variables.iter().copied()).current_dir(dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // A command that refuses may not read what it is given.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    crate::support::node::within("the command", run).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn topics(results: &Value) -> Vec<(u64, usize)> {
    let result =
        |result: &Value| (result["status"].as_u64().unwrap(), result["positions"].as_array().unwrap().len());
    results["results"].as_array().unwrap().iter().map(result).collect()
}

#[tokio::test]
async fn what_redis_refuses_of_one_topic_stops_nothing_else_and_is_overtaken_by_nothing() {
    let redis = RedisServer::start();
    let node = Node::start(&[("redis.url", &redis.url())]).await;
    // A log whose numbers are used up.
    let last = format!("{0}-{0}", u64::MAX);
    redis.command(&["XADD", "carillon:comments:bad", &last, "event", "by hand"]);
    let event = json!({"type": "a.b"});
    let batch = json!([
        {"topic": "comments:1", "event": event},
        {"topic": "comments:bad", "event": event},
        {"topics": ["comments:2", "comments:bad", "comments:3"], "event": event},
        {"topic": "comments:3", "event": event},
        {"topic": "comments:1", "event": event},
    ]);
    let answer = node.post("/publish", batch.to_string().as_bytes()).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    assert_eq!(topics(&answer.json()), [(200, 1), (503, 0), (503, 1), (503, 0), (200, 1)], "{answer:?}");
    for untried in [2, 3] {
        assert_eq!(answer.json()["results"][untried]["code"], "not-tried");
    }
    for (topic, length) in [("comments:1", "2"), ("comments:2", "1"), ("comments:3", "0")] {
        assert_eq!(redis.command(&["XLEN", &format!("carillon:{topic}")]).trim(), length, "{topic}");
    }
    let several = json!({"topics": ["comments:1", "comments:bad"], "event": event});
    let answer = node.post("/publish", several.to_string().as_bytes()).await;
    assert_eq!((answer.status, topics(&answer.json())), (207, vec![(503, 1)]));
    let one = json!({"topic": "comments:bad", "event": event});
    let answer = node.post("/publish", one.to_string().as_bytes()).await;
    assert_eq!(answer.problem(), (503, "redis-refuses".into()));
    node.stop();
    node.stopped().await.unwrap();
}

#[tokio::test]
async fn a_node_that_has_stopped_is_known_no_longer() {
    let redis = RedisServer::start();
    let url = redis.url();
    let settings = |name| [("redis.url", url.as_str()), ("node.name", name), ("probe.seconds", "10")];
    let (one, two) = (Node::start(&settings("one")).await, Node::start(&settings("two")).await);
    let known = async || {
        let status = one.get("/status").await.json();
        status["nodes"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    until("both to be known", async || known().await == ["one", "two"]).await;
    two.stop();
    two.stopped().await.unwrap();
    assert_eq!(known().await, ["one"]);
}

#[tokio::test]
async fn names_of_events_are_told_apart_by_both_parts() {
    let redis = RedisServer::start();
    let _node = Node::start(&[("redis.url", &redis.url())]).await;
    let publish = |source: &str, id: &str| {
        let event = json!({"type": "a.b", "source": source, "id": id}).to_string();
        redis.command(&["FCALL", "carillon_publish", "1", "carillon:comments:1", &event])
    };
    assert_eq!(publish("a\0b", "c"), publish("a\0b", "c"));
    assert_ne!(publish("a\0b", "c"), publish("a", "b\0c"));
}

#[tokio::test]
async fn a_command_publishes_with_what_the_node_is_configured_with() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&[("redis.url", &redis.url()), ("internal.publish_token", "")]).await;
    let (listen, url) = (node.internal.to_string(), redis.url());
    let variables = [
        ("CARILLON__INTERNAL__LISTEN", listen.as_str()),
        ("CARILLON__AUTH__MODE", "jwt"),
        ("CARILLON__AUTH__SECRET", SECRET),
    ];
    for (event, code) in [
        (EVENT, 0),
        (" {\"type\":\n\"a.b\"}\n", 0),
        (r#"{"type":"a.b"},"more":1"#, 1),
        (r#"{"type":"a.b"}{"type":"a.b"}"#, 1),
        ("nonsense", 1),
    ] {
        for place in [&[][..], &["--redis", &url]] {
            let arguments = [&["publish", "comments:1", event], place].concat();
            let output = carillon(&arguments, &variables, "", dir.path()).await;
            let sentence = said(&output);
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {sentence}");
            assert_eq!(sentence.lines().count(), usize::try_from(code).unwrap(), "{sentence}");
        }
    }
    assert_eq!(redis.command(&["XLEN", "carillon:comments:1"]).trim(), "4");
    // Where no node listens, the configured Redis is good enough.
    let alone = [("CARILLON__REDIS__URL", url.as_str()), ("CARILLON__INTERNAL__LISTEN", "127.0.0.1:1")];
    let output = carillon(&["publish", "comments:1", EVENT], &alone, "", dir.path()).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[tokio::test]
async fn a_command_publishes_with_a_publishers_rights() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let printed = carillon(&["redis-function", "--acl"], &[], "", dir.path()).await;
    let lines = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(lines.lines().count(), 2, "two commands and nothing else: {lines}");
    for line in lines.replace("CHANGE-ME", "pw").lines() {
        assert_eq!(redis.command(&line.split(' ').collect::<Vec<_>>()).trim(), "OK", "{line}");
    }
    let login = [
        ("redis.url", redis.url()),
        ("redis.username", "carillon-node".into()),
        ("redis.password", "pw".into()),
    ];
    let login: Vec<_> = login.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let _node = Node::start(&login).await;
    let url = redis.url().replace("://", "://carillon-publisher:pw@");
    for more in [&[][..], &["--live"]] {
        let arguments = [&["publish", "comments:1", EVENT, "--redis", &url], more].concat();
        let output = carillon(&arguments, &[], "", dir.path()).await;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
}

#[tokio::test]
async fn what_cannot_be_handed_over_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("127.0.0.1:{}", crate::support::redis::free_port());
    let (redis, http) = (format!("redis://{nobody}"), format!("http://{nobody}"));
    for (index, place) in [["--redis", redis.as_str()], ["--url", &http]].iter().enumerate() {
        let file = format!("kept-{index}");
        let arguments = [&["publish", "comments:1", "-", "--keep", &file], &place[..]].concat();
        let output = carillon(&arguments, &[], &format!("{EVENT}\n{EVENT}\n"), dir.path()).await;
        let sentence = said(&output);
        assert_eq!(output.status.code(), Some(1), "{sentence}");
        assert!(
            sentence.contains(&file) && sentence.contains("refused") && !sentence.contains("Os {"),
            "{sentence}"
        );
        assert_eq!(std::fs::read_to_string(dir.path().join(&file)).unwrap(), format!("{EVENT}\n{EVENT}\n"));
    }
}

#[tokio::test]
async fn tail_ends_where_going_on_makes_no_sense() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&[]).await;
    let url = format!("http://{}/realtime", node.public);
    let signed = [("CARILLON__AUTH__MODE", "jwt"), ("CARILLON__AUTH__SECRET", SECRET)];
    for (arguments, variables, code, part) in [
        (&["tail", "nothing:1", "--url", &url][..], &signed[..], 1, "nothing:1 (there is no area nothing"),
        (
            &["tail", "notifications:bob", "--url", &url],
            &signed,
            1,
            "notifications:bob (this token does not allow it",
        ),
        (&["tail", "comments:1", "--url", &url], &[], 1, "no token"),
        (&["tail", "comments:1", "--url", "nonsense"], &signed, 2, "not an address"),
    ] {
        let output = carillon(arguments, variables, "", dir.path()).await;
        let sentence = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {sentence}");
        assert!(sentence.contains(part) && sentence.lines().count() == 1, "{sentence}");
    }
}

async fn end_of(child: &mut Child) -> Option<i32> {
    crate::support::node::within("the end of a command", async {
        loop {
            match child.try_wait().unwrap() {
                Some(status) => return status.code(),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn tail_ends_when_nobody_reads_it_or_it_is_told_to() {
    let node = Node::start(&[]).await;
    let url = format!("http://{}/realtime", node.public);
    let tail = || {
        Command::new(env!("CARGO_BIN_EXE_carillon"))
            .args(["tail", "comments:1", "--url", &url])
            .env_clear()
            .envs(taken_out())
            .envs([("CARILLON__AUTH__MODE", "jwt"), ("CARILLON__AUTH__SECRET", SECRET)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let follows = async |count: u64| {
        until("tail to follow", async || {
            node.get("/status").await.json()["this"]["sessions"]["total"] == count
        })
        .await;
        until("the topic", async || node.get("/status").await.json()["this"]["topics"] == 2).await;
    };
    let mut unread = tail();
    drop(unread.stdout.take());
    follows(1).await;
    node.publish("comments:1", &json!({"type": "a.b"})).await;
    assert_eq!(end_of(&mut unread).await, Some(0));
    follows(0).await;
    let mut told = tail();
    follows(1).await;
    let signal = Command::new("kill").args(["-TERM", &told.id().to_string()]).status().unwrap();
    assert!(signal.success());
    assert_eq!(end_of(&mut told).await, Some(0));
}

#[tokio::test]
async fn whom_the_cms_has_shut_out_gets_no_new_session() {
    let cms = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/who", cms.local_addr().unwrap());
    let shut = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&shut);
    #[allow(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = cms.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let body = r#"{"sub":"anna","topics":["comments:1"],"expires_in":900}"#;
            let status = if answers.load(Ordering::Acquire) { "401 No" } else { "200 OK" };
            let head =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = socket.write_all((head + body).as_bytes()).await;
        }
    });
    let node =
        Node::start(&[("auth.mode", "callback"), ("auth.secret", ""), ("auth.callback_url", &url)]).await;
    let cookie = [("Cookie", "session=1")];
    let enter = async || {
        let stream = TcpStream::connect(node.public).await.unwrap();
        Ws::open(stream, "/realtime", &cookie).await.map_err(|answer| answer.problem())
    };
    assert!(enter().await.is_ok());
    let poll = node.public_get("/realtime/poll?topics=comments:1", &cookie).await;
    assert_eq!(poll.status, 200);
    shut.store(true, Ordering::Release);
    assert_eq!(
        enter().await.err(),
        Some((401, "unauthenticated".into())),
        "with cookies that were good just now"
    );
    let poll = node.public_get("/realtime/poll?topics=comments:1", &cookie).await;
    assert_eq!(poll.problem(), (401, "unauthenticated".into()));
}
