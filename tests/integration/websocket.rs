//! Sessions over WebSocket (contract, 4.1 and 4.5), with a raw client, on the memory bus.

use std::time::Duration;

use crate::support::node::{Node, Ws, client_frame, request, token, token_for, until};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

fn event(n: usize) -> Value {
    json!({"type": "comment.created", "data": {"n": n}})
}

#[tokio::test]
async fn an_editor_is_welcomed_and_told_in_order() {
    let node = Node::start(&[]).await;
    let (mut anna, welcome) = node.session("anna", &["comments:42"]).await;
    assert_eq!(welcome["user"], "anna");
    assert_eq!(
        (&welcome["live"], &welcome["heartbeat"], &welcome["refused"]),
        (&json!(true), &json!(25), &json!([]))
    );
    assert!((598..=600).contains(&welcome["expires_in"].as_u64().unwrap()), "{welcome}");
    let positions: Vec<_> = welcome["positions"].as_object().unwrap().keys().collect();
    assert_eq!(positions, ["comments", "comments:42"]);
    let mut published = Vec::new();
    for n in 0..20 {
        published.push(node.publish(["comments:42", "comments", "comments:43"][n % 3], &event(n)).await);
    }
    for n in (0..20).filter(|n| n % 3 != 2) {
        let message = anna.message().await;
        assert_eq!(message["type"], "event");
        assert_eq!(message["event"], event(n));
        assert_eq!(message["topic"], ["comments:42", "comments"][n % 3]);
        assert!(message["position"].as_str().unwrap().ends_with(&format!(".{}", published[n])), "{message}");
    }
    anna.nothing_comes().await;
}

#[tokio::test]
async fn an_editor_who_was_away_gets_what_was_missed() {
    let node = Node::start(&[]).await;
    let (mut anna, welcome) = node.session("anna", &["comments:42"]).await;
    node.publish("comments:42", &event(0)).await;
    let seen = anna.message_of("event").await;
    drop(anna);
    for n in 1..=50 {
        node.publish("comments:42", &event(n)).await;
    }
    let mut anna = node.socket().await;
    let positions = json!({"comments:42": seen["position"], "comments": welcome["positions"]["comments"]});
    let resume = json!({"at": seen["at"], "positions": positions});
    let connect = json!({"type": "connect", "token": token("anna", &["*"]), "topics": ["comments:42"], "resume": resume});
    anna.send(&connect).await;
    let welcome = anna.message_of("welcome").await;
    assert_eq!(welcome["positions"]["comments:42"], seen["position"], "the stream starts where it was left");
    for n in 1..=50 {
        assert_eq!(anna.message().await["event"], event(n));
    }
    anna.nothing_comes().await;
}

#[tokio::test]
async fn topics_come_and_go() {
    let node = Node::start(&[]).await;
    let (mut anna, _) = node.session("anna", &[]).await;
    anna.send(&json!({"type": "subscribe", "topics": ["projects", "comments:1"]})).await;
    let subscribed = anna.message_of("subscribed").await;
    let topics: Vec<_> = subscribed["positions"].as_object().unwrap().keys().collect();
    assert_eq!(topics, ["comments", "comments:1", "projects"]);
    node.publish("projects", &event(1)).await;
    assert_eq!(anna.message().await["topic"], "projects");
    anna.send(&json!({"type": "unsubscribe", "topics": ["projects"]})).await;
    assert_eq!(anna.message().await, json!({"type": "unsubscribed", "topics": ["projects"]}));
    node.publish("projects", &event(2)).await;
    anna.nothing_comes().await;
}

#[tokio::test]
async fn refused_topics_are_named_and_the_others_followed() {
    let node = Node::start(&[("limits.topics_per_session", "3")]).await;
    let mut anna = node.socket().await;
    let topics = [
        "comments:42",
        "comments:43",
        "nonsense",
        "comments:a b",
        "comments:*",
        "notifications:bo",
        "notifications:*",
        "notifications:anna",
        "notifications",
        "comments:42",
        "comments",
        "com\nments",
    ];
    let connect =
        json!({"type": "connect", "token": token("anna", &["comments:42", "comments"]), "topics": topics});
    anna.send(&connect).await;
    let welcome = anna.message().await;
    let refused = json!([
        {"topic": "comments:43", "code": "forbidden"},
        {"topic": "nonsense", "code": "bad-topic"},
        {"topic": "comments:a b", "code": "bad-topic"},
        {"topic": "comments:*", "code": "forbidden"},
        {"topic": "notifications:bo", "code": "forbidden"},
        {"topic": "notifications:*", "code": "forbidden"},
        {"topic": "comments", "code": "too-many"},
        {"topic": "com\nments", "code": "bad-topic"},
    ]);
    assert_eq!(welcome["refused"], refused);
    let followed: Vec<_> = welcome["positions"].as_object().unwrap().keys().collect();
    assert_eq!(followed, ["comments", "comments:42", "notifications", "notifications:anna"]);
}

#[tokio::test]
async fn sixty_five_topics_are_one_too_many() {
    let node = Node::start(&[]).await;
    let topics: Vec<_> = (1..=65).map(|n| format!("comments:{n}")).collect();
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    let (_anna, welcome) = node.session("anna", &topics).await;
    assert_eq!(welcome["refused"], json!([{"topic": "comments:65", "code": "too-many"}]));
    assert_eq!(welcome["positions"].as_object().unwrap().len(), 65, "64 and the area");
}

#[tokio::test]
async fn private_topics_reach_the_editor_of_exactly_that_name() {
    let node = Node::start(&[]).await;
    let name = "DOM\\Änne@Example.COM";
    let (topic, other) = (format!("notifications:{name}"), "notifications:dom\\änne@example.com");
    let (mut anne, welcome) = node.session(name, &[&topic, other]).await;
    assert_eq!(welcome["refused"], json!([{"topic": other, "code": "forbidden"}]));
    let (mut bo, refused) = node.session("bo", &[&topic, other]).await;
    assert_eq!(refused["refused"].as_array().unwrap().len(), 2);
    node.publish(other, &event(1)).await;
    node.publish(&topic, &event(2)).await;
    let told = anne.message().await;
    assert_eq!(
        (&told["topic"], &told["event"]),
        (&json!(topic), &event(2)),
        "what is for another name is not hers"
    );
    bo.nothing_comes().await;
}

#[tokio::test]
async fn messages_that_are_none_end_the_session_with_4400() {
    let node = Node::start(&[]).await;
    let deep = format!("{{\"type\":\"connect\",\"x\":{}1{}}}", "[".repeat(524_000), "]".repeat(524_000));
    for (what, bytes) in [
        ("a binary frame", client_frame(0x82, b"{}")),
        ("invalid UTF-8", client_frame(0x81, b"{\"type\":\"ping\xff\"}")),
        ("no JSON", client_frame(0x81, b"hello")),
        ("an array", client_frame(0x81, b"[]")),
        ("a message before connect", client_frame(0x81, br#"{"type":"ping"}"#)),
        ("a field of the wrong type", client_frame(0x81, br#"{"type":"connect","topics":"comments"}"#)),
        (
            "nesting within the limit",
            client_frame(
                0x81,
                format!("{{\"type\":{}1{}}}", "[".repeat(30_000), "]".repeat(30_000)).as_bytes(),
            ),
        ),
    ] {
        let mut ws = node.socket().await;
        // The node may close before it has read everything.
        let _ = ws.stream.write_all(&bytes).await;
        let (code, closing) = ws.closed().await;
        assert_eq!(code, 4400, "{what}: {closing}");
        assert_eq!(closing["reconnect_after_ms"], Value::Null, "{what}: coming back is pointless");
    }
    // Too much at once: whoever says less may come back.
    for (what, text) in
        [("a megabyte of nested JSON", deep), ("70 KiB", format!("{{\"type\":\"{}\"}}", "x".repeat(70_000)))]
    {
        let mut ws = node.socket().await;
        let _ = ws.stream.write_all(&client_frame(0x81, text.as_bytes())).await;
        let (code, closing) = ws.closed().await;
        assert_eq!(code, 1009, "{what}: {closing}");
        assert!(closing["reconnect_after_ms"].is_u64(), "{what}: {closing}");
    }
    let (mut anna, _) = node.session("anna", &[]).await;
    anna.send(&json!({"type": "connect", "token": token("anna", &["*"])})).await;
    assert_eq!(anna.closed().await.0, 4400, "a second connect");
}

#[tokio::test]
async fn an_unknown_type_does_no_harm() {
    let node = Node::start(&[]).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    anna.send(&json!({"type": "dance", "topics": 7})).await;
    let error = anna.message().await;
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("unknown-type")));
    node.publish("comments:1", &event(1)).await;
    assert_eq!(anna.message().await["event"], event(1));
}

#[tokio::test]
async fn bad_tokens_are_refused_with_4401() {
    let node = Node::start(&[]).await;
    for bad in
        [Value::Null, json!(""), json!("x.y.z"), json!(token_for("anna", &["*"], Duration::ZERO) + "x")]
    {
        let mut ws = node.socket().await;
        ws.send(&json!({"type": "connect", "token": bad, "topics": ["comments:1"]})).await;
        assert_eq!(ws.closed().await.0, 4401, "{bad}");
    }
    let bearer = format!("Bearer {}", token("anna", &["*"]));
    let stream = TcpStream::connect(node.public).await.unwrap();
    let mut ws = Ws::open(stream, "/realtime", &[("Authorization", &bearer)]).await.unwrap();
    ws.send(&json!({"type": "connect"})).await;
    assert_eq!(ws.message().await["user"], "anna", "the handshake's token is enough");
}

#[tokio::test]
async fn a_session_ends_with_its_token_unless_a_new_one_comes() {
    let node = Node::start(&[]).await;
    let mut anna = node.socket().await;
    let short = token_for("anna", &["comments:*", "projects"], Duration::from_secs(3));
    anna.send(&json!({"type": "connect", "token": short, "topics": ["comments:1", "projects"]})).await;
    assert_eq!(anna.message().await["type"], "welcome");
    let expiring = anna.message().await;
    assert_eq!(expiring["type"], "token-expiring");
    assert!(expiring["expires_in"].as_u64().unwrap() < 3, "{expiring}");
    anna.send(&json!({"type": "token", "token": token("bo", &["*"])})).await;
    let error = anna.message().await;
    assert_eq!(error["code"], "bad-token", "somebody else's token: {error}");
    anna.send(&json!({"type": "token", "token": token("anna", &["comments:*"])})).await;
    assert_eq!(anna.message().await["type"], "token-accepted");
    assert_eq!(anna.message().await, json!({"type": "unsubscribed", "topics": ["projects"]}));
    anna.send(&json!({"type": "token", "token": token_for("anna", &["comments:*"], Duration::from_secs(1))}))
        .await;
    anna.message_of("token-accepted").await;
    assert_eq!(anna.closed().await.0, 4401, "the newest token has ended");
}

#[tokio::test]
async fn silence_is_pinged_and_then_closed_with_4408() {
    let node = Node::start(&[("heartbeat.seconds", "3")]).await;
    let (mut anna, _) = node.session("anna", &[]).await;
    let ping = anna.ping().await;
    anna.write(&client_frame(0x8A, &ping.payload)).await;
    anna.ping().await; // another one, since the first was answered
    let (code, closing) = anna.closed().await;
    assert_eq!(code, 4408, "{closing}");
}

#[tokio::test]
async fn whoever_does_not_connect_is_closed_with_4408() {
    let node = Node::start(&[]).await;
    let mut ws = node.socket().await;
    ws.write(&client_frame(0x89, b"still here")).await;
    assert_eq!(ws.closed().await.0, 4408);
}

#[tokio::test]
async fn handshakes_are_refused_with_a_reason() {
    let node = Node::start(&[("http.allowed_origins", "https://cms.example.com")]).await;
    let open = |headers: Vec<(&'static str, &'static str)>| async move {
        let stream = TcpStream::connect(node.public).await.unwrap();
        match Ws::open(stream, "/realtime", &headers).await {
            Ok(ws) => (101, ws.answer.header("sec-websocket-protocol").unwrap_or_default().to_owned()),
            Err(answer) => answer.problem(),
        }
    };
    let open = &open;
    assert_eq!(open(vec![]).await, (101, String::new()));
    assert_eq!(open(vec![("Sec-WebSocket-Protocol", "x, carillon.v1")]).await, (101, "carillon.v1".into()));
    assert_eq!(open(vec![("Origin", "https://cms.example.com")]).await.0, 101);
    assert_eq!(open(vec![("Origin", "http://node.test")]).await.0, 101, "the node's own host");
    assert_eq!(open(vec![("Origin", "https://evil.example")]).await, (403, "origin".into()));
    assert_eq!(open(vec![("Origin", "null")]).await, (403, "origin".into()));
    assert_eq!(open(vec![("Authorization", "Bearer x.y.z")]).await, (401, "unauthenticated".into()));
    assert_eq!(open(vec![("Sec-WebSocket-Key", "short")]).await, (400, "bad-handshake".into()));
    assert_eq!(open(vec![("Sec-WebSocket-Version", "8")]).await, (400, "bad-handshake".into()));
    assert_eq!(open(vec![("Upgrade", "")]).await, (426, "upgrade-missing".into()));
    assert_eq!(open(vec![("Connection", "keep-alive")]).await, (426, "upgrade-missing".into()));
}

#[tokio::test]
async fn a_plain_get_is_told_what_is_missing() {
    let node = Node::start(&[]).await;
    let answer = node.public_get("/realtime", &[("Upgrade", "websocket")]).await;
    assert_eq!(answer.problem(), (426, "upgrade-missing".into()));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    let headers = &answer.json()["headers"];
    assert_eq!(headers["upgrade"], "websocket");
    assert_eq!(headers["sec-websocket-key"], Value::Null);
    assert!(answer.json()["detail"].as_str().unwrap().contains("dropped"), "{answer:?}");
    let version = Ws::open(
        TcpStream::connect(node.public).await.unwrap(),
        "/realtime",
        &[("Sec-WebSocket-Version", "8")],
    );
    assert_eq!(version.await.err().unwrap().header("sec-websocket-version"), Some("13"));
    assert_eq!(node.public_get("/elsewhere", &[]).await.problem(), (404, "not-found".into()));
    let posted = request(node.public, "POST", "/realtime", &[], b"").await;
    assert_eq!(posted.problem(), (405, "method-not-allowed".into()));
}

#[tokio::test]
async fn websockets_can_be_switched_off() {
    let node = Node::start(&[("websocket.enabled", "false")]).await;
    let stream = TcpStream::connect(node.public).await.unwrap();
    let refusal = Ws::open(stream, "/realtime", &[]).await.err().unwrap();
    assert_eq!(refusal.problem(), (404, "websocket-disabled".into()));
    let config = node.public_get("/realtime/config", &[]).await.json();
    assert_eq!(
        (&config["websocket"], &config["sse"], &config["poll"]),
        (&json!(false), &json!(true), &json!(true))
    );
    assert_eq!(config["heartbeat"], 25);
}

#[tokio::test]
async fn anybody_is_anonymous_where_that_is_written_out() {
    let node =
        Node::start(&[("auth.mode", "none"), ("auth.secret", ""), ("auth.default_topics", "comments:*")])
            .await;
    let mut ws = node.socket().await;
    ws.send(&json!({"type": "connect", "topics": ["comments:1", "projects"]})).await;
    let welcome = ws.message().await;
    assert_eq!(welcome["user"], "anonymous");
    assert_eq!(welcome["refused"], json!([{"topic": "projects", "code": "forbidden"}]));
    assert_eq!(welcome.get("expires_in"), None);
}

#[tokio::test]
async fn a_revoked_editor_is_closed_with_4403_and_others_are_not() {
    let node = Node::start(&[]).await;
    let (mut anna, _) = node.session("anna", &[]).await;
    let (mut second, _) = node.session("anna", &["comments:1"]).await;
    let (mut bo, _) = node.session("bo", &[]).await;
    let answer = node.post("/disconnect", br#"{"user":"anna"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(anna.closed().await.0, 4403);
    assert_eq!(second.closed().await.0, 4403);
    bo.nothing_comes().await;
}

#[tokio::test]
async fn a_draining_node_closes_everybody_and_stops() {
    let node = Node::start(&[]).await;
    let mut sessions = Vec::new();
    for n in 0..10 {
        sessions.push(node.session(&format!("editor{n}"), &[]).await.0);
    }
    let waiting = node.socket().await;
    node.stop();
    until("the node to be unready", || async {
        let answer = node.get("/readyz").await;
        answer.status == 503 && answer.json()["reason"] == "the node is draining"
    })
    .await;
    let refused =
        Ws::open(TcpStream::connect(node.public).await.unwrap(), "/realtime", &[]).await.err().unwrap();
    assert_eq!(refused.problem(), (503, "draining".into()));
    assert!(refused.header("retry-after").is_some());
    for mut session in sessions {
        let (code, closing) = session.closed().await;
        assert_eq!((code, &closing["reason"]), (1012, &json!("drain")));
        assert!(closing["reconnect_after_ms"].as_u64().unwrap() <= 1000, "{closing}");
    }
    drop(waiting);
    node.stopped().await.unwrap();
}

#[tokio::test]
async fn limits_of_sessions_are_kept() {
    let node = Node::start(&[("limits.sessions", "3"), ("limits.sessions_per_editor", "1")]).await;
    let (anna, _) = node.session("anna", &[]).await;
    let mut second = node.socket().await;
    second.send(&json!({"type": "connect", "token": token("anna", &["*"])})).await;
    let (code, closing) = second.closed().await;
    assert_eq!(code, 1013, "{closing}");
    assert!(closing["reconnect_after_ms"].as_u64().is_some());
    let _others = (node.session("bo", &[]).await, node.session("cy", &[]).await);
    let full =
        Ws::open(TcpStream::connect(node.public).await.unwrap(), "/realtime", &[]).await.err().unwrap();
    assert_eq!(full.problem(), (503, "too-many-sessions".into()));
    assert!(full.header("retry-after").is_some());
    drop(anna);
    until("a place to be free", || async {
        Ws::open(TcpStream::connect(node.public).await.unwrap(), "/realtime", &[]).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_messages_is_cut_off_with_1013() {
    let node = Node::start(&[("limits.messages_per_second", "5")]).await;
    let (mut anna, _) = node.session("anna", &[]).await;
    let flood = client_frame(0x81, br#"{"type":"ping"}"#).repeat(20);
    anna.write(&flood).await;
    assert_eq!(anna.closed().await.0, 1013);
}
