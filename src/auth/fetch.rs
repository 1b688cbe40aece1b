//! The small HTTP client with which a node asks the CMS: one GET, a time limit, a size limit, no redirects.
//!
//! A redirect is not followed because it is usually the way to a login page.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use super::SettingError;
use crate::{
    config::{Auth, Secret, shown_url},
    outbound::{self, Authorities, Connector},
};

/// How long an answer may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(3);
/// The largest answer, bytes.
const MAX_ANSWER: usize = 1 << 20;

/// The authorities of `auth.tls_ca`, where it is set.
pub(super) fn trusted(settings: &Auth) -> Result<Option<Authorities>, SettingError> {
    let read = |path: &PathBuf| {
        outbound::authorities(path).map_err(|problem| {
            let what = format!("is {}, which is not a PEM file that can be used: {problem}", path.display());
            SettingError::new("auth.tls_ca", what)
        })
    };
    settings.tls_ca.as_ref().map(read).transpose()
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// For operators; may name the address inside.
    pub(super) why: String,
    /// For the client, without the address.
    pub(super) told: String,
}

impl Failure {
    /// One that gives away nothing.
    pub(super) fn harmless(why: String) -> Self {
        Self { told: why.clone(), why }
    }

    /// A place that cannot be reached.
    fn unreachable(why: String) -> Self {
        Self { why, told: "it cannot be reached".into() }
    }
}

/// A place that can be asked.
#[derive(Debug)]
pub(super) struct Remote {
    client: Client<Connector, Empty<Bytes>>,
    uri: Uri,
    shown: String,
    #[cfg(feature = "simulation")]
    script: Option<std::sync::Arc<dyn ScriptedCms>>,
}

/// A CMS in a simulation, which answers as a schedule says (tests/simulation).
#[cfg(feature = "simulation")]
pub trait ScriptedCms: std::fmt::Debug + Send + Sync {
    /// Is asked with these headers. If it drops the other end, it counts as out of reach.
    fn ask(&self, headers: &HeaderMap) -> tokio::sync::oneshot::Receiver<(StatusCode, Bytes)>;
}

impl Remote {
    /// A place by its URL. `trusted`: the authorities for https, in place of this machine's. Fails if the URL is bad, and if there
    /// are no authorities at all.
    pub(super) fn new(url: &Secret, trusted: Option<Authorities>) -> Result<Self, String> {
        let shown = shown_url(url.expose());
        let uri: Uri = url.expose().parse().map_err(|error| format!("is not a URL: {error}"))?;
        let client = Client::builder(TokioExecutor::new()).build(outbound::connector(&uri, trusted)?);
        Ok(Self {
            client,
            uri,
            shown,
            #[cfg(feature = "simulation")]
            script: None,
        })
    }

    /// The same, where somebody else answers in the place's stead.
    #[cfg(feature = "simulation")]
    pub(super) fn scripted(self, script: std::sync::Arc<dyn ScriptedCms>) -> Self {
        Self { script: Some(script), ..self }
    }

    /// Its URL without secrets.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Asks.
    pub(super) async fn get(&self, headers: HeaderMap) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        let exchange = async {
            #[cfg(feature = "simulation")]
            if let Some(script) = &self.script {
                let answer = script.ask(request.headers()).await;
                return answer.map_err(|_| Failure::unreachable("nobody is there".into()));
            }
            let unreachable = |error| Failure::unreachable(outbound::chain(&error));
            let answer = self.client.request(request).await.map_err(unreachable)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let unreadable = |error| Failure::harmless(format!("the answer cannot be read: {error}"));
            Ok((status, body.map_err(unreadable)?.to_bytes()))
        };
        let late = || Failure::harmless(format!("no answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}
