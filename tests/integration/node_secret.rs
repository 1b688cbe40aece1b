//! `redis.node_secret`: what only nodes may say in Redis is not believed of anybody else, whatever they may do there.

use crate::support::{
    bus::{DEADLINE, TestBus, settings},
    node::until,
    redis::RedisServer,
};
use carillon::{
    bus::{BusEvent, redis::Seal},
    protocol::{Kind, Revocation, Whom, time::now_ms},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const SECRET: &str = "a secret of the nodes, 32 bytes or more";
const CONTROL: &str = "carillon:control:{carillon}";
const REVOKED: &str = "carillon:revoked:{carillon}";
const NODES: &str = "carillon:nodes:{carillon}";

async fn node(redis: &RedisServer, secret: Option<&str>, required: bool) -> TestBus {
    let mut settings = settings(Some(&redis.url()));
    if let (Some(target), Some(secret)) = (&mut settings.redis, secret) {
        target.seal = Seal::new("carillon", secret, None, required);
    }
    TestBus::start(settings).await
}

/// The next order that the node hears of, which it then knows.
async fn order(node: &mut TestBus) -> Revocation {
    let heard = node.until(|event| match event {
        BusEvent::Revoked { orders, .. } => Some(orders),
        _ => None,
    });
    let [order] = <[_; 1]>::try_from(heard.await).unwrap();
    order
}

async fn disconnect(node: &TestBus, user: &str) -> Revocation {
    let whom = Whom::User(user.into());
    let at = node.bus.revoke(Kind::Disconnect, whom.clone()).await.unwrap();
    Revocation { kind: Kind::Disconnect, whom, at }
}

/// Listens on the control channel as anybody with the right to do so.
struct Spy(TcpStream);

impl Spy {
    async fn start(redis: &RedisServer) -> Self {
        let mut spy = Self(TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap());
        spy.0.write_all(format!("SUBSCRIBE {CONTROL}\r\n").as_bytes()).await.unwrap();
        spy.line("subscribe").await;
        spy
    }

    /// The next line with these words in it.
    async fn line(&mut self, words: &str) -> String {
        let mut text = Vec::new();
        loop {
            let read = timeout(DEADLINE, self.0.read_buf(&mut text)).await.expect("a message").unwrap();
            assert!(read > 0, "Redis has gone");
            let text = String::from_utf8_lossy(&text);
            // Whole lines only.
            let whole = text.rsplit_once("\r\n").map(|(whole, _)| whole).unwrap_or_default();
            if let Some(line) = whole.split("\r\n").find(|line| line.contains(words)) {
                return line.to_owned();
            }
        }
    }
}

fn rejected(node: &TestBus) -> bool {
    node.metrics.text().contains("reason=\"bad-order\"")
}

#[tokio::test]
async fn an_order_of_somebody_else_and_a_repeated_one_close_nobody() {
    let redis = RedisServer::start();
    let (mut one, mut other) =
        (node(&redis, Some(SECRET), true).await, node(&redis, Some(SECRET), true).await);
    let mut spy = Spy::start(&redis).await;
    for forged in [
        r#"{"disconnect":"eve"}"#.to_owned(),
        format!(r#"{{"disconnect":"eve","at":{},"signed":"{} 00 AAAA"}}"#, now_ms(), now_ms()),
        format!(r#"{{"revoke":"refresh user eve","at":{}}}"#, now_ms()),
    ] {
        redis.command(&["PUBLISH", CONTROL, &forged]);
    }
    let first = disconnect(&one, "anna").await;
    assert_eq!((order(&mut one).await, order(&mut other).await), (first.clone(), first));
    let message = spy.line("signed").await;
    for repeated in [message.clone(), message.replace("anna", "eve")] {
        redis.command(&["PUBLISH", CONTROL, &repeated]);
    }
    let second = disconnect(&other, "bo").await;
    assert_eq!((order(&mut one).await, order(&mut other).await), (second.clone(), second));
    assert!(rejected(&one) && rejected(&other), "{}", one.metrics.text());
    one.end().await;
    other.end().await;
}

#[tokio::test]
async fn what_is_kept_counts_only_where_a_node_has_signed_it() {
    let redis = RedisServer::start();
    let mut one = node(&redis, Some(SECRET), true).await;
    let anna = disconnect(&one, "anna").await;
    assert_eq!(order(&mut one).await, anna);
    let (now, kept) = (now_ms().to_string(), redis.command(&["HGET", REVOKED, "disconnect user anna"]));
    let signature = kept.trim().split_once(' ').expect("a signature").1.to_owned();
    let moved = format!("{now} {signature}");
    for (name, value) in [("disconnect user eve", &now), ("disconnect user dave", &moved)] {
        redis.command(&["HSET", REVOKED, name, value, "change", &now]);
    }
    let mut later = settings(Some(&redis.url()));
    later.redis.as_mut().unwrap().seal = Seal::new("carillon", SECRET, None, true);
    let mut later = TestBus::try_start(later).await.unwrap();
    assert_eq!(order(&mut later).await, anna, "and nobody else");
    one.end().await;
    later.end().await;
}

#[tokio::test]
async fn a_state_on_the_board_is_the_nodes_own() {
    let redis = RedisServer::start();
    let (one, other) = (node(&redis, Some(SECRET), true).await, node(&redis, Some(SECRET), true).await);
    one.bus.announce(r#"{"sessions":1}"#.into()).await.unwrap();
    let written = redis.command(&["HGET", NODES, &one.settings.node]);
    assert!(written.contains("\"signed\""), "{written}");
    let till = (now_ms() + 60_000).to_string();
    redis.command(&["HSET", NODES, "forged", &format!("{till} {{\"sessions\":9}}")]);
    redis.command(&["HSET", NODES, "moved", written.trim()]);
    let nodes = other.bus.nodes().await.unwrap();
    assert_eq!(
        nodes.into_iter().collect::<Vec<_>>(),
        [(one.settings.node.clone(), r#"{"sessions":1}"#.into())]
    );
    one.end().await;
    other.end().await;
}

#[tokio::test]
async fn it_is_turned_on_node_by_node_and_loses_no_order() {
    let redis = RedisServer::start();
    let mut before = node(&redis, None, false).await;
    let anna = disconnect(&before, "anna").await;
    assert_eq!(order(&mut before).await, anna);
    let mut signing = node(&redis, Some(SECRET), false).await;
    let bo = disconnect(&before, "bo").await;
    let mut heard = Vec::new();
    while heard.last() != Some(&bo) {
        heard.push(order(&mut signing).await);
    }
    let cleo = disconnect(&signing, "cleo").await;
    let mut heard = order(&mut before).await;
    while heard != cleo {
        heard = order(&mut before).await;
    }
    // What was kept without a signature gets one, so that nothing is lost by the next step.
    let field = |user: &str| redis.command(&["HGET", REVOKED, &format!("disconnect user {user}")]);
    let signed = || ["anna", "bo", "cleo"].iter().all(|user| field(user).trim().contains(' '));
    until("all to be signed", || async { signed() }).await;
    before.end().await;
    let mut later = settings(Some(&redis.url()));
    later.redis.as_mut().unwrap().seal = Seal::new("carillon", SECRET, None, true);
    let mut later = TestBus::try_start(later).await.unwrap();
    let told = later.until(|event| match event {
        BusEvent::Revoked { orders, .. } => Some(orders.len()),
        _ => None,
    });
    assert_eq!(told.await, 3);
    signing.end().await;
    later.end().await;
}
