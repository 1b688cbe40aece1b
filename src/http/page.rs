//! `GET /`: a page that draws `/status` and `/history`, for people on call. Self-contained, strict CSP.

use std::sync::Arc;

use axum::{Router, http::header, response::IntoResponse, routing::get};

use super::InternalState;

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

pub(super) fn routes() -> Router<Arc<InternalState>> {
    let file = |content_type: &'static str, text: &'static str| {
        get(move || async move {
            let headers = [
                (header::CONTENT_TYPE, content_type),
                (header::CONTENT_SECURITY_POLICY, CSP),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, text).into_response()
        })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/page.css", file("text/css; charset=utf-8", include_str!("page/page.css")))
        .route("/page.js", file(SCRIPT, include_str!("page/page.js")))
        .route("/plot.js", file(SCRIPT, include_str!("page/plot.js")))
        .route("/marks.js", file(SCRIPT, include_str!("page/marks.js")))
        .route("/nodes.js", file(SCRIPT, include_str!("page/nodes.js")))
        .route("/tools.js", file(SCRIPT, include_str!("page/tools.js")))
}
