//! What one server sends on a connection with subscriptions: messages for who takes them, answers for who waits for them.

use std::{
    collections::VecDeque,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::BytesMut;
use fred::{prelude::Error, types::Value};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::oneshot,
};

use super::{
    ending::Ending,
    fault::describe,
    incoming::{self, Incoming, Message},
    reply,
};

/// Bytes that are read at once where so many have come.
const READ: usize = 32 << 10;

/// Bytes of a message that has not come whole. One that is longer was published past the functions: rather than to take in all that
/// Redis lets pass (512 MB), a node gives the link up.
const LONGEST: usize = 64 << 20;

/// What waits for an answer.
#[derive(Debug)]
pub(super) enum Expected {
    /// The next one.
    Answer(oneshot::Sender<Result<Value, Error>>),
    /// That of the ping behind a change of so many commands; refusals of the change come before it.
    Confirmation {
        nonce: String,
        commands: usize,
        refusals: Vec<Error>,
        count: Option<usize>,
        done: oneshot::Sender<Confirmed>,
    },
}

/// What Redis says to a change: how many sharded channels there are then, where it is one of those; or a refusal.
pub(super) type Confirmed = Result<Option<usize>, Error>;

/// What waits for an answer, in the order in which the commands have left.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<Mutex<VecDeque<Expected>>>);

impl Pending {
    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sharded channel was subscribed to.
    fn count(&self, now: usize) {
        if let Some(Expected::Confirmation { count, .. }) = self.lock().front_mut() {
            *count = Some(now);
        }
    }

    /// Gives an answer to who waits for it. Whoever has gone does not matter.
    fn answer(&self, answer: Result<Value, Error>, ending: &Ending) {
        let mut pending = self.lock();
        if ending.token().is_cancelled() {
            // Nobody can tell any more what this belongs to.
            return pending.clear();
        }
        match (pending.pop_front(), answer) {
            (Some(Expected::Answer(done)), answer) => drop(done.send(answer)),
            (Some(Expected::Confirmation { nonce, commands, mut refusals, count, done }), answer) => {
                let over = match answer {
                    Ok(text) => match reply::text(text) {
                        text if text == nonce => true,
                        // Of ASKING.
                        text if text == "OK" => false,
                        _ => return ending.fail("the answers on the link are out of step"),
                    },
                    // To the ping: a Redis that cannot save refuses it, and none of the commands before it (`processCommand`).
                    Err(error) if error.details().starts_with("MISCONF") => true,
                    // It refuses the ping as well, or that alone, and nobody can tell what became of the change.
                    Err(error) if refusals.len() >= commands || refuses_all(&error) => {
                        return ending.fail(describe(&error));
                    }
                    Err(error) => {
                        refusals.push(error);
                        false
                    }
                };
                if over {
                    drop(done.send(refusals.into_iter().next().map_or(Ok(count), Err)));
                } else {
                    pending.push_front(Expected::Confirmation { nonce, commands, refusals, count, done });
                }
            }
            // Redis says why it hangs up (`max number of clients reached`), to nobody's question.
            (None, Err(error)) => ending.fail(describe(&error)),
            (None, Ok(_)) => {}
        }
    }
}

/// Whether Redis answers so to whatever it is asked at the moment.
fn refuses_all(error: &Error) -> bool {
    let text = error.details();
    ["LOADING", "BUSY", "MASTERDOWN"].contains(&text.split(' ').next().unwrap_or_default())
        || text.starts_with("NOPERM") && text.contains("'ping'")
}

/// What one server sends.
pub(super) struct PushStream {
    wire: Box<dyn AsyncRead + Send + Unpin>,
    bytes: BytesMut,
    pending: Pending,
    ending: Arc<Ending>,
}

impl PushStream {
    /// What comes from here; `pending` waits for the answers, and `ending` is told when it has ended.
    pub(super) fn new(
        wire: impl AsyncRead + Send + Unpin + 'static,
        pending: Pending,
        ending: Arc<Ending>,
    ) -> Self {
        Self { wire: Box::new(wire), bytes: BytesMut::new(), pending, ending }
    }

    /// The next message; `None` once the connection has ended.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            if let Some(message) = self.buffered() {
                return Poll::Ready(Some(message));
            }
            if self.ending.token().is_cancelled() {
                return Poll::Ready(None);
            }
            if self.bytes.len() > LONGEST {
                self.ending.fail("a message of more than 64 MiB was published");
                return Poll::Ready(None);
            }
            if self.bytes.capacity() - self.bytes.len() < READ / 4 {
                self.bytes.reserve(READ);
            }
            let read = std::task::ready!(pin!(self.wire.read_buf(&mut self.bytes)).poll(cx));
            match read {
                Ok(count) if count > 0 => {}
                // Over TLS an end without a farewell is an error.
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    self.ending.fail(describe(&error.into()));
                }
                Ok(_) | Err(_) => self.ending.fail("the connection was closed"),
            }
        }
    }

    /// The next message that has come whole already. Answers before it are given to who waits for them.
    pub(super) fn buffered(&mut self) -> Option<Message> {
        loop {
            match incoming::decode(&mut self.bytes) {
                Ok(Some(Incoming::Message(message))) => return Some(message),
                Ok(Some(Incoming::Answer(answer))) => self.pending.answer(answer, &self.ending),
                Ok(Some(Incoming::ShardSubscribed(count))) => self.pending.count(count),
                Ok(Some(Incoming::Other)) => {}
                Ok(None) => return None,
                Err(error) => {
                    self.bytes.clear();
                    self.ending.fail(describe(&error));
                }
            }
        }
    }

    /// Takes in answers until the connection ends. What is pushed meanwhile is dropped.
    pub(super) async fn ended(&mut self) {
        while std::future::poll_fn(|cx| self.poll_next(cx)).await.is_some() {}
    }
}
