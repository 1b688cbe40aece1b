//! What nobody has read of a request's body.
//!
//! A connection that closes with bytes unread is reset, and the reset takes the answer with it: a publisher would see a broken pipe
//! instead of why they were refused (RFC 9112, 9.6). So the rest of a refused body is read and thrown away before the answer.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::{
    Request, Version,
    body::{Frame, Incoming, SizeHint},
    header::EXPECT,
};
use tokio::time::timeout;

/// What is read away at most, in bytes: twice the largest body that the internal listener takes. Whoever sends more is reset.
const MOST: usize = 16 << 20;
/// How long it may take, in all and until the next bytes come. Whoever is slower is reset.
const LONGEST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(5);

/// A body that can still be read when its reader has given up.
#[derive(Debug, Clone)]
pub(super) struct Unread(Arc<Mutex<Rest>>);

#[derive(Debug)]
struct Rest {
    body: Incoming,
    /// The client sends nothing before it is asked to (RFC 9110, 10.1.1).
    waits: bool,
}

impl Unread {
    /// The request for its handler, and what is left of it afterwards: nothing of a request without a body, or of HTTP/2, where a
    /// refusal ends one stream alone.
    pub(super) fn keep(request: Request<Incoming>) -> (Request<Body>, Option<Self>) {
        if request.body().is_end_stream() || request.version() > Version::HTTP_11 {
            return (request.map(Body::new), None);
        }
        let expects = request.headers().get(EXPECT);
        let waits = request.version() == Version::HTTP_11
            && expects.is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let (head, body) = request.into_parts();
        let unread = Self(Arc::new(Mutex::new(Rest { body, waits })));
        (Request::from_parts(head, Body::new(unread.clone())), Some(unread))
    }

    /// Reads the rest and throws it away.
    pub(super) async fn throw_away(mut self) {
        if self.rest().waits {
            return;
        }
        let all = async {
            let mut left = MOST;
            while let Ok(Some(Ok(frame))) = timeout(PAUSE, self.frame()).await {
                match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(fewer) => left = fewer,
                    None => return,
                }
            }
        };
        // What has not come by then is not waited for.
        let _ = timeout(LONGEST, all).await;
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut rest = self.rest();
        // hyper asks the client to go on as soon as somebody reads.
        rest.waits = false;
        Pin::new(&mut rest.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.rest().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.rest().body.size_hint()
    }
}
