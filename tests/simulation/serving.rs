//! The node's side of a connection: whoever comes is judged at the door, where the schedule is about that, and then served by
//! the real transport.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use carillon::{
    hub::{Closing, Socket},
    protocol::CloseCode,
    session::{self, Caller, PollAnswer, SessionContext, SessionSlot, StreamRequest},
    shutdown::Tasks,
};
use tokio::sync::{mpsc, oneshot};

use crate::{people::Door, pipe::NodeEnd};

/// The body of an event stream, once the node has opened it.
pub(crate) type Body = Arc<Mutex<Option<Result<mpsc::Receiver<Bytes>, Closing>>>>;

/// The node's end of a connection.
pub(crate) enum End {
    /// A WebSocket on a plain socket.
    Socket(NodeEnd),
    /// A WebSocket on a stream.
    Stream(NodeEnd),
    /// Server-sent events over plain HTTP/1.1.
    Events(NodeEnd),
    /// Server-sent events as a body.
    Body(Body),
    /// A poll.
    Poll(oneshot::Sender<Result<PollAnswer, Closing>>),
}

/// A session that is about to begin.
pub(crate) struct Session {
    pub common: Arc<SessionContext>,
    pub place: SessionSlot,
    pub tasks: Tasks,
    /// What is followed where the transport has no `connect`.
    pub stream: StreamRequest,
    pub end: End,
}

impl Session {
    /// Serves the caller; a door judges who that is.
    pub(crate) fn begin(self, caller: Caller, door: Option<Door>) -> Pin<Box<dyn Future<Output = ()>>> {
        let Some(door) = door else { return self.serve(caller) };
        Box::pin(async move {
            match door.open().await {
                Some(caller) => self.serve(caller).await,
                None => self.end.refuse(),
            }
        })
    }

    fn serve(self, caller: Caller) -> Pin<Box<dyn Future<Output = ()>>> {
        let Self { common, place, tasks, stream, end } = self;
        match end {
            End::Socket(pipe) => {
                let socket = Socket::Scripted(Box::new(pipe));
                Box::pin(session::serve_websocket(common, place, socket, &Bytes::new(), caller))
            }
            End::Stream(pipe) => Box::pin(session::serve_websocket_tls(common, place, pipe, caller)),
            End::Events(pipe) => Box::pin(async move {
                match session::open_sse(common, place, caller, stream).await {
                    Ok(opened) => opened.serve(Socket::Scripted(Box::new(pipe)), Vec::new()).await,
                    Err(_) => drop(pipe),
                }
            }),
            End::Body(body) => Box::pin(async move {
                let opened = session::serve_sse_body(common, place, caller, stream, &tasks).await;
                *body.lock().expect("a body") = Some(opened);
            }),
            End::Poll(sender) => Box::pin(session::serve_poll(common, place, caller, stream, sender)),
        }
    }
}

impl End {
    fn refuse(self) {
        let closing = || Closing {
            code: CloseCode::Unauthenticated,
            reason: "refused at the door".into(),
            reconnect_after_ms: None,
        };
        match self {
            Self::Socket(pipe) | Self::Stream(pipe) | Self::Events(pipe) => drop(pipe),
            Self::Body(body) => *body.lock().expect("a body") = Some(Err(closing())),
            // Whoever polled may be gone.
            Self::Poll(sender) => drop(sender.send(Err(closing()))),
        }
    }
}
