//! The internal door: for publishers and operators. Keep it off the internet.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
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
    Crowd, disconnect,
    headers::single,
    history,
    hosts::{Hosts, is_local},
    page, positions, publish,
    refusal::{Refusal, not_allowed, not_found},
    status::{self, NodeStatus},
};
use crate::{
    auth::{AuthError, Authenticator, Credentials, Patterns, bearer},
    bus::Bus,
    config::Secret,
    metrics::Metrics,
    protocol::{Areas, Problem, Topic, TopicError},
    relay::Relay,
    session::Roll,
    telemetry::traces::Traces,
};

/// The largest body of a request: a batch of many events.
pub(super) const BODY: usize = 8 << 20;

/// Time for the whole body of a request.
const BODY_TIME: Duration = Duration::from_secs(15);

/// What the internal door needs.
#[derive(Debug)]
pub struct Internal {
    /// The door to publishers.
    pub bus: Bus,
    /// Whether sessions are told everything.
    pub relay: Relay,
    /// The sessions.
    pub roll: Arc<Roll>,
    /// Figures.
    pub metrics: Metrics,
    /// Where spans of what is published go.
    pub traces: Traces,
    /// Who may publish by a token's `publish` claim.
    pub auth: Authenticator,
    /// Authorises everything.
    pub publish_token: ArcSwapOption<Secret>,
    /// Where this door is: without any secret, only loopback is trusted.
    pub address: IpAddr,
    /// The names by which this door is reached.
    pub hosts: Hosts,
    /// The configured areas.
    pub areas: Areas,
    /// Who is connected at the public door.
    pub crowd: Arc<Crowd>,
    /// Whether the node is about to stop.
    pub draining: Arc<AtomicBool>,
    /// What the node says about itself.
    pub status: NodeStatus,
}

/// What somebody at the internal door may do.
pub(super) enum Right {
    Everything,
    /// Publish to these.
    Topics(Patterns),
}

impl Right {
    pub(super) fn covers(&self, topic: &Topic, areas: &Areas) -> bool {
        match self {
            Self::Everything => true,
            Self::Topics(patterns) => patterns.covers(topic, areas),
        }
    }
}

impl Internal {
    /// The routes.
    pub fn router(self: &Arc<Self>) -> Router {
        let ask_first = || from_fn_with_state(Arc::clone(self), ask_first);
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
            .layer(from_fn_with_state(Arc::clone(self), answer_to_its_names))
            .with_state(Arc::clone(self))
    }

    /// Why the node is not ready; `None` when it is.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.draining.load(Ordering::Acquire) {
            return Some("the node is draining".into());
        }
        let health = self.bus.health();
        if let Some(trouble) = health.trouble {
            return Some(trouble);
        }
        if !health.live {
            return Some("no probe has come back from Redis yet".into());
        }
        if !self.relay.is_live() {
            return Some("topics are being brought into step after Redis was lost".into());
        }
        self.crowd.trouble()
    }

    /// The topic that somebody at this door names.
    pub(super) fn topic(&self, text: &str) -> Result<Topic, TopicError> {
        let topic = Topic::parse_named(text, &self.areas)?;
        if let Some(name) = topic.private_name(&self.areas) {
            self.auth.notice(&name);
        }
        Ok(topic)
    }

    /// What the bearer of these headers may do.
    pub(super) async fn right(&self, headers: &HeaderMap) -> Result<Right, Problem> {
        let authorization = single(headers, &header::AUTHORIZATION)?.map(HeaderValue::as_bytes);
        let token = authorization.and_then(bearer);
        let secret = self.publish_token.load_full();
        let open = secret.is_none() && !self.auth.has_publish_claims();
        match (&secret, token) {
            (Some(secret), Some(token)) if secret.matches(token) => return Ok(Right::Everything),
            // In mode `callback` the CMS may vouch for whoever shows a token.
            _ if open && (token.is_none() || !self.auth.reads_credentials()) => {
                return self.open_right(headers);
            }
            (_, None) => {
                let detail = "Send `Authorization: Bearer` with internal.publish_token or with a token that has a publish claim.";
                return Err(Problem::new(401, "unauthenticated", "Who are you?", detail));
            }
            _ => {}
        }
        let credentials = Credentials::from_headers(authorization, None, None);
        let refused = |why| Problem::new(401, "unauthenticated", "The token is not accepted", why);
        if !self.auth.reads_credentials() {
            return Err(refused("it is not internal.publish_token".into()));
        }
        match self.auth.authenticate(&credentials).await {
            Ok(identity) if identity.publish.is_empty() => {
                let detail = format!("The token of {:?} has no publish claim.", identity.user);
                Err(Problem::new(403, "forbidden", "Not allowed", detail))
            }
            Ok(identity) => Ok(Right::Topics(identity.publish)),
            Err(AuthError::Away(why)) => {
                Err(Problem::new(503, "auth-away", "Nobody can be let in at the moment", why))
            }
            Err(AuthError::Missing(why) | AuthError::Refused(why)) => Err(refused(why)),
        }
    }

    /// Without any secret, only programs on this machine are trusted; pages in a browser on it are not, whatever name
    /// they reach it by, and nobody whose request a proxy on it brought.
    fn open_right(&self, headers: &HeaderMap) -> Result<Right, Problem> {
        let page = headers.contains_key(header::ORIGIN)
            || headers.get("sec-fetch-site").is_some_and(|site| site != "none");
        let brought = PROXIED.iter().any(|name| headers.contains_key(*name));
        if self.address.to_canonical().is_loopback() && !page && !brought && is_local(headers) {
            return Ok(Right::Everything);
        }
        let detail = "Set internal.publish_token (or auth.mode = \"jwt\" and use a token with a publish claim): without \
                      either, only programs on the node's own machine are let in, by a loopback internal.listen, and not \
                      through a proxy.";
        Err(Problem::new(403, "forbidden", "Not allowed", detail))
    }
}

/// What proxies add to a request.
const PROXIED: [&str; 5] = ["x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "via"];

/// Answers to names of this door only: see [`Hosts`]. Whoever shows a secret is no page, whatever they call the door; and
/// balancers, whose names are many, learn no more than whether the node is well.
async fn answer_to_its_names(
    State(internal): State<Arc<Internal>>,
    request: Request,
    next: Next,
) -> Response {
    let spared = ["/healthz", "/readyz"].contains(&request.uri().path());
    let headers = request.headers();
    if spared || internal.hosts.know(headers) || internal.right(headers).await.is_ok() {
        return next.run(request).await;
    }
    let detail =
        "The internal door is not known by the name in Host: write it into internal.hosts, or send a token.";
    Refusal::from(Problem::new(403, "forbidden", "Not a name of this door", detail)).into_response()
}

/// Asks who it is before the body is read: whoever may do nothing sends megabytes in vain.
async fn ask_first(State(internal): State<Arc<Internal>>, request: Request, next: Next) -> Response {
    match internal.right(request.headers()).await {
        Ok(_) => next.run(request).await,
        Err(problem) => Refusal::from(problem).into_response(),
    }
}

/// A body that takes too long ends there, and is no complete JSON.
async fn give_up_in_time(request: Request) -> Request {
    let end = tokio::time::sleep(BODY_TIME);
    request.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(end))))
}

/// `GET /readyz`
async fn ready(State(internal): State<Arc<Internal>>) -> Response {
    match internal.trouble() {
        None => Json(json!({"ready": true})).into_response(),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ready": false, "reason": reason}))).into_response()
        }
    }
}

/// `GET /metrics`
async fn metrics(State(internal): State<Arc<Internal>>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (content_type, text) = if accepted.contains("application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", internal.metrics.text())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", internal.metrics.plain_text())
    };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
