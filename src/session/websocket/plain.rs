//! A WebSocket on a plain TCP socket, which most are: the outbox writes to the socket itself, and the task is woken
//! only to read, to wait for room, or to close.
//!
//! Idle sessions are many, so this future is kept small: cold paths are boxed, buffers live on the stack of one poll,
//! and there is no timer.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    super::{
        Caller, Session, SessionContext, SessionSlot, Transport,
        decoder::Incoming,
        end::{End, FAREWELL, LAST_BYTES},
        wakeup::{self, Wakeup},
    },
    CHUNK, FrameReader, WebSocketTask, may_read,
};
use crate::hub::{Notice, Outbox, Socket, frame::close_frame};

/// Chunks that are read before others get their turn.
const CHUNKS: usize = 4;

/// Serves a session until it ends. `early`: bytes that came behind the handshake.
///
/// No `async fn`: its future would keep the room of its arguments beside the session that is made of them.
pub fn serve(
    context: Arc<SessionContext>,
    slot: SessionSlot,
    socket: Socket,
    early: &Bytes,
    caller: Caller,
) -> impl Future<Output = ()> + Send + use<> {
    let outbox = Outbox::direct(socket, context.outbox_bytes);
    let session = Session::begin(context, slot, Transport::WebSocket, outbox, caller);
    let mut task = PlainTask { session, reader: FrameReader::default() };
    // `early` is not kept: it would keep hyper's whole read buffer. A boxed slice takes less room in the future than a vector.
    let heard = if early.is_empty() { Box::default() } else { task.feed(early).into_boxed_slice() };
    async move {
        if let Some(end) = Box::pin(task.act(heard.into_vec())).await {
            return Box::pin(task.finish(end)).await;
        }
        let end = task.run().await;
        Box::pin(task.finish(end)).await;
    }
}

struct PlainTask {
    session: Session,
    reader: FrameReader,
}

impl WebSocketTask for PlainTask {
    fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    fn poll_wakeup(&mut self, may_read: fn(&Outbox) -> bool, cx: &mut Context<'_>) -> Poll<Wakeup> {
        wakeup::poll_wakeup(self.session.outbox(), may_read, cx)
    }

    fn read(&mut self) -> io::Result<Vec<Incoming>> {
        let mut heard = Vec::new();
        let mut chunk = [0; CHUNK];
        for _ in 0..CHUNKS {
            let outbox = Arc::clone(self.session.outbox());
            let Some(socket) = outbox.socket() else { return Err(io::ErrorKind::NotConnected.into()) };
            match socket.try_read(&mut chunk) {
                // Half closed: nobody can say anything any more, so nobody is there.
                Ok(0) if heard.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => break,
                Ok(length) => {
                    heard.append(&mut self.feed(&chunk[..length]));
                    if matches!(heard.last(), Some(Incoming::Closed(_))) {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(heard)
    }

    fn write_on(&mut self) {
        self.session.outbox().unblock();
    }

    async fn notice(&mut self, notice: Notice) -> Option<End> {
        self.session.notice(notice).await.map(End::from)
    }
}

impl PlainTask {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Incoming> {
        let mut replies = Vec::new();
        let heard = self.reader.take(&mut self.session, bytes, &mut replies);
        if matches!(heard.last(), Some(Incoming::Closed(_))) {
            self.session.outbox().farewell(None, replies.into());
        } else if !replies.is_empty() {
            self.session.outbox().raw(replies.into());
        }
        heard
    }

    async fn finish(mut self, end: End) {
        // What was asked does not matter any more.
        self.session.outbox().answered();
        let closing = match end {
            End::Ours(closing) => {
                let end = close_frame(closing.code.number(), &closing.reason);
                self.session.outbox().farewell(Some(closing.message()), end);
                // The client answers the close frame, or is given up.
                let _ = tokio::time::timeout(FAREWELL, self.hang_up()).await;
                Some(closing)
            }
            End::Theirs => {
                let _ = tokio::time::timeout(FAREWELL, self.flush()).await;
                None
            }
        };
        self.session.hang_up(closing.as_deref()).await;
    }

    /// Writes what waits, and reads until the client has closed: a socket that is closed with bytes unread resets the
    /// connection, and the client might never see the close frame.
    async fn hang_up(&mut self) {
        if self.reader.protocol_broken {
            self.flush().await;
            if let Some(socket) = self.session.outbox().socket() {
                socket.shutdown(std::net::Shutdown::Write);
            }
        }
        let mut turns = LAST_BYTES / (CHUNK * CHUNKS);
        loop {
            if turns == 0 {
                // A flood: what is not read stays with its sender until the connection ends.
                std::future::pending::<()>().await;
            }
            match std::future::poll_fn(|cx| self.poll_wakeup(may_read, cx)).await {
                Wakeup::Notice(Notice::Broken) => return,
                Wakeup::Notice(_) => {}
                Wakeup::Writable => self.session.outbox().unblock(),
                Wakeup::Readable => match self.read() {
                    Ok(heard) if heard.iter().any(|heard| matches!(heard, Incoming::Closed(_))) => return,
                    Ok(_) => turns -= 1,
                    Err(_) => return,
                },
            }
        }
    }

    /// Writes what waits.
    async fn flush(&mut self) {
        while !self.session.outbox().is_empty() {
            match std::future::poll_fn(|cx| self.poll_wakeup(may_read, cx)).await {
                Wakeup::Writable => self.session.outbox().unblock(),
                Wakeup::Notice(Notice::Work) => {}
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, D, E, F: Future>(_serve: impl Fn(A, B, C, D, E) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    #[test]
    fn an_idle_session_is_small() {
        // What the task of an idle session keeps; the rest is in the outbox, the liveness and the hub.
        // With what tokio adds, 256 bytes take 384 of the allocator, and a few more take 512.
        let future = size_of_future(serve);
        assert!(future <= 256, "{future} bytes, {} of them its parts", std::mem::size_of::<PlainTask>());
    }
}
