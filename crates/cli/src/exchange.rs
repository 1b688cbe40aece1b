//! One HTTP request of a command: no redirects, a time limit, http or https.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// Sends a request and reads the whole answer.
pub(super) async fn exchange(
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let place = request.uri().clone();
    let provider = Arc::new(ring::default_provider());
    let builder = HttpsConnectorBuilder::new();
    let builder = if place.scheme_str() == Some("https") {
        builder.with_provider_and_native_roots(provider).context("certificate authorities of this machine")?
    } else {
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        builder.with_tls_config(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    };
    let client = Client::builder(TokioExecutor::new()).build(builder.https_or_http().enable_http1().build());
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
