//! The routes of both listeners, and what every request passes before its handler.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state, map_request},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use futures_util::StreamExt;
use serde_json::json;

use super::{
    InternalState, PublicState, assets, cors, disconnect, history, page, positions, publish,
    refusal::{BODY, Refusal, not_allowed, not_found},
    sse_and_poll, status, upgrade,
};
use crate::protocol::{Problem, ProblemCode};

/// Time for the whole body of a request.
const BODY_TIME: Duration = Duration::from_secs(15);

/// The routes of the public listener, all of them below `http.base_path`.
pub fn public(public: &Arc<PublicState>) -> Router {
    let base = &public.settings.base_path;
    let path = |name: &str| format!("{base}/{name}");
    let shared = Router::new()
        .route(&path("config"), get(config))
        .route(&path("realtime.js"), assets::realtime_js())
        .route(&path("realtime.js.map"), assets::realtime_js_map())
        .route(&path(assets::hashed_name()), assets::realtime_js_for_good())
        .route(&path("realtime.d.ts"), assets::realtime_d_ts())
        .route(&path("events"), get(sse_and_poll::sse).post(sse_and_poll::sse))
        .route(&path("poll"), get(sse_and_poll::poll).post(sse_and_poll::poll))
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(public), cors::share));
    Router::new()
        .route(base, get(upgrade::websocket).fallback(not_allowed))
        .merge(shared)
        .fallback(any(not_found))
        .with_state(Arc::clone(public))
}

/// The routes of the internal listener.
pub fn internal(internal: &Arc<InternalState>) -> Router {
    let ask_first = || from_fn_with_state(Arc::clone(internal), ask_first);
    let guarded = Router::new()
        .route("/publish", post(publish::publish).layer(ask_first()))
        .route("/disconnect", post(disconnect::disconnect).layer(ask_first()))
        .route("/refresh", post(disconnect::refresh).layer(ask_first()));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status::status))
        .route("/history", get(history::history))
        .route("/positions", get(positions::positions))
        .merge(guarded)
        .merge(page::routes())
        .method_not_allowed_fallback(not_allowed)
        .fallback(any(not_found))
        .layer(DefaultBodyLimit::max(BODY))
        .layer(map_request(give_up_in_time))
        .layer(from_fn_with_state(Arc::clone(internal), answer_to_its_names))
        .with_state(Arc::clone(internal))
}

/// Refuses requests under a name that is not this listener's: see [`Hosts`](super::Hosts). Spared are requests with a secret, which no
/// page has, and balancers' checks, which use many names and learn only whether the node is well.
async fn answer_to_its_names(
    State(internal): State<Arc<InternalState>>,
    request: Request,
    next: Next,
) -> Response {
    let spared = ["/healthz", "/readyz"].contains(&request.uri().path());
    let headers = request.headers();
    if spared || internal.hosts.know(headers) || internal.permission(headers).await.is_ok() {
        return next.run(request).await;
    }
    let detail = "The internal listener is not known by the name in Host: write it into internal.hosts, or send a token.";
    Refusal::from(Problem::new(403, ProblemCode::Forbidden, "Not a name of this listener", detail))
        .into_response()
}

/// Asks who it is before the body is read, so that strangers cannot make the node keep megabytes.
async fn ask_first(State(internal): State<Arc<InternalState>>, request: Request, next: Next) -> Response {
    match internal.permission(request.headers()).await {
        Ok(_) => next.run(request).await,
        Err(problem) => Refusal::from(problem).into_response(),
    }
}

/// A body that takes too long ends there, and is no complete JSON.
async fn give_up_in_time(request: Request) -> Request {
    let end = tokio::time::sleep(BODY_TIME);
    request.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(end))))
}

/// `GET <base>/config`
async fn config(State(public): State<Arc<PublicState>>) -> Response {
    let settings = &public.settings;
    let mut response = Json(json!({
        "websocket": settings.websocket,
        "sse": settings.sse,
        "poll": settings.poll,
        "heartbeat": public.sessions.policy.heartbeat,
        "version": env!("CARGO_PKG_VERSION"),
        "script": format!("{}/{}", settings.base_path, assets::hashed_name()),
        "integrity": assets::integrity(),
    }))
    .into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `GET /readyz`
async fn ready(State(internal): State<Arc<InternalState>>) -> Response {
    match internal.trouble() {
        None => Json(json!({"ready": true})).into_response(),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ready": false, "reason": reason}))).into_response()
        }
    }
}

/// `GET /metrics`
async fn metrics(State(internal): State<Arc<InternalState>>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (content_type, text) = if accepted.contains("application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", internal.metrics.text())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", internal.metrics.plain_text())
    };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
