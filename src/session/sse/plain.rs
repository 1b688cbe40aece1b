//! Server-sent events on a plain TCP socket, which was taken back from hyper: the outbox writes to the socket itself, as
//! with WebSockets, and the task is woken only to wait for room, to notice that the client is gone, or to close.
//!
//! The answer has no length and ends with its connection (`Connection: close`): what the client sends behind its request
//! is thrown away. While the client does not read, nothing of it is read either.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    super::{
        Session,
        end::{End, FAREWELL, LAST_BYTES},
        wakeup::{self, Wakeup},
    },
    text::LAST_CHUNK,
};
use crate::hub::Notice;

/// What is read at a time.
const CHUNK: usize = 4096;

/// Serves a session whose outbox has its socket, until it ends.
///
/// No `async fn`: its future would keep the room of its argument beside the task that is made of it.
pub(super) fn serve(session: Session) -> impl Future<Output = ()> + Send {
    let mut task = SsePlainTask { session, left: LAST_BYTES as u32 };
    async move {
        let end = loop {
            let wakeup = std::future::poll_fn(|cx| task.poll_wakeup(cx)).await;
            if let Some(end) = Box::pin(task.awake(wakeup)).await {
                break end;
            }
        };
        Box::pin(task.finish(end)).await;
    }
}

struct SsePlainTask {
    session: Session,
    /// Bytes that are still read of the client.
    left: u32,
}

impl SsePlainTask {
    fn poll_wakeup(&self, cx: &mut Context<'_>) -> Poll<Wakeup> {
        // After too many bytes nothing more is read: a flood stays with its sender.
        wakeup::poll_wakeup(self.session.outbox(), |_| self.left > 0, cx)
    }

    /// Does what the task was woken for. `Some`: the session ends so.
    async fn awake(&mut self, wakeup: Wakeup) -> Option<End> {
        match wakeup {
            Wakeup::Notice(notice) => self.session.notice(notice).await.map(End::from),
            Wakeup::Writable => {
                self.session.heard();
                self.session.outbox().unblock();
                None
            }
            Wakeup::Readable => self.read().is_err().then_some(End::Theirs),
        }
    }

    /// Throws away what the client sends. An error: it is gone.
    fn read(&mut self) -> io::Result<()> {
        let Some(socket) = self.session.outbox().socket() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        match socket.try_read(&mut [0; CHUNK]) {
            // Half closed: nobody can say anything any more, so nobody is there.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.left = self.left.saturating_sub(length as u32);
                Ok(())
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn finish(mut self, end: End) {
        // What was asked does not matter any more.
        self.session.outbox().answered();
        let closing = match end {
            End::Ours(closing) => {
                self.session.outbox().farewell(Some(closing.message()), Bytes::from_static(LAST_CHUNK));
                // The client closes the connection, or is given up.
                let _ = tokio::time::timeout(FAREWELL, self.hang_up()).await;
                Some(closing)
            }
            End::Theirs => None,
        };
        self.session.hang_up(closing.as_deref()).await;
    }

    /// Writes what waits, says that nothing follows, and reads until the client has closed: a socket that is closed with
    /// bytes unread resets the connection, and the client might never see the last message.
    async fn hang_up(&mut self) {
        self.left = LAST_BYTES as u32;
        let mut said = false;
        loop {
            if !said && self.session.outbox().is_empty() {
                said = true;
                if let Some(socket) = self.session.outbox().socket() {
                    socket.shutdown(std::net::Shutdown::Write);
                }
            }
            match std::future::poll_fn(|cx| self.poll_wakeup(cx)).await {
                Wakeup::Notice(Notice::Broken) => return,
                Wakeup::Notice(_) => {}
                Wakeup::Writable => self.session.outbox().unblock(),
                Wakeup::Readable => {
                    if self.read().is_err() {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_serve: impl Fn(A) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    #[test]
    fn an_idle_session_is_small() {
        // What the task of an idle session keeps; the rest is in the outbox, the liveness and the hub.
        // With what tokio adds, 256 bytes take 384 of the allocator, and a few more take 512.
        let future = size_of_future(serve);
        assert!(future <= 256, "{future} bytes, {} of them its parts", std::mem::size_of::<SsePlainTask>());
    }
}
