//! `auth.mode = "callback"` in a running node: the CMS is asked on every transport, again before its answer ends, and
//! not for every poll. The CMS is a stand-in that remembers what it was asked.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use crate::support::{
    node::{Node, Ws, config, until},
    redis::certificates,
    ways::{ALL, COOKIE, Carrier, Way},
};
use carillon::{app::wiring, protocol::Areas};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls};

/// A CMS that answers with what was last put into it, and strangers never.
#[derive(Clone)]
struct Cms {
    url: String,
    answer: Arc<Mutex<(u16, Value)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Cms {
    async fn start(answer: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/who", listener.local_addr().unwrap());
        let cms = Self { url, answer: Arc::new(Mutex::new((200, answer))), asked: Arc::default() };
        let own = cms.clone();
        #[allow(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await.unwrap_or(0) > 0
                {
                }
                let request = String::from_utf8(request).unwrap();
                let stranger = request.contains("stranger");
                own.asked.lock().unwrap().push(request);
                if stranger {
                    unanswered.push(socket);
                    continue;
                }
                let (status, body) = own.answer.lock().unwrap().clone();
                let body = body.to_string();
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                let _ = socket.write_all((head + &body).as_bytes()).await;
            }
        });
        cms
    }

    fn answer(&self, status: u16, body: Value) {
        *self.answer.lock().unwrap() = (status, body);
    }

    fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    async fn node(&self) -> Node {
        let settings = [
            ("auth.mode", "callback"),
            ("auth.secret", ""),
            ("auth.callback_url", &self.url),
            ("auth.cookie", COOKIE),
        ];
        Node::start(&settings).await
    }
}

fn anna(expires_in: u64, topics: &[&str]) -> Value {
    json!({"sub": "anna", "topics": topics, "expires_in": expires_in})
}

async fn by_cookie(node: &Node, topics: &[&str]) -> (Ws<TcpStream>, Value) {
    let stream = TcpStream::connect(node.public).await.unwrap();
    let mut ws = Ws::open(stream, "/realtime", &[("Cookie", "sid=abc")]).await.unwrap();
    ws.send(&json!({"type": "connect", "topics": topics})).await;
    let welcome = ws.message().await;
    (ws, welcome)
}

#[tokio::test]
async fn the_cms_is_asked_on_every_transport_and_its_no_counts_everywhere() {
    let cms = Cms::start(anna(900, &["comments:*"])).await;
    let node = cms.node().await;
    for (number, way) in ALL.into_iter().enumerate() {
        let key = format!("key-of-way-{number}");
        let welcome = way.enter(&node, &key, &["comments:1", "projects"], &[]).await.unwrap();
        assert_eq!((&welcome["user"], &welcome["refused"][0]["topic"]), (&json!("anna"), &json!("projects")));
        let asked = cms.asked.lock().unwrap().last().unwrap().to_lowercase();
        let shown = match way {
            Way::Cookie(_) => format!("cookie: a=b; {COOKIE}={key}\r\n"),
            _ => format!("authorization: bearer {key}\r\n"),
        };
        assert!(asked.contains(&shown), "{way:?}: {asked}");
    }
    for status in [401, 403, 302, 204] {
        cms.answer(status, anna(900, &["*"]));
        for (number, way) in ALL.into_iter().enumerate() {
            let expected = if way == Way::Connect { 4401 } else { 401 };
            let refusal =
                way.enter(&node, &format!("{status} for way {number}").replace(' ', "-"), &[], &[]).await;
            assert_eq!(refusal, Err(expected), "{status}, {way:?}");
        }
    }
    let nobody = node.public_get("/realtime/poll?topics=projects", &[]).await;
    assert_eq!(nobody.problem(), (401, "unauthenticated".into()));
}

#[tokio::test]
async fn a_cms_that_is_away_lets_nobody_new_in_and_throws_nobody_out() {
    let cms = Cms::start(anna(8, &["comments:*"])).await;
    let node = cms.node().await;
    let (mut anna_, welcome) = by_cookie(&node, &["comments:1"]).await;
    assert_eq!(welcome["user"], "anna");
    let before = cms.times_asked();
    cms.answer(500, json!("down"));
    let refused = node.public_get("/realtime/poll?topics=projects", &[("Cookie", "sid=new")]).await;
    assert_eq!(refused.problem(), (503, "auth-away".into()));
    until("the renewal to be tried", || async { cms.times_asked() >= before + 2 }).await;
    anna_.nothing_comes().await;
    assert_eq!(anna_.closed().await.0, 4401, "the answer that there was has ended");
}

#[tokio::test]
async fn the_answer_is_renewed_before_it_ends_and_what_it_no_longer_allows_ends() {
    let cms = Cms::start(anna(3, &["comments:*", "projects"])).await;
    let node = cms.node().await;
    let (mut session, welcome) = by_cookie(&node, &["comments:1", "projects"]).await;
    assert_eq!(welcome["refused"], json!([]));
    cms.answer(200, anna(3, &["projects"]));
    let ended = session.message().await;
    assert_eq!(ended["type"], "unsubscribed", "{ended}");
    assert!(ended["topics"].as_array().unwrap().contains(&json!("comments:1")), "{ended}");
    node.publish("comments:1", &json!({"type": "a.b"})).await;
    session.nothing_comes().await;
    let before = cms.times_asked();
    until("two more renewals", || async { cms.times_asked() >= before + 2 }).await;
    node.publish("projects", &json!({"type": "a.b"})).await;
    assert_eq!(session.message().await["topic"], "projects", "longer than the first answer lasted");
    cms.answer(401, json!({}));
    assert_eq!(session.closed().await.0, 4401);
}

/// As many questions about strangers as may be under way, and as many again that wait for their turn.
#[tokio::test]
async fn questions_about_strangers_keep_nobody_waiting_whom_the_cms_knows() {
    let cms = Cms::start(anna(900, &["comments:*"])).await;
    let node = cms.node().await;
    let (_first, welcome) = by_cookie(&node, &[]).await;
    assert_eq!(welcome["type"], "welcome");
    let mut strangers = Vec::new();
    for number in 0..200 {
        let mut socket = TcpStream::connect(node.public).await.unwrap();
        let head =
            format!("GET /realtime/poll HTTP/1.1\r\nHost: node\r\nCookie: sid=stranger-{number}\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        strangers.push(socket);
    }
    until("the CMS to be asked about strangers", || async { cms.times_asked() > 64 }).await;
    let (_second, welcome) = by_cookie(&node, &[]).await;
    assert_eq!(welcome["user"], "anna", "{welcome}");
}

#[tokio::test]
async fn polls_do_not_ask_each_time() {
    let cms = Cms::start(anna(900, &["projects"])).await;
    let node = cms.node().await;
    let path = |cursor: &str| format!("/realtime/poll?topics=projects{cursor}");
    let cookie = [("Cookie", "sid=abc")];
    let mut answer = node.public_get(&path(""), &cookie).await.json();
    let asked = cms.times_asked();
    for n in 0..10 {
        node.publish("projects", &json!({"type": "a.b", "n": n})).await;
        let cursor = format!("&cursor={}", answer["cursor"].as_str().unwrap());
        answer = node.public_get(&path(&cursor), &cookie).await.json();
        assert_eq!(answer["messages"][0]["event"]["n"], n);
    }
    assert!(cms.times_asked() <= asked + 1, "asked {} times for ten polls", cms.times_asked() - asked);
}

#[tokio::test]
async fn a_revoked_editor_is_asked_about_anew() {
    let cms = Cms::start(anna(900, &["projects"])).await;
    let node = cms.node().await;
    let cookie = [("Cookie", "sid=abc")];
    let first = node.public_get("/realtime/poll?topics=projects", &cookie).await.json();
    let (mut session, _) = by_cookie(&node, &["projects"]).await;
    // The CMS ends his session and tells the nodes.
    cms.answer(401, json!({}));
    assert_eq!(node.post("/disconnect", br#"{"user":"anna"}"#).await.status, 200);
    assert_eq!(session.closed().await.0, 4403);
    let cursor = first["cursor"].as_str().unwrap();
    let poll = node.public_get(&format!("/realtime/poll?topics=projects&cursor={cursor}"), &cookie).await;
    assert_eq!(poll.problem(), (401, "unauthenticated".into()), "no answer of before is believed");
    let stream = TcpStream::connect(node.public).await.unwrap();
    let again = Ws::open(stream, "/realtime", &cookie).await;
    assert_eq!(again.err().unwrap().problem(), (401, "unauthenticated".into()));
}

#[tokio::test]
async fn whose_rights_have_changed_is_asked_about_at_once_and_no_answer_of_before_is_believed() {
    let cms = Cms::start(anna(900, &["comments:*"])).await;
    let node = cms.node().await;
    let (mut session, _) = by_cookie(&node, &["comments:1"]).await;
    let poll = Way::Cookie(Carrier::Poll);
    let first = poll.enter(&node, "abc", &["comments:1"], &[]).await.unwrap();
    assert_eq!(first["refused"], json!([]));
    cms.answer(200, anna(900, &["projects"]));
    assert_eq!(node.post("/refresh", br#"{"user":"anna"}"#).await.status, 200);
    for way in ALL {
        let again = way.enter(&node, "abc", &["comments:1"], &[]).await.unwrap();
        assert_eq!(again["refused"][0]["topic"], "comments:1", "{way:?}");
    }
    let ended = session.message_of("unsubscribed").await;
    assert_eq!(ended["topics"][0], "comments:1", "{ended}");
    // A CMS that says no ends what is open; one that is away for a moment does not.
    cms.answer(503, json!({}));
    assert_eq!(node.post("/refresh", br#"{"user":"anna"}"#).await.status, 200);
    let before = cms.times_asked();
    until("the CMS to be asked", || async { cms.times_asked() > before }).await;
    cms.answer(401, json!({}));
    assert_eq!(session.closed().await.0, 4401);
}

#[tokio::test]
async fn the_cms_is_told_which_of_its_sites_was_asked_and_for_what() {
    const TOLD: [&str; 3] = ["x-forwarded-host", "x-forwarded-proto", "x-carillon-topics"];
    let cms = Cms::start(anna(900, &["*"])).await;
    let trusting = Node::start(&[
        ("auth.mode", "callback"),
        ("auth.secret", ""),
        ("auth.callback_url", &cms.url),
        ("auth.cookie", COOKIE),
        ("http.trusted_proxies", "127.0.0.1"),
    ])
    .await;
    let plain = cms.node().await;
    let proxied = [("X-Forwarded-Host", "evil, CMS.example.com:8443"), ("X-Forwarded-Proto", "wss")];
    // What every client of these tests writes as Host.
    let direct = "node.test";
    for (node, host, scheme) in [(&trusting, "cms.example.com:8443", "https"), (&plain, direct, "http")] {
        for (number, way) in ALL.into_iter().enumerate() {
            way.enter(node, &format!("{scheme}-{number}"), &["comments:a%2Cb", "projects"], &proxied)
                .await
                .unwrap();
            let asked = cms.asked.lock().unwrap().last().unwrap().clone();
            let told = TOLD.map(|name| {
                let line = asked.lines().filter_map(|line| line.split_once(": "));
                line.filter(|(found, _)| found.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
                    .collect::<Vec<_>>()
            });
            // A handshake does not say yet what will be followed.
            let shakes = matches!(way, Way::Bearer(Carrier::WebSocket) | Way::Cookie(Carrier::WebSocket));
            let topics = if shakes { vec![] } else { vec!["comments:a%2Cb,projects"] };
            assert_eq!(told, [vec![host], vec![scheme], topics], "{way:?}");
        }
    }
    let key = "0123456789".repeat(15);
    let many = (0..60).map(|n| format!("comments:{key}{n}")).collect::<Vec<_>>().join(",");
    let answer = plain.public_get(&format!("/realtime/poll?topics={many}"), &[("Cookie", "sid=many")]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let asked = cms.asked.lock().unwrap().last().unwrap().to_lowercase();
    assert!(asked.contains("sid=many") && !asked.contains(TOLD[2]), "too many to be told: {asked}");
}

#[tokio::test]
async fn an_answer_for_one_site_or_topic_is_not_believed_for_another() {
    let cms = Cms::start(anna(900, &["comments:*"])).await;
    let node = cms.node().await;
    let cursor = node.public_get("/realtime/poll?topics=comments:1", &[("Cookie", "sid=a")]).await.json();
    let cursor = cursor["cursor"].as_str().unwrap().to_owned();
    cms.answer(403, json!({}));
    let go_on = |host: &'static str| {
        let (node, path) = (&node, format!("/realtime/poll?topics=comments:1&cursor={cursor}"));
        async move { node.public_get(&path, &[("Cookie", "sid=a"), ("Host", host)]).await.status }
    };
    assert_eq!(go_on("other.example.com").await, 401);
}

/// A server with TLS whose certificate `authority` signed; it answers everything with this JSON.
async fn secure_server(authority: &Path, body: &'static str) -> String {
    let certificates = CertificateDer::pem_file_iter(authority.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth();
    let config = config.with_single_cert(certificates.map(Result::unwrap).collect(), key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[allow(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    });
    format!("https://{address}/")
}

#[tokio::test]
async fn the_server_that_decides_must_be_the_one_that_auth_tls_ca_signed() {
    let (ours, others) = (certificates(), certificates());
    let pem = |dir: &TempDir| dir.path().join("ca.pem").display().to_string();
    let url = secure_server(ours.path(), r#"{"sub":"anna","topics":["*"],"expires_in":900,
        "keys":[{"kty":"OKP","crv":"Ed25519","kid":"another","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#).await;
    // No key of the set fits this token: 401 where the set could be read.
    let foreign = "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJhbm5hIn0.AAAA";
    for (mode, key, good) in [("callback", "auth.callback_url", 200), ("jwt", "auth.jwks", 401)] {
        for (authority, expected) in [(pem(&ours), good), (pem(&others), 503), (String::new(), 503)] {
            let settings =
                [("auth.mode", mode), ("auth.secret", ""), (key, &url), ("auth.tls_ca", &authority)];
            let node = Node::start(&settings).await;
            let answer =
                node.public_get("/realtime/poll?topics=projects", &[("Authorization", foreign)]).await;
            assert_eq!(answer.status, expected, "{mode} {authority}: {answer:?}");
            if expected == 503 {
                assert!(!answer.text().contains("127.0.0.1"), "where it is asked is told nobody: {answer:?}");
            }
        }
        let not_pem = ours.path().join("ca.key").display().to_string();
        let wrong =
            config(&[("auth.mode", mode), ("auth.secret", ""), (key, &url), ("auth.tls_ca", &not_pem)]);
        let areas = Areas::new(&wrong.areas.names, &wrong.areas.private, &wrong.areas.recorded_only).unwrap();
        let error = wiring::authenticator(&wrong, &areas).unwrap_err().to_string();
        assert!(error.contains("auth.tls_ca (test)") && error.contains("no certificate"), "{error}");
    }
}
