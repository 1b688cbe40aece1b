//! `POST /disconnect` and `POST /refresh`: an operator shuts somebody out, or has them renew their rights, on all nodes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::HeaderMap,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    InternalState,
    internal::Permission,
    refusal::{Refusal, bus_problem, too_large},
};
use crate::{
    bus::BusError,
    protocol::{Kind, Problem, ProblemCode, Topic, Whom, object::Object, revocation::MAX_NAME},
};

#[derive(Deserialize)]
struct DisconnectRequest {
    user: Option<String>,
    session: Option<String>,
    jti: Option<String>,
}

#[derive(Deserialize)]
struct RefreshRequest {
    user: String,
}

/// `POST /disconnect`: closes sessions (4403), and what proved who they are is refused from now on.
pub(super) async fn disconnect(
    State(internal): State<Arc<InternalState>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    const SHAPE: &str = r#"{"user":"…"}, {"session":"…"} or {"jti":"…"}"#;
    let permission = internal.permission(&headers).await?;
    let out: DisconnectRequest = read(body, SHAPE)?;
    let whom = match (out.user, out.session, out.jti) {
        (Some(user), None, None) => Whom::User(user),
        (None, Some(session), None) => Whom::Session(session),
        (None, None, Some(jti)) => Whom::Token(jti),
        _ => return Err(bad(SHAPE, "it must name one of them").into()),
    };
    let named = revoke(&internal, &permission, Kind::Disconnect, whom, SHAPE).await?;
    Ok(Json(named.0))
}

/// `POST /refresh`: sessions have to bring a new token. Answers when every token that is issued from now on counts.
pub(super) async fn refresh(
    State(internal): State<Arc<InternalState>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    const SHAPE: &str = r#"{"user":"…"}"#;
    let permission = internal.permission(&headers).await?;
    let anew: RefreshRequest = read(body, SHAPE)?;
    let (named, at) = revoke(&internal, &permission, Kind::Refresh, Whom::User(anew.user), SHAPE).await?;
    // Tokens say in whole seconds when they were issued: those of this second are not told from older ones.
    tokio::time::sleep(Duration::from_millis(1_000 - at % 1_000)).await;
    Ok(Json(named))
}

fn bad(shape: &str, why: &str) -> Problem {
    Problem::new(400, ProblemCode::BadRequest, "Not a request", format!("The body must be {shape}: {why}."))
}

fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, shape: &str) -> Result<T, Problem> {
    let body = body.map_err(|why| too_large(&why))?;
    let Object(request) = serde_json::from_slice(&body).map_err(|e| bad(shape, &e.to_string()))?;
    Ok(request)
}

/// The answer, and when it was ordered (ms of this node's clock).
async fn revoke(
    internal: &InternalState,
    permission: &Permission,
    kind: Kind,
    whom: Whom,
    shape: &str,
) -> Result<(Value, u64), Refusal> {
    let (word, name) = whom.parts();
    if name.trim().is_empty() {
        return Err(bad(shape, "it names nobody").into());
    }
    // A `sub` may be longer than other names: it is what the CMS calls the editor.
    if name.len() > MAX_NAME * 4 {
        return Err(bad(shape, "the name is too long").into());
    }
    check(internal, permission, &whom)?;
    let named = json!({ word: name });
    let at = internal.bus.revoke(kind, whom).await.map_err(|error| problem(&error))?;
    tracing::info!(?kind, whom = %named, "revoked on all nodes");
    Ok((named, at))
}

fn problem(error: &BusError) -> Problem {
    let mut problem = bus_problem(error);
    problem.title = "Not revoked".into();
    problem
}

/// Who may publish to all private topics of an editor may shut them out; where no area is private, who may publish
/// everywhere. Sessions and tokens may be anybody's.
fn check(internal: &InternalState, permission: &Permission, whom: &Whom) -> Result<(), Problem> {
    let areas = &internal.areas;
    let mut topics: Vec<_> = match whom {
        Whom::User(user) => {
            let key = areas.naming().key(user).map_err(|why| {
                Problem::new(
                    400,
                    ProblemCode::BadRequest,
                    "Not a request",
                    format!("Nobody can be called so: the name {why}."),
                )
            })?;
            areas.private().map(|area| Topic::private(&area, &key)).collect()
        }
        Whom::Session(_) | Whom::Token(_) => Vec::new(),
    };
    if topics.is_empty() {
        topics = areas.names().filter_map(|area| Topic::parse(&area, areas).ok()).collect();
    }
    match topics.iter().find(|topic| !permission.covers(topic, areas)) {
        None => Ok(()),
        Some(topic) => {
            let detail = format!("The token's publish claim does not allow {topic}, which this needs.");
            Err(Problem::new(403, ProblemCode::Forbidden, "Not allowed", detail))
        }
    }
}
