//! What strangers and single editors may use of a node: nobody uses up the others' room, by any transport.

use crate::support::{
    node::{Node, Ws, client_frame, read_head, request, token, until, within},
    ways::{ALL, COOKIE, Carrier, Way},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn strangers_use_up_nobody_elses_room() {
    let node = Node::start(&[("limits.strangers_per_second", "1"), ("auth.cookie", COOKIE)]).await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(node.public_get("/realtime/poll?topics=projects", &[]).await.status);
        statuses.push(node.public_get("/realtime/events?topics=projects&token=x", &[]).await.status);
    }
    assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&503), "strangers have a budget too: {statuses:?}");
    for way in ALL.into_iter().filter(|way| *way != Way::Connect) {
        assert!(way.enter(&node, &token("anna", &["*"]), &[], &[]).await.is_ok(), "{way:?}");
    }
}

fn followed(welcome: &Value) -> usize {
    welcome["positions"].as_object().unwrap().len()
}

#[tokio::test]
async fn an_editors_topics_are_counted_over_all_sessions_and_transports() {
    let node = Node::start(&[("limits.editor_topics_per_hour", "4"), ("auth.cookie", COOKIE)]).await;
    let anna = token("anna", &["*"]);
    let enter =
        async |carrier, topics: &[&str]| Way::Bearer(carrier).enter(&node, &anna, topics, &[]).await.unwrap();
    // Each key with its area.
    assert_eq!(followed(&enter(Carrier::WebSocket, &["comments:1", "comments:2"]).await), 3);
    assert_eq!(followed(&enter(Carrier::Sse, &["comments:3", "comments:4"]).await), 3);
    let welcome = enter(Carrier::Poll, &["comments:5", "comments:1"]).await;
    assert_eq!(followed(&welcome), 2, "what is known costs nothing: {welcome}");
    assert_eq!(welcome["refused"], json!([{"topic": "comments:5", "code": "too-many"}]));
    let (mut more, _) = node.session("anna", &[]).await;
    more.send(&json!({"type": "subscribe", "topics": ["comments:6"]})).await;
    assert_eq!(more.message_of("subscribed").await["refused"][0]["code"], "too-many");
    let (_, bo) = node.session("bo", &["comments:5"]).await;
    assert_eq!(followed(&bo), 2, "somebody else");
}

#[tokio::test]
async fn a_cursor_exempts_from_nothing() {
    let node = Node::start(&[("limits.editor_requests_per_second", "3")]).await;
    let anna = token("anna", &["*"]);
    let first = node.public_get(&format!("/realtime/poll?topics=projects&token={anna}"), &[]).await.json();
    node.publish("projects", &json!({"type": "a.b"})).await;
    for cursor in ["x", first["cursor"].as_str().unwrap()] {
        let mut refused = false;
        for _ in 0..20 {
            let path = format!("/realtime/poll?topics=projects&cursor={cursor}&token={anna}");
            refused |= node.public_get(&path, &[]).await.status == 503;
        }
        assert!(refused, "20 polls at once with cursor={cursor}");
    }
    assert!(Way::Connect.enter(&node, &token("bo", &["*"]), &[], &[]).await.is_ok(), "somebody else");
}

#[tokio::test]
async fn a_cursor_that_cannot_be_read_begins_anew_and_counts_so() {
    let node = Node::start(&[("limits.accepts_per_second", "2")]).await;
    let anna = token("anna", &["*"]);
    for cursor in ["x", "~", "eyJ9", "%00", "a.b.c"] {
        let mut refused = false;
        for _ in 0..10 {
            let path = format!("/realtime/poll?topics=projects&cursor={cursor}&token={anna}");
            refused |= node.public_get(&path, &[]).await.status == 503;
        }
        assert!(refused, "10 polls at once with cursor={cursor}");
    }
}

/// A WebSocket, before or after its `welcome`.
async fn socket(node: &Node, introduced: bool) -> Ws<TcpStream> {
    if introduced { node.session("anna", &[]).await.0 } else { node.socket().await }
}

/// After the cut nothing more than what was under way is taken, however long its sender goes on.
#[tokio::test]
async fn a_flood_is_not_read_on_after_it_was_cut() {
    let node = Node::start(&[("limits.messages_per_second", "20")]).await;
    let frames = client_frame(0x89, b"").repeat(10_000);
    for introduced in [false, true] {
        let mut ws = socket(&node, introduced).await;
        // Room for what the kernel holds on both sides, and for the last bytes that are read.
        let (mut sent, room) = (0, 32 << 20);
        within("the end of the flood", async {
            while sent < room && ws.stream.write_all(&frames).await.is_ok() {
                sent += frames.len();
            }
        })
        .await;
        assert!(sent < room, "{sent} bytes were taken, introduced: {introduced}");
    }
}

#[tokio::test]
async fn frames_without_a_message_count_as_messages_before_connect_too() {
    let node = Node::start(&[("limits.messages_per_second", "20")]).await;
    let start = client_frame(0x01, b" ");
    for (what, first, frame) in [
        ("Pings", None, client_frame(0x89, b"")),
        ("Pongs", None, client_frame(0x8A, b"x")),
        ("empty pieces", Some(start), client_frame(0x00, b"")),
    ] {
        for introduced in [false, true] {
            let mut ws = socket(&node, introduced).await;
            ws.write(&[first.clone().unwrap_or_default(), frame.repeat(100)].concat()).await;
            assert_eq!(ws.closed().await.0, 1013, "100 {what}, introduced: {introduced}");
        }
    }
    let (mut calm, _) = node.session("bo", &[]).await;
    calm.write(&client_frame(0x89, b"").repeat(5)).await;
    calm.nothing_comes().await;
    until("everybody else to be gone", || async {
        node.get("/status").await.json()["this"]["sessions"]["total"] == 1
    })
    .await;
}

#[tokio::test]
async fn a_foreign_page_opens_nothing_without_an_origin_either() {
    let node = Node::start(&[("auth.cookie", COOKIE)]).await;
    let anna = token("anna", &["*"]);
    for carrier in [Carrier::WebSocket, Carrier::Sse, Carrier::Poll] {
        for (site, expected) in
            [("cross-site", Some(403)), ("same-site", Some(403)), ("same-origin", None), ("none", None)]
        {
            let refused =
                Way::Cookie(carrier).enter(&node, &anna, &[], &[("Sec-Fetch-Site", site)]).await.err();
            assert_eq!(refused, expected, "{site} by {carrier:?}");
        }
    }
}

#[tokio::test]
async fn a_door_without_a_secret_is_for_this_machine_alone() {
    let node =
        Node::start(&[("internal.publish_token", ""), ("auth.mode", "none"), ("auth.secret", "")]).await;
    let body = br#"{"topic":"comments:1","event":{"type":"a.b"}}"#;
    for (headers, status) in [
        (&[][..], 200),
        (&[("Host", "localhost:9090")], 200),
        (&[("Host", "[::1]:9090")], 200),
        (&[("Host", "evil.example:9090")], 403),
        (&[("Host", "127.0.0.1.evil.example")], 403),
        (&[("X-Forwarded-For", "203.0.113.9")], 403),
        (&[("Forwarded", "for=203.0.113.9")], 403),
        (&[("X-Forwarded-Proto", "https")], 403),
        (&[("CF-Connecting-IP", "203.0.113.9")], 403),
        (&[("Sec-Fetch-Site", "cross-site")], 403),
        (&[("Origin", "null")], 403),
    ] {
        let answer = request(node.internal, "POST", "/publish", headers, body).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
    }
}

/// A page whose own name points to the internal door says that name, whatever it asks for.
#[tokio::test]
async fn the_internal_door_answers_to_its_own_names_only() {
    let node = Node::start(&[("internal.hosts", "node.example.com")]).await;
    let ask = async |path: &str, host: &str, token: &[(&str, &str)]| {
        let headers = [&[("Host", host)], token].concat();
        request(node.internal, "GET", path, &headers, b"").await.status
    };
    let paths = ["/", "/status", "/metrics", "/history", "/positions?topics=projects", "/nothing"];
    for path in paths {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:9090",
            "10.1.2.3",
            "[2001:db8::1]:80",
            "localhost.evil.example",
        ] {
            assert_eq!(ask(path, host, &[]).await, 403, "{path} of {host}");
        }
        for host in ["localhost:9090", "NODE.example.com:9090", "[::1]"] {
            assert_ne!(ask(path, host, &[]).await, 403, "{path} of {host}");
        }
    }
    let token = [("Authorization", "Bearer the publish token of the tests")];
    assert_eq!(ask("/status", "evil.example", &token).await, 200, "no page knows the secret");
    assert_eq!(ask("/status", "evil.example", &[("Authorization", "Bearer x")]).await, 403);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(path, "balancer.example", &[]).await, 200, "{path}");
    }
}

#[tokio::test]
async fn who_it_is_is_asked_before_a_body_is_read() {
    let node = Node::start(&[]).await;
    for path in ["/publish", "/disconnect", "/refresh"] {
        let mut socket = TcpStream::connect(node.internal).await.unwrap();
        // A server that wants the body of this says `100 Continue` first (RFC 9110, 10.1.1).
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 8000000\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let (answer, _) = within("the refusal", read_head(&mut socket)).await.unwrap();
        assert_eq!(answer.status, 401, "{path}");
    }
}

/// The socket is closed by the node, within the patience of these tests.
async fn ended(socket: &mut TcpStream) {
    within("the end of the connection", async {
        let mut rest = [0; 4096];
        while socket.read(&mut rest).await.unwrap_or(0) > 0 {}
    })
    .await;
}

#[tokio::test]
async fn connections_are_counted_with_and_without_a_session() {
    let node = Node::start(&[("limits.connections", "3")]).await;
    let (mut session, _) = node.session("anna", &[]).await;
    let mut silent = TcpStream::connect(node.public).await.unwrap();
    let _other = TcpStream::connect(node.public).await.unwrap();
    until("the next one to be told no", || async {
        let mut socket = TcpStream::connect(node.public).await.unwrap();
        let _ = socket.write_all(b"GET /realtime/config HTTP/1.1\r\nHost: a\r\n\r\n").await;
        read_head(&mut socket).await.is_some_and(|(answer, _)| answer.status == 503)
    })
    .await;
    session.nothing_comes().await;
    until("the node to say that it is full", || async {
        let answer = node.get("/readyz").await;
        answer.status == 503 && answer.text().contains("limits.connections")
    })
    .await;
    silent.shutdown().await.unwrap();
    ended(&mut silent).await;
    until("the node to be ready again", || async { node.get("/readyz").await.status == 200 }).await;
}

#[tokio::test]
async fn a_connection_without_a_stream_ends() {
    let node = Node::start(&[("http.keep_alive_seconds", "1")]).await;
    let mut socket = TcpStream::connect(node.public).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(TcpStream::connect(node.public).await.unwrap()),
    )
    .await
    .unwrap();
    #[allow(clippy::disallowed_methods, reason = "tests own their clients")]
    let connection = tokio::spawn(connection);
    let request = hyper::Request::builder().uri("http://a/realtime/config");
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    assert_eq!(within("an answer", sender.send_request(request)).await.unwrap().status(), 200);
    // The client answers Pings all the while.
    let _ = within("the end of HTTP/2", connection).await.unwrap();
    socket.write_all(b"GET /realtime/config HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    ended(&mut socket).await;
}
