//! TLS on a socket, without buffers while nothing is under way.
//!
//! A ready-made stream keeps 4 KiB per connection for what may come, whether something comes or not: half of what an idle
//! session over TLS costs. rustls' unbuffered interface leaves all buffers to its caller. Here they are made when bytes
//! come or go, and freed when these are dealt with.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::upgrade::Upgraded;
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use rustls::{
    ServerConfig,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What is read from the socket at a time.
const CHUNK: usize = 4096;
/// What is encrypted at a time: one record.
const RECORD: usize = 16 * 1024;
/// Bytes of records that are not whole, at most: a handshake message may have 64 KiB, a record 16.
const INCOMING: usize = 96 * 1024;

/// The server's side of a TLS connection.
pub(super) struct TlsStream {
    socket: TcpStream,
    /// Boxed, because whatever waits on this stream holds it by value, now and then twice.
    tls: Box<UnbufferedServerConnection>,
    /// Records that are not whole yet.
    incoming: Vec<u8>,
    /// Decrypted bytes; those from `read` on were not read yet.
    plain: Vec<u8>,
    read: usize,
    /// Records that the socket has not taken yet, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    /// The client has said that nothing more comes.
    ended: bool,
}

/// What is to be encrypted once rustls is ready.
#[derive(Clone, Copy)]
enum ToEncrypt<'a> {
    Nothing,
    Data(&'a [u8]),
    Farewell,
}

impl TlsStream {
    /// Shakes hands with whoever is at the other end.
    pub(super) async fn accept(config: Arc<ServerConfig>, socket: TcpStream) -> io::Result<Self> {
        let tls = Box::new(UnbufferedServerConnection::new(config).map_err(io::Error::other)?);
        let (incoming, plain, outgoing) = (Vec::new(), Vec::new(), Vec::new());
        let mut stream = Self { socket, tls, incoming, plain, read: 0, outgoing, sent: 0, ended: false };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// The stream of a connection that was upgraded, without hyper's layers. None if it is another kind.
    pub(super) fn of(upgraded: Upgraded) -> Option<Self> {
        let parts = downcast::<TokioIo<Self>>(upgraded).ok()?;
        let mut stream = parts.io.into_inner();
        // What hyper has read behind the request comes first.
        stream.plain.splice(stream.read..stream.read, parts.read_buf);
        Some(stream)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.is_handshaking() {
            ready!(self.poll_send(cx))?;
            ready!(self.poll_receive(cx))?;
        }
        self.poll_send(cx)
    }

    /// Gives the socket what is due to go out.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, &self.outgoing[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.sent += length,
            }
        }
        (self.outgoing, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Takes what has come, and answers what the protocol wants answered.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            // Without `close_notify`, what came may have been cut off by somebody in between.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if self.incoming.len() > INCOMING {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message is too long")));
        }
        self.incoming.extend_from_slice(buffer.filled());
        let result = self.advance(ToEncrypt::Nothing);
        if result.is_err() {
            // An alert says why, where the socket takes it at once.
            let _ = self.poll_send(cx);
        }
        Poll::Ready(result.map(drop))
    }

    /// Lets rustls go on until it needs more of the client, and encrypts `what` into `outgoing`. Returns how many bytes of it were taken.
    fn advance(&mut self, what: ToEncrypt<'_>) -> io::Result<usize> {
        let mut done = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut self.incoming);
            let mut goes_on = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.outgoing, |room| data.encode(room).map_err(RecordError::from))?;
                }
                // All that is sent leaves in the order in which it was made.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    goes_on = false;
                    match what {
                        ToEncrypt::Nothing => {}
                        ToEncrypt::Data(bytes) => {
                            append(&mut self.outgoing, |room| {
                                traffic.encrypt(bytes, room).map_err(RecordError::from)
                            })?;
                            done = bytes.len();
                        }
                        ToEncrypt::Farewell => append(&mut self.outgoing, |room| {
                            traffic.queue_close_notify(room).map_err(RecordError::from)
                        })?,
                    }
                }
                // Early data is not offered, and states that later releases of rustls may add are not known here.
                Ok(_) => goes_on = false,
                Err(error) => {
                    self.raise_alert();
                    return Err(invalid(error));
                }
            }
            self.incoming.drain(..discard);
            if !goes_on {
                break;
            }
        }
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        Ok(done)
    }

    /// After an error, rustls has an alert for the client.
    fn raise_alert(&mut self) {
        loop {
            match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if append(&mut self.outgoing, |room| data.encode(room).map_err(RecordError::from))
                        .is_err()
                    {
                        return;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => return,
            }
        }
    }
}

/// Why rustls could not write.
enum RecordError {
    /// It needs so much room.
    Needs(usize),
    Failed(String),
}

impl From<EncodeError> for RecordError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self::Needs(required_size)
            }
            error @ EncodeError::AlreadyEncoded => Self::Failed(error.to_string()),
        }
    }
}

impl From<EncryptError> for RecordError {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self::Needs(required_size)
            }
            error @ EncryptError::EncryptExhausted => Self::Failed(error.to_string()),
        }
    }
}

/// Appends what `write` puts into the room that it is given, which is as much as it says that it needs.
fn append(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, RecordError>,
) -> io::Result<()> {
    let begin = out.len();
    let mut written = write(&mut []);
    if let Err(RecordError::Needs(size)) = written {
        out.resize(begin + size, 0);
        written = write(&mut out[begin..]);
    }
    match written {
        Ok(length) => {
            out.truncate(begin + length);
            Ok(())
        }
        Err(RecordError::Needs(size)) => Err(io::Error::other(format!("TLS asked for {size} bytes twice"))),
        Err(RecordError::Failed(why)) => Err(io::Error::other(why)),
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let waiting = &this.plain[this.read..];
            if !waiting.is_empty() {
                let length = waiting.len().min(buffer.remaining());
                buffer.put_slice(&waiting[..length]);
                this.read += length;
                if this.read == this.plain.len() {
                    (this.plain, this.read) = (Vec::new(), 0);
                }
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            // Answers of the protocol itself; the socket wakes this task when it takes more.
            if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            ready!(this.poll_receive(cx))?;
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Nothing more is encrypted while something waits, so little is held for a client that does not read.
        ready!(this.poll_send(cx))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let taken = this.advance(ToEncrypt::Data(&bytes[..bytes.len().min(RECORD)]))?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What is left is sent by whoever writes, flushes or reads next.
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Said once, however often this is asked.
        this.advance(ToEncrypt::Farewell)?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "tls_stream_tests.rs"]
mod tests;
