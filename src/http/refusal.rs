//! Problems as HTTP answers, and the problems that several handlers answer with.

use axum::{
    extract::rejection::BytesRejection,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    bus::BusError,
    protocol::{Problem, ProblemCode},
    session::Full,
};

/// The largest body of a request: a batch of many events.
pub(super) const BODY: usize = 8 << 20;

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Box<Problem>);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        let extra: &[(header::HeaderName, &'static str)] = match self.0.code {
            ProblemCode::UpgradeMissing => &[(header::UPGRADE, "websocket"), (header::CONNECTION, "Upgrade")],
            ProblemCode::BadHandshake => &[(header::SEC_WEBSOCKET_VERSION, "13")],
            ProblemCode::Unauthenticated => &[(header::WWW_AUTHENTICATE, "Bearer")],
            _ => &[],
        };
        for (name, value) in extra {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// There is nothing at this path.
pub(crate) async fn not_found(uri: axum::http::Uri) -> Refusal {
    let detail = format!("There is nothing at {}.", uri.path());
    Problem::new(404, ProblemCode::NotFound, "Not found", detail).into()
}

/// The path is right and the method is not.
pub(crate) async fn not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Refusal {
    let detail = format!("{} does not answer {method}.", uri.path());
    Problem::new(405, ProblemCode::MethodNotAllowed, "Method not allowed", detail).into()
}

/// A body that was not read to its end.
pub(super) fn too_large(why: &BytesRejection) -> Problem {
    let status = why.status().as_u16();
    let detail = format!("A request has at most {BODY} bytes: send smaller batches ({}).", why.body_text());
    Problem::new(status, ProblemCode::BadRequest, "Not a request", detail)
}

/// What Redis' refusal is in HTTP.
pub(super) fn bus_problem(error: &BusError) -> Problem {
    let (status, code) = match error {
        BusError::Away(_) => (503, ProblemCode::RedisAway),
        BusError::Refused(_) => (503, ProblemCode::RedisRefuses),
        BusError::Event(_) => {
            return Problem::new(400, ProblemCode::BadEvent, "Not published", error.to_string());
        }
    };
    Problem::new(status, code, "Not published", error.to_string()).retry_after(1)
}

/// Something else failed before it.
pub(super) fn not_tried() -> Problem {
    Problem::new(
        503,
        ProblemCode::NotTried,
        "Not published",
        "An earlier one failed, which this one must not overtake.",
    )
}

/// Why there is no room.
pub(super) fn no_room(full: Full) -> Problem {
    let (code, detail, seconds) = match full {
        Full::Node => {
            (ProblemCode::TooManySessions, "This node has as many sessions as it may (limits.sessions).", 5)
        }
        Full::Address => (
            ProblemCode::TooManySessions,
            "This address has as many sessions as it may (limits.sessions_per_address).",
            5,
        ),
        Full::Rate => (ProblemCode::AcceptRate, "Too many sessions at once (limits.accepts_per_second).", 1),
        Full::Strangers => (
            ProblemCode::AcceptRate,
            "Too many at once who have not proven who they are (limits.strangers_per_second).",
            1,
        ),
        Full::Draining => (ProblemCode::Draining, "This node is about to stop.", 1),
    };
    Problem::new(503, code, "Come back later", detail).retry_after(seconds)
}
