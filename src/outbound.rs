//! Connections that a node opens itself over HTTP, plain or with TLS: to the CMS that it asks who somebody is, to a
//! collector of traces. Must not know what is said there.

use std::{error::Error, sync::Arc};

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// Opens connections for hyper's client.
pub type Connector = HttpsConnector<HttpConnector>;

/// A connector for a URL. Fails for https where this machine has no certificate authorities.
pub fn connector(uri: &Uri) -> Result<Connector, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = HttpsConnectorBuilder::new();
    let builder = if uri.scheme_str() == Some("https") {
        builder.with_provider_and_native_roots(provider).map_err(|error| {
            format!("needs the certificate authorities of this machine, which cannot be read: {error}")
        })?
    } else {
        // Plain http must work on machines without certificates too.
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        builder.with_tls_config(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    };
    Ok(builder.https_or_http().enable_http1().build())
}

/// An error with what caused it, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
