//! The internal listener, for publishers and operators: what its handlers share, and who may do what there.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwapOption;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    Connections,
    headers::single,
    hosts::{Hosts, is_local},
};
use crate::{
    auth::{AuthError, Authenticator, Credentials, Patterns, bearer},
    bus::Bus,
    config::Secret,
    metrics::Metrics,
    protocol::{Areas, Problem, ProblemCode, Topic, TopicError, time::now_ms},
    relay::Relay,
    session::SessionRegistry,
    telemetry::traces::Traces,
};

/// What the internal listener needs.
#[derive(Debug)]
pub struct InternalState {
    /// Where events are published, and what Redis is asked.
    pub bus: Bus,
    /// Says whether sessions are told everything, and up to when.
    pub relay: Relay,
    /// The sessions.
    pub registry: Arc<SessionRegistry>,
    /// Figures.
    pub metrics: Metrics,
    /// Where spans of what is published go.
    pub traces: Traces,
    /// Who may publish by a token's `publish` claim.
    pub auth: Authenticator,
    /// The token that allows everything (`internal.publish_token`); `None`: there is none.
    pub publish_token: ArcSwapOption<Secret>,
    /// Where this listener is: without any secret, only loopback is trusted.
    pub address: IpAddr,
    /// The names by which this listener is reached.
    pub hosts: Hosts,
    /// The configured areas.
    pub areas: Areas,
    /// The connections of the public listener.
    pub connections: Arc<Connections>,
    /// Whether the node is about to stop.
    pub draining: Arc<AtomicBool>,
    /// What the node says about itself.
    pub status: NodeStatus,
}

/// What does not change about a node.
#[derive(Debug)]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// When it started, ms since 1970.
    pub started: u64,
    /// When it started, on the clock that only goes forward.
    pub since: Instant,
}

impl NodeStatus {
    /// A node that starts now.
    pub fn new(node: String) -> Self {
        Self { node, started: now_ms(), since: Instant::now() }
    }
}

/// What somebody at the internal listener may do.
pub(super) enum Permission {
    Everything,
    /// Publish to these.
    Topics(Patterns),
}

impl Permission {
    pub(super) fn covers(&self, topic: &Topic, areas: &Areas) -> bool {
        match self {
            Self::Everything => true,
            Self::Topics(patterns) => patterns.covers(topic, areas),
        }
    }
}

impl InternalState {
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
        self.connections.trouble()
    }

    /// The topic that somebody at this listener names.
    pub(super) fn topic(&self, text: &str) -> Result<Topic, TopicError> {
        let topic = Topic::parse_named(text, &self.areas)?;
        if let Some(name) = topic.private_name(&self.areas) {
            self.auth.notice(&name);
        }
        Ok(topic)
    }

    /// What the bearer of these headers may do.
    pub(super) async fn permission(&self, headers: &HeaderMap) -> Result<Permission, Problem> {
        let authorization = single(headers, &header::AUTHORIZATION)?.map(HeaderValue::as_bytes);
        let token = authorization.and_then(bearer);
        let secret = self.publish_token.load_full();
        let open = secret.is_none() && !self.auth.has_publish_claims();
        match (&secret, token) {
            (Some(secret), Some(token)) if secret.matches(token) => return Ok(Permission::Everything),
            // In mode `callback` the CMS may vouch for whoever shows a token.
            _ if open && (token.is_none() || !self.auth.reads_credentials()) => {
                return self.open_permission(headers);
            }
            (_, None) => {
                let detail = "Send `Authorization: Bearer` with internal.publish_token or with a token that has a publish claim.";
                return Err(Problem::new(401, ProblemCode::Unauthenticated, "Who are you?", detail));
            }
            _ => {}
        }
        let credentials = Credentials::from_headers(authorization, None, None);
        let refused = |why| Problem::new(401, ProblemCode::Unauthenticated, "The token is not accepted", why);
        if !self.auth.reads_credentials() {
            return Err(refused("it is not internal.publish_token".into()));
        }
        match self.auth.authenticate(&credentials).await {
            Ok(identity) if identity.publish.is_empty() => {
                let detail = format!("The token of {:?} has no publish claim.", identity.user);
                Err(Problem::new(403, ProblemCode::Forbidden, "Not allowed", detail))
            }
            Ok(identity) => Ok(Permission::Topics(identity.publish)),
            Err(AuthError::Away(why)) => {
                Err(Problem::new(503, ProblemCode::AuthAway, "Nobody can be let in at the moment", why))
            }
            Err(AuthError::Missing(why) | AuthError::Refused(why)) => Err(refused(why)),
        }
    }

    /// Without any secret, only programs on this machine are trusted; pages in a browser on it are not, whatever name
    /// they reach it by, and nobody whose request a proxy on it brought.
    fn open_permission(&self, headers: &HeaderMap) -> Result<Permission, Problem> {
        let page = headers.contains_key(header::ORIGIN)
            || headers.get("sec-fetch-site").is_some_and(|site| site != "none");
        let brought = headers.keys().map(HeaderName::as_str).any(is_of_proxy);
        if self.address.to_canonical().is_loopback() && !page && !brought && is_local(headers) {
            return Ok(Permission::Everything);
        }
        let detail = "Set internal.publish_token (or auth.mode = \"jwt\" and use a token with a publish claim): without \
                      either, only programs on the node's own machine are let in, by a loopback internal.listen, and not \
                      through a proxy.";
        Err(Problem::new(403, ProblemCode::Forbidden, "Not allowed", detail))
    }
}

/// Whether proxies add a header of this name to a request.
fn is_of_proxy(name: &str) -> bool {
    const OTHERS: [&str; 7] = [
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-envoy-external-address",
    ];
    name.starts_with("x-forwarded-") || OTHERS.contains(&name)
}
