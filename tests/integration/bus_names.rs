//! Names of Redis that lead elsewhere after a while, as managed services move them with a failover.

use std::fs;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::support::{
    program::{ProgramLog, logged, said},
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
fn node_with(hosts: &std::path::Path, url: &str) -> (Child, ProgramLog) {
    let script = r#"mount --bind "$1" /etc/hosts && exec "$2" serve"#;
    logged(
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
            .args([hosts.as_os_str(), env!("CARGO_BIN_EXE_carillon").as_ref()])
            .env("CARILLON__AUTH__SECRET", "a-secret-of-more-than-32-characters")
            .env("CARILLON__REDIS__URL", url)
            .env("CARILLON__PROBE__SECONDS", "1")
            .env("CARILLON__HTTP__LISTEN", "127.0.0.1:0"),
    )
}

/// A name that leads from the first Redis to the second, which listens at another address with the same port.
struct Name {
    first: RedisServer,
    second: RedisServer,
    dir: tempfile::TempDir,
}

impl Name {
    async fn new() -> Self {
        let (first, second) = (RedisServer::start(), RedisServer::start());
        lead(TcpListener::bind(("127.0.0.2", first.port())).await.unwrap(), second.port());
        let name = Self { first, second, dir: tempfile::tempdir().unwrap() };
        name.leads_to("127.0.0.1");
        name
    }

    fn hosts(&self) -> std::path::PathBuf {
        self.dir.path().join("hosts")
    }

    fn leads_to(&self, address: &str) {
        fs::write(self.hosts(), format!("{address} redis.example localhost\n")).unwrap();
    }

    fn url(&self) -> String {
        format!("redis://redis.example:{}", self.first.port())
    }
}

/// Whether a node listens there.
fn is_at(redis: &RedisServer) -> bool {
    !redis.command(&["PUBSUB", "CHANNELS"]).trim().is_empty()
}

/// The old master goes on as a replica, as it does behind such a name: with the next link the address is asked for anew.
#[tokio::test]
async fn a_name_that_leads_to_another_redis_is_followed() {
    let name = Name::new().await;
    let (mut node, mut log) = node_with(&name.hosts(), &name.url());
    said(&mut log, "the link to Redis is up").await;
    assert!(is_at(&name.first) && !is_at(&name.second));
    name.leads_to("127.0.0.2");
    name.first.command(&["REPLICAOF", "127.0.0.1", &name.second.port().to_string()]);
    said(&mut log, "the link to Redis is up").await;
    until("the node has found the other Redis", || is_at(&name.second));
    assert!(name.second.command(&["FUNCTION", "LIST"]).contains("carillon"));
    assert_eq!(node.try_wait().unwrap(), None);
}

/// The old master goes on as such, and new publishers are with the other one.
#[tokio::test]
async fn a_name_is_followed_away_from_a_redis_that_works() {
    let name = Name::new().await;
    let (mut node, mut log) = node_with(&name.hosts(), &name.url());
    said(&mut log, "the link to Redis is up").await;
    name.leads_to("127.0.0.2");
    said(&mut log, "leads to another server now").await;
    said(&mut log, "the link to Redis is up").await;
    until("the node has left", || is_at(&name.second) && !is_at(&name.first));
    assert_eq!(node.try_wait().unwrap(), None);
}
