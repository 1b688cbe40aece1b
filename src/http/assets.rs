//! The browser's library, as every node serves it. It is compiled in: script and node are always of one version.

use std::sync::{Arc, LazyLock};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha384};

use super::PublicState;

const REALTIME_JS: &str = include_str!("../../client/realtime.js");
const REALTIME_JS_MAP: &str = include_str!("../../client/realtime.js.map");
const REALTIME_D_TS: &str = include_str!("../../client/realtime.d.ts");

pub(super) fn realtime_js() -> MethodRouter<Arc<PublicState>> {
    static TAG: LazyLock<String> = LazyLock::new(|| tag(REALTIME_JS));
    get(
        |headers: HeaderMap| async move { file(&headers, "text/javascript; charset=utf-8", REALTIME_JS, &TAG) },
    )
}

/// The same file under an address that no other build has, for import maps and `modulepreload`: browsers never ask again.
pub(super) fn realtime_js_for_good() -> MethodRouter<Arc<PublicState>> {
    get(|| async {
        let headers = [
            (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
            (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (headers, REALTIME_JS)
    })
}

/// The name of that address.
pub(super) fn hashed_name() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let digest = Sha384::digest(REALTIME_JS);
        let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("realtime.{short}.js")
    });
    &NAME
}

/// What the file must be, in the words of Subresource Integrity (3.5).
pub(super) fn integrity() -> &'static str {
    static INTEGRITY: LazyLock<String> =
        LazyLock::new(|| format!("sha384-{}", BASE64_STANDARD.encode(Sha384::digest(REALTIME_JS))));
    &INTEGRITY
}

pub(super) fn realtime_js_map() -> MethodRouter<Arc<PublicState>> {
    static TAG: LazyLock<String> = LazyLock::new(|| tag(REALTIME_JS_MAP));
    get(|headers: HeaderMap| async move { file(&headers, "application/json", REALTIME_JS_MAP, &TAG) })
}

pub(super) fn realtime_d_ts() -> MethodRouter<Arc<PublicState>> {
    static TAG: LazyLock<String> = LazyLock::new(|| tag(REALTIME_D_TS));
    get(|headers: HeaderMap| async move { file(&headers, "text/plain; charset=utf-8", REALTIME_D_TS, &TAG) })
}

/// Asked for anew each time, and answered with 304 while nothing has changed: no browser keeps an old library.
fn file(headers: &HeaderMap, content_type: &'static str, text: &'static str, tag: &str) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, content_type)], text).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// FNV-1a of the content: only equality matters.
fn tag(text: &str) -> String {
    let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    format!("\"{hash:016x}\"")
}
