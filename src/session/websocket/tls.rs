//! A WebSocket on an encrypted stream (TLS), or on any other than a plain TCP socket: the session's task empties the outbox and
//! writes into the stream.
//!
//! Frames are encoded once all the same; only the records around them are made per session.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    super::{
        Caller, Session, SessionContext, SessionSlot, Transport,
        decoder::Incoming,
        end::{End, FAREWELL, LAST_BYTES},
        wakeup::Wakeup,
    },
    CHUNK, FrameReader, WebSocketTask, may_read,
};
use crate::hub::{
    Item, Notice, Outbox,
    frame::{PING, close_frame, text_frame},
};

/// What the task is told when the connection is gone.
const GONE: Wakeup = Wakeup::Notice(Notice::Broken);

/// Serves a session until it ends. As on a plain socket, this is no `async fn`.
pub fn serve<S>(
    context: Arc<SessionContext>,
    slot: SessionSlot,
    stream: S,
    caller: Caller,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let outbox = Outbox::pulled(context.outbox_bytes);
    let session = Session::begin(context, slot, Transport::WebSocket, outbox, caller);
    let mut task = TlsTask {
        session,
        reader: FrameReader::default(),
        stream,
        received: Vec::new(),
        out: Vec::new(),
        written: 0,
        due: false,
    };
    async move {
        let end = task.run().await;
        Box::pin(task.finish(end)).await;
    }
}

struct TlsTask<S> {
    session: Session,
    reader: FrameReader,
    stream: S,
    /// What was read when the task was woken.
    received: Vec<Incoming>,
    out: Vec<u8>,
    written: usize,
    /// There is something to take from the outbox.
    due: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketTask for TlsTask<S> {
    fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Writes what is ready, and reads a chunk.
    fn poll_wakeup(&mut self, may_read: fn(&Outbox) -> bool, cx: &mut Context<'_>) -> Poll<Wakeup> {
        if !self.out.is_empty()
            && let Poll::Ready(result) = self.poll_write(cx)
        {
            return Poll::Ready(if result.is_ok() { Wakeup::Writable } else { GONE });
        }
        if let Poll::Ready(notice) = self.session.outbox().poll_notice(cx) {
            return Poll::Ready(Wakeup::Notice(notice));
        }
        // While the client does not read, nothing of it is read either.
        if !self.out.is_empty() || !may_read(self.session.outbox()) {
            return Poll::Pending;
        }
        let mut chunk = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                self.received = self.reader.take(&mut self.session, buffer.filled(), &mut self.out);
                Poll::Ready(Wakeup::Readable)
            }
            Poll::Ready(_) => Poll::Ready(GONE),
        }
    }

    fn read(&mut self) -> io::Result<Vec<Incoming>> {
        Ok(std::mem::take(&mut self.received))
    }

    fn write_on(&mut self) {
        self.fill();
    }

    async fn notice(&mut self, notice: Notice) -> Option<End> {
        if notice == Notice::Work {
            self.due = true;
            if self.session.beat_is_due() {
                self.out.extend_from_slice(PING);
            }
            if self.written == 0 {
                self.fill();
            }
        }
        self.session.notice(notice).await.map(End::from)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsTask<S> {
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            match std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.written += length,
            }
        }
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // An idle session keeps no buffer.
        self.out = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Makes ready what waits in the outbox.
    fn fill(&mut self) {
        self.session.fill(&mut self.due, &mut self.out, |item, out| match item {
            Item::Event(frame) => out.extend_from_slice(frame.bytes()),
            Item::Message(message) => out.extend_from_slice(&text_frame(&message.json())),
        });
    }

    async fn finish(mut self, end: End) {
        // What was asked does not matter any more.
        self.session.outbox().answered();
        let closing = match end {
            End::Ours(closing) => {
                self.session.outbox().farewell(Some(closing.message()), bytes::Bytes::new());
                let last = close_frame(closing.code.number(), &closing.reason);
                let _ = tokio::time::timeout(FAREWELL, self.hang_up(&last)).await;
                Some(closing)
            }
            End::Theirs => {
                let _ = tokio::time::timeout(FAREWELL, self.flush()).await;
                None
            }
        };
        self.session.leave(closing.as_deref()).await;
    }

    async fn hang_up(&mut self, last: &[u8]) -> Option<()> {
        self.due = true;
        while self.due || !self.out.is_empty() {
            self.fill();
            self.flush().await?;
        }
        self.out.extend_from_slice(last);
        self.flush().await?;
        self.stream.shutdown().await.ok()?;
        for _ in 0..LAST_BYTES / CHUNK {
            match std::future::poll_fn(|cx| self.poll_wakeup(may_read, cx)).await {
                Wakeup::Notice(Notice::Broken) => return None,
                Wakeup::Readable
                    if self.received.iter().any(|heard| matches!(heard, Incoming::Closed(_))) =>
                {
                    return None;
                }
                _ => {}
            }
        }
        // A flood: what is not read stays with its sender until the connection ends.
        std::future::pending().await
    }

    async fn flush(&mut self) -> Option<()> {
        if self.out.is_empty() {
            return Some(());
        }
        std::future::poll_fn(|cx| self.poll_write(cx)).await.ok()
    }
}
