//! The public listener: what its handlers share, and who may pass.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::http::{HeaderMap, HeaderValue, header};

use super::{
    Origins,
    connections::counted_address,
    headers::{joined, single},
    listener::Peer,
    refusal::no_room,
};
use crate::{
    auth::{AuthError, CallbackContext, Credentials},
    metrics::ReasonLabel,
    protocol::{Problem, ProblemCode},
    session::{Caller, SessionContext, SessionSlot},
    shutdown::Tasks,
};

/// Settings of the public listener, plain values; `app` makes them from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Path in front of every route, without a slash at the end.
    pub base_path: String,
    /// Pages that may connect, and proxies that are believed.
    pub origins: Origins,
    /// Name of the cookie that may carry the token.
    pub cookie: Option<String>,
    /// Whether WebSockets are served.
    pub websocket: bool,
    /// Whether SSE is served.
    pub sse: bool,
    /// Whether long-poll is served.
    pub poll: bool,
}

/// What the public listener needs.
#[derive(Debug)]
pub struct PublicState {
    /// Settings.
    pub settings: Settings,
    /// What sessions need.
    pub sessions: Arc<SessionContext>,
    /// Owner of the sessions' tasks.
    pub tasks: Tasks,
    /// Whether nobody is let in any more.
    pub draining: Arc<AtomicBool>,
}

impl PublicState {
    pub(super) fn refused(&self, reason: &'static str) {
        self.sessions.metrics.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn check_draining(&self) -> Result<(), Problem> {
        if !self.draining.load(Ordering::Acquire) {
            return Ok(());
        }
        let detail = "This node is about to stop; another one will serve you.";
        Err(Problem::new(503, ProblemCode::Draining, "The node is draining", detail).retry_after(1))
    }

    /// A place for a session.
    pub(super) fn enter(&self, headers: &HeaderMap, peer: Peer) -> Result<SessionSlot, Problem> {
        let client = self.settings.origins.client(headers, peer);
        self.sessions.registry.enter(counted_address(client)).map_err(no_room)
    }

    /// Counts somebody new; `known`: they have proven who they are.
    pub(super) fn count(&self, known: bool) -> Result<(), Problem> {
        self.sessions.registry.count(known).map_err(no_room)
    }

    /// What a CMS is told about a request. `topics` are those that it asks for; empty where they come later.
    pub(super) fn callback_context(
        &self,
        headers: &HeaderMap,
        peer: Peer,
        topics: &[String],
    ) -> CallbackContext {
        if !self.sessions.auth.can_renew() {
            return CallbackContext::default();
        }
        let (scheme, host) = self.settings.origins.own(headers, peer);
        // No proxy has said anything else: the client came as the connection did.
        let scheme = scheme.unwrap_or_else(|| "http".into());
        CallbackContext {
            scheme: Some(scheme),
            host: Some(host).filter(|host| !host.is_empty()),
            topics: topics.to_vec(),
        }
    }

    /// Who the request comes from. A token that is presented and bad is refused; none at all is not, here. `new`: in mode
    /// `callback` the CMS is asked and not remembered, so that whoever it shut out stays out.
    pub(super) async fn caller(
        &self,
        headers: &HeaderMap,
        token: Option<String>,
        new: bool,
        callback_context: CallbackContext,
    ) -> Result<Caller, Problem> {
        let auth = &self.sessions.auth;
        let authorization = single(headers, &header::AUTHORIZATION)?.map(HeaderValue::as_bytes);
        // HTTP/2 sends one field for each cookie (RFC 9113, 8.2.3).
        let cookies = joined(headers, &header::COOKIE, b"; ");
        let mut credentials =
            Credentials::from_headers(authorization, cookies, self.settings.cookie.as_deref());
        if let Some(token) = token {
            credentials = credentials.with_token(token);
        }
        // A token that comes later is asked about in the same place.
        let later = auth
            .can_renew()
            .then(|| Box::new(CallbackContext { topics: Vec::new(), ..callback_context.clone() }));
        credentials = credentials.with_callback_context(callback_context);
        let verdict =
            if new { auth.renew(&credentials).await } else { auth.authenticate(&credentials).await };
        match verdict {
            Ok(identity) => {
                let credentials = auth.can_renew().then(|| Box::new(credentials));
                Ok(Caller { identity: Some(Box::new(identity)), credentials, callback_context: later })
            }
            // `connect` may bring the token.
            Err(AuthError::Missing(_)) => Ok(Caller { callback_context: later, ..Caller::default() }),
            Err(AuthError::Away(why)) => {
                Err(Problem::new(503, ProblemCode::AuthAway, "Nobody can be let in at the moment", why)
                    .retry_after(5))
            }
            Err(AuthError::Refused(why)) => {
                self.count(false)?;
                Err(Problem::new(401, ProblemCode::Unauthenticated, "The token is not accepted", why))
            }
        }
    }
}
