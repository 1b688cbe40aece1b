//! Server-sent events as HTTP carries them: heads and chunks, what comes before and behind a request, how a stream ends,
//! and clients that do not read (RFC 9112). With a raw client, on the memory bus.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::support::node::{Node, PATIENCE, read_head, token, until, within};

/// A request for events, in these words.
fn ask(method: &str, version: &str, more: &str) -> String {
    let anna = token("anna", &["*"]);
    format!(
        "{method} /realtime/events?topics=comments:1&token={anna} HTTP/{version}\r\nHost: node.test\r\n{more}\r\n"
    )
}

async fn dial(node: &Node, bytes: &str) -> TcpStream {
    let mut socket = TcpStream::connect(node.public).await.unwrap();
    socket.write_all(bytes.as_bytes()).await.unwrap();
    socket
}

/// Reads until `what` has come; everything read so far.
async fn read_until(socket: &mut TcpStream, text: &mut String, what: &str) {
    within(what, async {
        let (mut bytes, mut found) = (Vec::new(), text.contains(what));
        while !found {
            assert!(socket.read_buf(&mut bytes).await.unwrap() > 0, "the end before {what}: {text}");
            if let Ok(whole) = std::str::from_utf8(&bytes) {
                let seen = text.floor_char_boundary(text.len().saturating_sub(what.len()));
                text.push_str(whole);
                bytes.clear();
                found = text[seen..].contains(what);
            }
        }
    })
    .await;
}

/// Reads until the node has closed.
async fn read_to_end(socket: &mut TcpStream, text: &mut String) {
    within("the end", socket.read_to_string(text)).await.unwrap();
}

/// Whether a metric has this value.
async fn figure(node: &Node, line: &str) -> bool {
    node.get("/metrics").await.text().lines().any(|found| found == line)
}

async fn has_nobody(node: &Node) {
    until("the session to end", || figure(node, "carillon_sessions{transport=\"sse\"} 0")).await;
}

#[tokio::test]
async fn an_answer_comes_in_chunks_and_ends_with_its_connection() {
    let node = Node::start(&[("http.allowed_origins", "https://cms.example.com")]).await;
    let mut socket = dial(&node, &ask("GET", "1.1", "Origin: https://cms.example.com\r\n")).await;
    let (answer, rest) = within("an answer", read_head(&mut socket)).await.unwrap();
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("content-type", "text/event-stream; charset=utf-8"),
        ("access-control-allow-origin", "https://cms.example.com"),
        ("vary", "Origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "{answer:?}");
    assert_eq!(answer.header("content-length"), None);
    let mut text = String::from_utf8(rest).unwrap();
    read_until(&mut socket, &mut text, "event: welcome").await;
    node.stop();
    read_to_end(&mut socket, &mut text).await;
    assert!(text.contains("event: closing\n"), "{text}");
    assert!(text.ends_with("\n\n\r\n0\r\n\r\n"), "the last chunk: {text:?}");
    assert!(within("the node", node.stopped()).await.is_ok());
}

#[tokio::test]
async fn an_old_client_gets_the_same_without_chunks() {
    let node = Node::start(&[]).await;
    let mut socket = dial(&node, &ask("GET", "1.0", "")).await;
    let (answer, rest) = within("an answer", read_head(&mut socket)).await.unwrap();
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, None));
    let mut text = String::from_utf8(rest).unwrap();
    read_until(&mut socket, &mut text, "event: welcome").await;
    assert!(text.starts_with(": carillon\n\nevent: welcome\ndata: "), "{text}");
    node.stop();
    read_to_end(&mut socket, &mut text).await;
    assert!(text.contains("event: closing\n") && text.ends_with("\n\n"), "{text}");
}

#[tokio::test]
async fn a_head_leaves_no_session_and_the_connection_goes_on() {
    let node = Node::start(&[]).await;
    let mut socket = dial(&node, &ask("HEAD", "1.1", "")).await;
    let (answer, rest) = within("an answer", read_head(&mut socket)).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(rest.is_empty(), "{rest:?}");
    has_nobody(&node).await;
    socket.write_all(ask("GET", "1.1", "").as_bytes()).await.unwrap();
    let mut text = String::new();
    read_until(&mut socket, &mut text, "event: welcome").await;
}

/// What was asked before on the same connection is answered first, and whole, though the client reads slowly.
#[tokio::test]
async fn a_stream_comes_behind_the_answers_to_what_was_asked_before() {
    let node = Node::start(&[]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(node.public).await.unwrap();
    let script = "GET /realtime/realtime.js HTTP/1.1\r\nHost: node.test\r\n\r\n";
    let asked = 20;
    let body = r#"{"topics":["comments:1"]}"#;
    let post = format!(
        "POST /realtime/events HTTP/1.1\r\nHost: node.test\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        token("anna", &["*"]),
        body.len()
    );
    socket.write_all((script.repeat(asked) + &post).as_bytes()).await.unwrap();
    let mut text = String::new();
    read_until(&mut socket, &mut text, "event: welcome").await;
    let source = include_str!("../../client/realtime.js");
    assert_eq!(text.matches(source).count(), asked, "each script whole");
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), asked + 1);
    assert!(text.rfind(source) < text.find("text/event-stream"), "in the order of the questions");
}

#[tokio::test]
async fn what_comes_behind_the_request_is_not_answered() {
    let node = Node::start(&[]).await;
    let second = "GET /realtime/config HTTP/1.1\r\nHost: node.test\r\n\r\n";
    let mut socket = dial(&node, &(ask("GET", "1.1", "Connection: keep-alive\r\n") + second)).await;
    let mut text = String::new();
    read_until(&mut socket, &mut text, "event: welcome").await;
    socket.write_all(second.repeat(100).as_bytes()).await.unwrap();
    node.publish("comments:1", &json!({"type": "a.b", "n": 1})).await;
    read_until(&mut socket, &mut text, "event: event").await;
    node.stop();
    read_to_end(&mut socket, &mut text).await;
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert!(text.ends_with("\r\n0\r\n\r\n"), "{text:?}");
}

#[tokio::test]
async fn a_client_that_has_said_its_last_word_is_gone() {
    let node = Node::start(&[]).await;
    let mut socket = dial(&node, &ask("GET", "1.1", "")).await;
    read_until(&mut socket, &mut String::new(), "event: welcome").await;
    assert!(figure(&node, "carillon_sessions{transport=\"sse\"} 1").await);
    socket.shutdown().await.unwrap();
    has_nobody(&node).await;
}

/// A stream has no Pong: that nobody reads is seen by what the socket takes.
#[tokio::test]
async fn a_stream_that_is_not_read_ends_after_two_heartbeats() {
    let node = Node::start(&[("heartbeat.seconds", "1")]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(node.public).await.unwrap();
    deaf.write_all(ask("GET", "1.1", "").as_bytes()).await.unwrap();
    let mut reader = dial(&node, &ask("GET", "1.1", "")).await;
    let mut text = String::new();
    read_until(&mut deaf, &mut text, "event: welcome").await;
    read_until(&mut reader, &mut text, "event: welcome").await;
    // Far less than may wait for a session, and more than a client takes that does not read.
    for n in 0..20 {
        node.publish("comments:1", &json!({"type": "a.b", "n": n, "fill": "x".repeat(5_000)})).await;
        text.clear();
        read_until(&mut reader, &mut text, &format!("\"n\":{n},")).await;
    }
    let closed = async {
        while !figure(&node, "carillon_sessions_closed_total{code=\"4408\"} 1").await {
            text.clear();
            read_until(&mut reader, &mut text, ":\n\n").await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE * 2, closed).await.is_ok(), "the stream is still there");
    assert!(figure(&node, "carillon_sessions{transport=\"sse\"} 1").await, "who reads stays");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), deaf.read_to_end(&mut rest)).await.unwrap();
}
