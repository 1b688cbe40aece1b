//! Sessions over server-sent events: how they are opened. `plain` serves those on a plain TCP socket, which most are, `body`
//! all others; `text` is how a message looks.

mod body;
mod plain;
pub(super) mod text;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Caller, Session, SessionContext, SessionSlot, StreamRequest, Transport, machine::Input};
use crate::{
    hub::{Closing, Outbox, Socket},
    protocol::{ClientMessage, message::Connect},
    shutdown::Tasks,
};
use text::{GREETING, SseChunks, SseText, with_greeting};

/// A session that is open and waits for the socket of its connection.
pub struct SseOnSocket(Session);

impl SseOnSocket {
    /// Serves it until it ends. `head`: of the answer, which announces chunks and the end of the connection.
    pub fn serve(self, socket: Socket, head: Vec<u8>) -> impl Future<Output = ()> + Send {
        // A stream has no Pong: that its client reads is seen by what the socket takes.
        socket.hold_nothing();
        self.0.outbox().attach(socket, with_greeting(head).into());
        plain::serve(self.0)
    }

    /// The socket did not come.
    pub async fn give_up(self) {
        self.0.leave(None).await;
    }
}

/// Opens a session whose socket will be had.
///
/// # Errors
/// It was refused before it began.
pub async fn open_on_socket(
    context: Arc<SessionContext>,
    slot: SessionSlot,
    caller: Caller,
    request: StreamRequest,
) -> Result<SseOnSocket, Closing> {
    let place = request.cursor_in;
    let (cursor, connect) = request.begin();
    let framing = Box::new(SseChunks(SseText { cursor, place }));
    let outbox = Outbox::promised(framing, context.outbox_bytes);
    let session = Session::begin(context, slot, Transport::Sse, outbox, caller).with_cursor_in(place);
    connected(session, connect).await.map(SseOnSocket)
}

/// Opens a session. What comes out of the channel is the body of the answer.
///
/// # Errors
/// It was refused before it began.
pub async fn serve_body(
    context: Arc<SessionContext>,
    slot: SessionSlot,
    caller: Caller,
    request: StreamRequest,
    tasks: &Tasks,
) -> Result<mpsc::Receiver<Bytes>, Closing> {
    let place = request.cursor_in;
    let outbox = Outbox::pulled(context.outbox_bytes);
    let session = Session::begin(context, slot, Transport::Sse, outbox, caller).with_cursor_in(place);
    let (cursor, connect) = request.begin();
    let (sender, receiver) = mpsc::channel(body::CHUNKS);
    // Sent before anything is asked.
    let _ = sender.try_send(Bytes::from_static(GREETING));
    let session = connected(session, connect).await?;
    tasks.spawn(body::serve(session, SseText { cursor, place }, sender));
    Ok(receiver)
}

/// Says `connect` for the client.
async fn connected(mut session: Session, connect: Connect) -> Result<Session, Closing> {
    match session.take(Input::Message(ClientMessage::Connect(connect))).await {
        None => Ok(session),
        Some(closing) => {
            session.leave(Some(&closing)).await;
            Err(closing)
        }
    }
}
