//! The WebSocket handshake (RFC 6455, 4.2), and what is said when it cannot be.
//!
//! Afterwards the socket is taken back as the plain `TcpStream` or the `TlsStream` that it is, without hyper's layers.
//! Only copies of headers are kept: a retained one would keep hyper's whole read buffer.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Version, header, request::Parts},
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::FutureExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    PublicState, connections::ConnectionPermit, handover::SharedSocket, headers::items, listener::Peer,
    refusal::Refusal, tls_stream::TlsStream,
};
use crate::{
    protocol::{Problem, ProblemCode},
    session::{self, Caller, SessionSlot},
};

/// The sub-protocol.
const PROTOCOL: &str = "carillon.v1";

/// `GET <base>`
pub(super) async fn websocket(
    State(public): State<Arc<PublicState>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (mut request, _) = request.into_parts();
    let peer = *request.extensions.get::<Peer>().ok_or_else(no_peer)?;
    let upgrade = request.extensions.remove::<OnUpgrade>();
    let permit = request.extensions.remove::<Arc<ConnectionPermit>>();
    let result = enter(&public, &request, upgrade, peer).await;
    let (slot, caller, answer, upgrade) =
        result.inspect_err(|problem| public.refused(problem.code.name()))?;
    let tasks = public.tasks.clone();
    // Two tasks: the second one, which lives as long as the session, does not carry what only the first one needs.
    tasks.clone().spawn(async move {
        match upgrade.await {
            Ok(upgraded) => start(&public, upgraded, slot, caller, permit),
            Err(e) => tracing::debug!("the upgrade of {} did not happen: {e}", peer.address),
        }
    });
    Ok(answer)
}

fn no_peer() -> Problem {
    Problem::new(500, ProblemCode::Internal, "Internal error", "The connection has no address.")
}

async fn enter(
    public: &PublicState,
    request: &Parts,
    upgrade: Option<OnUpgrade>,
    peer: Peer,
) -> Result<(SessionSlot, Caller, Response, OnUpgrade), Problem> {
    if !public.settings.websocket {
        let detail =
            "This site has switched WebSockets off (websocket.enabled). Use SSE or long-poll: see config.";
        return Err(Problem::new(404, ProblemCode::WebsocketDisabled, "WebSocket is switched off", detail));
    }
    public.check_draining()?;
    let upgrade = upgrade.ok_or_else(|| upgrade_missing(request))?;
    let answer = handshake(request)?;
    let headers = &request.headers;
    public.settings.origins.check(headers, peer)?;
    let slot = public.enter(headers, peer)?;
    let caller = public.caller(headers, None, true, public.callback_context(headers, peer, &[])).await?;
    public.count(caller.identity.is_some())?;
    Ok((slot, caller, answer, upgrade))
}

/// `permit`: the connection counts for as long as the session lasts.
fn start(
    public: &Arc<PublicState>,
    upgraded: Upgraded,
    slot: SessionSlot,
    caller: Caller,
    permit: Option<Arc<ConnectionPermit>>,
) {
    let context = Arc::clone(&public.sessions);
    // The permit ends with the session, and is not held by an async block: that would keep the room of the session twice.
    match downcast::<TokioIo<SharedSocket>>(upgraded) {
        Ok(parts) => {
            let Some(socket) = parts.io.into_inner().into_socket() else { return };
            let session = session::serve_websocket(context, slot, socket.into(), &parts.read_buf, caller);
            public.tasks.spawn(session.map(move |()| drop(permit)));
        }
        Err(upgraded) => {
            let Some(stream) = TlsStream::of(upgraded) else { return };
            let session = session::serve_websocket_tls(context, slot, stream, caller);
            public.tasks.spawn(session.map(move |()| drop(permit)));
        }
    }
}

/// Checks the handshake and makes its answer.
fn handshake(request: &Parts) -> Result<Response, Problem> {
    let headers = &request.headers;
    let asked = has_token(headers, &header::CONNECTION, "upgrade")
        && has_token(headers, &header::UPGRADE, "websocket");
    if !asked || request.version != Version::HTTP_11 {
        return Err(upgrade_missing(request));
    }
    let bad =
        |detail: &str| Problem::new(400, ProblemCode::BadHandshake, "Not a WebSocket handshake", detail);
    let one = |name: header::HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    let key = one(header::SEC_WEBSOCKET_KEY).unwrap_or_default().trim();
    if BASE64_STANDARD.decode(key).map(|nonce| nonce.len()) != Ok(16) {
        return Err(bad("Sec-WebSocket-Key must be 16 bytes in base64 (RFC 6455, 4.2.1)."));
    }
    if one(header::SEC_WEBSOCKET_VERSION).map(str::trim) != Some("13") {
        return Err(bad("Sec-WebSocket-Version must be 13."));
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept =
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| bad("The key is unusable."))?;
    let answers = answer.headers_mut();
    answers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    // To the letter: a client that did not offer what is echoed fails the handshake.
    if items(headers, &header::SEC_WEBSOCKET_PROTOCOL).contains(&PROTOCOL) {
        answers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    Ok(answer)
}

/// Whether a comma-separated header has this value, in any case.
fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    items(headers, name).iter().any(|item| item.eq_ignore_ascii_case(token))
}

/// The answer to a handshake that lost its `Upgrade` on the way, or never was one.
fn upgrade_missing(request: &Parts) -> Problem {
    const NEEDED: [&str; 4] = ["connection", "upgrade", "sec-websocket-key", "sec-websocket-version"];
    let shown = |name: &str| match request.headers.get(name) {
        // The key is the client's nonce: whether it came is all that matters.
        Some(_) if name == "sec-websocket-key" => "(present)".into(),
        Some(value) => serde_json::Value::from(String::from_utf8_lossy(value.as_bytes()).into_owned()),
        None => serde_json::Value::Null,
    };
    let headers: serde_json::Map<_, _> =
        NEEDED.iter().map(|name| ((*name).to_owned(), shown(name))).collect();
    let arrived = headers.values().filter(|value| !value.is_null()).count();
    let detail = if request.version != Version::HTTP_11 {
        format!("WebSockets are spoken over HTTP/1.1 here; this request came as {:?}.", request.version)
    } else if request.headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        "The client asked for a WebSocket, but \"Connection: Upgrade\" and \"Upgrade: websocket\" did not arrive \
         together: a middle tier (proxy, load balancer, web application firewall) probably dropped them. Let it pass \
         them on, or use SSE or long-poll."
            .into()
    } else {
        format!(
            "This is where WebSockets connect; {arrived} of the {} headers of a handshake arrived. If a browser sent \
             them, a middle tier (proxy, load balancer) probably dropped \"Connection: Upgrade\".",
            NEEDED.len()
        )
    };
    Problem::new(426, ProblemCode::UpgradeMissing, "Not a WebSocket handshake", detail)
        .with("headers", headers)
}
