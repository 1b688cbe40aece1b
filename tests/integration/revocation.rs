//! `POST /disconnect` and `POST /refresh` at every stage of a connection: before `connect`, while the CMS is asked, at a
//! renewal, between two polls, on a node that starts later, and when Redis has lost what it was told.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::support::{
    node::{Node, SECRET, Ws, until, within},
    redis::RedisServer,
    ways::{self, ALL, COOKIE, Way},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// A token with these claims besides the usual ones; `issued`: seconds from now.
fn token(user: &str, issued: i64, more: &Value) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let mut claims = json!({"sub": user, "iat": now + issued, "exp": now + 600, "topics": ["*"]});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let key = carillon::config::Secret::new(SECRET);
    carillon::auth::token::sign(&claims, &key, carillon::config::Algorithm::Hs256).unwrap()
}

/// What keeps somebody out: the code of a door, or of a session.
fn out(way: Way) -> Result<Value, u16> {
    Err(if way == Way::Connect { 4401 } else { 401 })
}

async fn disconnect(node: &Node, whom: &Value) {
    assert_eq!(node.post("/disconnect", whom.to_string().as_bytes()).await.status, 200, "{whom}");
}

async fn connected(node: &Node, token: &str) -> (Ws<TcpStream>, Value) {
    let mut ws = node.socket().await;
    ws.send(&json!({"type": "connect", "token": token, "topics": ["comments:1"]})).await;
    let welcome = ws.message().await;
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    (ws, welcome)
}

#[tokio::test]
async fn a_handshake_from_before_is_of_no_use_after_it() {
    let node = Node::start(&[]).await;
    let (old, other) = (token("anna", -5, &json!({})), token("bo", -5, &json!({})));
    let handshake = async |token: &str| {
        let authorization = format!("Bearer {token}");
        let stream = TcpStream::connect(node.public).await.unwrap();
        Ws::open(stream, "/realtime", &[("Authorization", &authorization)]).await.unwrap()
    };
    let (mut anna, mut bo) = (handshake(&old).await, handshake(&other).await);
    disconnect(&node, &json!({"user": "anna"})).await;
    // By now the node has heard of it.
    until("the door to be shut", || async { Way::Connect.enter(&node, &old, &[], &[]).await.is_err() }).await;
    for ws in [&mut anna, &mut bo] {
        ws.send(&json!({"type": "connect", "topics": ["comments:1"]})).await;
    }
    assert_eq!(anna.closed().await.0, 4401);
    assert_eq!(bo.message().await["type"], "welcome");
}

#[tokio::test]
async fn what_counts_as_issued_before_does_not_depend_on_tricks_with_iat() {
    let node = Node::start(&[("auth.cookie", COOKIE)]).await;
    let (ahead, lasting) = (token("anna", 15, &json!({})), token("anna", 0, &json!({"iat": null})));
    disconnect(&node, &json!({"user": "anna"})).await;
    until("the door to be shut", || async { Way::Connect.enter(&node, &lasting, &[], &[]).await.is_err() })
        .await;
    for way in ALL {
        assert_eq!(way.enter(&node, &ahead, &[], &[]).await, out(way), "a clock that is ahead");
    }
    for bad in [
        json!({"iat": "1"}),
        json!({"iat": 1_763_700_000_000_u64}),
        json!({"iat": 4_000_000_000_u64, "exp": 4_000_000_600_u64}),
        json!({"iat": -1}),
        json!({"exp": 1e300}),
        json!({"iat": null, "exp": 4_000_000_000_u64}),
    ] {
        let refused = Way::Connect.enter(&node, &token("bo", -5, &bad), &[], &[]).await;
        assert_eq!(refused, Err(4401), "{bad}");
    }
    assert!(Way::Connect.enter(&node, &token("bo", -5, &json!({})), &[], &[]).await.is_ok());
}

#[tokio::test]
async fn one_session_one_token_or_one_browser_can_be_shut_out() {
    let node = Node::start(&[]).await;
    let named = token("anna", -5, &json!({"jti": "token 1", "sid": "browser 1"}));
    let other = token("anna", -5, &json!({"jti": "token 2", "sid": "browser 2"}));
    let (mut first, welcome) = connected(&node, &named).await;
    let (mut second, _) = connected(&node, &named).await;
    let (mut bystander, _) = connected(&node, &other).await;
    disconnect(&node, &json!({"session": welcome["session"]})).await;
    assert_eq!(first.closed().await.0, 4403);
    second.nothing_comes().await;
    disconnect(&node, &json!({"jti": "token 1"})).await;
    assert_eq!(second.closed().await.0, 4403);
    assert_eq!(Way::Connect.enter(&node, &named, &[], &[]).await, Err(4401));
    bystander.nothing_comes().await;
    disconnect(&node, &json!({"session": "browser 2"})).await;
    assert_eq!(bystander.closed().await.0, 4403);
    for bad in
        [json!({}), json!({"user": "a", "jti": "b"}), json!({"user": " "}), json!({"jti": 7}), json!([])]
    {
        assert_eq!(node.post("/disconnect", bad.to_string().as_bytes()).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn whose_rights_have_changed_goes_on_with_a_new_token() {
    let node = Node::start(&[("auth.cookie", COOKIE)]).await;
    let old = token("anna", 0, &json!({}));
    let (mut patient, _) = connected(&node, &old).await;
    let (mut bo, _) = connected(&node, &token("bo", 0, &json!({}))).await;
    assert_eq!(node.post("/refresh", br#"{"user":"anna"}"#).await.status, 200);
    assert_eq!(patient.message_of("token-expiring").await["expires_in"], 0);
    patient.send(&json!({"type": "token", "token": old})).await;
    assert_eq!(patient.message_of("error").await["code"], "bad-token", "it was issued before");
    for way in ALL {
        assert_eq!(
            way.enter(&node, &old, &[], &[]).await,
            out(way),
            "old rights do not come back by {way:?}"
        );
    }
    let less = token("anna", 0, &json!({"topics": ["projects"]}));
    patient.send(&json!({"type": "token", "token": less})).await;
    patient.message_of("token-accepted").await;
    assert_eq!(patient.message_of("unsubscribed").await["topics"], json!(["comments:1", "comments"]));
    bo.nothing_comes().await;
    assert_eq!(node.post("/refresh", br#"{"session":"x"}"#).await.status, 400);
}

/// A CMS that vouches for anna, and answers when it is let.
async fn slow_cms() -> (String, Arc<Semaphore>, Arc<Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/who", listener.local_addr().unwrap());
    let (asked, may_answer) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (asks, turns) = (Arc::clone(&asked), Arc::clone(&may_answer));
    #[allow(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (asks, turns) = (Arc::clone(&asks), Arc::clone(&turns));
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await.unwrap_or(0) > 0
                {
                }
                asks.add_permits(1);
                turns.acquire().await.unwrap().forget();
                let body = json!({"sub": "anna", "topics": ["*"], "expires_in": 900}).to_string();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = socket.write_all((head + &body).as_bytes()).await;
            });
        }
    });
    (url, asked, may_answer)
}

#[tokio::test]
async fn an_answer_of_the_cms_is_as_old_as_its_question() {
    let (url, asked, may_answer) = slow_cms().await;
    let settings = [
        ("auth.mode", "callback"),
        ("auth.secret", ""),
        ("auth.callback_url", url.as_str()),
        ("auth.cookie", COOKIE),
    ];
    let node = Node::start(&settings).await;
    for way in ALL {
        let key = format!("key-{way:?}").replace(['(', ')'], "-");
        let entering = way.enter(&node, &key, &[], &[]);
        let revoking = async {
            within("the CMS to be asked", asked.acquire()).await.unwrap().forget();
            disconnect(&node, &json!({"user": "anna"})).await;
            // Told in one order: when this session is closed, the door knows as well.
            may_answer.add_permits(1);
        };
        assert_eq!(tokio::join!(entering, revoking).0, out(way), "asked before, answered after, by {way:?}");
        may_answer.add_permits(1);
        assert!(way.enter(&node, &key, &[], &[]).await.is_ok(), "asked afterwards, by {way:?}");
        within("the CMS to be asked", asked.acquire()).await.unwrap().forget();
    }
}

async fn node_on(redis: &RedisServer, name: &str) -> Node {
    Node::start(&[("redis.url", &redis.url()), ("node.name", name)]).await
}

#[tokio::test]
async fn a_node_that_starts_later_knows_and_a_redis_that_forgot_is_told_again() {
    let redis = RedisServer::start();
    let first = node_on(&redis, "first").await;
    let (old, other) = (token("anna", -5, &json!({})), token("bo", -5, &json!({})));
    let (mut session, _) = connected(&first, &old).await;
    disconnect(&first, &json!({"user": "anna"})).await;
    assert_eq!(session.closed().await.0, 4403);
    let second = node_on(&redis, "second").await;
    for way in [Way::Connect, Way::Query(ways::Carrier::Poll)] {
        assert_eq!(way.enter(&second, &old, &[], &[]).await, out(way));
        assert!(way.enter(&second, &other, &[], &[]).await.is_ok());
    }
    redis.command(&["FLUSHALL"]);
    let kept = || redis.command(&["HGETALL", "carillon:revoked:{carillon}"]).contains("disconnect user anna");
    until("it to be written back", || async { kept() }).await;
    let third = node_on(&redis, "third").await;
    assert_eq!(Way::Connect.enter(&third, &old, &[], &[]).await, Err(4401));
}

#[tokio::test]
async fn a_node_that_was_away_closes_whom_it_did_not_hear_about() {
    let redis = RedisServer::start();
    let node = node_on(&redis, "one").await;
    let (mut anna, _) = connected(&node, &token("anna", -5, &json!({}))).await;
    let (mut later, _) = connected(&node, &token("bo", -5, &json!({}))).await;
    keep_unheard(&redis, "anna", "1");
    assert_eq!(anna.closed().await.0, 4403);
    later.nothing_comes().await;
}

/// As an order leaves it that reached Redis while nobody listened; `change`: another number each time.
fn keep_unheard(redis: &RedisServer, user: &str, change: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().to_string();
    let order = format!("disconnect user {user}");
    redis.command(&["HSET", "carillon:revoked:{carillon}", &order, &now, "change", change]);
}

/// Everything of a connection that was answered or streamed until it ended.
async fn rest_of(mut socket: TcpStream) -> String {
    let mut all = Vec::new();
    let _ = within("the end of a connection", socket.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn whatever_an_editor_has_open_on_any_node_ends_and_nothing_of_it_goes_on_elsewhere() {
    let redis = RedisServer::start();
    let nodes = [node_on(&redis, "one").await, node_on(&redis, "two").await];
    let anna = token("anna", -5, &json!({}));
    let authorization = format!("Bearer {anna}");
    let ask = async |node: &Node, path: &str| {
        let mut socket = TcpStream::connect(node.public).await.unwrap();
        let head = format!(
            "GET /realtime/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {authorization}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket
    };
    let (mut open, mut spare, mut streams, mut parked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for node in &nodes {
        open.push(connected(node, &anna).await.0);
        let stream = TcpStream::connect(node.public).await.unwrap();
        spare.push(Ws::open(stream, "/realtime", &[("Authorization", &authorization)]).await.unwrap());
        streams.push(ask(node, "events?topics=comments:1").await);
        let first = rest_of(ask(node, "poll?topics=comments:1").await).await;
        let cursor = first.split("\"cursor\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        parked.push(ask(node, &format!("poll?topics=comments:1&cursor={cursor}")).await);
        until("all to be there", || async {
            let total = node.get("/status").await.json()["this"]["sessions"]["by_transport"].clone();
            (&total["websocket"], &total["sse"], &total["poll"]) == (&json!(2), &json!(1), &json!(1))
        })
        .await;
    }
    let resume = json!({"at": 1, "positions": {}});
    disconnect(&nodes[0], &json!({"user": "anna"})).await;
    for session in &mut open {
        assert_eq!(session.closed().await.0, 4403);
    }
    nodes[1].publish("comments:1", &json!({"type": "a.b", "n": "after"})).await;
    for session in &mut spare {
        session.send(&json!({"type": "connect", "topics": ["comments:1"], "resume": resume})).await;
        assert_eq!(session.closed().await.0, 4401);
    }
    for socket in streams.into_iter().chain(parked) {
        let rest = rest_of(socket).await;
        assert!(rest.contains("4403") && !rest.contains("after"), "{rest}");
    }
    for node in &nodes {
        for way in [Way::Connect, Way::Query(ways::Carrier::Sse), Way::Query(ways::Carrier::Poll)] {
            assert_eq!(way.enter(node, &anna, &["comments:1"], &[]).await, out(way));
        }
    }
}

#[tokio::test]
async fn a_renewal_that_is_under_way_saves_nobody() {
    let (url, asked, may_answer) = slow_cms().await;
    let settings = [("auth.mode", "callback"), ("auth.secret", ""), ("auth.callback_url", url.as_str())];
    let node = Node::start(&settings).await;
    for by_itself in [false, true] {
        may_answer.add_permits(1);
        let (mut anna, _) = connected(&node, &format!("key-{by_itself}")).await;
        within("the CMS to be asked", asked.acquire()).await.unwrap().forget();
        if by_itself {
            assert_eq!(node.post("/refresh", br#"{"user":"anna"}"#).await.status, 200);
        } else {
            anna.send(&json!({"type": "token", "token": "another key"})).await;
        }
        within("the CMS to be asked", asked.acquire()).await.unwrap().forget();
        disconnect(&node, &json!({"user": "anna"})).await;
        may_answer.add_permits(1);
        // The order and the answer, which is refused, race for the last word.
        assert!([4401, 4403].contains(&anna.closed().await.0), "the node asked by itself: {by_itself}");
    }
}

#[tokio::test]
async fn an_order_whose_message_was_lost_is_learned_although_later_ones_were_heard() {
    let redis = RedisServer::start();
    let nodes = [node_on(&redis, "one").await, node_on(&redis, "two").await];
    let mut sessions = Vec::new();
    for node in &nodes {
        sessions.push(connected(node, &token("anna", -5, &json!({}))).await.0);
        sessions.push(connected(node, &token("cleo", -5, &json!({}))).await.0);
    }
    keep_unheard(&redis, "anna", "1");
    disconnect(&nodes[0], &json!({"user": "bo"})).await;
    keep_unheard(&redis, "cleo", "2");
    disconnect(&nodes[1], &json!({"user": "bo"})).await;
    for session in &mut sessions {
        assert_eq!(session.closed().await.0, 4403);
    }
    // What was lost with FLUSHALL in the same moment as an order came is written back too.
    redis.command(&["FLUSHALL"]);
    disconnect(&nodes[0], &json!({"user": "dora"})).await;
    let kept = || redis.command(&["HGETALL", "carillon:revoked:{carillon}"]);
    until("everything to be written back", || async {
        ["anna", "bo", "cleo", "dora"].iter().all(|user| kept().contains(&format!("disconnect user {user}")))
    })
    .await;
}

#[tokio::test]
async fn the_clock_of_redis_has_no_say() {
    for clock in ["-60s", "+60s"] {
        let redis = RedisServer::with_clock(clock);
        let nodes = [node_on(&redis, "one").await, node_on(&redis, "two").await];
        let old = token("anna", -5, &json!({}));
        let mut sessions = Vec::new();
        for node in &nodes {
            sessions.push(connected(node, &old).await.0);
        }
        for node in &nodes {
            disconnect(node, &json!({"user": "anna"})).await;
        }
        for session in &mut sessions {
            assert_eq!(session.closed().await.0, 4403, "{clock}");
        }
        let third = node_on(&redis, "three").await;
        for node in nodes.iter().chain([&third]) {
            assert_eq!(Way::Connect.enter(node, &old, &[], &[]).await, Err(4401), "{clock}");
        }
        let (mut bo, _) = connected(&third, &token("bo", -5, &json!({}))).await;
        assert_eq!(nodes[0].post("/refresh", br#"{"user":"bo"}"#).await.status, 200);
        assert_eq!(bo.message_of("token-expiring").await["expires_in"], 0, "{clock}");
        bo.send(&json!({"type": "token", "token": token("bo", 0, &json!({}))})).await;
        bo.message_of("token-accepted").await;
    }
}

#[tokio::test]
async fn rights_do_not_come_back_with_a_token_whose_clock_is_ahead() {
    let node = Node::start(&[("auth.cookie", COOKIE)]).await;
    let (old, unseen) = (token("anna", 15, &json!({})), token("anna", 20, &json!({})));
    let (mut session, _) = connected(&node, &old).await;
    assert_eq!(node.post("/refresh", br#"{"user":"anna"}"#).await.status, 200);
    assert_eq!(session.message_of("token-expiring").await["expires_in"], 0);
    for token in [&old, &unseen] {
        session.send(&json!({"type": "token", "token": token})).await;
        assert_eq!(session.message_of("error").await["code"], "bad-token");
        for way in ALL {
            assert_eq!(way.enter(&node, token, &[], &[]).await, out(way), "{way:?}");
        }
    }
    session.send(&json!({"type": "token", "token": token("anna", 0, &json!({}))})).await;
    session.message_of("token-accepted").await;
}

#[tokio::test]
async fn what_redis_did_not_take_is_no_success() {
    let mut redis = RedisServer::start();
    let node = node_on(&redis, "one").await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    for path in ["/disconnect", "/refresh"] {
        assert_eq!(
            node.post(path, br#"{"user":"anna"}"#).await.problem(),
            (503, "redis-refuses".into()),
            "{path}"
        );
    }
    redis.kill();
    assert_eq!(node.post("/disconnect", br#"{"user":"anna"}"#).await.problem(), (503, "redis-away".into()));
}
