//! Problems as HTTP answers.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::protocol::Problem;

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
            "upgrade-missing" => &[(header::UPGRADE, "websocket"), (header::CONNECTION, "Upgrade")],
            "bad-handshake" => &[(header::SEC_WEBSOCKET_VERSION, "13")],
            "unauthenticated" => &[(header::WWW_AUTHENTICATE, "Bearer")],
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
    Problem::new(404, "not-found", "Not found", detail).into()
}

/// The path is right and the method is not.
pub(crate) async fn not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Refusal {
    let detail = format!("{} does not answer {method}.", uri.path());
    Problem::new(405, "method-not-allowed", "Method not allowed", detail).into()
}
