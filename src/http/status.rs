//! `GET /status`: this node, and all nodes that are known in Redis, as JSON.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::InternalState;
use crate::{
    metrics::{AreaLabels, ReasonLabel, TransportLabel},
    protocol::{
        Reason,
        time::{now_ms, rfc3339},
    },
    relay::SourceState,
    session::Transport,
};

impl InternalState {
    /// The node's state as a JSON object.
    pub fn state(&self) -> Value {
        let metrics = &self.metrics;
        let health = self.bus.health();
        let sessions = |transport: Transport| {
            metrics.sessions.get_or_create(&TransportLabel { transport: transport.name() }).get()
        };
        let transports = [Transport::WebSocket, Transport::Sse, Transport::Poll];
        let by_transport: Map<_, _> = transports
            .map(|transport| (transport.name().to_owned(), json!(sessions(transport))))
            .into_iter()
            .collect();
        let resyncs: Map<_, _> = Reason::ALL
            .map(|reason| {
                let count = metrics.resyncs.get_or_create(&ReasonLabel { reason: reason.name() }).get();
                (reason.name().to_owned(), json!(count))
            })
            .into_iter()
            .collect();
        let events = |kind: &'static str| -> u64 {
            let count =
                |area: &str| metrics.events.get_or_create(&AreaLabels { area: area.into(), kind }).get();
            self.areas.names().map(|area| count(&area)).sum()
        };
        json!({
            "node": self.status.node,
            "version": env!("CARGO_PKG_VERSION"),
            "time": rfc3339(now_ms()),
            "started": rfc3339(self.status.started),
            "uptime_seconds": self.status.since.elapsed().as_secs(),
            "ready": self.trouble().is_none(),
            "trouble": self.trouble(),
            "draining": self.draining.load(Ordering::Acquire),
            "redis": {
                "kind": self.bus.kind(),
                "live": health.live,
                "since": rfc3339(health.since),
                "version": health.version,
                "probe_ms": health.round_trip.map(|time| time.as_secs_f64() * 1000.0),
                "link_losses": metrics.link_losses.get(),
            },
            "in_step": self.relay.is_live(),
            "at": self.relay.at(),
            "proof_age_seconds": metrics.proof().age().as_secs_f64(),
            "canary": self.canary(),
            "sources": self.sources(),
            "sessions": { "total": self.registry.len(), "by_transport": by_transport },
            "editors": self.registry.editors(),
            "topics": metrics.topics.get(),
            "events": { "recorded": events("recorded"), "live": events("live") },
            "deliveries": metrics.deliveries.get(),
            "resyncs": resyncs,
            "gaps": metrics.gaps.get(),
            "history_reads": metrics.history_reads.get(),
            "outbox_overflows": metrics.overflows.get(),
        })
    }
}

impl InternalState {
    /// How an event that the node sends itself fares; `null` where it sends none.
    fn canary(&self) -> Value {
        let canary = self.metrics.canary();
        let took = canary.took().map(|took| took.as_secs_f64() * 1000.0);
        canary.age().map_or(Value::Null, |age| json!({"age_seconds": age.as_secs_f64(), "ms": took}))
    }

    /// The sources that publishers vouch for.
    fn sources(&self) -> Vec<Value> {
        let source = |source: SourceState| {
            json!({
                "source": source.name,
                "late": source.late.is_some(),
                "since": source.late.map(rfc3339),
                "vouched_seconds": source.left_ms as f64 / 1000.0,
                "oldest_ms": source.oldest_ms,
            })
        };
        self.relay.sources().into_iter().map(source).collect()
    }
}

/// `GET /status`
pub(super) async fn status(State(internal): State<Arc<InternalState>>) -> Response {
    let own = internal.state();
    let mut nodes = BTreeMap::new();
    let mut trouble = None;
    match internal.bus.nodes().await {
        Ok(known) => {
            for (name, state) in known {
                nodes.insert(name, serde_json::from_slice(&state).unwrap_or(Value::Null));
            }
        }
        Err(e) => trouble = Some(e.to_string()),
    }
    nodes.insert(internal.status.node.clone(), own.clone());
    let body = json!({ "this": own, "nodes": nodes, "nodes_trouble": trouble });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
