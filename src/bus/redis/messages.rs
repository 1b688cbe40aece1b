//! What Redis pushes, as one stream: of one server, or of all masters of a cluster.
//!
//! Each server's messages keep their order.

use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::{incoming::Message, push_stream::PushStream};

/// Where what Redis pushes comes out.
pub(super) struct PushReceiver {
    streams: Vec<PushStream>,
    /// Those of servers that are connected to later.
    opened: mpsc::Receiver<PushStream>,
    /// The one whose turn it is.
    turn: usize,
}

impl PushReceiver {
    /// All streams that come out of this.
    pub(super) fn new(opened: mpsc::Receiver<PushStream>) -> Self {
        Self { streams: Vec::new(), opened, turn: 0 }
    }

    /// The next; `None` once a connection has ended.
    pub(super) async fn next(&mut self) -> Option<Message> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next of the same server, if it is there already.
    pub(super) fn ready(&mut self) -> Option<Message> {
        self.streams.get_mut(self.turn)?.buffered()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        while let Poll::Ready(Some(stream)) = self.opened.poll_recv(cx) {
            self.streams.push(stream);
        }
        for _ in 0..self.streams.len() {
            self.turn = (self.turn + 1) % self.streams.len();
            if let Poll::Ready(next) = self.streams[self.turn].poll_next(cx) {
                return Poll::Ready(next);
            }
        }
        Poll::Pending
    }
}
