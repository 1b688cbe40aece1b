//! The accept loop: sockets in, HTTP connections out, each with a time limit for its headers.
//!
//! Our own, because a ready-made one waits for ever for the headers of a slow client, leaves Nagle's algorithm on and
//! forgets upgraded sockets. When the process is out of file descriptors, newcomers are turned away and those who are
//! there are served on.

use std::{
    convert::Infallible,
    fs::File,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use axum::{
    Router,
    http::{Method, Version},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::{
    connections::{Activity, ConnectionPermit, Connections, counted_address},
    handover::{Handover, Released, share},
    headers::settle_host,
    refusal::Refusal,
    tls_stream::TlsStream,
    unread::Unread,
};
use crate::{
    config::KeepAlive,
    metrics::{Metrics, ReasonLabel},
    protocol::{Problem, ProblemCode},
    shutdown::Tasks,
};

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 4096;
/// When the kernel starts to ask whether a silent peer is still there.
const KEEPALIVE: Duration = Duration::from_mins(1);
/// How long written bytes may stay unacknowledged before the connection counts as dead.
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);
/// hyper's buffer for one connection: headers have to fit into it.
const BUFFER: usize = 16 * 1024;

/// How often it is looked whether a connection does anything.
const LOOK: Duration = Duration::from_secs(5);

/// Who is at the other end of a connection, and over what; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Address of the socket's other end: perhaps a proxy.
    pub address: SocketAddr,
    /// Whether the connection is TLS.
    pub secure: bool,
}

/// A socket that listens.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.ip() == IpAddr::from([0u16; 8]) {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// An HTTP server on one listener.
#[derive(Clone)]
pub struct HttpServer {
    /// What is served.
    pub router: Router,
    /// TLS, where it is spoken.
    pub tls: Option<Arc<ServerConfig>>,
    /// Time for the headers of a request, and for a TLS handshake.
    pub header_time: Duration,
    /// How connections are kept between requests.
    pub keep_alive: KeepAlive,
    /// Its connections, counted.
    pub connections: Arc<Connections>,
    /// How long an answer may make no progress before its connection is given up.
    pub stalled: Duration,
    /// Figures.
    pub metrics: Metrics,
    /// Owner of the connections' tasks.
    pub tasks: Tasks,
}

impl HttpServer {
    /// Accepts connections until `stop`; connections that are open then end after the request they are at.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let server = Arc::new(self);
        let mut spare = spare();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, address)) => {
                    let permit = match server.connections.enter(counted_address(address.ip())) {
                        Ok(permit) => permit,
                        Err(limit) => {
                            server.refused("connections");
                            refuse(socket, server.tls.is_none(), limit).await;
                            continue;
                        }
                    };
                    let (server, stop, permit) = (Arc::clone(&server), stop.clone(), Arc::new(permit));
                    server
                        .tasks
                        .clone()
                        .spawn(async move { server.connection(socket, address, permit, stop).await });
                }
                Err(e) if is_out_of_files(&e) => {
                    server.refused("file-limit");
                    server.connections.ran_out_of_files();
                    drop(spare.take());
                    turn_away(&listener, server.tls.is_none()).await;
                    spare = self::spare();
                    tracing::warn!(
                        "no file descriptor left for a new connection: raise the limit (ulimit -n)"
                    );
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                // The peer was gone before it was accepted.
                Err(e) => tracing::debug!("a connection could not be accepted: {e}"),
            }
        }
    }

    async fn connection(
        self: Arc<Self>,
        socket: TcpStream,
        address: SocketAddr,
        permit: Arc<ConnectionPermit>,
        stop: CancellationToken,
    ) {
        if let Err(e) = tune(&socket) {
            tracing::debug!("socket options of {address}: {e}");
        }
        let Some(tls) = &self.tls else {
            let (wire, handover) = share(socket);
            return self.http(wire, Peer { address, secure: false }, permit, Some(handover), stop).await;
        };
        match tokio::time::timeout(self.header_time, TlsStream::accept(Arc::clone(tls), socket)).await {
            Ok(Ok(stream)) => self.http(stream, Peer { address, secure: true }, permit, None, stop).await,
            Ok(Err(e)) => {
                self.refused("tls-handshake");
                tracing::debug!("TLS handshake with {address}: {e}");
            }
            Err(_) => self.refused("header-time"),
        }
    }

    async fn http<S>(
        &self,
        stream: S,
        peer: Peer,
        permit: Arc<ConnectionPermit>,
        handover: Option<Handover>,
        stop: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (begun, activity) = (Arc::new(AtomicBool::new(false)), Activity::new());
        let service =
            self.service(peer, Arc::clone(&permit), (Arc::clone(&begun), activity.clone()), handover.clone());
        let mut builder = auto::Builder::new(Spawn(self.tasks.clone()));
        // hyper's limit for headers also counts the time between two requests: it is the longer of both, and the first
        // request, with which slow clients come, has a limit of our own below.
        let KeepAlive { idle, ping, streams } = self.keep_alive;
        let between = idle.max(self.header_time);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(between).max_buf_size(BUFFER);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(ping).max_concurrent_streams(streams);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        if let Some(released) = self.drive(connection, peer, (&begun, &activity), handover, stop).await {
            released.hand_over(permit);
        }
    }

    /// Serves a connection until it ends, or until its socket is to be handed over.
    async fn drive<S>(
        &self,
        connection: HyperConnection<'_, S, impl Serve>,
        peer: Peer,
        (begun, activity): (&AtomicBool, &Activity),
        handover: Option<Handover>,
        stop: CancellationToken,
    ) -> Option<Released>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut connection = std::pin::pin!(connection);
        let deadline = tokio::time::sleep(self.header_time);
        let mut deadline = std::pin::pin!(deadline);
        let mut looks = tokio::time::interval(LOOK);
        let mut stopping = false;
        loop {
            let turn = poll_fn(|cx| match connection.as_mut().poll(cx) {
                Poll::Pending => match handover.as_ref().and_then(Handover::release) {
                    Some(released) => Poll::Ready(Ok(Some(released))),
                    None => Poll::Pending,
                },
                Poll::Ready(result) => Poll::Ready(result.map(|()| None)),
            });
            tokio::select! {
                result = turn => {
                    return result.unwrap_or_else(|e| {
                        tracing::debug!("connection of {}: {e}", peer.address);
                        None
                    });
                }
                // For the first request of HTTP/1 and HTTP/2 alike.
                () = deadline.as_mut(), if !begun.load(Ordering::Relaxed) => {
                    if !begun.load(Ordering::Relaxed) {
                        self.refused("header-time");
                        return None;
                    }
                }
                // hyper does not end these: HTTP/2 connections without a stream, and answers that nobody reads.
                _ = looks.tick(), if begun.load(Ordering::Relaxed) => {
                    if activity.is_over(self.keep_alive.idle, self.stalled) {
                        self.refused("idle");
                        return None;
                    }
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// The router, as hyper calls it for each request of a connection.
    fn service(
        &self,
        peer: Peer,
        permit: Arc<ConnectionPermit>,
        (begun, activity): (Arc<AtomicBool>, Activity),
        handover: Option<Handover>,
    ) -> impl Serve {
        let router = self.router.clone();
        service_fn(move |mut request: hyper::Request<Incoming>| {
            begun.store(true, Ordering::Relaxed);
            let answering = activity.begin();
            // Only an HTTP/1.1 answer with a body can end with its connection.
            let plain = request.version() == Version::HTTP_11 && request.method() != Method::HEAD;
            let handover = handover.clone().filter(|_| plain);
            let extensions = request.extensions_mut();
            extensions.insert(peer);
            extensions.insert(Arc::clone(&permit));
            if let Some(handover) = &handover {
                extensions.insert(handover.clone());
            }
            let settled = settle_host(&mut request);
            let mut router = router.clone();
            let (request, unread) = Unread::keep(request);
            async move {
                let answer = match settled {
                    Ok(()) => router.call(request).await?,
                    Err(problem) => Refusal::from(problem).into_response(),
                };
                let refused = answer.status().is_client_error() || answer.status().is_server_error();
                if let Some(unread) = unread.filter(|_| refused) {
                    unread.throw_away().await;
                }
                if handover.is_some_and(|handover| handover.take(&answer)) {
                    // `drive` sees it, and drops this with the connection.
                    std::future::pending::<()>().await;
                }
                Ok(answer.map(|body| answering.answer(body)))
            }
        })
    }

    fn refused(&self, reason: &'static str) {
        self.metrics.refused.get_or_create(&ReasonLabel { reason }).inc();
    }
}

/// What hyper calls for each request. A name for these bounds, which the language has no other way to give.
trait Serve:
    hyper::service::Service<
        hyper::Request<Incoming>,
        Response = Response,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + Sync
    + 'static
{
}

impl<T> Serve for T where
    T: hyper::service::Service<
            hyper::Request<Incoming>,
            Response = Response,
            Error = Infallible,
            Future: Send + 'static,
        > + Send
        + Sync
        + 'static
{
}

type HyperConnection<'a, S, T> = auto::UpgradeableConnection<'a, TokioIo<S>, T, Spawn>;

/// hyper's tasks are owned like all others.
#[derive(Clone)]
struct Spawn(Tasks);

impl<F> Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

fn is_out_of_files(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

/// A file descriptor in reserve, so that newcomers can still be told no.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Newcomers that are told no before the old ones get their turn again.
const TURNED_AWAY: usize = 32;

/// Takes some of those who wait and tells them no, so that they do not wait in vain.
async fn turn_away(listener: &TcpListener, plain: bool) {
    for _ in 0..TURNED_AWAY {
        let accept = tokio::time::timeout(Duration::from_millis(5), listener.accept());
        let Ok(Ok((socket, _))) = accept.await else { return };
        refuse(socket, plain, "The node is at its limit of open files.").await;
    }
}

/// Tells a newcomer no.
async fn refuse(mut socket: TcpStream, plain: bool, detail: &str) {
    if !plain {
        return;
    }
    let problem = Problem::new(503, ProblemCode::TooManySessions, "Come back later", detail);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n\
         Content-Type: application/problem+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // A fresh socket has room for this; whoever resets it meanwhile needs no answer.
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.shutdown().await;
    // Closing with bytes unread would reset the connection, and the answer with it.
    let _ = socket.try_read(&mut [0; 4096]);
}
