//! TLS towards Redis: which authorities are trusted, and our own certificate.
//!
//! Keys are read from files and never printed.

use std::path::Path;

use fred::types::config::TlsConnector;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{bus::StartError, outbound};

/// The connector that trusts the authorities in the PEM file `ca` (without one: those of the system), and shows our
/// certificate where `cert` and `key` name its files.
pub(super) fn connector(
    ca: Option<&Path>,
    cert: Option<&Path>,
    key: Option<&Path>,
) -> Result<TlsConnector, StartError> {
    let roots = match ca {
        Some(path) => trusted(path)?,
        None => system()?,
    };
    let builder = outbound::tls_client(roots).map_err(|e| StartError(format!("TLS cannot be used: {e}")))?;
    let config = match (cert, key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert, "redis.tls_cert")?;
            let secret =
                PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable("redis.tls_key", key, &e))?;
            builder.with_client_auth_cert(chain, secret).map_err(|e| {
                let (cert, key) = (cert.display(), key.display());
                StartError(format!(
                    "redis.tls_cert {cert} and redis.tls_key {key} cannot be used together: {e}"
                ))
            })?
        }
        _ => return Err(StartError("redis.tls_cert and redis.tls_key must be given together".into())),
    };
    Ok(config.into())
}

fn trusted(path: &Path) -> Result<RootCertStore, StartError> {
    outbound::authorities(path).map_err(|problem| unreadable("redis.tls_ca", path, &problem))
}

fn system() -> Result<RootCertStore, StartError> {
    let roots = outbound::machine_authorities();
    if roots.is_empty() {
        return Err(StartError(
            "this system has no list of trusted authorities: install ca-certificates, or name Redis' authority in \
             redis.tls_ca"
                .into(),
        ));
    }
    Ok(roots)
}

fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|e| unreadable(key, path, &e))?;
    if all.is_empty() {
        return Err(unreadable(key, path, &"it holds no certificate"));
    }
    Ok(all)
}

fn unreadable(key: &str, path: &Path, problem: &dyn std::fmt::Display) -> StartError {
    StartError(format!("{key}: {} is not a PEM file that can be used: {problem}", path.display()))
}
