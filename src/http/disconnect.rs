//! `POST /disconnect`: closes the sessions of an editor on all nodes (4403).

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::HeaderMap,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Internal,
    internal::Right,
    publish::{bus_problem, too_large},
    refusal::Refusal,
};
use crate::protocol::{Problem, Topic, object::Object};

#[derive(Deserialize)]
struct Request {
    user: String,
}

pub(super) async fn disconnect(
    State(internal): State<Arc<Internal>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let right = internal.right(&headers).await?;
    let body = body.map_err(|why| too_large(&why))?;
    let bad = |why: String| {
        let detail = format!("The body must be {{\"user\":\"…\"}}: {why}.");
        Problem::new(400, "bad-request", "Not a request", detail)
    };
    let Object(request): Object<Request> = serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))?;
    if request.user.trim().is_empty() {
        return Err(bad("it names nobody".into()).into());
    }
    check(&internal, &right, &request.user)?;
    internal.bus.disconnect(request.user.clone()).await.map_err(|e| bus_problem(&e))?;
    tracing::info!(user = request.user, "the sessions of a user are closed on all nodes");
    Ok(Json(json!({ "user": request.user })))
}

/// Who may publish to all private topics of an editor may disconnect him; where no area is private, who may publish
/// everywhere.
fn check(internal: &Internal, right: &Right, user: &str) -> Result<(), Problem> {
    let areas = &internal.areas;
    let mut topics: Vec<_> = areas.private().map(|area| Topic::private(area, user)).collect();
    if topics.is_empty() {
        topics = areas.names().filter_map(|area| Topic::parse(area, areas).ok()).collect();
    }
    match topics.iter().find(|topic| !right.covers(topic, areas)) {
        None => Ok(()),
        Some(topic) => {
            let detail =
                format!("The token's publish claim does not allow {topic}, which disconnecting needs.");
            Err(Problem::new(403, "forbidden", "Not allowed", detail))
        }
    }
}
