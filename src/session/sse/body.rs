//! Server-sent events for connections whose socket cannot be had (TLS, HTTP/2, HTTP/1.0): hyper takes chunks out of a channel.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    super::{Session, end::FAREWELL},
    text::{BEAT, SseText},
};
use crate::hub::{Closing, Item, Notice};

/// Chunks that may wait for the connection; the outbox waits behind them.
pub(super) const CHUNKS: usize = 2;

/// Serves a session until it ends; what it says goes to `sender`.
pub(super) async fn serve(session: Session, text: SseText, sender: mpsc::Sender<Bytes>) {
    SseBodyTask { session, text, sender, out: Vec::new(), due: false, owes: false }.run().await;
}

struct SseBodyTask {
    session: Session,
    text: SseText,
    sender: mpsc::Sender<Bytes>,
    out: Vec<u8>,
    /// There is something to take from the outbox.
    due: bool,
    /// A `resync` was owed, and the connection has not taken everything since.
    owes: bool,
}

impl SseBodyTask {
    async fn run(mut self) {
        let end = loop {
            let notice = tokio::select! {
                biased;
                notice = self.session.outbox().notice() => Some(notice),
                () = self.sender.closed() => break None,
                permit = self.sender.reserve(), if !self.out.is_empty() => {
                    let Ok(permit) = permit else { break None };
                    permit.send(std::mem::take(&mut self.out).into());
                    self.session.heard();
                    if self.owes {
                        self.session.owe(true);
                    }
                    None
                }
                taken = self.sender.reserve_many(CHUNKS), if self.owes && self.out.is_empty() => {
                    if taken.is_err() {
                        break None;
                    }
                    self.owes = false;
                    self.session.owe(false);
                    None
                }
            };
            let Some(notice) = notice else {
                self.fill();
                continue;
            };
            // The `resync` that is owed comes next, and waits here if the client does not read.
            if notice == Notice::Drained {
                self.owes = true;
                self.session.owe(true);
            }
            if notice == Notice::Work {
                self.due = true;
                if self.session.beat_is_due() {
                    self.out.extend_from_slice(BEAT);
                }
                self.fill();
            }
            match self.session.notice(notice).await {
                None => {}
                Some(Ok(closing)) => break Some(closing),
                Some(Err(())) => break None,
            }
        };
        if let Some(closing) = &end {
            let _ = tokio::time::timeout(FAREWELL, self.say_goodbye(closing)).await;
        }
        self.session.leave(end.as_ref()).await;
    }

    /// Makes ready what waits in the outbox.
    fn fill(&mut self) {
        let text = &mut self.text;
        self.session.fill(&mut self.due, &mut self.out, |item, out| match item {
            Item::Event(frame) => text.event(&frame, out),
            Item::Message(message) => text.message(&message, out),
        });
    }

    async fn say_goodbye(&mut self, closing: &Closing) -> Option<()> {
        self.session.outbox().farewell(Some(closing.message()), Bytes::new());
        self.due = true;
        loop {
            self.fill();
            if self.out.is_empty() {
                return Some(());
            }
            self.sender.send(std::mem::take(&mut self.out).into()).await.ok()?;
        }
    }
}
