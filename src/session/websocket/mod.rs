//! Sessions over WebSockets. `plain` has those on a plain TCP socket, which most are, `tls` those on an encrypted stream;
//! what both do is here.

mod plain;
mod tls;

use std::{
    io,
    task::{Context, Poll},
};

pub use plain::serve as serve_plain;
pub use tls::serve as serve_tls;

use super::{
    Session,
    decoder::{FrameDecoder, Incoming, too_many_frames},
    end::End,
    machine::Input,
    wakeup::Wakeup,
};
use crate::{
    hub::{Notice, Outbox},
    protocol::ClientMessage,
};

/// Bytes that are read at a time.
const CHUNK: usize = 4096;

/// What comes in: bytes become messages until the client breaks the protocol. After that, what it sends has no meaning.
#[derive(Default)]
struct FrameReader {
    decoder: FrameDecoder,
    protocol_broken: bool,
}

impl FrameReader {
    /// The messages that `bytes` complete. Frames that answer them (Pong, Close) are appended to `replies`.
    fn take(&mut self, session: &mut Session, bytes: &[u8], replies: &mut Vec<u8>) -> Vec<Incoming> {
        if self.protocol_broken {
            return Vec::new();
        }
        session.heard();
        let before = replies.len();
        let mut heard = self.decoder.take(bytes, session.context.message_bytes, replies);
        if !session.affords(self.decoder.frames()) {
            heard = vec![too_many_frames()];
            replies.truncate(before);
        }
        self.protocol_broken = matches!(heard.last(), Some(Incoming::Broken(_)));
        heard
    }
}

/// What the task of a session does with its connection, and how: the second half is the same for both kinds.
///
/// Idle sessions are many, so what they do not need is boxed: their futures stay small.
trait WebSocketTask {
    fn session(&mut self) -> &mut Session;

    /// Waits for a reason to wake. `may_read` is asked behind the notices, as in [`super::wakeup::poll_wakeup`].
    fn poll_wakeup(&mut self, may_read: fn(&Outbox) -> bool, cx: &mut Context<'_>) -> Poll<Wakeup>;

    /// The messages that have come. An error: the connection is gone.
    fn read(&mut self) -> io::Result<Vec<Incoming>>;

    /// Goes on writing: the connection takes bytes again.
    fn write_on(&mut self);

    /// Does what the outbox says. `Some`: the session ends so.
    async fn notice(&mut self, notice: Notice) -> Option<End>;

    /// Serves the session until it ends.
    async fn run(&mut self) -> End {
        loop {
            let wakeup = std::future::poll_fn(|cx| self.poll_wakeup(may_read, cx)).await;
            if let Some(end) = Box::pin(self.awake(wakeup)).await {
                return end;
            }
        }
    }

    /// Does what the task was woken for. `Some`: the session ends so.
    async fn awake(&mut self, wakeup: Wakeup) -> Option<End> {
        match wakeup {
            Wakeup::Notice(notice) => self.notice(notice).await,
            Wakeup::Writable => {
                self.session().heard();
                self.write_on();
                None
            }
            Wakeup::Readable => match self.read() {
                Ok(heard) => self.act(heard).await,
                Err(_) => Some(End::Theirs),
            },
        }
    }

    /// Does what came in, in its order. `Some`: the session ends so.
    async fn act(&mut self, heard: Vec<Incoming>) -> Option<End> {
        for incoming in heard {
            if let Some(end) = self.answered().await {
                return Some(end);
            }
            let input = match incoming {
                Incoming::Text(text) => match ClientMessage::parse(&text) {
                    Ok(message) => Input::Message(message),
                    Err(reason) => Input::Malformed(reason),
                },
                Incoming::Binary => Input::Malformed("a binary message: only text is understood".into()),
                Incoming::Closed(_) => return Some(End::Theirs),
                Incoming::Broken(closing) => return Some(closing.into()),
            };
            if let Some(closing) = self.session().take(input).await {
                return Some(closing.into());
            }
        }
        None
    }

    /// Waits until the relay has answered what the client asked before. `Some`: the session ends so.
    async fn answered(&mut self) -> Option<End> {
        while self.session().outbox().is_asking() {
            let wakeup = std::future::poll_fn(|cx| match self.poll_wakeup(|_| false, cx) {
                Poll::Pending if !self.session().outbox().is_asking() => Poll::Ready(None),
                wakeup => wakeup.map(Some),
            });
            match wakeup.await {
                Some(Wakeup::Notice(notice)) => {
                    if let Some(end) = self.notice(notice).await {
                        return Some(end);
                    }
                }
                Some(Wakeup::Writable) => self.write_on(),
                Some(Wakeup::Readable) | None => {}
            }
        }
        None
    }
}

/// While the relay owes the client an answer, nothing more of the client is read.
fn may_read(outbox: &Outbox) -> bool {
    !outbox.is_asking()
}
