//! One HTTP request of a command: no redirects, a time limit, http or https.

use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use carillon::outbound;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

/// Sends a request and reads the whole answer.
pub(super) async fn exchange(
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let place = request.uri().clone();
    let connector = outbound::connector(&place, None).map_err(|why| anyhow!("{place} {why}"))?;
    let client = Client::builder(TokioExecutor::new()).build(connector);
    // What is at the bottom of it says enough.
    let cause = |error: anyhow::Error| anyhow!("{}", error.root_cause());
    let exchange = async {
        let answer = client.request(request).await.map_err(|error| cause(error.into()))?;
        let status = answer.status();
        anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
    };
    let late = || anyhow!("no answer within {} s", patience.as_secs());
    let outcome = tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| Err(late()));
    outcome.with_context(|| format!("{place} did not answer"))
}
