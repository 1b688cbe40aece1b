//! Sessions over server-sent events: how they are opened, and the body for connections whose socket cannot be had (TLS,
//! HTTP/2, HTTP/1.0), where hyper takes chunks out of a channel. For all others see `event_socket`.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    Caller, Carriage, Session, SessionContext, SessionSlot, Start, Transport, event_socket,
    event_text::{BEAT, Chunks, GREETING, Text, with_greeting},
    machine::Input,
    websocket::FAREWELL,
};
use crate::{
    hub::{Closing, Item, Notice, Outbox, Socket},
    protocol::{ClientMessage, message::Connect},
    shutdown::Tasks,
};

/// Chunks that may wait for the connection; the outbox waits behind them.
const CHUNKS: usize = 2;
/// Bytes of a chunk, roughly.
const CHUNK: usize = 16 * 1024;
/// Items that are taken from the outbox at a time.
const ITEMS: usize = 16;

/// A session that is open, for a connection whose socket will be had.
pub struct OnSocket(Session);

impl OnSocket {
    /// Serves it until it ends. `head`: of the answer, which announces chunks and the end of the connection.
    pub async fn serve(self, socket: Socket, head: Vec<u8>) {
        // A stream has no Pong: that its client reads is seen by what the socket takes.
        socket.hold_nothing();
        self.0.outbox().attach(socket, with_greeting(head).into());
        event_socket::serve(self.0).await;
    }

    /// The socket did not come.
    pub async fn give_up(self) {
        self.0.leave(None).await;
    }
}

/// Opens a session whose socket will be had. `Err`: it was refused before it began.
pub async fn open_on_socket(
    context: Arc<SessionContext>,
    slot: SessionSlot,
    caller: Caller,
    topics: Vec<String>,
    (start, carriage): (Start, Carriage),
) -> Result<OnSocket, Closing> {
    let (cursor, resume) = start.split(&topics);
    let framing = Box::new(Chunks(Text { cursor, carriage }));
    let outbox = Outbox::promised(framing, context.outbox_bytes);
    let session = Session::begin(context, slot, Transport::Sse, outbox, caller).with_positions_by(carriage);
    let connect = Connect { topics, resume, ..Connect::default() };
    connected(session, connect).await.map(OnSocket)
}

/// Opens a session. What comes out of the channel is the body; `Err`: it was refused before it began.
pub async fn serve(
    context: Arc<SessionContext>,
    slot: SessionSlot,
    caller: Caller,
    topics: Vec<String>,
    (start, carriage): (Start, Carriage),
    tasks: &Tasks,
) -> Result<mpsc::Receiver<Bytes>, Closing> {
    let outbox = Outbox::pulled(context.outbox_bytes);
    let session = Session::begin(context, slot, Transport::Sse, outbox, caller).with_positions_by(carriage);
    let (cursor, resume) = start.split(&topics);
    let (sender, body) = mpsc::channel(CHUNKS);
    // Sent before anything is asked.
    let _ = sender.try_send(Bytes::from_static(GREETING));
    let session = connected(session, Connect { topics, resume, ..Connect::default() }).await?;
    let text = Text { cursor, carriage };
    tasks.spawn(EventsTask { session, text, sender, out: Vec::new(), due: false, owes: false }.run());
    Ok(body)
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

struct EventsTask {
    session: Session,
    text: Text,
    sender: mpsc::Sender<Bytes>,
    out: Vec<u8>,
    /// There is something to take from the outbox.
    due: bool,
    /// A `resync` was owed, and the connection has not taken everything since.
    owes: bool,
}

impl EventsTask {
    async fn run(mut self) {
        let end = loop {
            let notice = tokio::select! {
                biased;
                notice = self.session.outbox().notice() => Some(notice),
                () = self.sender.closed() => break None,
                permit = self.sender.reserve(), if !self.out.is_empty() => {
                    let Ok(permit) = permit else { break None };
                    permit.send(std::mem::take(&mut self.out).into());
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
        while self.due && self.out.len() < CHUNK {
            let items = self.session.outbox().pull(ITEMS);
            self.due = items.len() == ITEMS;
            for item in items {
                match item {
                    Item::Event(frame) => self.text.event(&frame, &mut self.out),
                    Item::Message(message) => self.text.message(&message, &mut self.out),
                }
            }
        }
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
