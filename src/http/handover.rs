//! Handing a connection's socket from hyper to a session, in the middle of an exchange.
//!
//! hyper gives a socket back for an upgrade only. An answer that never ends (server-sent events) needs hyper no more once
//! its head is known: what hyper keeps for the connection costs ten times as much as the session, and the outbox can
//! write to the socket itself. So the socket is shared between hyper and the accept loop. A handler asks for it; when
//! its answer has come out of the router, with all headers, hyper's side is dropped and the socket goes to who asked.
//! What the client may have sent behind its request goes with hyper's side, and the head says that the connection ends
//! with the answer (RFC 9112, 9.6).

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::SystemTime,
};

use axum::{http::header, response::Response};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};

use super::connections::ConnectionPermit;

/// What is handed over.
#[derive(Debug)]
pub(super) struct HandedSocket {
    /// The socket.
    pub socket: TcpStream,
    /// Status line and headers, which are not written yet; chunks follow.
    pub head: Vec<u8>,
    /// The connection counts for as long as this lives.
    pub permit: Arc<ConnectionPermit>,
}

/// The socket of a connection, as hyper uses it.
#[derive(Debug)]
pub(super) struct SharedSocket {
    socket: Arc<TcpStream>,
    shared: Arc<HandoverState>,
}

/// The same socket as the accept loop and the handlers have it (it is an extension of requests whose answer can take the socket).
#[derive(Debug, Clone)]
pub(super) struct Handover {
    socket: Weak<TcpStream>,
    shared: Arc<HandoverState>,
}

#[derive(Debug, Default)]
struct HandoverState {
    /// Bytes of an earlier answer wait for the socket.
    unwritten: AtomicBool,
    pending: Mutex<PendingHandover>,
}

#[derive(Debug, Default)]
struct PendingHandover {
    asker: Option<oneshot::Sender<HandedSocket>>,
    head: Option<Vec<u8>>,
}

/// A socket that hyper has been made to let go of, and who gets it.
pub(super) struct Released {
    socket: Arc<TcpStream>,
    asker: oneshot::Sender<HandedSocket>,
    head: Vec<u8>,
}

/// Splits a socket into what hyper uses and what the accept loop keeps.
pub(super) fn share(socket: TcpStream) -> (SharedSocket, Handover) {
    let (socket, shared) = (Arc::new(socket), Arc::<HandoverState>::default());
    let handover = Handover { socket: Arc::downgrade(&socket), shared: Arc::clone(&shared) };
    (SharedSocket { socket, shared }, handover)
}

impl SharedSocket {
    /// The socket, after an upgrade; `None` while it is being handed over.
    pub(super) fn into_socket(self) -> Option<TcpStream> {
        Arc::into_inner(self.socket)
    }
}

impl Handover {
    /// Asks for the socket, which comes when the handler's answer has come out of the router.
    pub(super) fn ask(&self) -> oneshot::Receiver<HandedSocket> {
        let (asker, asked) = oneshot::channel();
        *self.lock() = PendingHandover { asker: Some(asker), head: None };
        asked
    }

    /// Takes the answer if the socket was asked for. Then hyper must get none.
    pub(super) fn take(&self, answer: &Response) -> bool {
        let mut pending = self.lock();
        if pending.asker.is_some() {
            pending.head = Some(head(answer));
        }
        pending.head.is_some()
    }

    /// The socket, if it is to be handed over now. Drop hyper's connection before [`Released::hand_over`].
    pub(super) fn release(&self) -> Option<Released> {
        if self.shared.unwritten.load(Relaxed) {
            return None;
        }
        let mut pending = self.lock();
        let head = pending.head.take()?;
        Some(Released { socket: self.socket.upgrade()?, asker: pending.asker.take()?, head })
    }

    fn lock(&self) -> MutexGuard<'_, PendingHandover> {
        // Every change is complete before anything can fail.
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Released {
    /// Hands the socket to who asked for it.
    pub(super) fn hand_over(self, permit: Arc<ConnectionPermit>) {
        if let Some(socket) = Arc::into_inner(self.socket) {
            // Who does not wait any more needs no socket.
            let _ = self.asker.send(HandedSocket { socket, head: self.head, permit });
        }
    }
}

/// The head of an answer whose body comes in chunks and ends with the connection.
fn head(answer: &Response) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    let date = httpdate::fmt_http_date(SystemTime::now());
    // Writing into a vector does not fail.
    let _ = write!(head, "HTTP/1.1 {}\r\n", answer.status());
    // The router has measured the body, which is not the one that is sent.
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let (connection, coding, dated) = (header::CONNECTION, header::TRANSFER_ENCODING, header::DATE);
    let _ = write!(head, "{connection}: close\r\n{coding}: chunked\r\n{dated}: {date}\r\n\r\n");
    head
}

impl AsyncRead for SharedSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read_buf(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.unwritten.store(true, Relaxed);
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_write_vectored(pieces) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when it has written all it has.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.unwritten.store(false, Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Write))
    }
}
