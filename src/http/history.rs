//! `GET /history`: what this node remembers of the last hour, as JSON, for the page that draws it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{InternalState, refusal::Refusal};
use crate::{
    metrics::{Metrics, history},
    protocol::{Problem, ProblemCode, time::now_ms},
};

/// Topics in the list of the busiest.
const BUSIEST: usize = 10;

#[derive(Deserialize)]
pub(super) struct HistoryQuery {
    /// Buckets that began then or later, ms since 1970; all of them without it.
    #[serde(default)]
    since: u64,
}

/// `GET /history?since=…`: the last bucket is the one that is still open, as it stands.
pub(super) async fn history(
    State(internal): State<Arc<InternalState>>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(HistoryQuery { since }) = query.map_err(|why| {
        let detail = format!("`since` is a time in ms since 1970, as `from` in an answer: {why}.");
        Problem::new(400, ProblemCode::BadRequest, "Not a request", detail)
    })?;
    let (metrics, now) = (&internal.metrics, now_ms());
    let body = json!({
        "node": internal.status.node,
        "started": internal.status.started,
        "now": now,
        "bucket_seconds": history::BUCKET.as_secs(),
        "kept_seconds": history::BUCKET.as_secs() * history::KEPT as u64,
        "buckets": metrics.history().since(since, &metrics.text(), now),
        "busiest": metrics.busiest().list(BUSIEST, now),
    });
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Ends a bucket and begins the next, for as long as the node lives.
pub async fn remember(metrics: Metrics) {
    let mut ticks = tokio::time::interval(history::BUCKET);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.history().close(&metrics.text(), now_ms());
    }
}
