//! `<base>/events` (SSE) and `<base>/poll`, both by GET and by POST: how each answers what [`StreamQuery`] has read.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
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
    session::{self, Caller, SessionSlot, StreamRequest, Transport},
};

/// `GET <base>/events`, `POST <base>/events`
pub(super) async fn sse(
    State(public): State<Arc<PublicState>>,
    axum::Extension(peer): axum::Extension<Peer>,
    handover: Option<axum::Extension<Handover>>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    let opening = Opening { transport: Transport::Sse, peer, headers: &headers };
    let (slot, caller, stream) = opening.enter(&public, request).await?;
    let (context, tasks) = (Arc::clone(&public.sessions), &public.tasks);
    let body = if let Some(axum::Extension(handover)) = handover {
        let session = session::open_sse(context, slot, caller, stream).await;
        let session = session.map_err(|closing| public.ended(&closing))?;
        let asked = handover.ask();
        let sessions = tasks.clone();
        // Two tasks, as with a WebSocket: the one that lives as long as the session carries the session alone.
        tasks.spawn(async move {
            match asked.await {
                Ok(HandedSocket { socket, head, permit }) => {
                    let served = session.serve(socket.into(), head);
                    sessions.spawn(served.map(move |()| drop(permit)));
                }
                Err(_) => session.give_up().await,
            }
        });
        Body::empty()
    } else {
        let body = session::serve_sse_body(context, slot, caller, stream, tasks).await;
        let body = body.map_err(|closing| public.ended(&closing))?;
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
    let opening = Opening { transport: Transport::Poll, peer, headers: &headers };
    let (slot, caller, stream) = opening.enter(&public, request).await?;
    let (asker, answer) = oneshot::channel();
    let context = Arc::clone(&public.sessions);
    public.tasks.spawn(session::serve_poll(context, slot, caller, stream, asker));
    let stopped =
        || Problem::new(503, ProblemCode::Draining, "The node is about to stop", "Ask again.").retry_after(1);
    let answer = answer.await.map_err(|_| stopped())?;
    let answer = answer.map_err(|closing| public.ended(&closing))?;
    let mut body =
        format!(r#"{{"cursor":"{}","messages":["#, answer.cursor.text_for(answer.cursor_in)).into_bytes();
    body.extend_from_slice(&answer.messages.join(&b','));
    body.extend_from_slice(b"]}");
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store, no-transform")];
    Ok((headers, body).into_response())
}

/// A request that opens a session, by either transport.
struct Opening<'a> {
    transport: Transport,
    peer: Peer,
    headers: &'a HeaderMap,
}

impl Opening<'_> {
    /// Reads the request, and asks whether there is room and who it is. Refusals are counted.
    async fn enter(
        self,
        public: &PublicState,
        request: Request,
    ) -> Result<(SessionSlot, Caller, StreamRequest), Problem> {
        let entered = self.try_to_enter(public, request).await;
        entered.inspect_err(|problem| public.refused(problem.code.name()))
    }

    async fn try_to_enter(
        self,
        public: &PublicState,
        request: Request,
    ) -> Result<(SessionSlot, Caller, StreamRequest), Problem> {
        let Self { transport, peer, headers } = self;
        let StreamQuery { stream, token } = StreamQuery::read(request, public.sessions.message_bytes).await?;
        let poll = transport == Transport::Poll;
        let (enabled, disabled) = if poll {
            (public.settings.poll, ProblemCode::PollDisabled)
        } else {
            (public.settings.sse, ProblemCode::SseDisabled)
        };
        if !enabled {
            let detail = "This site has switched this transport off. See config for the others.";
            return Err(Problem::new(404, disabled, "The transport is switched off", detail));
        }
        public.check_draining()?;
        public.settings.origins.check(headers, peer)?;
        let slot = public.enter(headers, peer)?;
        let new = !(poll && stream.start.goes_on());
        let asked_for = public.callback_context(headers, peer, &stream.topics);
        let caller = public.caller(headers, token, new, asked_for).await?;
        if caller.identity.is_none() {
            public.count(false)?;
            let detail = "Send a token in `Authorization: Bearer`, in the configured cookie or as token=.";
            return Err(Problem::new(401, ProblemCode::Unauthenticated, "Who are you?", detail));
        }
        // A poll that goes on with an earlier one is no newcomer; limits.editor_requests_per_second counts it.
        if new {
            public.count(true)?;
        }
        Ok((slot, caller, stream))
    }
}

impl PublicState {
    /// The answer for a session that ended before it began.
    fn ended(&self, closing: &Closing) -> Problem {
        let (status, code) = match closing.code {
            CloseCode::Unauthenticated => (401, ProblemCode::Unauthenticated),
            CloseCode::TryLater => (503, ProblemCode::TooManySessions),
            _ => (400, ProblemCode::BadRequest),
        };
        self.refused(code.name());
        let problem = Problem::new(status, code, "Not connected", closing.reason.clone());
        match closing.reconnect_after_ms {
            Some(ms) => problem.retry_after(u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX)),
            None => problem,
        }
    }
}
