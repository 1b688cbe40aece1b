//! `GET /positions`: where topics stand, for a CMS whose server renders pages. A page that starts from here misses
//! nothing that changed after its data was read, and needs no second read once it is connected.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    InternalState,
    refusal::{Refusal, bus_problem},
};
use crate::protocol::{Position, Problem, ProblemCode, Topic};

/// Topics of one question.
const MOST: usize = 200;

#[derive(Deserialize)]
pub(super) struct PositionsQuery {
    topics: String,
}

/// Answers `{"at":…,"positions":{…}}`: for each topic asked for, and for its area, the end of its log.
pub(super) async fn positions(
    State(internal): State<Arc<InternalState>>,
    headers: HeaderMap,
    query: Result<Query<PositionsQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let permission = internal.permission(&headers).await?;
    let bad = |code, detail: String| Problem::new(400, code, "Not a question", detail);
    let query = query.map_err(|why| {
        bad(
            ProblemCode::BadRequest,
            format!("Ask for /positions?topics=comments:42,projects: {}.", why.body_text()),
        )
    })?;
    let mut topics = Vec::new();
    for text in query.0.topics.split(',').filter(|text| !text.is_empty()) {
        let topic = internal.topic(text).map_err(|e| bad(ProblemCode::BadTopic, e.to_string()))?;
        if !permission.covers(&topic, &internal.areas) {
            let detail = format!("The token's publish claim does not allow {topic}.");
            return Err(Problem::new(403, ProblemCode::Forbidden, "Not allowed", detail).into());
        }
        // Who follows a key follows its area.
        let area = Topic::parse(topic.area(), &internal.areas)
            .map_err(|e| bad(ProblemCode::BadTopic, e.to_string()))?;
        for topic in [topic, area] {
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
    }
    if topics.is_empty() || topics.len() > MOST {
        let detail = format!("Ask for 1 to {MOST} topics at a time, their areas included.");
        return Err(bad(ProblemCode::BadRequest, detail).into());
    }
    // Read before the heads: `at` may be older than they are, but never newer.
    let at = internal.relay.at();
    let mut positions = BTreeMap::new();
    for (topic, head) in topics.iter().zip(internal.bus.heads(topics.clone()).await) {
        let head = head.map_err(|error| bus_problem(&error))?;
        positions.insert(topic.to_string(), Position { lineage: head.lineage, id: head.top }.to_string());
    }
    let mut response = Json(json!({ "at": at, "positions": positions })).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
