//! What Redis pushes, as one stream: straight from fred where there is one server, merged where there are several.
//!
//! Each server's messages keep their order.

use fred::types::Message;
use tokio::sync::{
    broadcast::{
        self,
        error::{RecvError, TryRecvError},
    },
    mpsc,
};
use tokio_util::sync::CancellationToken;

/// What Redis pushed.
#[derive(Debug)]
pub(super) enum Pushed {
    /// A message.
    Message(Message),
    /// Messages were dropped: there was no room for them.
    Missed,
}

/// Where what Redis pushes comes out.
#[derive(Debug)]
pub(super) enum PushReceiver {
    /// Of one server.
    Direct(broadcast::Receiver<Message>),
    /// Of all masters of a cluster.
    Merged(mpsc::Receiver<Pushed>),
}

impl PushReceiver {
    /// The next; `None` where no more can come.
    pub(super) async fn next(&mut self) -> Option<Pushed> {
        match self {
            Self::Direct(messages) => pushed(messages.recv().await),
            Self::Merged(pushed) => pushed.recv().await,
        }
    }

    /// The next, if it is there already.
    pub(super) fn ready(&mut self) -> Option<Pushed> {
        match self {
            Self::Direct(messages) => match messages.try_recv() {
                Ok(message) => Some(Pushed::Message(message)),
                Err(TryRecvError::Lagged(_)) => Some(Pushed::Missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => None,
            },
            Self::Merged(pushed) => pushed.try_recv().ok(),
        }
    }
}

/// Hands on what one server pushes until the connection has ended.
pub(super) async fn forward(
    mut messages: broadcast::Receiver<Message>,
    to: mpsc::Sender<Pushed>,
    ended: CancellationToken,
) {
    loop {
        let next = ended.run_until_cancelled(messages.recv()).await.and_then(pushed);
        let Some(next) = next else { return };
        if to.send(next).await.is_err() {
            return;
        }
    }
}

fn pushed(received: Result<Message, RecvError>) -> Option<Pushed> {
    match received {
        Ok(message) => Some(Pushed::Message(message)),
        Err(RecvError::Lagged(_)) => Some(Pushed::Missed),
        Err(RecvError::Closed) => None,
    }
}
