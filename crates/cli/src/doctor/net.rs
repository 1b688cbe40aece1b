//! Down to the bytes: name, TCP, TLS, and HTTP/1.1 over the connection.
//!
//! Every request has a connection of its own, as a proxy would treat a newcomer's.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use carillon::{outbound, shutdown::Tasks};
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{place::Place, report::Finding};

/// The longest that a connection or an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

/// A connection, over TLS or not.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Nothing came within [`PATIENCE`].
    Late,
    /// The connection was closed without an answer.
    Closed,
    /// What came is not HTTP.
    Gibberish,
    /// No connection (any more), in words.
    Lost(String),
}

/// A way in: the place, and what is told about ourselves there.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) place: Place,
    /// The `Host` of requests: for a node behind a proxy, what the proxy is called.
    pub(super) host: String,
    pub(super) origin: String,
    pub(super) cookie: Option<String>,
    address: SocketAddr,
    tls: Option<TlsConnector>,
    tasks: Tasks,
}

/// What requests say about ourselves.
pub(super) struct Visitor {
    pub(super) host: String,
    pub(super) origin: String,
    pub(super) cookie: Option<String>,
}

impl Endpoint {
    /// Finds the way in, or says where it ends.
    pub(super) async fn find(
        place: Place,
        visitor: Visitor,
        trusted: Option<&Path>,
        tasks: Tasks,
    ) -> anyhow::Result<(Vec<Finding>, Option<Self>)> {
        let (address, finding) = match address(&place).await {
            Ok(found) => found,
            Err(finding) => return Ok((vec![*finding], None)),
        };
        let tls = if place.secure { Some(connector(trusted)?) } else { None };
        let Visitor { host, origin, cookie } = visitor;
        let endpoint = Self { place, host, origin, cookie, address, tls, tasks };
        let mut findings = vec![finding];
        if let Some(tls) = &endpoint.tls {
            match endpoint.certificate(tls).await {
                Ok(finding) => findings.push(finding),
                Err(finding) => {
                    findings.push(*finding);
                    return Ok((findings, None));
                }
            }
        }
        Ok((findings, Some(endpoint)))
    }

    async fn certificate(&self, tls: &TlsConnector) -> Result<Finding, Box<Finding>> {
        let started = Instant::now();
        match timeout(PATIENCE, self.secured(tls)).await {
            Ok(Ok(_)) => Ok(Finding::good(
                "certificate",
                format!(
                    "The certificate of {} is good ({} ms).",
                    self.place.host,
                    started.elapsed().as_millis()
                ),
            )),
            Ok(Err(error)) => Err(Box::new(distrust(&error, &self.place))),
            Err(_) => Err(Box::new(Finding::bad(
                "certificate",
                format!("{} accepts the connection but does not begin TLS.", self.place.authority),
                "See whether what listens there speaks TLS; if it does not, write http:// here.",
            ))),
        }
    }

    async fn secured(&self, tls: &TlsConnector) -> io::Result<impl Connection + use<>> {
        let name = ServerName::try_from(self.place.host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        tls.connect(name, TcpStream::connect(self.address).await?).await
    }

    async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        if let Some(tls) = &self.tls {
            return Ok(Box::new(self.secured(tls).await?));
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    /// A request to `path` below the base path, with what a browser would say.
    pub(super) fn request(&self, path: &str) -> hyper::http::request::Builder {
        let mut request = Request::get(format!("{}{path}", self.place.base))
            .header(header::HOST, &self.host)
            .header(header::ORIGIN, &self.origin)
            .header(header::USER_AGENT, concat!("carillon-doctor/", env!("CARGO_PKG_VERSION")));
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        request
    }

    /// Sends a request and waits for the head of the answer, at most [`PATIENCE`].
    pub(super) async fn ask(
        &self,
        request: hyper::http::request::Builder,
    ) -> Result<Response<Incoming>, NoAnswer> {
        timeout(PATIENCE, self.ask_patiently(request)).await.unwrap_or(Err(NoAnswer::Late))
    }

    /// The same without an end to our patience.
    pub(super) async fn ask_patiently(
        &self,
        request: hyper::http::request::Builder,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let request =
            request.body(Empty::<Bytes>::new()).map_err(|error| NoAnswer::Lost(error.to_string()))?;
        let stream = self.connect().await.map_err(|error| NoAnswer::Lost(error.to_string()))?;
        // Some middle tiers know headers in their usual capitals only.
        let builder = http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream));
        let (mut sender, connection) = builder.await.map_err(|error| silence(&error))?;
        self.tasks.spawn_until_end(async move {
            // What went wrong is told to whoever waits for the answer.
            let _ = connection.with_upgrades().await;
        });
        sender.send_request(request).await.map_err(|error| silence(&error))
    }
}

fn silence(error: &hyper::Error) -> NoAnswer {
    if error.is_parse() {
        NoAnswer::Gibberish
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        NoAnswer::Closed
    } else {
        NoAnswer::Lost(error.to_string())
    }
}

/// Looks the name up and connects to the addresses in turn.
async fn address(place: &Place) -> Result<(SocketAddr, Finding), Box<Finding>> {
    const QUESTION: &str = "address";
    let (host, port) = (&place.host, place.port);
    let found = timeout(PATIENCE, lookup_host((host.as_str(), port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(_)) => Vec::new(),
        Err(_) => {
            let sentence = format!("DNS does not answer when asked for {host}.");
            let advice = "Look at this machine's resolver (/etc/resolv.conf) and the way to the name server.";
            return Err(Box::new(Finding::bad(QUESTION, sentence, advice)));
        }
    };
    let mut troubles = Vec::new();
    for address in &addresses {
        let started = Instant::now();
        match timeout(PATIENCE / 2, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                let taken = started.elapsed().as_millis();
                let passed = match &troubles[..] {
                    [] => String::new(),
                    troubles => format!(" Not so: {}.", troubles.join(", ")),
                };
                let sentence =
                    format!("{host} is {}, port {port} is open ({taken} ms).{passed}", address.ip());
                return Ok((*address, Finding::good(QUESTION, sentence)));
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                troubles.push(format!("{address} refuses connections"));
            }
            Ok(Err(error)) => troubles.push(format!("{address} cannot be reached ({error})")),
            Err(_) => troubles.push(format!("{address} does not answer within {} s", PATIENCE.as_secs() / 2)),
        }
    }
    let (sentence, advice) = if troubles.is_empty() {
        (
            format!("DNS knows no address of {host}."),
            "Correct the name, or enter it in DNS (or in /etc/hosts).",
        )
    } else if troubles.iter().all(|trouble| trouble.ends_with("refuses connections")) {
        (
            format!("Nothing listens there: {}.", troubles.join(", ")),
            "Start the node (http.listen) or the proxy in front of it on this port, publish the container's port, or \
             correct the address.",
        )
    } else {
        (
            format!("{}.", troubles.join(", ")),
            "Let the firewall or security group pass connections to this port, or correct the address.",
        )
    };
    Err(Box::new(Finding::bad(QUESTION, sentence, advice)))
}

/// A connector that trusts this machine's authorities and those in a file.
fn connector(trusted: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let mut roots = outbound::machine_authorities();
    if let Some(path) = trusted {
        let unreadable = || format!("no certificates can be read from {}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).with_context(unreadable)? {
            roots.add(certificate.with_context(unreadable)?).with_context(unreadable)?;
        }
    }
    let mut config = outbound::tls_client(roots)?.with_no_client_auth();
    // Browsers ask so for WebSockets; without it HTTP/2 might be chosen.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Why TLS was not begun.
fn distrust(error: &io::Error, place: &Place) -> Finding {
    use CertificateError as E;
    let host = &place.host;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (sentence, advice) = match inner {
        Some(rustls::Error::InvalidCertificate(E::UnknownIssuer)) => (
            format!("The certificate of {host} is signed by an authority that this machine does not know."),
            "Let the server send its chain with the intermediate certificates (fullchain.pem); for an authority of your \
             own, install it where browsers run, and name it here with --ca FILE.",
        ),
        Some(rustls::Error::InvalidCertificate(E::Expired | E::ExpiredContext { .. })) => (
            format!("The certificate of {host} has expired."),
            "Renew it, and let the server read it again; see also whether this machine's clock is right.",
        ),
        Some(rustls::Error::InvalidCertificate(E::NotValidYet | E::NotValidYetContext { .. })) => (
            format!("The certificate of {host} is not valid yet."),
            "Set this machine's clock right, or wait.",
        ),
        Some(rustls::Error::InvalidCertificate(E::NotValidForName | E::NotValidForNameContext { .. })) => (
            format!("The certificate that the server shows is not for {host}."),
            "Give the server a certificate with this name (subjectAltName), or use a name that it has.",
        ),
        Some(rustls::Error::InvalidMessage(_)) => (
            format!("{} answers, but not in TLS.", place.authority),
            "Write http:// here, or let the server listen with TLS on this port.",
        ),
        Some(other) => (
            format!("TLS with {} fails: {other}.", place.authority),
            "Look at the server's certificate and protocol versions (TLS 1.2 or 1.3).",
        ),
        None => (
            format!("TLS with {} breaks off: {error}.", place.authority),
            "See whether what listens there speaks TLS, and in its log.",
        ),
    };
    Finding::bad("certificate", sentence, advice)
}
