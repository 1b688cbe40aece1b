//! What a client of SSE or long-poll asks for: in the query (GET) or as a JSON body (POST).
//!
//! In a body, positions have room: many topics do not fit into the address that a proxy lets through. A body is also
//! what no page of another origin can send without a preflight, because it must be JSON.

use std::time::Duration;

use axum::{
    body::to_bytes,
    extract::{FromRequestParts, Query, Request},
    http::{HeaderMap, Method, header, request::Parts},
};
use serde::Deserialize;

use crate::{
    protocol::{
        Problem, ProblemCode, Resume,
        object::{Object, or_default},
    },
    session::{Cursor, CursorPlace, Start, StreamRequest},
};

/// Time for the whole body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What is asked for.
pub(super) struct StreamQuery {
    /// What the session shall follow, and from where.
    pub stream: StreamRequest,
    /// The token of the query (`token=`).
    pub token: Option<String>,
}

#[derive(Deserialize)]
struct InQuery {
    #[serde(default)]
    topics: String,
    cursor: Option<String>,
    resume: Option<String>,
    token: Option<String>,
}

/// Unknown fields are for later versions.
#[derive(Deserialize)]
struct InBody {
    #[serde(default, deserialize_with = "or_default")]
    topics: Vec<String>,
    cursor: Option<String>,
    resume: Option<Object<Resume>>,
}

impl StreamQuery {
    /// Reads a request. `most`: bytes of a body.
    ///
    /// # Errors
    /// 400 `bad-request`, 408 `body-time`, 413 `too-large`, 415 `not-json`.
    pub(super) async fn read(request: Request, most: usize) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let query = query(&mut parts).await?;
        if parts.method != Method::POST {
            let resume = query.resume.map(|text| serde_json::from_str(&text).unwrap_or_default());
            let cursor_in = CursorPlace::Query;
            let topics = query.topics.split(',').filter(|topic| !topic.is_empty()).map(str::to_owned);
            let start = start(&parts.headers, query.cursor, resume, cursor_in);
            return Ok(Self {
                stream: StreamRequest { topics: topics.collect(), start, cursor_in },
                token: query.token,
            });
        }
        if !is_json(&parts.headers) {
            let detail = "Send the request as a JSON object, with Content-Type: application/json.";
            return Err(Problem::new(415, ProblemCode::NotJson, "Not JSON", detail));
        }
        let late =
            |_| Problem::new(408, ProblemCode::BodyTime, "The body took too long", "Send it in one piece.");
        let body = tokio::time::timeout(BODY_TIME, to_bytes(body, most)).await.map_err(late)?;
        let body = body.map_err(|_| {
            let detail = format!("A body has at most {most} bytes (limits.message_bytes).");
            Problem::new(413, ProblemCode::TooLarge, "Too large", detail)
        })?;
        let Object(body): Object<InBody> = serde_json::from_slice(&body).map_err(|why| {
            let detail =
                format!("The body must be {{\"topics\":[…],\"resume\":{{…}}}}, or with \"cursor\": {why}.");
            Problem::new(400, ProblemCode::BadRequest, "Not a request", detail)
        })?;
        let (resume, cursor_in) = (body.resume.map(|Object(resume)| resume), CursorPlace::Body);
        let start = start(&parts.headers, body.cursor, resume, cursor_in);
        Ok(Self { stream: StreamRequest { topics: body.topics, start, cursor_in }, token: query.token })
    }
}

async fn query(parts: &mut Parts) -> Result<InQuery, Problem> {
    let query = Query::<InQuery>::from_request_parts(parts, &()).await;
    query.map(|Query(query)| query).map_err(|why| {
        let detail = format!("The query must be topics=a,b&cursor=…: {}.", why.body_text());
        Problem::new(400, ProblemCode::BadRequest, "Not a request", detail)
    })
}

/// Where the client left off. What cannot be read is like a cursor without positions: everything is `resync`.
fn start(headers: &HeaderMap, cursor: Option<String>, resume: Option<Resume>, place: CursorPlace) -> Start {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(text) = last.filter(|id| !id.is_empty()).or(cursor.filter(|cursor| !cursor.is_empty())) {
        return Start::GoOn(Cursor::read_from(&text, place).unwrap_or_default());
    }
    resume.map_or(Start::Fresh, |resume| Start::Resume(Cursor::from_resume(&resume)))
}

/// `application/json` and `application/…+json`, whatever their parameters (RFC 9110, 8.3; RFC 6839, 3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}
