//! Headers as browsers and proxies really send them: repeated, with bytes outside ASCII, over HTTP/1 and HTTP/2.

use crate::support::node::{Node, Ws, read_head, request, token, within};
use crate::support::ways::{ALL, COOKIE, Carrier, Way};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

#[tokio::test]
async fn odd_cookies_hide_no_other_by_any_way_in() {
    let node = Node::start(&[("auth.cookie", COOKIE)]).await;
    let token = token("anna", &["*"]);
    let odd = [
        ("Cookie", "lang=f\u{fc}r; \u{fc}=1; session=\u{e4}; broken; =; session="),
        ("Cookie", "theme=\u{1f319}"),
    ];
    for way in ALL {
        let welcome = way.enter(&node, &token, &["comments:1"], &odd).await;
        assert_eq!(welcome.map(|welcome| welcome["user"].clone()), Ok("anna".into()), "{way:?}");
    }
    let cookie = format!("{COOKIE}={token}");
    let two = [("Authorization", "Bearer x"), ("Authorization", "Bearer y"), ("Cookie", cookie.as_str())];
    assert_eq!(
        node.public_get("/realtime/poll?topics=projects", &two).await.status,
        400,
        "which one counts?"
    );
}

/// A request over HTTP/2 without TLS, each cookie in a field of its own as browsers send them.
async fn over_http2(node: &Node, host: Option<&str>, cookies: &[&[u8]]) -> (StatusCode, Value) {
    let socket = TcpStream::connect(node.public).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    #[allow(clippy::disallowed_methods, reason = "tests own their clients")]
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().uri("http://node.test/realtime/poll?topics=projects");
    for cookie in cookies {
        request = request.header("cookie", *cookie);
    }
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let answer =
        within("an answer", sender.send_request(request.body(Empty::<Bytes>::new()).unwrap())).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    connection.abort();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn cookies_over_http2_come_in_several_fields() {
    let node = Node::start(&[("auth.cookie", COOKIE)]).await;
    let cookie = format!("{COOKIE}={}", token("anna", &["*"]));
    let cookies = [&b"a=\xff"[..], cookie.as_bytes(), b"z=1"];
    let (status, answer) = over_http2(&node, None, &cookies).await;
    assert_eq!((status, &answer["messages"][0]["user"]), (StatusCode::OK, &"anna".into()), "{answer}");
    assert_eq!(over_http2(&node, Some("node.test"), &cookies).await.0, StatusCode::OK);
    assert_eq!(
        over_http2(&node, Some("evil.example"), &cookies).await.0,
        StatusCode::BAD_REQUEST,
        "two hosts"
    );
}

#[tokio::test]
async fn a_request_has_one_host() {
    let node = Node::start(&[]).await;
    for (head, status) in [
        ("GET /realtime/config HTTP/1.1\r\nHost: a\r\n", 200),
        ("GET /realtime/config HTTP/1.1\r\nHost: [::1]:80\r\n", 200),
        ("GET /realtime/config HTTP/1.0\r\n", 200),
        ("GET http://a/realtime/config HTTP/1.1\r\nHost: b\r\n", 200),
        ("GET /realtime/config HTTP/1.1\r\n", 400),
        ("GET /realtime/config HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("GET /realtime/config HTTP/1.1\r\nHost: a\r\nHOST: b\r\n", 400),
        ("GET /realtime/config HTTP/1.1\r\nHost:\r\n", 400),
        ("GET /realtime/config HTTP/1.1\r\nHost: a, b\r\n", 400),
        ("GET /realtime/config HTTP/1.1\r\nHost: ::1\r\n", 400),
    ] {
        for (door, head) in
            [(node.public, head.to_owned()), (node.internal, head.replace("/realtime/config", "/healthz"))]
        {
            let mut socket = TcpStream::connect(door).await.unwrap();
            socket.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
            let (answer, _) = within("an answer", read_head(&mut socket)).await.unwrap();
            assert_eq!(answer.status, status, "{head}");
        }
    }
}

#[tokio::test]
async fn a_proxys_lists_are_read_from_its_end() {
    let node = Node::start(&[
        ("http.trusted_proxies", "127.0.0.0/8, 10.0.0.0/8"),
        ("limits.sessions_per_address", "1"),
    ])
    .await;
    let open = async |headers: &[(&str, &str)]| {
        let socket = TcpStream::connect(node.public).await.unwrap();
        Ws::open(socket, "/realtime", headers).await.map_err(|answer| answer.problem())
    };
    let page = ("Origin", "https://cms.example.com:8443");
    for (number, lines) in [
        &[("X-Forwarded-Host", "cms.example.com:8443"), ("X-Forwarded-Proto", "wss")][..],
        &[("X-Forwarded-Host", "evil.example, cms.example.com:8443"), ("X-Forwarded-Proto", "ws, https")],
        &[("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Host", "cms.example.com:8443")],
    ]
    .iter()
    .enumerate()
    {
        let from = format!("9.9.9.9, [2001:db8::{number}]:4711");
        let headers = [lines, &[page, ("X-Forwarded-For", &from)][..]].concat();
        let first = open(&headers).await.map(Some).unwrap();
        let full = open(&headers).await.map(drop);
        assert_eq!(full, Err((503, "too-many-sessions".into())), "the address behind {from:?} is one");
        drop(first);
        let evil = [&headers[..headers.len() - 2], &[("Origin", "https://evil.example")]].concat();
        assert_eq!(open(&evil).await.map(drop), Err((403, "origin".into())), "{evil:?}");
    }
    let way = Way::Bearer(Carrier::Poll);
    let http = [
        ("Origin", "http://cms.example.com"),
        ("X-Forwarded-Host", "cms.example.com"),
        ("X-Forwarded-Proto", "wss"),
    ];
    assert_eq!(way.enter(&node, &token("anna", &["*"]), &[], &http).await, Err(403), "wss is no http");
}

#[tokio::test]
async fn origins_in_any_spelling_are_those_that_browsers_send() {
    let written = "https://Bücher.example, http://[0:0:0:0:0:0:0:1]:3000, https://cms.example:0443";
    let node = Node::start(&[("http.allowed_origins", written)]).await;
    let open = async |origin: &str| {
        let socket = TcpStream::connect(node.public).await.unwrap();
        Ws::open(socket, "/realtime", &[("Origin", origin)])
            .await
            .map(drop)
            .map_err(|answer| answer.problem())
    };
    for origin in ["https://xn--bcher-kva.example", "http://[::1]:3000", "https://cms.example"] {
        assert_eq!(open(origin).await, Ok(()), "{origin}");
        let config = node.public_get("/realtime/config", &[("Origin", origin)]).await;
        assert_eq!(config.header("access-control-allow-origin"), Some(origin));
    }
    for origin in
        ["http://xn--bcher-kva.example", "http://[::1]", "http://[::2]:3000", "https://cms.example:8443"]
    {
        assert_eq!(open(origin).await, Err((403, "origin".into())), "{origin}");
    }
}

#[tokio::test]
async fn null_where_something_may_be_missing_is_as_if_it_were() {
    let node = Node::start(&[]).await;
    let mut anna = node.socket().await;
    let connect = json!({"type": "connect", "token": token("anna", &["*"]), "topics": null, "client": null, "resume": null});
    anna.send(&connect).await;
    assert_eq!(anna.message_of("welcome").await["positions"], json!({}));
    let resume = json!({"at": null, "positions": {"comments:42": null, "comments": "?"}});
    anna.send(&json!({"type": "subscribe", "topics": ["comments:42"], "resume": resume})).await;
    let subscribed = anna.message_of("subscribed").await;
    assert_eq!(subscribed["refused"], json!([]));
    let resync = anna.message_of("resync").await;
    assert_eq!((&resync["reason"], resync["topics"].as_array().unwrap().len()), (&json!("no-position"), 2));
    for body in [
        json!({"topics": null, "cursor": null, "resume": null}),
        json!({"topics": ["comments:42"], "resume": {"at": null, "positions": null}}),
    ] {
        let bearer = format!("Bearer {}", token("bert", &["*"]));
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let body = body.to_string();
        let answer = request(node.public, "POST", "/realtime/poll", &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
    }
}
