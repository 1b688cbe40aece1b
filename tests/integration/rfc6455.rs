//! RFC 6455 on the raw socket: what clients may do, what they may not, and how each ends.

use crate::support::node::{Frame, Node, client_frame, close_code, request, token, until, within};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn connect() -> Vec<u8> {
    json!({"type": "connect", "token": token("anna", &["*"]), "topics": ["comments:1"]})
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn fragments_may_have_control_frames_between_them() {
    let node = Node::start(&[]).await;
    let mut ws = node.socket().await;
    let message = connect();
    let (first, rest) = message.split_at(10);
    let (second, third) = rest.split_at(5);
    ws.write(&client_frame(0x01, first)).await;
    ws.write(&client_frame(0x89, b"one")).await;
    assert_eq!(
        ws.frame().await,
        Some(Frame { opcode: 10, payload: b"one".to_vec() }),
        "answered before the end"
    );
    ws.write(&client_frame(0x00, second)).await;
    ws.write(&client_frame(0x00, b"")).await;
    ws.write(&client_frame(0x8A, b"an unasked Pong")).await;
    ws.write(&client_frame(0x80, third)).await;
    assert_eq!(ws.message().await["type"], "welcome");
}

#[tokio::test]
async fn frames_may_arrive_byte_by_byte_and_many_at_once() {
    let node = Node::start(&[]).await;
    let mut ws = node.socket().await;
    for byte in client_frame(0x81, &connect()) {
        ws.write(&[byte]).await;
    }
    assert_eq!(ws.message().await["type"], "welcome");
    ws.write(&client_frame(0x81, br#"{"type":"ping"}"#).repeat(30)).await;
    for _ in 0..30 {
        assert_eq!(ws.message().await["type"], "pong");
    }
}

#[tokio::test]
async fn bytes_behind_the_handshake_are_not_lost() {
    let node = Node::start(&[]).await;
    let mut stream = TcpStream::connect(node.public).await.unwrap();
    let mut bytes =
        b"GET /realtime HTTP/1.1\r\nHost: node.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_vec();
    bytes.extend(client_frame(0x81, &connect()));
    stream.write_all(&bytes).await.unwrap();
    let mut text = Vec::new();
    within("the welcome", async {
        while !String::from_utf8_lossy(&text).contains(r#""type":"welcome""#) {
            assert!(
                stream.read_buf(&mut text).await.unwrap() > 0,
                "the end: {}",
                String::from_utf8_lossy(&text)
            );
        }
    })
    .await;
    let text = String::from_utf8_lossy(&text);
    assert!(text.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{text}");
}

#[tokio::test]
async fn broken_framing_ends_with_1002() {
    let node = Node::start(&[]).await;
    let mut long_ping = vec![0x89, 0x80 | 0x7E, 0, 126, 0, 0, 0, 0];
    long_ping.extend([0; 126]);
    for (what, bytes) in [
        ("an unmasked frame", b"\x81\x02{}".to_vec()),
        ("RSV1, which nobody negotiated", client_frame(0xC1, b"{}")),
        ("RSV3", client_frame(0x91, b"{}")),
        ("opcode 3", client_frame(0x83, b"{}")),
        ("opcode 11", client_frame(0x8B, b"{}")),
        ("a fragmented Ping", client_frame(0x09, b"x")),
        ("a Ping of 126 bytes", long_ping),
        ("a continuation of nothing", client_frame(0x80, b"{}")),
        ("a message within a message", [client_frame(0x01, b"{"), client_frame(0x81, b"}")].concat()),
        ("a close frame of one byte", client_frame(0x88, b"x")),
    ] {
        let mut ws = node.socket().await;
        ws.write(&bytes).await;
        let (code, closing) = ws.closed().await;
        assert_eq!(code, 1002, "{what}: {closing}");
    }
}

#[tokio::test]
async fn a_length_that_is_too_large_is_refused_before_it_arrives() {
    let node = Node::start(&[]).await;
    for header in [
        &[0x81, 0xFF, 0, 0, 0, 0, 0xFF, 0, 0, 0][..],
        &[0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    ] {
        let mut ws = node.socket().await;
        ws.write(&[header, &[1, 2, 3, 4]].concat()).await;
        assert_eq!(ws.closed().await.0, 1009, "{header:?}");
    }
    let mut ws = node.socket().await;
    for n in 0..10 {
        // The node may have closed already.
        let opcode = u8::from(n == 0);
        let _ = ws.stream.write_all(&client_frame(opcode, &[b'x'; 10_000])).await;
    }
    assert_eq!(ws.closed().await.0, 1009, "fragments that are too large together");
}

#[tokio::test]
async fn a_close_is_answered_with_its_code() {
    let node = Node::start(&[]).await;
    for code in [1000u16, 1001, 4999] {
        let (mut ws, _) = node.session("anna", &[]).await;
        ws.write(&client_frame(0x88, &[&code.to_be_bytes()[..], b"bye"].concat())).await;
        let frame = ws.frame().await.unwrap();
        assert_eq!((frame.opcode, close_code(&frame)), (8, Some(code)));
        assert_eq!(ws.frame().await, None, "the server closes first (7.1.1)");
    }
    let (mut ws, _) = node.session("anna", &[]).await;
    ws.write(&client_frame(0x88, b"")).await;
    let frame = ws.frame().await.unwrap();
    assert_eq!((frame.opcode, frame.payload.len()), (8, 0));
    assert_eq!(ws.frame().await, None);
    until("all places to be free", || async {
        node.get("/status").await.json()["this"]["sessions"]["total"] == 0
    })
    .await;
}

#[tokio::test]
async fn whoever_vanishes_leaves_nothing_behind() {
    let node = Node::start(&[]).await;
    let (mut half, _) = node.session("anna", &["comments:1"]).await;
    half.stream.shutdown().await.unwrap();
    assert_eq!(half.frame().await, None, "a half-closed socket is closed");
    let (gone, _) = node.session("anna", &["comments:1"]).await;
    drop(gone);
    let unfinished = node.socket().await;
    drop(unfinished);
    until("all places to be free", || async {
        node.get("/status").await.json()["this"]["sessions"]["total"] == 0
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_cut_off() {
    let node = Node::start(&[("limits.header_seconds", "1")]).await;
    for start in ["", "GET /realt", "GET /realtime HTTP/1.1\r\nHost: x\r\nUpgrade: webs"] {
        let mut stream = TcpStream::connect(node.public).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        within("the end", stream.read_to_end(&mut answer)).await.unwrap_or_default();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    let refused = node.get("/metrics").await.text();
    assert!(refused.contains("carillon_refused_total{reason=\"header-time\"}"), "{refused}");
}

#[tokio::test]
async fn garbage_is_no_harm() {
    let node = Node::start(&[]).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        &[0; 4096],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(node.public).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut answer)).await;
    }
    let long = format!("/realtime?{}", "x".repeat(100_000));
    let answer = request(node.public, "GET", &long, &[], b"").await;
    assert!([414, 431].contains(&answer.status), "{}", answer.status);
    node.publish("comments:1", &json!({"type": "a.b"})).await;
    assert_eq!(anna.message().await["type"], "event");
}

#[tokio::test]
async fn nothing_follows_a_close_frame_while_events_rain() {
    let node = Node::start(&[]).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    let rain = async {
        for n in 0..200 {
            node.publish("comments:1", &json!({"type": "a.b", "n": n})).await;
        }
    };
    let end = async {
        anna.message_of("event").await;
        anna.write(&client_frame(0x81, b"not json")).await;
        anna.closed().await.0
    };
    let ((), code) = tokio::join!(rain, end);
    assert_eq!(code, 4400);
}
