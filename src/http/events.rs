//! `<base>/events` (SSE) and `<base>/poll`, both by GET and by POST: how each answers what [`StreamQuery`] has read.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::oneshot;

use super::{
    PublicState,
    handover::{HandedSocket, Handover},
    listener::Peer,
    refusal::Refusal,
    stream_query::StreamQuery,
};
use crate::{
    hub::Closing,
    protocol::{CloseCode, Problem, ProblemCode},
    session::{self, Caller, SessionSlot},
};

/// `GET <base>/events`, `POST <base>/events`
pub(super) async fn events(
    State(public): State<Arc<PublicState>>,
    axum::Extension(peer): axum::Extension<Peer>,
    handover: Option<axum::Extension<Handover>>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    let count = |problem: &Problem| public.refused(problem.code.name());
    let StreamQuery { topics, start, carriage, token } =
        StreamQuery::read(request, public.sessions.message_bytes).await.inspect_err(count)?;
    let (slot, caller) =
        enter(&public, public.settings.sse, ProblemCode::SseDisabled, peer, &headers, (token, &topics), true)
            .await
            .inspect_err(count)?;
    let (context, tasks, start) = (Arc::clone(&public.sessions), &public.tasks, (start, carriage));
    let body = if let Some(axum::Extension(handover)) = handover {
        let session = session::open_events(context, slot, caller, topics, start).await;
        let session = session.map_err(|closing| refusal(&closing)).inspect_err(count)?;
        let asked = handover.ask();
        tasks.spawn(async move {
            match asked.await {
                Ok(HandedSocket { socket, head, permit }) => {
                    session.serve(socket.into(), head).await;
                    drop(permit);
                }
                Err(_) => session.give_up().await,
            }
        });
        Body::empty()
    } else {
        let body = session::serve_events(context, slot, caller, topics, start, tasks).await;
        let body = body.map_err(|closing| refusal(&closing)).inspect_err(count)?;
        Body::from_stream(stream::unfold(body, |mut body| async {
            let chunk: Bytes = body.recv().await?;
            Some((Ok::<_, Infallible>(chunk), body))
        }))
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        // nginx: do not buffer.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, body).into_response())
}

/// `GET <base>/poll`, `POST <base>/poll`
pub(super) async fn poll(
    State(public): State<Arc<PublicState>>,
    axum::Extension(peer): axum::Extension<Peer>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    let count = |problem: &Problem| public.refused(problem.code.name());
    let StreamQuery { topics, start, carriage, token } =
        StreamQuery::read(request, public.sessions.message_bytes).await.inspect_err(count)?;
    let new = !start.goes_on();
    let (slot, caller) = enter(
        &public,
        public.settings.poll,
        ProblemCode::PollDisabled,
        peer,
        &headers,
        (token, &topics),
        new,
    )
    .await
    .inspect_err(count)?;
    let (asker, answer) = oneshot::channel();
    let context = Arc::clone(&public.sessions);
    public.tasks.spawn(session::serve_poll(context, slot, caller, topics, (start, carriage), asker));
    let stopped =
        || Problem::new(503, ProblemCode::Draining, "The node is about to stop", "Ask again.").retry_after(1);
    let answer = answer.await.map_err(|_| stopped())?;
    let answer = answer.map_err(|closing| refusal(&closing)).inspect_err(count)?;
    let mut body =
        format!(r#"{{"cursor":"{}","messages":["#, answer.cursor.text_by(answer.carriage)).into_bytes();
    body.extend_from_slice(&answer.messages.join(&b','));
    body.extend_from_slice(b"]}");
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store, no-transform")];
    Ok((headers, body).into_response())
}

async fn enter(
    public: &PublicState,
    enabled: bool,
    disabled: ProblemCode,
    peer: Peer,
    headers: &HeaderMap,
    (token, topics): (Option<String>, &[String]),
    new: bool,
) -> Result<(SessionSlot, Caller), Problem> {
    if !enabled {
        let detail = "This site has switched this transport off. See config for the others.";
        return Err(Problem::new(404, disabled, "The transport is switched off", detail));
    }
    public.check_draining()?;
    public.settings.origins.check(headers, peer)?;
    let slot = public.enter(headers, peer)?;
    let caller = public.caller(headers, token, new, public.callback_context(headers, peer, topics)).await?;
    if caller.identity.is_none() {
        public.count(false)?;
        let detail = "Send a token in `Authorization: Bearer`, in the configured cookie or as token=.";
        return Err(Problem::new(401, ProblemCode::Unauthenticated, "Who are you?", detail));
    }
    // A poll that goes on with an earlier one is its editor's business: see limits.editor_requests_per_second.
    if new {
        public.count(true)?;
    }
    Ok((slot, caller))
}

/// A session that ended before it began.
fn refusal(closing: &Closing) -> Problem {
    let (status, code) = match closing.code {
        CloseCode::Unauthenticated => (401, ProblemCode::Unauthenticated),
        CloseCode::TryLater => (503, ProblemCode::TooManySessions),
        _ => (400, ProblemCode::BadRequest),
    };
    let problem = Problem::new(status, code, "Not connected", closing.reason.clone());
    match closing.reconnect_after_ms {
        Some(ms) => problem.retry_after(u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX)),
        None => problem,
    }
}
