//! A WebSocket on any stream (TLS): the outbox is emptied by the session's task, which writes into the stream.
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
    Caller, Session, SessionContext, SessionSlot, Transport,
    decoder::{FrameDecoder, Incoming, too_many_frames},
    websocket::{End, FAREWELL, LAST_BYTES, take},
};
use crate::hub::{
    Item, Notice, Outbox,
    frame::{PING, close_frame, text_frame},
};

/// What is read at a time.
const CHUNK: usize = 4096;
/// Bytes that are made ready for one write, roughly.
const BATCH: usize = 16 * 1024;
/// Items that are taken from the outbox at a time.
const ITEMS: usize = 16;

enum StreamWakeup {
    Notice(Notice),
    /// Everything that was ready is written.
    Written,
    Received(Vec<Incoming>),
    Gone,
}

/// Serves a session until it ends.
pub async fn serve<S>(context: Arc<SessionContext>, slot: SessionSlot, stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let outbox = Outbox::pulled(context.outbox_bytes);
    let decoder = FrameDecoder::new(context.message_bytes);
    let session = Session::begin(context, slot, Transport::WebSocket, outbox, caller);
    let mut task = StreamTask {
        session,
        decoder,
        stream,
        out: Vec::new(),
        written: 0,
        due: false,
        protocol_broken: false,
    };
    let end = loop {
        let end = match std::future::poll_fn(|cx| task.poll_wakeup(cx)).await {
            StreamWakeup::Notice(notice) => Box::pin(task.notice(notice)).await,
            StreamWakeup::Written => {
                task.session.heard();
                task.fill();
                None
            }
            StreamWakeup::Received(heard) => Box::pin(task.act(heard)).await,
            StreamWakeup::Gone => Some(End::Theirs),
        };
        if let Some(end) = end {
            break end;
        }
    };
    Box::pin(task.finish(end)).await;
}

struct StreamTask<S> {
    session: Session,
    decoder: FrameDecoder,
    stream: S,
    out: Vec<u8>,
    written: usize,
    /// There is something to take from the outbox.
    due: bool,
    protocol_broken: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> StreamTask<S> {
    /// Everything but reading.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<StreamWakeup> {
        if !self.out.is_empty()
            && let Poll::Ready(result) = self.poll_write(cx)
        {
            return Poll::Ready(if result.is_ok() { StreamWakeup::Written } else { StreamWakeup::Gone });
        }
        if let Poll::Ready(notice) = self.session.outbox().poll_notice(cx) {
            return Poll::Ready(StreamWakeup::Notice(notice));
        }
        Poll::Pending
    }

    fn poll_wakeup(&mut self, cx: &mut Context<'_>) -> Poll<StreamWakeup> {
        if let Poll::Ready(wakeup) = self.poll_work(cx) {
            return Poll::Ready(wakeup);
        }
        // While the client does not read, nothing of it is read either.
        if !self.out.is_empty() || self.session.outbox().is_asking() {
            return Poll::Pending;
        }
        let mut chunk = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                Poll::Ready(StreamWakeup::Received(self.feed(buffer.filled())))
            }
            Poll::Ready(_) => Poll::Ready(StreamWakeup::Gone),
        }
    }

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
        while self.due && self.out.len() < BATCH {
            let items = self.session.outbox().pull(ITEMS);
            self.due = items.len() == ITEMS;
            for item in items {
                match item {
                    Item::Event(frame) => self.out.extend_from_slice(frame.bytes()),
                    Item::Message(message) => self.out.extend_from_slice(&text_frame(&message.json())),
                }
            }
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<Incoming> {
        if self.protocol_broken {
            return Vec::new();
        }
        self.session.heard();
        let mut heard = self.decoder.take(bytes, &mut self.out);
        if !self.session.affords(self.decoder.frames()) {
            heard = vec![too_many_frames()];
        }
        self.protocol_broken = matches!(heard.last(), Some(Incoming::Broken(_)));
        heard
    }

    /// Waits until the relay has answered what the client asked before. `Some`: the session ends so.
    async fn answered(&mut self) -> Option<End> {
        while self.session.outbox().is_asking() {
            let wakeup = std::future::poll_fn(|cx| match self.poll_work(cx) {
                Poll::Pending if !self.session.outbox().is_asking() => Poll::Ready(None),
                wakeup => wakeup.map(Some),
            });
            match wakeup.await {
                Some(StreamWakeup::Notice(notice)) => {
                    if let Some(end) = self.notice(notice).await {
                        return Some(end);
                    }
                }
                Some(StreamWakeup::Written) => self.fill(),
                Some(StreamWakeup::Gone) => return Some(End::Theirs),
                Some(StreamWakeup::Received(_)) | None => {}
            }
        }
        None
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
        self.session.leave(closing.as_ref()).await;
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
            match std::future::poll_fn(|cx| self.poll_wakeup(cx)).await {
                StreamWakeup::Gone | StreamWakeup::Notice(Notice::Broken) => return None,
                StreamWakeup::Received(heard)
                    if heard.iter().any(|heard| matches!(heard, Incoming::Closed(_))) =>
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
