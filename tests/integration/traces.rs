//! Traces as a collector receives them: an OTLP receiver of a few lines, real nodes, one Redis.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use crate::support::node::{Node, until, within};
use crate::support::redis::RedisServer;
use axum::{Json, Router, extract::State, routing::post};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Mutex};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What a collector was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Value>>>);

/// A span: who sent it, its name, and the rest as it came.
type Found = BTreeMap<(String, String), Value>;

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let take = async |State(Self(taken)): State<Self>, Json(body): Json<Value>| {
            taken.lock().await.push(body);
            Json(json!({}))
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[allow(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        (collector, address)
    }

    /// All spans; no two of one node may have the same name.
    async fn spans(&self) -> Found {
        let mut found = BTreeMap::new();
        for batch in self.0.lock().await.iter().flat_map(|body| body["resourceSpans"].as_array().unwrap()) {
            assert_eq!(attribute(&batch["resource"], "service.name"), "carillon");
            let node = attribute(&batch["resource"], "service.instance.id").as_str().unwrap().to_owned();
            let scopes = batch["scopeSpans"].as_array().unwrap().iter();
            for span in scopes.flat_map(|scope| scope["spans"].as_array().unwrap()) {
                let name = (node.clone(), span["name"].as_str().unwrap().to_owned());
                assert!(found.insert(name, span.clone()).is_none(), "twice: {span}");
            }
        }
        found
    }
}

/// The value of an attribute, as OTLP writes it (numbers as text).
fn attribute(of: &Value, name: &str) -> Value {
    let attributes = of["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == name);
    let value = &found.unwrap_or_else(|| panic!("no {name} in {of}"))["value"];
    value.as_object().unwrap().values().next().unwrap().clone()
}

fn traced(flags: &str) -> Value {
    json!({"type": "a.b", "traceparent": format!("00-{TRACE}-{PARENT}-{flags}")})
}

/// A number that OTLP may write as text.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_publish_to_the_deliveries_on_all_nodes() {
    let (collector, address) = Collector::start().await;
    let redis = RedisServer::start();
    let (url, endpoint) = (redis.url(), format!("http://{address}"));
    let settings =
        |name| [("redis.url", url.as_str()), ("node.name", name), ("telemetry.otlp_endpoint", &endpoint)];
    let (one, two) = (Node::start(&settings("one")).await, Node::start(&settings("two")).await);
    let mut editors = Vec::new();
    for node in [&one, &one, &two] {
        editors.push(node.session("anna", &["comments:1"]).await.0);
    }
    // What has no sampled trace leaves none.
    for quiet in [json!({"type": "a.b"}), traced("00"), json!({"type": "a.b", "traceparent": "00-1-2-01"})] {
        one.publish("comments:1", &quiet).await;
    }
    let position = one.publish("comments:1", &traced("01")).await;
    for editor in &mut editors {
        for _ in 0..3 {
            editor.message().await;
        }
        assert_eq!(editor.message().await["event"], traced("01"), "the event passes untouched");
    }
    until("the spans", async || collector.spans().await.len() == 3).await;
    let spans = collector.spans().await;
    let names: Vec<_> = spans.keys().map(|(node, name)| (node.as_str(), name.as_str())).collect();
    assert_eq!(
        names,
        [("one", "deliver comments"), ("one", "publish comments"), ("two", "deliver comments")]
    );
    for ((node, name), span) in &spans {
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&json!(TRACE), &json!(PARENT)), "{span}");
        assert_eq!(attribute(span, "messaging.destination.name"), "comments:1");
        assert!(number(&span["startTimeUnixNano"]) <= number(&span["endTimeUnixNano"]), "{span}");
        if name.starts_with("publish") {
            assert_eq!((number(&span["kind"]), attribute(span, "carillon.position")), (4, json!(position)));
        } else {
            let reached = if node == "one" { 2 } else { 1 };
            assert_eq!((number(&span["kind"]), number(&attribute(span, "carillon.sessions"))), (5, reached));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_publish_is_an_error_in_its_trace() {
    let (collector, address) = Collector::start().await;
    let redis = RedisServer::start();
    let endpoint = format!("http://{address}/v1/traces");
    let node = Node::start(&[("redis.url", &redis.url()), ("telemetry.otlp_endpoint", &endpoint)]).await;
    // A log whose numbers are used up.
    redis.command(&["XADD", "carillon:comments:1", &format!("{0}-{0}", u64::MAX), "event", "by hand"]);
    let body = json!({"topic": "comments:1", "event": traced("01")}).to_string();
    assert_eq!(node.post("/publish", body.as_bytes()).await.status, 503);
    // What waits is sent when the node stops.
    node.stop();
    node.stopped().await.unwrap();
    let spans = collector.spans().await;
    let (_, span) = spans.first_key_value().unwrap();
    assert_eq!(spans.len(), 1);
    assert_eq!(number(&span["status"]["code"]), 2, "{span}");
    assert!(span["status"]["message"].as_str().unwrap().contains("Redis refuses"), "{span}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_collector_that_is_away() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for away in [closed, mute.local_addr().unwrap()] {
        without(&format!("http://{away}")).await;
    }
}

async fn without(collector: &str) {
    let node = Node::start(&[("telemetry.otlp_endpoint", collector)]).await;
    let (mut anna, _) = node.session("anna", &["comments:1"]).await;
    // More than the SDK keeps.
    let batch = json!(vec![json!({"topic": "comments:1", "event": traced("01")}); 500]).to_string();
    for _ in 0..10 {
        assert_eq!(node.post("/publish", batch.as_bytes()).await.status, 200);
        for _ in 0..500 {
            within("the event", anna.message()).await;
        }
    }
    drop(anna);
    node.stop();
    // The tests' drain takes 1 and 2 seconds at most, and 1 for what is left; the rest is for a busy machine.
    tokio::time::timeout(Duration::from_secs(8), node.stopped()).await.expect("an end in time").unwrap();
}
