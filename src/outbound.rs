//! Connections that a node opens itself over HTTP, plain or with TLS: to the CMS that it asks who somebody is, to a
//! collector of traces; and whom TLS clients trust, the one towards Redis too.

use std::{error::Error, path::Path, sync::Arc};

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Opens connections for hyper's client.
pub type Connector = HttpsConnector<HttpConnector>;

/// The authorities that servers' certificates are checked with.
pub type Authorities = RootCertStore;

/// The authorities in a PEM file, at least one; or what is wrong with it.
pub fn authorities(path: &Path) -> Result<Authorities, String> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        authorities.add(certificate).map_err(|error| error.to_string())?;
    }
    if authorities.is_empty() { Err("it holds no certificate".into()) } else { Ok(authorities) }
}

/// The authorities that this machine trusts; none where it has no list. Single ones may be unreadable.
pub fn machine_authorities() -> Authorities {
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    authorities
}

/// The beginning of a TLS client: whom it trusts. What is left is its own certificate, if it has one.
pub fn tls_client(
    trusted: Authorities,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(trusted))
}

/// A connector for a URL. `trusted` are the authorities for https, in place of this machine's; fails where there are
/// neither.
pub fn connector(uri: &Uri, trusted: Option<Authorities>) -> Result<Connector, String> {
    let builder = HttpsConnectorBuilder::new();
    let builder = if trusted.is_none() && uri.scheme_str() == Some("https") {
        let provider = ring::default_provider();
        builder.with_provider_and_native_roots(provider).map_err(|error| {
            format!("needs the certificate authorities of this machine, which cannot be read: {error}")
        })?
    } else {
        // Plain http must work on machines without certificates too.
        let config = tls_client(trusted.unwrap_or_else(RootCertStore::empty));
        builder.with_tls_config(config.map_err(|error| error.to_string())?.with_no_client_auth())
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
