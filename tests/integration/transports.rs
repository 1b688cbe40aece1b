//! SSE, long-poll and what else the public door serves (contract, 4.2 to 4.4), with a raw client, on the memory bus.

use std::time::{Duration, Instant};

use crate::support::{
    node::{Answer, Node, request, token, token_for, until},
    streams::{Events, poll},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn event(n: usize) -> Value {
    json!({"type": "comment.created", "data": {"n": n}})
}

#[tokio::test]
async fn events_come_with_a_cursor_that_resumes() {
    let node = Node::start(&[]).await;
    let token = token("anna", &["*"]);
    let query = format!("topics=comments:42&token={token}");
    let mut events = Events::open(&node, &query, &[]).await;
    assert_eq!(events.answer.status, 200);
    assert_eq!(events.answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(events.answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(events.answer.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(events.line().await.unwrap(), ": carillon\n\n", "first bytes at once");
    let welcome = &events.messages().await[0];
    assert_eq!((&welcome["type"], &welcome["user"]), (&json!("welcome"), &json!("anna")));
    node.publish("comments:42", &event(1)).await;
    assert_eq!(events.gather(1).await[0]["event"], event(1));
    let cursor = events.id.clone();
    drop(events);
    for n in 2..10 {
        node.publish("comments:42", &event(n)).await;
    }
    for (query, header) in [(query.clone(), Some(&*cursor)), (format!("{query}&cursor={cursor}"), None)] {
        let headers: Vec<_> = header.map(|id| ("Last-Event-ID", id)).into_iter().collect();
        let mut events = Events::open(&node, &query, &headers).await;
        let messages = events.gather(9).await;
        assert_eq!(messages[0]["type"], "welcome");
        for (n, message) in (2..10).zip(&messages[1..]) {
            assert_eq!(message["event"], event(n));
        }
    }
}

#[tokio::test]
async fn a_stream_of_a_whole_area_keeps_no_place_in_topics_that_it_does_not_follow_by_name() {
    let node = Node::start(&[]).await;
    let token = token("anna", &["*"]);
    let mut events = Events::open(&node, &format!("topics=comments:*,projects:5&token={token}"), &[]).await;
    assert_eq!(events.gather(1).await[0]["type"], "welcome");
    let length = events.id.len();
    for n in 0..200 {
        node.publish(&format!("comments:key-{n}"), &event(n)).await;
    }
    events.gather(200).await;
    assert!(events.id.len() < length + 10, "{} characters became {}", length, events.id.len());
    let cursor = events.id.clone();
    drop(events);
    node.publish("projects:5", &event(200)).await;
    let query = format!("topics=comments:key-7,projects:5&cursor={cursor}&token={token}");
    let mut events = Events::open(&node, &query, &[]).await;
    let told = events.gather(3).await;
    let of = |kind: &str| told.iter().find(|message| message["type"] == kind).unwrap();
    assert_eq!(of("event")["event"], event(200), "what was followed by name goes on");
    assert_eq!(
        (&of("resync")["topics"], &of("resync")["reason"]),
        (&json!(["comments:key-7"]), &json!("no-position"))
    );
}

#[tokio::test]
async fn a_page_that_changes_transport_brings_its_positions() {
    let node = Node::start(&[]).await;
    let (ws, welcome) = node.session("anna", &["comments:42"]).await;
    drop(ws);
    node.publish("comments:42", &event(1)).await;
    let resume = json!({"at": welcome["at"], "positions": welcome["positions"]}).to_string();
    let resume: String = resume.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let query = format!("topics=comments:42&token={}&resume={resume}", token("anna", &["*"]));
    let mut events = Events::open(&node, &query, &[]).await;
    assert_eq!(events.gather(2).await[1]["event"], event(1));
    let answer = poll(&node, &query).await;
    let mut messages = answer["messages"].as_array().unwrap().clone();
    assert_eq!(messages[0]["type"], "welcome", "{answer}");
    if messages.len() == 1 {
        let query = format!(
            "topics=comments:42&token={}&cursor={}",
            token("anna", &["*"]),
            answer["cursor"].as_str().unwrap()
        );
        messages.extend(poll(&node, &query).await["messages"].as_array().unwrap().clone());
    }
    assert_eq!(messages[1]["event"], event(1));
}

#[tokio::test]
async fn what_a_poll_adds_and_may_not_follow_is_told_once() {
    let node = Node::start(&[]).await;
    let asked = |topics: &str, cursor: &Value| {
        let cursor = cursor.as_str().unwrap_or_default();
        format!("topics={topics}&token={}&cursor={cursor}", token("anna", &["comments:1"]))
    };
    let first = poll(&node, &asked("comments:1", &json!(""))).await;
    let more = "comments:1,comments:2,nonsense!";
    let told = poll(&node, &asked(more, &first["cursor"])).await;
    let refused = json!([
        {"topic": "comments:2", "code": "forbidden"}, {"topic": "nonsense!", "code": "bad-topic"},
    ]);
    assert_eq!(
        (&told["messages"][0]["type"], &told["messages"][0]["refused"]),
        (&json!("subscribed"), &refused)
    );
    // The next one is not answered by it at once.
    node.publish("comments:1", &event(1)).await;
    let next = poll(&node, &asked(more, &told["cursor"])).await;
    assert_eq!(next["messages"][0]["event"], event(1), "{next}");
}

#[tokio::test]
async fn a_poll_is_not_told_that_an_area_ends_which_one_of_its_keys_implies() {
    let node = Node::start(&[("limits.topics_per_session", "1")]).await;
    let asked = |cursor: &Value| {
        let cursor = cursor.as_str().unwrap_or_default();
        format!("topics=comments:1,comments&token={}&cursor={cursor}", token("anna", &["*"]))
    };
    let first = poll(&node, &asked(&json!(""))).await;
    let refused = json!([{"topic": "comments", "code": "too-many"}]);
    assert_eq!(first["messages"][0]["refused"], refused, "{first}");
    node.publish("comments", &event(1)).await;
    let told = poll(&node, &asked(&first["cursor"])).await;
    let types = told["messages"].as_array().unwrap().iter().map(|message| message["type"].clone());
    assert_eq!(types.collect::<Vec<_>>(), ["event"], "{told}");
}

#[tokio::test]
async fn an_unreadable_cursor_is_a_resync_and_no_error() {
    let node = Node::start(&[]).await;
    let query = format!("topics=comments:42&token={}&cursor=nonsense", token("anna", &["*"]));
    let mut events = Events::open(&node, &query, &[]).await;
    let messages = events.gather(2).await;
    assert_eq!((&messages[1]["type"], &messages[1]["reason"]), (&json!("resync"), &json!("no-position")));
    let answer = poll(&node, &query).await;
    assert_eq!(answer["messages"][0]["reason"], "no-position");
    let cursor = answer["cursor"].as_str().unwrap();
    node.publish("comments:42", &event(1)).await;
    let answer =
        poll(&node, &format!("topics=comments:42&token={}&cursor={cursor}", token("anna", &["*"]))).await;
    assert_eq!(answer["messages"][0]["event"], event(1), "the new cursor goes on from there");
}

#[tokio::test]
async fn a_cursor_allows_nothing_that_the_token_does_not() {
    let node = Node::start(&[]).await;
    let rich = poll(&node, &format!("topics=comments:42,projects&token={}", token("anna", &["*"]))).await;
    node.publish("comments:42", &event(1)).await;
    node.publish("projects", &event(2)).await;
    let cursor = rich["cursor"].as_str().unwrap();
    let poor = poll(
        &node,
        &format!("topics=comments:42,projects&cursor={cursor}&token={}", token("bo", &["projects"])),
    )
    .await;
    assert_eq!(poor["messages"][0], json!({"type": "unsubscribed", "topics": ["comments:42"]}));
    let rest: Vec<_> =
        poor["messages"].as_array().unwrap()[1..].iter().map(|message| &message["event"]).collect();
    assert_eq!(rest, [&event(2)]);
}

#[tokio::test]
async fn polls_wait_and_go_on() {
    let node = Node::start(&[]).await;
    let token = token("anna", &["*"]);
    let start = poll(&node, &format!("topics=comments:42,comments:*&token={token}")).await;
    let welcome = &start["messages"][0];
    assert_eq!(welcome["type"], "welcome");
    assert_eq!(welcome["refused"], json!([{"topic": "comments:*", "code": "bad-topic"}]));
    let query = |answer: &Value| {
        format!("topics=comments:42&token={token}&cursor={}", answer["cursor"].as_str().unwrap())
    };
    let second = query(&start);
    let (waited, ()) = tokio::join!(poll(&node, &second), async {
        until("the poll to wait", || async {
            node.get("/status").await.json()["this"]["sessions"]["total"] == 1
        })
        .await;
        node.publish("comments:42", &event(1)).await;
    });
    assert_eq!(waited["messages"].as_array().unwrap().len(), 1, "{waited}");
    assert_eq!(waited["messages"][0]["event"], event(1));
    for n in 2..5 {
        node.publish("comments:42", &event(n)).await;
    }
    let answer = poll(&node, &query(&waited)).await;
    let events: Vec<_> =
        answer["messages"].as_array().unwrap().iter().map(|message| message["event"].clone()).collect();
    assert_eq!(events, [event(2), event(3), event(4)]);
}

#[tokio::test]
async fn a_poll_without_news_is_answered_after_25_seconds() {
    let node = Node::start(&[]).await;
    let query = format!("topics=comments:42&token={}", token("anna", &["*"]));
    let start = poll(&node, &query).await;
    let asked = Instant::now();
    let path = format!("/realtime/poll?{query}&cursor={}", start["cursor"].as_str().unwrap());
    let head = format!("GET {path} HTTP/1.1\r\nHost: node.test\r\nConnection: close\r\n\r\n");
    let mut socket = TcpStream::connect(node.public).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    let read = tokio::time::timeout(Duration::from_secs(40), socket.read_to_string(&mut text));
    read.await.expect("an answer within 40 s").unwrap();
    assert!((24..30).contains(&asked.elapsed().as_secs()), "{:?}", asked.elapsed());
    assert!(text.ends_with(r#""messages":[]}"#), "{text}");
}

#[tokio::test]
async fn a_poll_with_nothing_but_a_live_resync_is_not_told_twice() {
    let node = Node::start(&[]).await;
    let query = format!("topics=comments:42&token={}", token("anna", &["*"]));
    let (_ws, _) = node.session("bo", &["comments:42"]).await;
    let start = poll(&node, &query).await;
    node.publish_live("comments:42", &event(1)).await;
    let told = poll(&node, &format!("{query}&cursor={}", start["cursor"].as_str().unwrap())).await;
    assert_eq!(told["messages"][0]["reason"], "live", "{told}");
    let next = format!("{query}&cursor={}", told["cursor"].as_str().unwrap());
    let (next, ()) = tokio::join!(poll(&node, &next), async {
        until("the poll to wait", || async {
            node.get("/status").await.json()["this"]["sessions"]["total"] == 2
        })
        .await;
        node.publish("comments:42", &event(2)).await;
    });
    assert_eq!(next["messages"][0]["event"], event(2), "{next}");
}

#[tokio::test]
async fn other_transports_refuse_as_websocket_does() {
    let node = Node::start(&[]).await;
    for path in ["/realtime/events", "/realtime/poll"] {
        let ask = |query: &str, headers: &[(&str, &str)]| {
            let headers: Vec<(String, String)> =
                headers.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
            let path = format!("{path}?topics=comments:1&{query}");
            let node = &node;
            async move {
                let headers: Vec<_> = headers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                node.public_get(&path, &headers).await.problem()
            }
        };
        assert_eq!(ask("", &[]).await, (401, "unauthenticated".into()));
        assert_eq!(ask("token=x.y.z", &[]).await, (401, "unauthenticated".into()));
        let good = format!("token={}", token("anna", &["*"]));
        assert_eq!(ask(&good, &[("Origin", "https://evil.example")]).await, (403, "origin".into()));
    }
    let off = Node::start(&[("sse.enabled", "false"), ("poll.enabled", "false")]).await;
    assert_eq!(off.public_get("/realtime/events", &[]).await.problem(), (404, "sse-disabled".into()));
    assert_eq!(off.public_get("/realtime/poll", &[]).await.problem(), (404, "poll-disabled".into()));
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let node = Node::start(&[]).await;
    let token = token_for("anna", &["*"], Duration::from_secs(3));
    let mut events = Events::open(&node, &format!("topics=comments:1&token={token}"), &[]).await;
    let messages = events.gather(3).await;
    let kinds: Vec<_> = messages.iter().map(|message| message["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["welcome", "token-expiring", "closing"]);
    assert_eq!(messages[2]["code"], 4401);
    assert_eq!(events.line().await, None, "the end");
}

#[tokio::test]
async fn a_silent_stream_has_a_heartbeat() {
    let node = Node::start(&[("heartbeat.seconds", "1")]).await;
    let mut events = Events::open(&node, &format!("token={}", token("anna", &["*"])), &[]).await;
    events.gather(1).await;
    assert_eq!(events.line().await.unwrap(), ":\n\n");
    assert_eq!(events.line().await.unwrap(), ":\n\n");
}

#[tokio::test]
async fn listed_origins_may_read_and_others_may_not() {
    let node = Node::start(&[("http.allowed_origins", "https://cms.example.com")]).await;
    let query = format!("topics=comments:1&token={}", token("anna", &["*"]));
    for path in ["/realtime/config".into(), "/realtime/realtime.js".into(), format!("/realtime/poll?{query}")]
    {
        let listed = node.public_get(&path, &[("Origin", "https://cms.example.com")]).await;
        assert_eq!(listed.status, 200, "{path}");
        assert_eq!(listed.header("access-control-allow-origin"), Some("https://cms.example.com"));
        assert_eq!(listed.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(listed.header("vary"), Some("Origin"));
        let other = node.public_get(&path, &[("Origin", "https://evil.example")]).await;
        assert_eq!(other.header("access-control-allow-origin"), None, "{path}");
        assert_eq!(other.header("access-control-allow-credentials"), None, "{path}");
    }
    let ask = [
        ("Origin", "https://cms.example.com"),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "authorization"),
    ];
    let preflight = request(node.public, "OPTIONS", "/realtime/poll", &ask, b"").await;
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("Authorization"));
    let foreign = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "GET")];
    let preflight = request(node.public, "OPTIONS", "/realtime/poll", &foreign, b"").await;
    assert_eq!(preflight.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn the_library_is_served_with_the_node() {
    let node = Node::start(&[]).await;
    let script = node.public_get("/realtime/realtime.js", &[]).await;
    assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    assert_eq!(script.body, include_bytes!("../../client/realtime.js"));
    let again =
        node.public_get("/realtime/realtime.js", &[("If-None-Match", script.header("etag").unwrap())]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let types = node.public_get("/realtime/realtime.d.ts", &[]).await;
    assert_eq!((types.status, &types.body[..]), (200, &include_bytes!("../../client/realtime.d.ts")[..]));
}

async fn post(node: &Node, path: &str, kind: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {}", token("anna", &["*"]));
    let headers = [("Authorization", &*bearer), ("Content-Type", kind)];
    request(node.public, "POST", path, &headers, body.as_bytes()).await
}

#[tokio::test]
async fn posted_wishes_have_room_for_many_topics() {
    let node = Node::start(&[]).await;
    let topics: Vec<_> = (0..64).map(|n| format!("comments:{n:0>200}")).collect();
    let json = "application/json; charset=utf-8";
    let body = json!({"topics": topics, "presence": {"topics": {}}}).to_string();
    let first = post(&node, "/realtime/poll", json, &body).await.json();
    let welcome = &first["messages"][0];
    assert_eq!((&welcome["type"], &welcome["refused"]), (&json!("welcome"), &json!([])));
    node.publish(&topics[63], &event(1)).await;
    // By its cursor, and by the positions of the welcome.
    let cursor = json!({"topics": topics, "cursor": first["cursor"]}).to_string();
    let next = post(&node, "/realtime/poll", json, &cursor).await.json();
    assert_eq!(next["messages"][0]["event"], event(1), "{next}");
    let resume = json!({"at": welcome["at"], "positions": welcome["positions"]});
    let resumed = json!({"topics": topics, "resume": resume}).to_string();
    let messages = post(&node, "/realtime/poll", json, &resumed).await.json()["messages"].clone();
    assert_eq!((&messages[0]["type"], &messages[1]["event"]), (&json!("welcome"), &event(1)));
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    let node = Node::start(&[]).await;
    let json = "application/json";
    let many = format!(r#"{{"topics":["{}"]}}"#, "x".repeat(70_000));
    for path in ["/realtime/poll", "/realtime/events"] {
        for (kind, body, status, code) in [
            ("text/plain", "{}", 415, "not-json"),
            ("application/x-www-form-urlencoded", "topics=comments:42", 415, "not-json"),
            ("", "{}", 415, "not-json"),
            (json, "", 400, "bad-request"),
            (json, "[]", 400, "bad-request"),
            (json, r#"{"topics":"comments:42"}"#, 400, "bad-request"),
            (json, r#"{"topics":[42]}"#, 400, "bad-request"),
            (json, &*many, 413, "too-large"),
        ] {
            let answer = post(&node, path, kind, body).await;
            assert_eq!(answer.problem(), (status, code.into()), "{path} {kind} {body:.40}");
        }
    }
}
