//! Sessions over server-sent events (HTML, 9.2): the same messages, each with the cursor behind it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    Caller, Carriage, Common, Cursor, Place, Session, Start, Transport, machine::Input, websocket::FAREWELL,
};
use crate::{
    hub::{Closing, Item, Notice, Outbox},
    protocol::{ClientMessage, NodeMessage, message::Connect},
};

/// Chunks that may wait for the connection; the outbox waits behind them.
const CHUNKS: usize = 2;
/// Bytes of a chunk, roughly.
const CHUNK: usize = 16 * 1024;
/// Items that are taken from the outbox at a time.
const ITEMS: usize = 16;

/// Opens a session. What comes out of the channel is the body; `Err`: it was refused before it began.
pub async fn serve(
    common: Arc<Common>,
    place: Place,
    caller: Caller,
    topics: Vec<String>,
    (start, carriage): (Start, Carriage),
    tasks: &crate::shutdown::Tasks,
) -> Result<mpsc::Receiver<Bytes>, Closing> {
    let outbox = Outbox::pulled(common.outbox_bytes);
    let mut session =
        Session::begin(common, place, Transport::Sse, outbox, caller).with_positions_by(carriage);
    let (cursor, resume) = start.split(&topics);
    let (sender, body) = mpsc::channel(CHUNKS);
    // Sent before anything is asked, so that a proxy that buffers is found out at once.
    let _ = sender.try_send(Bytes::from_static(b": carillon\n\n"));
    let connect = Connect { topics, resume, ..Connect::default() };
    if let Some(closing) = session.take(Input::Message(ClientMessage::Connect(connect))).await {
        session.leave(Some(&closing)).await;
        return Err(closing);
    }
    tasks.spawn(Line { session, cursor, carriage, sender, text: Vec::new(), due: false, owes: false }.run());
    Ok(body)
}

struct Line {
    session: Session,
    cursor: Cursor,
    carriage: Carriage,
    sender: mpsc::Sender<Bytes>,
    text: Vec<u8>,
    /// There is something to take from the outbox.
    due: bool,
    /// A `resync` was owed, and the connection has not taken everything since.
    owes: bool,
}

impl Line {
    async fn run(mut self) {
        let end = loop {
            let notice = tokio::select! {
                biased;
                notice = self.session.outbox().notice() => Some(notice),
                () = self.sender.closed() => break None,
                permit = self.sender.reserve(), if !self.text.is_empty() => {
                    let Ok(permit) = permit else { break None };
                    permit.send(std::mem::take(&mut self.text).into());
                    if self.owes {
                        self.session.owe(true);
                    }
                    None
                }
                taken = self.sender.reserve_many(CHUNKS), if self.owes && self.text.is_empty() => {
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
                    self.text.extend_from_slice(b":\n\n");
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
        while self.due && self.text.len() < CHUNK {
            let items = self.session.outbox().pull(ITEMS);
            self.due = items.len() == ITEMS;
            for item in items {
                match item {
                    Item::Event(frame) => {
                        self.cursor.pass(&frame);
                        self.put("event", frame.json());
                    }
                    Item::Message(message) => {
                        self.cursor.note(&message);
                        self.put(message.name(), message.json().as_bytes());
                    }
                }
            }
        }
    }

    /// One message: its type, the JSON object on one line, and where the client then stands.
    fn put(&mut self, name: &str, json: &[u8]) {
        for piece in [
            b"event: ",
            name.as_bytes(),
            b"\ndata: ",
            json,
            b"\nid: ",
            self.cursor.text_by(self.carriage).as_bytes(),
            b"\n\n",
        ] {
            self.text.extend_from_slice(piece);
        }
    }

    async fn say_goodbye(&mut self, closing: &Closing) -> Option<()> {
        let message = NodeMessage::closing(closing.code, &*closing.reason, closing.reconnect_after_ms);
        self.session.outbox().farewell(Some(message), Bytes::new());
        self.due = true;
        loop {
            self.fill();
            if self.text.is_empty() {
                return Some(());
            }
            self.sender.send(std::mem::take(&mut self.text).into()).await.ok()?;
        }
    }
}
