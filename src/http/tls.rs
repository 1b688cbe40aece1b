//! https on the public listener: the certificate, read again when its files change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// A certificate chain with its key, and where they came from.
#[derive(Debug)]
pub struct Certificates {
    files: (PathBuf, PathBuf),
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads `http.tls_cert` and `http.tls_key`. The error is a sentence for the operator.
    pub fn load(files: (PathBuf, PathBuf)) -> Result<Arc<Self>, String> {
        let current = RwLock::new(read(&files.0, &files.1)?);
        Ok(Arc::new(Self { files, current }))
    }

    /// How TLS connections are accepted: with whatever certificate is current.
    pub fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        // The provider has all of these versions; its default set cannot be refused.
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let mut config = match builder {
            Ok(builder) => builder.with_no_client_auth().with_cert_resolver(Arc::clone(self) as Arc<_>),
            Err(_) => {
                ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::clone(self) as Arc<_>)
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Reads the files again whenever they change; what cannot be used is logged and the old certificate stays.
    pub async fn watch(self: Arc<Self>) {
        let mut seen = self.stamps();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.stamps();
            if now == seen {
                continue;
            }
            match read(&self.files.0, &self.files.1) {
                Ok(key) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = key;
                    seen = now;
                    tracing::info!(file = %self.files.0.display(), "the certificate was read again");
                }
                // Perhaps only one of the two files is written yet: it is tried again.
                Err(e) => tracing::warn!("{e}; the old certificate stays"),
            }
        }
    }

    fn stamps(&self) -> [Option<(SystemTime, u64)>; 2] {
        let stamp = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        [stamp(&self.files.0), stamp(&self.files.1)]
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, String> {
    let cannot = |name: &str, path: &Path, why: &dyn std::fmt::Display| {
        format!("http.{name} ({}) cannot be used: {why}", path.display())
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect);
    let certificates = certificates.map_err(|e| cannot("tls_cert", chain, &e))?;
    if certificates.is_empty() {
        return Err(cannot("tls_cert", chain, &"there is no certificate in it (PEM)"));
    }
    let der = PrivateKeyDer::from_pem_file(key).map_err(|e| cannot("tls_key", key, &e))?;
    let pair = CertifiedKey::from_der(certificates, der, &ring::default_provider());
    pair.map(Arc::new).map_err(|e| cannot("tls_key", key, &e))
}
