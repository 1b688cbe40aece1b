//! TLS against rustls' own client: both versions, however the bytes are cut, and what is kept when nothing is under way.

use std::{path::Path, process::Command, time::Duration};

use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::ring, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::http::tls::Certificates;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];
const PATIENCE: Duration = Duration::from_secs(60);

/// A listener, what it says in handshakes, and a client's TLS settings.
struct TlsRig {
    listener: TcpListener,
    server_config: Arc<ServerConfig>,
    root: CertificateDer<'static>,
}

impl TlsRig {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        make_certificate(directory.path());
        let root = CertificateDer::from_pem_file(file("cert.pem")).unwrap();
        let server_config = Certificates::load((file("cert.pem"), file("key.pem"))).unwrap().server_config();
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), server_config, root }
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap()
    }

    async fn accept(&self) -> io::Result<TlsStream> {
        let (socket, _) = self.listener.accept().await?;
        TlsStream::accept(Arc::clone(&self.server_config), socket).await
    }

    async fn connect(&self, version: &'static SupportedProtocolVersion) -> client::TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("node.test").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.dial().await).await.unwrap()
    }

    async fn pair(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> (TlsStream, client::TlsStream<TcpStream>) {
        let (server, client) = within(async { tokio::join!(self.accept(), self.connect(version)) }).await;
        (server.unwrap(), client)
    }
}

fn make_certificate(directory: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", "/CN=node.test", "-addext", "subjectAltName=DNS:node.test"]);
    openssl.args(["-addext", "basicConstraints=CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"]);
    let made =
        openssl.current_dir(directory).output().expect("openssl must be installed (tests/install does)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes too long")
}

fn is_bare(stream: &TlsStream) -> bool {
    [&stream.incoming, &stream.plain, &stream.outgoing].iter().all(|buffer| buffer.capacity() == 0)
}

/// Bytes that show where one of them is missing.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

#[tokio::test]
async fn much_goes_both_ways_and_nothing_is_kept_afterwards() {
    let rig = TlsRig::new().await;
    for version in VERSIONS {
        let (mut server, client) = rig.pair(version).await;
        assert!(is_bare(&server), "after the handshake");
        let sent = pattern(3_000_000);
        let (mut reader, mut writer) = tokio::io::split(client);
        let echo = async {
            let mut buffer = vec![0; 10_000];
            let mut left = sent.len();
            while left > 0 {
                let length = server.read(&mut buffer).await.unwrap();
                assert_ne!(length, 0, "an end too early");
                server.write_all(&buffer[..length]).await.unwrap();
                left -= length;
            }
            server.flush().await.unwrap();
        };
        let mut heard = vec![0; sent.len()];
        let (written, read, ()) =
            within(async { tokio::join!(writer.write_all(&sent), reader.read_exact(&mut heard), echo) })
                .await;
        written.unwrap();
        read.unwrap();
        assert!(heard == sent, "{version:?}");
        assert!(is_bare(&server), "{version:?}: idle");

        let mut client = reader.unsplit(writer);
        within(client.shutdown()).await.unwrap();
        assert_eq!(within(server.read(&mut [0; 10])).await.unwrap(), 0, "the client has said that it ends");
        within(server.shutdown()).await.unwrap();
        assert_eq!(within(client.read(&mut [0; 10])).await.unwrap(), 0, "and so has the server");
    }
}

#[tokio::test]
async fn keys_that_are_changed_in_the_middle_are_taken() {
    let rig = TlsRig::new().await;
    let (mut server, mut client) = rig.pair(&rustls::version::TLS13).await;
    for round in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        within(client.write_all(b"question")).await.unwrap();
        let mut heard = [0; 8];
        within(server.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"question", "round {round}");
        within(server.write_all(b"answer")).await.unwrap();
        let mut heard = [0; 6];
        within(client.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"answer", "round {round}");
    }
}

#[tokio::test]
async fn records_may_come_byte_by_byte() {
    let rig = TlsRig::new().await;
    for version in VERSIONS {
        // In between, each byte that the client sends goes on its own.
        let middle = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let through = async {
            let (client, _) = middle.accept().await.unwrap();
            let (mut from, mut to) = client.into_split();
            let node = rig.dial().await;
            node.set_nodelay(true).unwrap();
            let (mut back, mut on) = node.into_split();
            let there = async {
                while let Ok(byte) = from.read_u8().await {
                    on.write_u8(byte).await.unwrap();
                    tokio::task::yield_now().await;
                }
                on.shutdown().await.unwrap();
            };
            let _ = tokio::join!(there, tokio::io::copy(&mut back, &mut to));
            to.shutdown().await.unwrap();
        };
        let mut roots = RootCertStore::empty();
        roots.add(rig.root.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        let talk = async {
            let socket = TcpStream::connect(middle.local_addr().unwrap()).await.unwrap();
            let name = ServerName::try_from("node.test").unwrap();
            let mut client = TlsConnector::from(config).connect(name, socket).await.unwrap();
            client.write_all(&pattern(2_000)).await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"got it");
        };
        let serve = async {
            let mut server = rig.accept().await.unwrap();
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            assert!(heard == pattern(2_000), "{version:?}");
            server.write_all(b"got it").await.unwrap();
            server.shutdown().await.unwrap();
        };
        within(Box::pin(async { tokio::join!(through, talk, serve) })).await;
    }
}

#[tokio::test]
async fn who_speaks_something_else_gets_an_alert() {
    let rig = TlsRig::new().await;
    let mut client = rig.dial().await;
    let talk = async {
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut heard = Vec::new();
        let _ = client.read_to_end(&mut heard).await;
        heard
    };
    let (accepted, heard) = within(async { tokio::join!(rig.accept(), talk) }).await;
    assert_eq!(accepted.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
    assert_eq!(heard.first(), Some(&0x15), "an alert: {heard:?}");
}

#[tokio::test]
async fn a_cut_is_not_taken_for_an_end() {
    let rig = TlsRig::new().await;
    for version in VERSIONS {
        let (mut server, client) = rig.pair(version).await;
        let (mut socket, _) = client.into_inner();
        within(socket.shutdown()).await.unwrap();
        let error = within(server.read(&mut [0; 10])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{version:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_writer_and_not_memory() {
    let rig = TlsRig::new().await;
    let (mut server, mut client) = rig.pair(&rustls::version::TLS13).await;
    let piece = pattern(RECORD);
    let mut written = 0;
    while let Some(result) = {
        use futures_util::FutureExt;
        server.write(&piece).now_or_never()
    } {
        written += result.unwrap();
    }
    assert!(server.outgoing.len() <= 2 * RECORD, "{} bytes wait", server.outgoing.len());
    let mut heard = vec![0; written];
    within(async { tokio::join!(client.read_exact(&mut heard), server.flush()) }).await.0.unwrap();
    assert!(heard.iter().zip(pattern(RECORD).iter().cycle()).all(|(a, b)| a == b), "in order");
    assert!(is_bare(&server));
}
