//! Attacks, each by every way in: who must not get in does not, who must not read does not, and what must not be
//! believed is not (docs/security.md). On the memory bus, with a raw client.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::node::{Answer, Node, SECRET, Ws, client_frame, read_head, request, token, within};
use crate::support::ways::{ALL, COOKIE, Carrier, Way};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use carillon::config::{Algorithm, Secret};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const OWN: [(&str, &str); 1] = [("Origin", "http://node.test")];
const EVIL: [(&str, &str); 1] = [("Origin", "https://evil.example")];

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + seconds
}

fn signed(claims: &Value, secret: &str) -> String {
    carillon::auth::token::sign(claims, &Secret::new(secret), Algorithm::Hs256).unwrap()
}

fn claims(exp: i64) -> Value {
    json!({"sub": "anna", "exp": in_seconds(exp), "topics": ["*"]})
}

async fn node() -> Node {
    Node::start(&[("auth.cookie", COOKIE)]).await
}

#[tokio::test]
async fn a_good_token_opens_every_door_and_a_bad_one_none() {
    let node = node().await;
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let good = token("anna", &["*"]);
    let parts: Vec<_> = good.split('.').collect();
    let mut other = claims(600);
    other["sub"] = "admin".into();
    let bad = [
        ("forged", format!("{}.{}.{}", parts[0], part(&other), parts[2])),
        ("signed by somebody else", signed(&claims(600), "another secret of the tests, 32 bytes")),
        ("without a signature", format!("{}.{}.", parts[0], parts[1])),
        ("alg none", format!("{}.{}.", part(&json!({"alg": "none"})), parts[1])),
        ("alg of another kind", format!("{}.{}.{}", part(&json!({"alg": "RS256"})), parts[1], parts[2])),
        ("expired", signed(&claims(-60), SECRET)),
    ];
    for way in ALL {
        let welcome = way.enter(&node, &good, &["comments:1"], &[]).await;
        assert_eq!(welcome.unwrap()["user"], "anna", "{way:?}");
        for (what, token) in &bad {
            let refusal = way.enter(&node, token, &["comments:1"], &[]).await;
            let expected = if way == Way::Connect { 4401 } else { 401 };
            assert_eq!(refusal, Err(expected), "{what}, {way:?}");
        }
    }
}

/// A revocation is kept until all that it concerns has ended.
#[tokio::test]
async fn no_token_is_good_for_longer_than_revocations_are_kept() {
    let node = Node::start(&[("auth.cookie", COOKIE), ("auth.max_token_seconds", "60")]).await;
    let issued = |ago: i64| {
        let mut claims = claims(600);
        claims["iat"] = in_seconds(-ago).into();
        signed(&claims, SECRET)
    };
    for way in ALL {
        let expected = if way == Way::Connect { 4401 } else { 401 };
        assert_eq!(way.enter(&node, &issued(120), &[], &[]).await, Err(expected), "{way:?}");
        assert!(way.enter(&node, &issued(20), &[], &[]).await.is_ok(), "{way:?}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_an_editors_cookie_on_any_transport() {
    let node = node().await;
    let token = token("anna", &["*"]);
    for way in [Carrier::WebSocket, Carrier::Sse, Carrier::Poll].map(Way::Cookie) {
        assert_eq!(way.enter(&node, &token, &[], &OWN).await.unwrap()["user"], "anna", "{way:?}");
        assert_eq!(way.enter(&node, &token, &[], &EVIL).await, Err(403), "{way:?}");
        let null = [("Origin", "null")];
        assert_eq!(way.enter(&node, &token, &[], &null).await, Err(403), "a sandboxed frame, {way:?}");
    }
    let cookie = format!("{COOKIE}={token}");
    let headers = [EVIL[0], ("Cookie", &cookie)];
    for path in ["/realtime/config", "/realtime/poll?topics=projects"] {
        let answer = node.public_get(path, &headers).await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path} may be read");
    }
}

/// What somebody else might try to get at `notifications:anna`.
const SPELLINGS: [&str; 18] = [
    "notifications:anna",
    "notifications:Anna",
    "notifications:ANNA",
    "notifications:%61nna",
    "notifications:ann%61",
    "notifications:\u{ff41}nna",
    "notifications:anna%00",
    "notifications:anna\0",
    "notifications:anna ",
    " notifications:anna",
    "Notifications:anna",
    "notifications::anna",
    "notifications:*",
    "notifications:a*",
    "notifications:{anna}",
    "*",
    "*:anna",
    "carillon:notifications:anna",
];

#[tokio::test]
async fn nobody_follows_anothers_notifications_by_any_spelling_grant_or_transport() {
    let node = node().await;
    let grants = [vec!["*"], vec!["notifications:*", "notifications:anna"], SPELLINGS.to_vec()];
    for way in ALL {
        for grant in &grants {
            for spelling in SPELLINGS {
                let welcome = way.enter(&node, &token("bo", grant), &[spelling], &[]).await.unwrap();
                let followed = welcome["positions"].as_object().unwrap();
                assert!(followed.is_empty(), "{spelling:?} by {way:?} with {grant:?}: {welcome}");
                assert_eq!(welcome["refused"].as_array().unwrap().len(), 1, "{spelling:?}: {welcome}");
            }
        }
    }
    let (mut bo, _) = node.session("bo", &["projects"]).await;
    for batch in SPELLINGS.chunks(6) {
        bo.send(&json!({"type": "subscribe", "topics": batch})).await;
        assert_eq!(bo.message_of("subscribed").await["positions"], json!({}));
    }
    node.publish("notifications:anna", &json!({"type": "notification.created"})).await;
    node.publish_live("notifications:anna", &json!({"type": "notification.created"})).await;
    bo.nothing_comes().await;
}

#[tokio::test]
async fn a_revoked_editor_does_not_come_back_with_the_old_token() {
    let node = node().await;
    let made = |user: &str, ago: i64| {
        let (iat, exp) = (in_seconds(-ago), in_seconds(600));
        signed(&json!({"sub": user, "iat": iat, "exp": exp, "topics": ["*"]}), SECRET)
    };
    let old = made("anna", 10);
    let first = node.public_get(&format!("/realtime/poll?topics=projects&token={old}"), &[]).await.json();
    assert_eq!(node.post("/disconnect", br#"{"user":"anna"}"#).await.status, 200);
    for way in ALL {
        let expected = if way == Way::Connect { 4401 } else { 401 };
        assert_eq!(way.enter(&node, &old, &[], &[]).await, Err(expected), "{way:?}");
        for other in ["bo", "Anna"] {
            assert!(
                way.enter(&node, &made(other, 10), &[], &[]).await.is_ok(),
                "somebody else: {other}, {way:?}"
            );
        }
        // Clocks may differ by half a minute: a new sign-in is late by that much, and never lost.
        assert_eq!(way.enter(&node, &made("anna", -5), &[], &[]).await, Err(expected), "too new, {way:?}");
    }
    let cursor = first["cursor"].as_str().unwrap();
    let path = format!("/realtime/poll?topics=projects&cursor={cursor}&token={old}");
    assert_eq!(node.public_get(&path, &[]).await.status, 401, "between two polls he has no session to close");
}

#[tokio::test]
async fn a_flood_of_subscriptions_is_cut_off_with_1013() {
    let node = Node::start(&[("limits.subscriptions_per_second", "20")]).await;
    let (mut anna, _) = node.session("anna", &[]).await;
    let topics: Vec<_> = (0..30).map(|n| format!("comments:{n}")).collect();
    anna.send(&json!({"type": "subscribe", "topics": topics})).await;
    assert_eq!(anna.message_of("subscribed").await["refused"], json!([]), "a burst passes");
    anna.send(&json!({"type": "unsubscribe", "topics": topics})).await;
    anna.send(&json!({"type": "subscribe", "topics": topics})).await;
    assert_eq!(anna.closed().await.0, 1013);
    let (mut patient, _) = node.session("anna", &["comments:1"]).await;
    patient.nothing_comes().await;
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[tokio::test]
async fn oversized_and_deep_json_is_refused_at_every_door() {
    let node = Node::start(&[("limits.message_bytes", "4096")]).await;
    let (mut bystander, _) = node.session("anna", &["comments:1"]).await;
    // The event itself is the first level.
    let publish = |x: String| format!(r#"{{"topic":"comments:1","event":{{"type":"a.b","x":{x}}}}}"#);
    assert_eq!(node.post("/publish", publish(nested(63)).as_bytes()).await.status, 200);
    assert_eq!(bystander.message().await["type"], "event");
    for depth in [64, 1000, 1_000_000] {
        let answer = node.post("/publish", publish(nested(depth)).as_bytes()).await;
        assert!([400, 413].contains(&answer.status), "{depth} levels: {}", answer.status);
    }
    let large = publish(format!("{:?}", "x".repeat(65_536)));
    assert_eq!(node.post("/publish", large.as_bytes()).await.problem(), (413, "bad-event".into()));
    let larger = vec![b' '; 9 << 20];
    assert_eq!(refused_body(&node, &larger).await, 413, "a body of 9 MiB");
    for (message, code) in [
        (format!(r#"{{"type":"subscribe","topics":{}}}"#, nested(1500)), 4400),
        (format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(4096)), 1009),
    ] {
        let (mut session, _) = node.session("bo", &[]).await;
        session.write(&client_frame(0x81, message.as_bytes())).await;
        assert_eq!(session.closed().await.0, code, "{message:.60}");
    }
    // What nobody looks at is passed over, however deep.
    bystander
        .write(&client_frame(0x81, format!(r#"{{"type":"ping","x":{}}}"#, nested(1500)).as_bytes()))
        .await;
    assert_eq!(bystander.message().await["type"], "pong");
    bystander.nothing_comes().await;
}

/// The status of a request whose body is not taken to its end.
async fn refused_body(node: &Node, body: &[u8]) -> u16 {
    let mut socket = TcpStream::connect(node.internal).await.unwrap();
    let head = format!(
        "POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer the publish token of the tests\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    within("the refusal", async {
        socket.write_all(head.as_bytes()).await.unwrap();
        // The node may answer, and close, before it has everything.
        let _ = socket.write_all(body).await;
        let (answer, _): (Answer, _) = read_head(&mut socket).await.expect("an answer");
        answer.status
    })
    .await
}

#[tokio::test]
async fn nothing_is_ever_decompressed() {
    let node = Node::start(&[]).await;
    let offers =
        [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame")];
    let mut ws =
        Ws::open(TcpStream::connect(node.public).await.unwrap(), "/realtime", &offers).await.unwrap();
    assert_eq!(ws.answer.header("sec-websocket-extensions"), None, "no extension is agreed to");
    // RSV1, as a compressed message has it (RFC 7692, 6): a violation where nothing was agreed to.
    ws.write(&client_frame(0xC1, &[0xAA, 0x56, 0x2A, 0xA9, 0x2C, 0x48, 0x55, 0x00])).await;
    assert_eq!(ws.closed().await.0, 1002);
    // `{"topic":…}` in gzip would be a publication; as it stands it is no JSON.
    let gzip = [("Content-Encoding", "gzip"), ("Authorization", "Bearer the publish token of the tests")];
    let answer = request(node.internal, "POST", "/publish", &gzip, b"\x1f\x8b\x08\0\0\0\0\0\0\x03bomb").await;
    assert!([400, 415].contains(&answer.status), "{answer:?}");
    let accepts = [("Accept-Encoding", "gzip, br, zstd, deflate")];
    for path in ["/realtime/realtime.js", "/realtime/config"] {
        assert_eq!(node.public_get(path, &accepts).await.header("content-encoding"), None, "{path}");
    }
}

#[tokio::test]
async fn a_forged_position_is_a_resync_and_never_a_silent_jump() {
    let node = Node::start(&[]).await;
    let (_, welcome) = node.session("anna", &["comments:1", "projects"]).await;
    let here = welcome["positions"]["comments:1"].as_str().unwrap();
    node.publish("comments:1", &json!({"type": "a.b"})).await;
    let (lineage, rest) = here.split_once('.').unwrap();
    let epoch = rest.split_once('-').unwrap().0;
    for (position, reason) in [
        (format!("{lineage}.{epoch}-999999"), "log-replaced"),
        (format!("{lineage}.{epoch}-18446744073709551615"), "log-replaced"),
        (format!("{lineage}.18446744073709551615-1"), "log-replaced"),
        (format!("{lineage}.1-1"), "log-replaced"),
        (format!("0123456789abcdef.{epoch}-1"), "redis-changed"),
        (format!("{lineage}.{epoch}-18446744073709551616"), "no-position"),
        ("; DROP TABLE".into(), "no-position"),
    ] {
        let mut ws = node.socket().await;
        let resume = json!({"at": u64::MAX, "positions": {"comments:1": position, "comments": position}});
        ws.send(&json!({"type": "connect", "token": token("anna", &["*"]), "topics": ["comments:1"], "resume": resume}))
            .await;
        assert_eq!(ws.message().await["positions"]["comments:1"], Value::Null, "{position}");
        let told = ws.message_of("resync").await;
        assert_eq!(told["reason"], reason, "{position}: {told}");
        assert!(told["topics"].as_array().unwrap().contains(&json!("comments:1")), "{position}: {told}");
    }
}

#[tokio::test]
async fn the_internal_routes_are_not_on_the_public_listener() {
    let node = Node::start(&[]).await;
    let authorised = [("Authorization", "Bearer the publish token of the tests")];
    for path in ["/publish", "/disconnect", "/metrics", "/status", "/readyz", "/healthz", "/page.js", "/"] {
        for path in [path.to_owned(), format!("/realtime{path}"), format!("/realtime/..{path}")] {
            for method in ["GET", "POST"] {
                let answer = request(node.public, method, &path, &authorised, b"{}").await;
                assert_eq!(answer.status, 404, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn whoever_has_no_secret_finds_the_internal_port_shut() {
    let node = Node::start(&[("internal.listen", "0.0.0.0:0")]).await;
    let port = node.internal.port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let event = br#"{"topic":"comments:1","event":{"type":"a.b"}}"#;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    let reader = format!("Bearer {}", token("anna", &["*"]));
    let cookie = format!("{COOKIE}={}", token("anna", &["*"]));
    for (path, body) in [("/publish", &event[..]), ("/disconnect", br#"{"user":"anna"}"#)] {
        for (headers, status) in [
            (&[][..], 401),
            (&[("Authorization", "Bearer ")], 401),
            (&[("Authorization", "Bearer the publish token of the test")], 401),
            (&[("Authorization", "Bearer the publish token of the tests!")], 401),
            (&[("Authorization", reader.as_str())], 403),
            (&[("Cookie", cookie.as_str())], 401),
        ] {
            let answer = request(address, "POST", path, headers, body).await;
            assert_eq!(answer.status, status, "{path} {headers:?}");
        }
    }
    anna.nothing_comes().await;
    // What may be read there says nothing about anybody.
    for path in ["/status", "/metrics", "/", "/readyz"] {
        let text = request(address, "GET", path, &[], b"").await.text();
        for private in ["anna", "comments:1", SECRET, "the publish token"] {
            assert!(!text.contains(private), "{path} tells {private:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let node = Node::start(&[]).await;
    let mut stalled = TcpStream::connect(node.internal).await.unwrap();
    let head =
        "POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer the publish token of the tests\r\n";
    stalled.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("the end", stalled.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
}
