//! A WebSocket on a plain TCP socket, which most are: the outbox writes to the socket itself, and the task is woken
//! only to read, to wait for room, or to close.
//!
//! Idle sessions are many, so this future is kept small: cold paths are boxed, buffers live on the stack of one poll,
//! and there is no timer.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

use super::{
    Caller, Session, SessionContext, SessionSlot, Transport,
    decoder::{FrameDecoder, Incoming, too_many_frames},
    machine::Input,
    wakeup::{self, Wakeup},
};
use crate::{
    hub::{Closing, Notice, Outbox, Socket, frame::close_frame},
    protocol::ClientMessage,
};

/// How long the client may take to answer our close frame.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// What is read at a time.
const CHUNK: usize = 4096;
/// Chunks that are read before others get their turn.
const CHUNKS: usize = 4;
/// Bytes that are still read of a client after the node's goodbye: room for what was under way, not for a flood.
pub(super) const LAST_BYTES: usize = 1 << 20;

/// How a session ends.
pub(super) enum End {
    /// The node closes.
    Ours(Closing),
    /// The client closes, or is gone.
    Theirs,
}

/// Serves a session until it ends. `early`: bytes that came behind the handshake.
pub async fn serve(
    context: Arc<SessionContext>,
    slot: SessionSlot,
    socket: Socket,
    early: Bytes,
    caller: Caller,
) {
    let outbox = Outbox::direct(socket, context.outbox_bytes);
    let decoder = FrameDecoder::new(context.message_bytes);
    let session = Session::begin(context, slot, Transport::WebSocket, outbox, caller);
    let mut task = WebSocketTask { session, decoder, protocol_broken: false };
    let mut end = None;
    if !early.is_empty() {
        let heard = task.feed(&early);
        end = Box::pin(task.act(heard)).await;
    }
    // Kept, it would keep hyper's whole read buffer.
    drop(early);
    while end.is_none() {
        end = match std::future::poll_fn(|cx| task.poll_wakeup(cx)).await {
            Wakeup::Notice(notice) => Box::pin(task.notice(notice)).await,
            Wakeup::Writable => {
                task.session.heard();
                task.session.outbox().unblock();
                None
            }
            Wakeup::Readable => match task.read() {
                Ok(heard) => Box::pin(task.act(heard)).await,
                Err(_) => Some(End::Theirs),
            },
        };
    }
    if let Some(end) = end {
        Box::pin(task.finish(end)).await;
    }
}

struct WebSocketTask {
    session: Session,
    decoder: FrameDecoder,
    /// The client broke the protocol: what it sends has no meaning any more.
    protocol_broken: bool,
}

impl WebSocketTask {
    fn poll_wakeup(&self, cx: &mut Context<'_>) -> Poll<Wakeup> {
        wakeup::poll_wakeup(self.session.outbox(), |outbox| !outbox.is_asking(), cx)
    }

    /// Waits until the relay has answered what the client asked before. `Some`: the session ends so.
    async fn answered(&mut self) -> Option<End> {
        while self.session.outbox().is_asking() {
            let wakeup = std::future::poll_fn(|cx| match self.poll_wakeup(cx) {
                Poll::Pending if !self.session.outbox().is_asking() => Poll::Ready(None),
                wakeup => wakeup.map(Some),
            });
            match wakeup.await {
                Some(Wakeup::Notice(notice)) => {
                    if let Some(end) = self.notice(notice).await {
                        return Some(end);
                    }
                }
                Some(Wakeup::Writable) => self.session.outbox().unblock(),
                Some(Wakeup::Readable) | None => {}
            }
        }
        None
    }

    /// Reads what there is. An error: the connection is gone.
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

    fn feed(&mut self, bytes: &[u8]) -> Vec<Incoming> {
        if self.protocol_broken {
            return Vec::new();
        }
        self.session.heard();
        let mut replies = Vec::new();
        let mut heard = self.decoder.take(bytes, &mut replies);
        if !self.session.affords(self.decoder.frames()) {
            heard = vec![too_many_frames()];
            replies.clear();
        }
        self.protocol_broken = matches!(heard.last(), Some(Incoming::Broken(_)));
        if matches!(heard.last(), Some(Incoming::Closed(_))) {
            self.session.outbox().farewell(None, replies.into());
        } else if !replies.is_empty() {
            self.session.outbox().raw(replies.into());
        }
        heard
    }

    async fn act(&mut self, heard: Vec<Incoming>) -> Option<End> {
        for heard in heard {
            if let Some(end) = self.answered().await {
                return Some(end);
            }
            if let Some(end) = take(&mut self.session, heard).await {
                return Some(end);
            }
        }
        None
    }

    async fn notice(&mut self, notice: Notice) -> Option<End> {
        self.session.notice(notice).await.map(End::from)
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
        self.session.hang_up(closing.as_ref()).await;
    }

    /// Writes what waits, and reads until the client has closed: a socket that is closed with bytes unread resets the
    /// connection, and the client might never see the close frame.
    async fn hang_up(&mut self) {
        if self.protocol_broken {
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
            match std::future::poll_fn(|cx| self.poll_wakeup(cx)).await {
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
            match std::future::poll_fn(|cx| self.poll_wakeup(cx)).await {
                Wakeup::Writable => self.session.outbox().unblock(),
                Wakeup::Notice(Notice::Work) => {}
                _ => return,
            }
        }
    }
}

impl From<Result<Closing, ()>> for End {
    fn from(end: Result<Closing, ()>) -> Self {
        end.map_or(Self::Theirs, Self::Ours)
    }
}

/// Does what came in. `Some`: the session ends so.
pub(super) async fn take(session: &mut Session, incoming: Incoming) -> Option<End> {
    let input = match incoming {
        Incoming::Text(text) => match ClientMessage::parse(&text) {
            Ok(message) => Input::Message(message),
            Err(reason) => Input::Malformed(reason),
        },
        Incoming::Binary => Input::Malformed("a binary message: only text is understood".into()),
        Incoming::Closed(_) => return Some(End::Theirs),
        Incoming::Broken(closing) => return Some(End::Ours(closing)),
    };
    session.take(input).await.map(End::Ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_is_small() {
        // What the task of an idle session keeps; the rest is in the outbox, the liveness and the hub.
        let task = std::mem::size_of::<WebSocketTask>();
        assert!(task <= 256, "{task} bytes");
    }
}
