//! Secrets that change while nodes run: each kind of file, written in the ways that files are replaced, and what is unusable.
//! Redis and nodes are real.

use std::{fs, net::SocketAddr, os::unix::fs::symlink, path::Path, time::Duration};

use carillon::{
    auth::NewToken,
    config::{Algorithm, Secret},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::{
    node::{Node, SECRET, request, until},
    program::{ProgramLog, logged, said},
    redis::{RedisServer, free_port},
};

const NEXT: &str = "the next secret of the tests, 32 bytes or more";

fn signed(secret: &str) -> String {
    let topics = Some(vec!["*".to_owned()]);
    let token = NewToken { sub: "anna".into(), ttl: Duration::from_secs(600), topics, ..NewToken::default() };
    token.sign(&Secret::new(secret), Algorithm::Hs256).unwrap()
}

/// Whether a token of this secret lets somebody in.
async fn lets_in(public: SocketAddr, secret: &str) -> bool {
    let path = format!("/realtime/poll?topics=comments:1&token={}", signed(secret));
    match request(public, "GET", &path, &[], b"").await.status {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

async fn is_replaced(node: &Node, old: &str, new: &str) {
    until("the new secret to count", || lets_in(node.public, new)).await;
    assert!(!lets_in(node.public, old).await, "the old one counts no more");
}

/// A node whose tokens' secret stands in this file.
async fn with_secret_in(file: &Path, more: &[(&str, &str)]) -> Node {
    let own = [("auth.secret", ""), ("auth.secret_file", file.to_str().unwrap())];
    Node::start(&[&own[..], more].concat()).await
}

#[tokio::test]
async fn the_secret_of_tokens_is_replaced() {
    let dir = TempDir::new().unwrap();
    let (file, previous) = (dir.path().join("secret"), dir.path().join("previous"));
    fs::write(&file, SECRET).unwrap();
    fs::write(&previous, "some other secret, which nobody uses now").unwrap();
    let node = with_secret_in(&file, &[("auth.previous_secret_file", previous.to_str().unwrap())]).await;
    assert!(lets_in(node.public, SECRET).await && !lets_in(node.public, NEXT).await);
    fs::write(&file, format!("{NEXT}\n")).unwrap();
    is_replaced(&node, SECRET, NEXT).await;
    // The one of before, beside it.
    fs::write(&previous, format!("{SECRET}\r\n")).unwrap();
    until("the previous secret to count", || lets_in(node.public, SECRET)).await;
    assert!(lets_in(node.public, NEXT).await);
}

#[tokio::test]
async fn a_link_may_be_swapped_as_kubernetes_does() {
    let dir = TempDir::new().unwrap();
    for (version, secret) in [("one", SECRET), ("two", NEXT)] {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("secret"), secret).unwrap();
    }
    symlink("one", dir.path().join("..data")).unwrap();
    symlink("..data/secret", dir.path().join("secret")).unwrap();
    let node = with_secret_in(&dir.path().join("secret"), &[]).await;
    symlink("two", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    is_replaced(&node, SECRET, NEXT).await;
}

#[tokio::test]
async fn the_publish_token_is_replaced() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "the first publish token of the tests").unwrap();
    let own = [("internal.publish_token", ""), ("internal.publish_token_file", file.to_str().unwrap())];
    let node = Node::start(&own).await;
    let publish = async |token: &str| {
        let body = json!({"topic": "comments:1", "event": {"type": "a.b"}}).to_string();
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        request(node.internal, "POST", "/publish", &headers, body.as_bytes()).await.status
    };
    assert_eq!(publish("the first publish token of the tests").await, 200);
    fs::write(&file, "the second publish token of the tests\n").unwrap();
    until("the new token to count", async || publish("the second publish token of the tests").await == 200)
        .await;
    assert_eq!(publish("the first publish token of the tests").await, 401);
}

#[tokio::test]
async fn what_nodes_sign_with_is_replaced_on_all_of_them() {
    let redis = RedisServer::start();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("node");
    fs::write(&file, SECRET).unwrap();
    let settings = [
        ("redis.url", redis.url()),
        ("redis.node_secret_file", file.to_str().unwrap().to_owned()),
        ("redis.node_secret_required", "true".into()),
    ];
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let one = Node::start(&settings).await;
    fs::write(&file, NEXT).unwrap();
    // This one has known no other.
    let two = Node::start(&settings).await;
    until("each node to know the other's word", async || {
        let nodes = [one.get("/status").await.json(), two.get("/status").await.json()];
        nodes.iter().all(|status| status["nodes"].as_object().unwrap().len() == 2)
    })
    .await;
    let (mut anna, _) = two.session("anna", &["comments:1"]).await;
    assert_eq!(one.post("/disconnect", br#"{"user":"anna"}"#).await.status, 200);
    assert_eq!(anna.closed().await.0, 4403);
}

fn program(settings: &[(&str, &str)]) -> (Child, ProgramLog) {
    logged(Command::new(env!("CARGO_BIN_EXE_carillon")).arg("serve").envs(settings.iter().copied()))
}

#[tokio::test]
async fn what_cannot_be_used_is_named_and_the_old_one_stays_also_on_sighup() {
    let dir = TempDir::new().unwrap();
    let (secret, token) = (dir.path().join("secret"), dir.path().join("token"));
    fs::write(&secret, SECRET).unwrap();
    fs::write(&token, "the first publish token of the tests").unwrap();
    let public = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (node, mut log) = program(&[
        ("CARILLON__AUTH__SECRET_FILE", secret.to_str().unwrap()),
        ("CARILLON__INTERNAL__PUBLISH_TOKEN_FILE", token.to_str().unwrap()),
        ("CARILLON__HTTP__LISTEN", &public.to_string()),
    ]);
    said(&mut log, "the node is up").await;
    until("the node to listen", || async { tokio::net::TcpStream::connect(public).await.is_ok() }).await;
    for (file, key, unusable) in [
        (&secret, "auth.secret_file", "unusable-5501"),
        (&secret, "auth.secret_file", "\u{feff}unusable-5502, though it has more than 32 bytes"),
        (&secret, "auth.secret_file", ""),
        (&token, "internal.publish_token_file", "\n"),
    ] {
        let before = fs::read(file).unwrap();
        // By a rename: nothing in between is ever seen.
        let fresh = dir.path().join("fresh");
        fs::write(&fresh, unusable).unwrap();
        fs::rename(&fresh, file).unwrap();
        let line = said(&mut log, "secrets cannot be used").await;
        assert!(line.contains("WARN") && line.contains(key), "{line}");
        assert!(line.contains(file.to_str().unwrap()) && !line.contains("unusable"), "{line}");
        assert!(lets_in(public, SECRET).await, "{key}");
        fs::write(&fresh, before).unwrap();
        fs::rename(&fresh, file).unwrap();
        said(&mut log, "the files of secrets were read again").await;
    }
    let pid = node.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status().await.unwrap();
    assert!(sent.success());
    let line = said(&mut log, "the files of secrets were read again").await;
    assert!(line.contains("none has changed"), "{line}");
    fs::write(&secret, NEXT).unwrap();
    until("the new secret to count", || lets_in(public, NEXT)).await;
    assert!(!lets_in(public, SECRET).await);
}

#[tokio::test]
async fn sighup_ends_no_node_not_even_one_that_has_nothing_to_read_again_or_waits_for_redis() {
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    for (redis, sign) in [("", "the node is up"), (nobody.as_str(), "Redis")] {
        let (mut node, mut log) = program(&[
            ("CARILLON__AUTH__SECRET", SECRET),
            ("CARILLON__REDIS__URL", redis),
            ("CARILLON__HTTP__LISTEN", "127.0.0.1:0"),
        ]);
        said(&mut log, sign).await;
        let hang_up = async || {
            let pid = node.id().unwrap().to_string();
            assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
        };
        hang_up().await;
        said(&mut log, "SIGHUP: this node names no file of secrets").await;
        hang_up().await;
        said(&mut log, "SIGHUP: this node names no file of secrets").await;
        assert_eq!(node.try_wait().unwrap(), None);
    }
}
