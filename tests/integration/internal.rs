//! The internal door (contract, 3.3 and 8), on the memory bus.

use crate::support::node::{Answer, Node, publish_token, request, until};
use serde_json::{Value, json};

async fn publish(node: &Node, token: Option<&str>, path: &str, body: &str) -> Answer {
    let bearer = token.map(|token| format!("Bearer {token}")).unwrap_or_default();
    let headers: &[(&str, &str)] = if token.is_some() { &[("Authorization", &bearer)] } else { &[] };
    request(node.internal, "POST", path, headers, body.as_bytes()).await
}

#[tokio::test]
async fn events_are_published_one_by_one_and_in_batches() {
    let node = Node::start(&[]).await;
    let (mut anna, _) = node.session("anna", &["comments:1", "comments:2", "projects"]).await;
    let body = json!([
        {"topic": "comments:1", "event": {"type": "a.one"}},
        {"topics": ["comments:2", "projects"], "event": {"type": "a.two"}},
    ]);
    let answer = node.post("/publish", body.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["positions"].as_array().unwrap().len(), 3, "one for each topic, in order");
    for (topic, kind) in [("comments:1", "a.one"), ("comments:2", "a.two"), ("projects", "a.two")] {
        let message = anna.message().await;
        assert_eq!((&message["topic"], &message["event"]["type"]), (&json!(topic), &json!(kind)));
    }
    let twice = br#"{"topic":"comments:1","event":{"type":"a.b","id":"1","source":"cms"}}"#;
    let first = node.post("/publish", twice).await.json();
    assert_eq!(node.post("/publish", twice).await.json(), first, "the same event is published once");
    assert_eq!(anna.message().await["event"]["id"], "1");
    anna.nothing_comes().await;
    node.publish_live("comments:1", &json!({"type": "a.live"})).await;
    let live = anna.message().await;
    assert_eq!((&live["event"]["type"], live.get("position")), (&json!("a.live"), None));
}

#[tokio::test]
async fn nothing_is_published_when_anything_is_wrong() {
    let node = Node::start(&[]).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let large = "x".repeat(66_000);
    for (status, code, element, body) in [
        (400, "bad-request", 0, "hello".to_owned()),
        (400, "bad-request", 0, "\"text\"".to_owned()),
        (400, "bad-request", 0, "{}".to_owned()),
        (400, "bad-request", 0, r#"[["comments:1",null,{"type":"a.b"}]]"#.to_owned()),
        (400, "bad-request", 1, r#"[{"topic":"comments:1","event":{"type":"a.b"}}, 7]"#.to_owned()),
        (400, "bad-request", 1, r#"[{"topic":"comments:1","event":{"type":"a.b"}}, {"topic":"comments:1","event":{"n":NaN}}]"#.to_owned()),
        (400, "bad-request", 1, r#"[{"topic":"comments:1","event":{"type":"a.b"}}, {"event":{"type":"a.b"}}]"#.to_owned()),
        (400, "bad-topic", 1, r#"[{"topic":"comments:1","event":{"type":"a.b"}}, {"topic":"comments:*","event":{"type":"a.b"}}]"#.to_owned()),
        (400, "bad-topic", 1, r#"[{"topic":"comments:1","event":{"type":"a.b"}}, {"topic":"nothing:1","event":{"type":"a.b"}}]"#.to_owned()),
        (400, "bad-event", 1, r#"[{"topic":"comments:1","event":{"type":"a.b"}}, {"topic":"comments:1","event":{}}]"#.to_owned()),
        (400, "bad-event", 1, r#"[{"topic":"comments:1","event":{"type":"a.b"}}, {"topic":"comments:1","event":[]}]"#.to_owned()),
        (400, "bad-event", 0, format!(r#"{{"topic":"comments:1","event":{{"type":"a.b","x":{deep}}}}}"#)),
        (413, "bad-event", 0, format!(r#"{{"topic":"comments:1","event":{{"type":"a.b","x":"{large}"}}}}"#)),
    ] {
        let answer = node.post("/publish", body.as_bytes()).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{body:.100}");
        assert_eq!(answer.json()["element"], element, "{body:.100}: {}", answer.text());
        assert!(answer.json()["detail"].as_str().unwrap().len() > 10);
    }
    assert_eq!(node.post("/publish", b"[]").await.problem(), (400, "bad-request".into()));
    assert_eq!(node.post("/publish?live=perhaps", b"{}").await.problem(), (400, "bad-request".into()));
    assert_eq!(node.get("/publish").await.problem(), (405, "method-not-allowed".into()));
    anna.nothing_comes().await;
}

#[tokio::test]
async fn a_batch_of_live_events_is_checked_whole_before_any_is_published() {
    let node = Node::start(&[("areas.recorded_only", "content")]).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    let event = json!({"type": "a.b"});
    let batch = json!([{"topic": "comments:1", "event": event}, {"topic": "content:1", "event": event}]);
    let answer = node.post("/publish?live=1", batch.to_string().as_bytes()).await;
    assert_eq!((answer.problem(), &answer.json()["element"]), ((400, "bad-topic".into()), &json!(1)));
    let misspelt =
        json!([{"topic": "comments:1", "event": event}, {"topic": "notifications:%61", "event": event}]);
    let answer = node.post("/publish", misspelt.to_string().as_bytes()).await;
    assert_eq!((answer.problem(), &answer.json()["element"]), ((400, "bad-topic".into()), &json!(1)));
    anna.nothing_comes().await;
    assert_eq!(
        node.post("/publish", batch.to_string().as_bytes()).await.status,
        200,
        "recorded, both are good"
    );
}

#[tokio::test]
async fn whatever_is_refused_is_refused_in_the_same_words_format() {
    let node = Node::start(&[]).await;
    let body = vec![b' '; (8 << 20) + 1];
    assert_eq!(node.post("/publish", &body).await.problem(), (413, "bad-request".into()));
    assert_eq!(node.post("/disconnect", &body).await.problem(), (413, "bad-request".into()));
    assert_eq!(node.post("/publish?live=1&live=1", b"{}").await.problem(), (400, "bad-request".into()));
    assert_eq!(node.post("/disconnect", br#"{"user":" "}"#).await.problem(), (400, "bad-request".into()));
    for path in ["/realtime/events?topics=a&topics=b", "/realtime/poll?topics=a&topics=b"] {
        assert_eq!(node.public_get(path, &[]).await.problem(), (400, "bad-request".into()), "{path}");
    }
}

#[tokio::test]
async fn where_the_cms_is_asked_programs_on_this_machine_are_let_in() {
    let settings = [
        ("auth.mode", "callback"),
        ("auth.secret", ""),
        ("auth.callback_url", "http://127.0.0.1:1/who"),
        ("internal.publish_token", ""),
    ];
    let event = r#"{"topic":"comments:1","event":{"type":"a.b"}}"#;
    let node = Node::start(&settings).await;
    assert_eq!(publish(&node, None, "/publish", event).await.status, 200);
    assert_eq!(
        publish(&node, Some("who knows"), "/publish", event).await.problem(),
        (503, "auth-away".into())
    );
    let open = Node::start(&[&settings[..], &[("internal.listen", "0.0.0.0:0")]].concat()).await;
    assert_eq!(publish(&open, None, "/publish", event).await.problem(), (403, "forbidden".into()));
}

#[tokio::test]
async fn publishers_prove_what_they_may_publish() {
    let node = Node::start(&[]).await;
    let event = r#"{"topic":"comments:1","event":{"type":"a.b"}}"#;
    assert_eq!(publish(&node, None, "/publish", event).await.problem(), (401, "unauthenticated".into()));
    assert_eq!(
        publish(&node, Some("wrong"), "/publish", event).await.problem(),
        (401, "unauthenticated".into())
    );
    let reader = crate::support::node::token("anna", &["*"]);
    assert_eq!(publish(&node, Some(&reader), "/publish", event).await.problem(), (403, "forbidden".into()));
    let narrow = publish_token(&["comments:1"]);
    assert_eq!(publish(&node, Some(&narrow), "/publish", event).await.status, 200);
    let other =
        r#"[{"topic":"comments:1","event":{"type":"a.b"}},{"topic":"comments:2","event":{"type":"a.b"}}]"#;
    let refused = publish(&node, Some(&narrow), "/publish", other).await;
    assert_eq!((refused.problem(), &refused.json()["element"]), ((403, "forbidden".into()), &json!(1)));
    let anna = r#"{"user":"anna"}"#;
    assert_eq!(publish(&node, Some(&narrow), "/disconnect", anna).await.problem(), (403, "forbidden".into()));
    assert_eq!(publish(&node, Some(&publish_token(&["*"])), "/disconnect", anna).await.status, 200);
    assert_eq!(publish(&node, None, "/disconnect", anna).await.problem(), (401, "unauthenticated".into()));
    assert_eq!(node.post("/disconnect", b"anna").await.problem(), (400, "bad-request".into()));
    assert_eq!(node.post("/disconnect", br#"["anna"]"#).await.problem(), (400, "bad-request".into()));
}

#[tokio::test]
async fn without_any_secret_only_programs_on_this_machine_are_let_in() {
    let settings = [("auth.mode", "none"), ("auth.secret", ""), ("internal.publish_token", "")];
    let event = r#"{"topic":"comments:1","event":{"type":"a.b"}}"#;
    let node = Node::start(&settings).await;
    assert_eq!(publish(&node, None, "/publish", event).await.status, 200);
    let page = [("Origin", "https://evil.example")];
    let answer = request(node.internal, "POST", "/publish", &page, event.as_bytes()).await;
    assert_eq!(answer.problem(), (403, "forbidden".into()), "a page in a browser on this machine");
    let open = Node::start(&[&settings[..], &[("internal.listen", "0.0.0.0:0")]].concat()).await;
    assert_eq!(publish(&open, None, "/publish", event).await.problem(), (403, "forbidden".into()));
}

#[tokio::test]
async fn operators_see_how_the_node_is() {
    let node = Node::start(&[("node.name", "n1")]).await;
    assert_eq!(node.get("/healthz").await.status, 200);
    assert_eq!(node.get("/readyz").await.json(), json!({"ready": true}));
    let (_anna, _) = node.session("anna", &["comments:1", "projects"]).await;
    node.publish("comments:1", &json!({"type": "a.b"})).await;
    let own = |status: Value| status["this"].clone();
    until("the figures", || async {
        let own = own(node.get("/status").await.json());
        own["deliveries"] == 1 && own["topics"] == 3
    })
    .await;
    let status = node.get("/status").await.json();
    let this = &status["this"];
    assert_eq!((&this["node"], &this["ready"], &this["editors"]), (&json!("n1"), &json!(true), &json!(1)));
    assert_eq!(this["sessions"], json!({"total": 1, "by_transport": {"websocket": 1, "sse": 0, "poll": 0}}));
    assert_eq!(
        (&this["redis"]["live"], &this["topics"], &this["events"]["recorded"]),
        (&json!(true), &json!(3), &json!(1))
    );
    assert_eq!(status["nodes"]["n1"]["node"], "n1");
    let open = [("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];
    let open = request(node.internal, "GET", "/metrics", &open, b"").await;
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n"));
    let metrics = node.get("/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(!metrics.text().contains("# UNIT") && !metrics.text().contains("# EOF"));
    assert!(metrics.text().contains("\n# TYPE carillon_deliveries_total counter\n"), "{}", metrics.text());
    for line in [
        "carillon_sessions{transport=\"websocket\"} 1",
        "carillon_deliveries_total 1",
        "carillon_events_received_total{area=\"comments\",kind=\"recorded\"} 1",
        "carillon_published_total{reason=\"recorded\"} 1",
        "carillon_sessions_welcomed_total{transport=\"websocket\"} 1",
        "carillon_link_up 1",
    ] {
        assert!(metrics.text().lines().any(|other| other == line), "{line} is not in\n{}", metrics.text());
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_outside() {
    let node = Node::start(&[]).await;
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let answer = node.get(path).await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").unwrap().starts_with(kind));
        assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"));
        let text = answer.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("://"), "{path} names another host");
        assert!(answer.text().len() > 100, "{path}");
    }
}

#[tokio::test]
async fn positions_are_where_a_page_may_start() {
    let node = Node::start(&[]).await;
    let first = node.publish("comments:42", &json!({"type": "a.b"})).await;
    let bearer = format!("Bearer {}", publish_token(&["comments:*", "comments"]));
    let asked = |path: &'static str, bearer: &str| {
        let headers = [("Authorization".to_owned(), bearer.to_owned())];
        let internal = node.internal;
        async move {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            request(internal, "GET", path, &headers, b"").await
        }
    };
    let answer = asked("/positions?topics=comments:42", &bearer).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    let told = answer.json();
    assert!(told["at"].is_u64());
    let positions = told["positions"].as_object().unwrap();
    assert_eq!(positions.keys().collect::<Vec<_>>(), ["comments", "comments:42"], "its area is followed too");
    assert!(positions["comments:42"].as_str().unwrap().ends_with(&format!(".{first}")));
    for (path, bearer, status, code) in [
        ("/positions?topics=projects", bearer.as_str(), 403, "forbidden"),
        ("/positions?topics=comments:*", bearer.as_str(), 400, "bad-topic"),
        ("/positions?topics=", bearer.as_str(), 400, "bad-request"),
        ("/positions", bearer.as_str(), 400, "bad-request"),
        ("/positions?topics=comments:42", "Bearer nobody", 401, "unauthenticated"),
    ] {
        assert_eq!(asked(path, bearer).await.problem(), (status, code.into()), "{path}");
    }
}

#[tokio::test]
async fn the_last_hour_is_remembered_without_names_of_people() {
    let node = Node::start(&[]).await;
    let (mut anna, _) = node.session("anna", &["comments:1", "notifications:anna"]).await;
    for topic in ["comments:1", "comments:1", "notifications:anna"] {
        let body = json!({"topic": topic, "event": {"type": "a.b"}});
        assert_eq!(node.post("/publish", body.to_string().as_bytes()).await.status, 200);
        anna.message().await;
    }
    let history = node.get("/history").await.json();
    assert_eq!((&history["bucket_seconds"], &history["kept_seconds"]), (&json!(10), &json!(3600)));
    let open = history["buckets"].as_array().unwrap().last().unwrap();
    assert_eq!(open["areas"], json!({"comments": 2, "notifications": 1}));
    assert_eq!((&open["events"], &open["deliveries"]), (&json!({"recorded": 3}), &json!(3)));
    assert_eq!(open["sessions"], json!({"websocket": 1}));
    assert!(open["latency_ms"]["p99"].as_f64().unwrap() > 0.0, "{open}");
    let busy = |topic: &str, events: u64| json!({"topic": topic, "events": events, "over": 0});
    assert_eq!(history["busiest"], json!([busy("comments:1", 2), busy("notifications:…", 1)]));
    assert!(!history.to_string().contains("anna"), "{history}");
    let later = history["now"].as_u64().unwrap() + 3_600_000;
    let news = node.get(&format!("/history?since={later}")).await.json();
    assert_eq!(news["buckets"].as_array().unwrap().len(), 1, "the open one is always told");
    assert_eq!(node.get("/history?since=yesterday").await.problem(), (400, "bad-request".into()));
    let status = node.get("/status").await.json();
    assert_eq!(status["this"]["redis"]["kind"], "memory");
    assert!(status["this"]["proof_age_seconds"].as_f64().unwrap() > 0.0);
}
