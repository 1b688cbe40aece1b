//! Names of Redis that lead elsewhere after a while, as managed services move them with a failover.

use std::{fs, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, Command},
};

use crate::support::{
    node::within,
    redis::{RedisServer, until},
};

/// Lets `listener` lead to a port of 127.0.0.1.
fn lead(listener: TcpListener, port: u16) {
    #[allow(clippy::disallowed_methods)] // a test's own server
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
}

/// A node with an /etc/hosts of its own.
fn node_with(hosts: &std::path::Path, url: &str) -> (Child, Lines<BufReader<ChildStderr>>) {
    let script = r#"mount --bind "$1" /etc/hosts && exec "$2" serve"#;
    let mut node = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([hosts.as_os_str(), env!("CARGO_BIN_EXE_carillon").as_ref()])
        .env_remove("CARILLON_CONFIG")
        .env("CARILLON__AUTH__MODE", "jwt")
        .env("CARILLON__AUTH__SECRET", "a-secret-of-more-than-32-characters")
        .env("CARILLON__REDIS__URL", url)
        .env("CARILLON__HTTP__LISTEN", "127.0.0.1:0")
        .env("CARILLON__INTERNAL__LISTEN", "127.0.0.1:0")
        .env("NO_COLOR", "1")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let log = BufReader::new(node.stderr.take().unwrap()).lines();
    (node, log)
}

/// Reads the log until a line has these words.
async fn said(log: &mut Lines<BufReader<ChildStderr>>, words: &str) {
    let found = async {
        let mut before = Vec::new();
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains(words) {
                return;
            }
            before.push(line);
        }
        panic!("the node ended without {words:?}: {before:#?}");
    };
    within(words, found).await;
}

/// The node is never told of it: with the next link it asks for the address anew.
#[tokio::test]
async fn a_name_that_leads_to_another_redis_is_followed() {
    let (first, second) = (RedisServer::start(), RedisServer::start());
    let other_address = TcpListener::bind(("127.0.0.2", first.port())).await.unwrap();
    lead(other_address, second.port());
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 redis.example localhost\n").unwrap();
    let (mut node, mut log) = node_with(&hosts, &format!("redis://redis.example:{}", first.port()));
    said(&mut log, "the link to Redis is up").await;
    let is_here = |redis: &RedisServer| !redis.command(&["PUBSUB", "CHANNELS"]).trim().is_empty();
    assert!(is_here(&first) && !is_here(&second));

    // The old master goes on as a replica, as it does behind such a name.
    fs::write(&hosts, "127.0.0.2 redis.example localhost\n").unwrap();
    first.command(&["REPLICAOF", "127.0.0.1", &second.port().to_string()]);
    said(&mut log, "the link to Redis is up").await;
    until("the node has found the other Redis", || is_here(&second));
    assert!(second.command(&["FUNCTION", "LIST"]).contains("carillon"));
    assert_eq!(node.try_wait().unwrap(), None);
}
