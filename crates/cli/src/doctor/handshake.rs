//! Does a WebSocket open? And where it does not: whose answer is that, and why?
//!
//! The handshake is a browser's (RFC 6455, 4.1), without a token, which browsers send in `connect`.

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Response, StatusCode, body::Incoming, header, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::{
    hop::Hop,
    net::{Endpoint, NoAnswer, PATIENCE},
    report::Finding,
};

const QUESTION: &str = "handshake";
/// What is read of an answer's body, bytes.
const BODY: usize = 64 * 1024;

/// An open WebSocket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body, where it is JSON.
    pub(super) json: Value,
    html: bool,
}

impl Answer {
    pub(super) async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = timeout(PATIENCE, Limited::new(body, BODY).collect()).await;
        let body =
            body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Self {
            status: head.status,
            html: kind.is_some_and(|kind| kind.contains("html")) || body.starts_with(b"<"),
            headers: head.headers,
            json: serde_json::from_slice(&body).unwrap_or_default(),
        }
    }

    /// The `code` of a node's refusal.
    pub(super) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// The node's own words.
    pub(super) fn detail(&self) -> &str {
        self.json["detail"].as_str().unwrap_or("no reason was given")
    }
}

/// Opens a WebSocket, or says why there is none.
pub(super) async fn open(endpoint: &Endpoint, hop: &Hop) -> Result<(Socket, Finding), Box<Finding>> {
    let key = BASE64_STANDARD.encode(rand::random::<[u8; 16]>());
    let request = endpoint
        .request("")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, "carillon.v1");
    let response =
        endpoint.ask(request).await.map_err(|silence| Box::new(silent(&silence, endpoint, hop)))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let answer = Answer::read(response).await;
        let hop = if *hop == Hop::Unnamed { &Hop::of(&answer.headers) } else { hop };
        return Err(Box::new(refused(&answer, endpoint, hop)));
    }
    let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes().to_vec());
    if accept != Some(derive_accept_key(key.as_bytes()).into_bytes()) {
        return Err(Box::new(Finding::bad(
            QUESTION,
            "The answer is 101, but Sec-WebSocket-Accept does not belong to our key: it was not made for this handshake.",
            format!(
                "{} answers from a cache or by itself: let it pass this path on untouched.",
                capital(hop.name())
            ),
        )));
    }
    let lost = |error: hyper::Error| {
        Finding::bad(
            QUESTION,
            format!("The connection broke off after 101: {error}."),
            hop.let_upgrade_pass(),
        )
    };
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| Box::new(lost(error)))?;
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
    Ok((socket, Finding::good(QUESTION, "A WebSocket opens (101).")))
}

fn silent(silence: &NoAnswer, endpoint: &Endpoint, hop: &Hop) -> Finding {
    let (sentence, advice) = match silence {
        NoAnswer::Late => (
            format!("There is no answer to the handshake within {} s.", PATIENCE.as_secs()),
            format!(
                "{} holds it back, or waits for a node that does not answer: see its log. {}",
                capital(hop.name()),
                hop.let_upgrade_pass()
            ),
        ),
        NoAnswer::Closed => (
            "The connection is closed without an answer to the handshake.".into(),
            format!(
                "{} does not let WebSockets pass, or the node behind it has gone: see its log.",
                capital(hop.name())
            ),
        ),
        NoAnswer::Gibberish => (
            format!("{} does not answer in HTTP.", endpoint.place.authority),
            if endpoint.place.secure {
                "Correct the port."
            } else {
                "Write https:// here, or correct the port."
            }
            .into(),
        ),
        NoAnswer::Lost(error) => (
            format!("{} cannot be reached any more ({error}).", endpoint.place.authority),
            "See whether it was stopped, or limits connections.".into(),
        ),
    };
    Finding::bad(QUESTION, sentence, advice)
}

/// What an answer means that is not 101.
fn refused(answer: &Answer, endpoint: &Endpoint, hop: &Hop) -> Finding {
    let status = answer.status.as_u16();
    let base = &endpoint.place.base;
    let (sentence, advice) = match (status, answer.code()) {
        (426, "upgrade-missing") => (
            format!(
                "The handshake reaches the node without its Upgrade (426): {} dropped it; there arrived {}.",
                hop.name(),
                arrived(&answer.json["headers"])
            ),
            hop.let_upgrade_pass(),
        ),
        (404, "websocket-disabled") => (
            "The site has switched WebSockets off (404, websocket.enabled = false).".into(),
            "Set websocket.enabled = true where they may be used; until then browsers use SSE or long-poll."
                .into(),
        ),
        (404, "not-found") => (
            format!("The node has nothing at {base} (404)."),
            format!("Set http.base_path = \"{base}\", or let the proxy pass the path on unchanged."),
        ),
        (403, "origin") => wrong_origin(answer, endpoint),
        (400, "bad-handshake") => (
            format!("The handshake reaches the node in a bad shape (400): {}", answer.detail()),
            format!("{} changes its headers: let it pass them on untouched.", capital(hop.name())),
        ),
        (401, "unauthenticated") => (
            format!("The node refuses who asks (401): {}", answer.detail()),
            "Give the cookie of a session that is signed in, with --cookie-file FILE.".into(),
        ),
        (503, code) if !code.is_empty() => (
            format!("The node lets nobody in at the moment (503, {code}): {}", answer.detail()),
            "Start more nodes or raise the limit that it names; a node that drains is replaced by another."
                .into(),
        ),
        _ => foreign(answer, endpoint, hop),
    };
    Finding::bad(QUESTION, sentence, advice)
}

/// The answer of something that is not a node.
fn foreign(answer: &Answer, endpoint: &Endpoint, hop: &Hop) -> (String, String) {
    let (status, base, name) = (answer.status.as_u16(), &endpoint.place.base, capital(hop.name()));
    let location = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    match status {
        200..=299 if answer.html => (
            format!("The answer is {status} with a web page instead of 101: the path {base} does not lead to a node."),
            format!("Let {} pass {base} on to the nodes, before the rule that serves pages.", hop.name()),
        ),
        200..=299 => (
            format!("The answer is {status} instead of 101: {} dropped the Upgrade.", hop.name()),
            hop.let_upgrade_pass(),
        ),
        300..=399 => (
            format!("The answer is {status}, a redirect to {}; browsers do not follow it.", location.unwrap_or("nowhere")),
            "Give browsers the address that it leads to, or except this path from the redirect or the login.".into(),
        ),
        400 if !endpoint.place.secure => (
            format!("{name} refuses the handshake (400)."),
            "If the port expects TLS, write https:// here; else see the log of what answers.".into(),
        ),
        401 | 403 | 407 => (
            format!("{name} refuses the handshake ({status}), not the node."),
            format!("Except {base} from its login or its rules (web application firewall)."),
        ),
        404 => (
            format!("{name} has nothing at {base} (404): the path does not lead to a node."),
            format!("Let it pass {base} on to the nodes, unchanged; or correct the address."),
        ),
        502..=504 => (
            format!("{name} gets no answer from a node ({status})."),
            "See whether nodes run and are ready (carillon health --ready), and whether the address in the proxy's \
             configuration is theirs (http.listen)."
                .into(),
        ),
        _ => (
            format!("{name} answers the handshake with {status} instead of 101."),
            format!("See its log. {}", hop.let_upgrade_pass()),
        ),
    }
}

fn wrong_origin(answer: &Answer, endpoint: &Endpoint) -> (String, String) {
    let host = answer.json["host"].as_str().unwrap_or_default();
    let allowed = answer.json["allowed_origins"].as_array().map_or(0, Vec::len);
    let sentence = format!(
        "The node does not accept pages of {} (403): it sees itself as {host:?}, and http.allowed_origins has {}.",
        endpoint.origin,
        if allowed == 0 { "no entries".into() } else { answer.json["allowed_origins"].to_string() }
    );
    let own = endpoint.origin.eq_ignore_ascii_case(&endpoint.place.origin());
    let advice = if own {
        format!(
            "The page comes from the same host, but a proxy changes the name: let it pass the Host on (nginx: \
             proxy_set_header Host $http_host), or add {:?} to http.allowed_origins.",
            endpoint.origin
        )
    } else {
        format!(
            "Add {:?} to http.allowed_origins of the nodes, if pages from there may connect.",
            endpoint.origin
        )
    };
    (sentence, advice)
}

/// The handshake's headers as the node lists them.
fn arrived(headers: &Value) -> String {
    let shown = |name: &str, value: &Value| match value.as_str() {
        Some(text) => format!("{name}: {text}"),
        None => format!("no {name}"),
    };
    let listed = headers.as_object().into_iter().flatten().map(|(name, value)| shown(name, value));
    let listed = listed.collect::<Vec<_>>();
    if listed.is_empty() { "none of its headers".into() } else { listed.join(", ") }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    // Names keep their own way of writing.
    match chars.next() {
        Some('a') if text.starts_with("a middle") => format!("A{}", chars.as_str()),
        _ => text.to_owned(),
    }
}
