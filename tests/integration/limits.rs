//! Limits, proxies, TLS and slow sessions at the public door, on the memory bus.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use crate::support::node::{Node, PATIENCE, Ws, client_frame, config, read_head, token, until, within};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

async fn open(node: &Node, headers: &[(&str, &str)]) -> Result<Ws<TcpStream>, (u16, String)> {
    let stream = TcpStream::connect(node.public).await.unwrap();
    Ws::open(stream, "/realtime", headers).await.map_err(|answer| answer.problem())
}

#[tokio::test]
async fn an_address_has_its_share_and_proxies_are_not_addresses() {
    let node =
        Node::start(&[("limits.sessions_per_address", "1"), ("http.trusted_proxies", "127.0.0.1")]).await;
    let full = Err((503, "too-many-sessions".to_owned()));
    let from = |client: &'static str| [("X-Forwarded-For", client)];
    let _first = open(&node, &from("5.6.7.8")).await.unwrap();
    assert_eq!(open(&node, &from("5.6.7.8")).await.map(drop), full);
    assert_eq!(
        open(&node, &from("9.9.9.9, 5.6.7.8")).await.map(drop),
        full,
        "what the client claims does not count"
    );
    assert!(open(&node, &from("5.6.7.9")).await.is_ok());
    let stranger = Node::start(&[("limits.sessions_per_address", "1")]).await;
    let _first = open(&stranger, &from("5.6.7.8")).await.unwrap();
    assert_eq!(open(&stranger, &from("5.6.7.9")).await.map(drop), full, "nobody vouches for the header");
}

#[tokio::test]
async fn newcomers_beyond_the_rate_come_back_later() {
    let node = Node::start(&[("limits.accepts_per_second", "1")]).await;
    let mut refused = None;
    let mut open_ones = Vec::new();
    for _ in 0..5 {
        let stream = TcpStream::connect(node.public).await.unwrap();
        match Ws::open(stream, "/realtime", &[]).await {
            Ok(ws) => open_ones.push(ws),
            Err(answer) => refused = Some(answer),
        }
    }
    let refused = refused.expect("five at once are too many");
    assert_eq!(refused.problem(), (503, "accept-rate".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let metrics = node.get("/metrics").await.text();
    assert!(metrics.contains("carillon_refused_total{reason=\"accept-rate\"}"), "{metrics}");
}

#[tokio::test]
async fn a_proxy_may_vouch_for_the_host_and_nobody_else() {
    let forwarded = [
        ("Origin", "https://cms.example.com"),
        ("X-Forwarded-Host", "cms.example.com"),
        ("X-Forwarded-Proto", "https"),
    ];
    let trusted = Node::start(&[("http.trusted_proxies", "127.0.0.0/8")]).await;
    assert!(open(&trusted, &forwarded).await.is_ok());
    let plain = Node::start(&[]).await;
    assert_eq!(open(&plain, &forwarded).await.map(drop), Err((403, "origin".into())));
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_the_cookie() {
    let node = Node::start(&[("auth.cookie", "session")]).await;
    let cookie = format!("a=b; session={}", token("anna", &["*"]));
    let mut ws = open(&node, &[("Cookie", &cookie), ("Origin", "http://node.test")]).await.unwrap();
    ws.send(&json!({"type": "connect", "topics": ["comments:1"]})).await;
    assert_eq!(ws.message().await["user"], "anna");
    let hijack = open(&node, &[("Cookie", &cookie), ("Origin", "https://evil.example")]).await;
    assert_eq!(hijack.map(drop), Err((403, "origin".into())));
}

/// A session whose client reads nothing overflows, is told to refetch once it reads again, and goes on.
#[tokio::test]
async fn a_slow_session_loses_events_and_is_told_so() {
    let node = Node::start(&[("limits.outbox_bytes", "20000")]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(node.public).await.unwrap();
    let mut slow = Ws::open(stream, "/realtime", &[]).await.unwrap();
    slow.send(&json!({"type": "connect", "token": token("anna", &["*"]), "topics": ["comments:1"]})).await;
    assert_eq!(slow.message().await["type"], "welcome");
    let overflows = |text: String| {
        text.lines().any(|line| line.starts_with("carillon_outbox_overflows_total") && !line.ends_with(" 0"))
    };
    let fill = "x".repeat(60_000);
    let mut published = 0;
    while !overflows(node.get("/metrics").await.text()) {
        assert!(published < 1000, "the kernel takes everything");
        node.publish("comments:1", &json!({"type": "a.b", "n": published, "fill": fill})).await;
        published += 1;
    }
    let mut next = 0;
    let resync = loop {
        let message = slow.message().await;
        if message["type"] == "resync" {
            break message;
        }
        assert_eq!(message["event"]["n"], next, "in order up to the gap");
        next += 1;
    };
    assert_eq!((&resync["reason"], &resync["topics"]), (&json!("slow"), &json!(["comments:1"])));
    assert!(next < published);
    node.publish("comments:1", &json!({"type": "a.b", "n": "after"})).await;
    assert_eq!(slow.message().await["event"]["n"], "after");
}

#[tokio::test]
async fn a_session_that_reads_nothing_at_all_is_closed_with_4409() {
    let node = Node::start(&[("limits.outbox_bytes", "20000")]).await;
    let (mut stuck, _) = node.session("anna", &["comments:1"]).await;
    let fill = "x".repeat(60_000);
    until("the session to be closed", || async {
        node.publish("comments:1", &json!({"type": "a.b", "fill": fill})).await;
        node.get("/metrics").await.text().contains("carillon_sessions_closed_total{code=\"4409\"} 1")
    })
    .await;
    within("the end of the connection", async {
        let mut rest = Vec::new();
        let _ = stuck.stream.read_to_end(&mut rest).await;
    })
    .await;
}

/// The `resync` that is owed to a stream has left the outbox and waits behind the connection: in silence, too, it must
/// be taken in time.
#[tokio::test]
async fn a_stream_that_stops_before_its_resync_is_closed_with_4409_though_nothing_happens() {
    let node = Node::start(&[("limits.outbox_bytes", "20000")]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(node.public).await.unwrap();
    // So many topics that the `resync` for them is longer than what the client's kernel takes unread.
    let topics: Vec<_> = (0..100).map(|n| format!("comments:{n:0100}")).collect();
    let body = json!({"topics": topics}).to_string();
    let anna = token("anna", &["*"]);
    let head = format!(
        "POST /realtime/events HTTP/1.1\r\nHost: node.test\r\nAuthorization: Bearer {anna}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(within("an answer", read_head(&mut slow)).await.unwrap().0.status, 200);
    let figure = async |name: &str| {
        let text = node.get("/metrics").await.text();
        text.lines().filter(|line| line.starts_with(name)).any(|line| !line.ends_with(" 0"))
    };
    let fill = "x".repeat(10_000);
    let mut rounds = 0;
    while rounds < 2 || !figure("carillon_outbox_overflows_total").await {
        assert!(rounds < 30, "the kernel takes everything");
        for topic in &topics {
            node.publish(topic, &json!({"type": "a.b", "fill": fill})).await;
        }
        rounds += 1;
    }
    let mut some = [0; 4096];
    while !figure("carillon_resyncs_total{reason=\"slow\"}").await {
        assert!(within("the stream", slow.read(&mut some)).await.unwrap() > 0);
    }
    let closed = async || {
        let text = node.get("/metrics").await.text();
        text.contains("carillon_sessions_closed_total{code=\"4409\"} 1")
    };
    // Two patiences: the wait of ten seconds begins anew with what the kernel takes.
    for last in [false, true] {
        let ended = tokio::time::timeout(PATIENCE, async {
            while !closed().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if ended.await.is_ok() {
            return;
        }
        assert!(!last, "the stream is still there");
    }
}

/// A certificate of its own for `node.test`.
fn certificate(directory: &Path) -> CertificateDer<'static> {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=node.test",
            "-addext",
            "subjectAltName=DNS:node.test",
            "-addext",
            "basicConstraints=CA:FALSE",
        ])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(directory)
        .output()
        .expect("openssl must be installed (tests/install does)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap()
}

async fn tls(
    node: &Node,
    trusted: &CertificateDer<'static>,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(node.public).await.unwrap();
    let name = ServerName::try_from("node.test").unwrap();
    within("the TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

#[tokio::test]
async fn sessions_go_over_tls_and_the_certificate_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let first = certificate(directory.path());
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (chain, key) = (path("cert.pem"), path("key.pem"));
    let node =
        Node::start(&[("http.tls_cert", &chain), ("http.tls_key", &key), ("heartbeat.seconds", "1")]).await;
    let stream = tls(&node, &first, b"http/1.1").await.unwrap();
    let mut anna = Ws::open(stream, "/realtime", &[("Origin", "https://node.test")]).await.unwrap();
    anna.send(&json!({"type": "connect", "token": token("anna", &["*"]), "topics": ["comments:1"]})).await;
    assert_eq!(anna.message().await["type"], "welcome");
    for n in 0..100 {
        node.publish("comments:1", &json!({"type": "a.b", "n": n})).await;
    }
    for n in 0..100 {
        assert_eq!(anna.message_of("event").await["event"]["n"], n);
    }
    anna.ping().await;
    anna.write(&client_frame(0x8A, b"")).await;
    anna.write(&client_frame(0x82, b"binary")).await;
    assert_eq!(anna.closed().await.0, 4400);

    let second = certificate(directory.path());
    until("the new certificate", || async { tls(&node, &second, b"http/1.1").await.is_ok() }).await;
    assert!(tls(&node, &first, b"http/1.1").await.is_err(), "the old one is gone");

    let mut plain = TcpStream::connect(node.public).await.unwrap();
    plain.write_all(b"GET /realtime HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("the end", plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "TLS only");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("cert.pem"), "no certificate").unwrap();
    std::fs::write(path("key.pem"), "no key").unwrap();
    let node =
        Node::launch(config(&[("http.tls_cert", &path("cert.pem")), ("http.tls_key", &path("key.pem"))]));
    let error = node.stopped().await.unwrap_err().to_string();
    assert!(error.contains("http.tls_cert") && error.contains("cert.pem"), "{error}");
}

/// A draining node says so on every transport.
#[tokio::test]
async fn drains_reach_streams_and_polls() {
    let node = Node::start(&[("drain.window_seconds", "0")]).await;
    let query = format!("topics=comments:1&token={}", token("anna", &["*"]));
    let start = node.public_get(&format!("/realtime/poll?{query}"), &[]).await.json();
    let poll = format!("/realtime/poll?{query}&cursor={}", start["cursor"].as_str().unwrap());
    let events = format!("/realtime/events?{query}");
    let (poll, events, ()) =
        tokio::join!(node.public_get(&poll, &[]), node.public_get(&events, &[]), async {
            until("both to be open", || async {
                node.get("/status").await.json()["this"]["sessions"]["total"] == 2
            })
            .await;
            until("the welcome to be out", || async {
                node.get("/metrics")
                    .await
                    .text()
                    .contains("carillon_sessions_welcomed_total{transport=\"sse\"} 1")
            })
            .await;
            node.stop();
        });
    let closing: Value = poll.json()["messages"][0].clone();
    assert_eq!((&closing["type"], &closing["code"]), (&json!("closing"), &json!(1012)), "{closing}");
    assert!(
        events.text().contains("event: closing\ndata: {\"type\":\"closing\",\"code\":1012"),
        "{}",
        events.text()
    );
    tokio::time::timeout(Duration::from_secs(10), node.stopped()).await.unwrap().unwrap();
}

/// Sends a whole request over a connection that stays, and reads the answer's head.
async fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"GET /realtime/config HTTP/1.1\r\nHost: node\r\n\r\n").await?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !answer.ends_with(b"}") {
        match stream.read(&mut part).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn ended(mut stream: TcpStream) {
    let mut rest = Vec::new();
    within("the node ends the connection", stream.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn a_balancer_keeps_its_connection_longer_than_a_slow_client_has_for_headers() {
    let node = Node::start(&[("limits.header_seconds", "1"), ("http.keep_alive_seconds", "30")]).await;
    let mut kept = TcpStream::connect(node.public).await.unwrap();
    assert!(ask(&mut kept).await.unwrap().starts_with("HTTP/1.1 200"));
    // Those who came later and say nothing, or half of a request, are gone before: the time for headers is over.
    let silent = TcpStream::connect(node.public).await.unwrap();
    let mut slow = TcpStream::connect(node.public).await.unwrap();
    slow.write_all(b"GET /realtime/config HTTP/1.1\r\nHost: no").await.unwrap();
    ended(silent).await;
    ended(slow).await;
    assert!(
        ask(&mut kept).await.unwrap().starts_with("HTTP/1.1 200"),
        "idle for longer than that, and served"
    );

    let brief = Node::start(&[("limits.header_seconds", "1"), ("http.keep_alive_seconds", "1")]).await;
    let mut stream = TcpStream::connect(brief.public).await.unwrap();
    assert!(ask(&mut stream).await.unwrap().starts_with("HTTP/1.1 200"));
    ended(stream).await;
}
