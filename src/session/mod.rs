//! Sessions: what an editor's connection says and does, over whichever transport.
//!
//! [`machine`] decides (pure), `Session` does what it decided, and there is one file or folder per transport. `http` has found out who
//! connects.

mod allowance;
mod budget;
mod canary;
pub mod cursor;
pub(crate) mod decoder;
mod end;
pub mod liveness;
pub mod machine;
mod poll;
pub mod registry;
mod sse;
mod varint;
mod wakeup;
mod websocket;

use std::sync::Arc;

pub use budget::Budgets;
pub use canary::Canary;
pub use cursor::{Cursor, CursorPlace, Start, StreamRequest};
pub use liveness::{SessionLiveness, Transport};
pub use machine::{Machine, SessionPolicy};
pub use poll::{PollAnswer, serve as serve_poll};
pub use registry::{Full, Limits, SessionRegistry, SessionSlot};
pub use sse::{SseOnSocket, open_on_socket as open_sse, serve_body as serve_sse_body};
pub use websocket::{serve_plain as serve_websocket, serve_tls as serve_websocket_tls};

use liveness::TaskRequest;
use machine::{Input, Output};

use crate::{
    auth::{AuthError, Authenticator, CallbackContext, Credentials, Identity},
    hub::{Closing, Item, Notice, Outbox},
    metrics::{CodeLabel, Metrics, ReasonLabel, TransportLabel},
    protocol::{ClientMessage, Refused, RefusedCode, time::now_ms},
    relay::{Relay, Request},
};

/// How long a failed renewal waits before it is tried again, ms.
const RENEW_AGAIN: u64 = 5_000;

/// Bytes that are made ready for one write, roughly.
const BATCH: usize = 16 * 1024;
/// Items that are taken from an outbox at a time.
const ITEMS: usize = 16;

/// What all sessions of a node share.
#[derive(Debug)]
pub struct SessionContext {
    /// Says who a token belongs to.
    pub auth: Authenticator,
    /// Where they follow topics.
    pub relay: Relay,
    /// Where they are counted and looked after.
    pub registry: Arc<SessionRegistry>,
    /// Figures.
    pub metrics: Metrics,
    /// Limits and features that are the same for all.
    pub policy: Arc<SessionPolicy>,
    /// Bytes of events that may wait for one session.
    pub outbox_bytes: usize,
    /// Bytes of a client's message.
    pub message_bytes: usize,
}

/// Who came, as far as the handshake told.
#[derive(Debug, Default)]
pub struct Caller {
    /// Who it is, where the handshake proved it.
    pub identity: Option<Box<Identity>>,
    /// What proved it, where it is asked for again (`auth.mode = "callback"`).
    pub credentials: Option<Box<Credentials>>,
    /// What the CMS is told about where they came to, where it is asked about a token that comes later.
    pub callback_context: Option<Box<CallbackContext>>,
}

/// A session and what it is made of.
pub(crate) struct Session {
    context: Arc<SessionContext>,
    slot: SessionSlot,
    liveness: Arc<SessionLiveness>,
    machine: Machine,
    credentials: Option<Box<Credentials>>,
    callback_context: Option<Box<CallbackContext>>,
}

impl Session {
    pub(crate) fn begin(
        context: Arc<SessionContext>,
        mut slot: SessionSlot,
        transport: Transport,
        outbox: Arc<Outbox>,
        caller: Caller,
    ) -> Self {
        let liveness = slot.begin(transport, outbox);
        let machine = Machine::new(Arc::clone(&context.policy), transport, caller.identity);
        Self {
            context,
            slot,
            liveness,
            machine,
            credentials: caller.credentials,
            callback_context: caller.callback_context,
        }
    }

    /// Its client brings its cursor back there.
    pub(crate) fn with_cursor_in(mut self, place: CursorPlace) -> Self {
        self.machine = self.machine.with_cursor_in(place);
        self
    }

    /// It goes on with an earlier one, by its name.
    pub(crate) fn going_on(mut self, name: Option<Box<str>>) -> Self {
        self.machine = self.machine.going_on(name);
        self
    }

    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        self.liveness.outbox()
    }

    /// Makes ready what waits in an outbox that is pulled, up to roughly [`BATCH`] bytes in `out`. `due`: there is something to take.
    fn fill(&self, due: &mut bool, out: &mut Vec<u8>, mut put: impl FnMut(Item, &mut Vec<u8>)) {
        while *due && out.len() < BATCH {
            let items = self.outbox().pull(ITEMS);
            *due = items.len() == ITEMS;
            for item in items {
                put(item, out);
            }
        }
    }

    pub(crate) fn heard(&self) {
        self.slot.heard();
    }

    /// Notes whether an owed `resync` left the outbox and waits in the connection's buffer.
    pub(crate) fn owe(&self, waits: bool) {
        self.slot.owe(waits);
    }

    /// Whether a sign of life is due.
    pub(crate) fn beat_is_due(&self) -> bool {
        self.liveness.take(TaskRequest::Beat)
    }

    /// Does what an input leads to. `Some`: the session ends so.
    pub(crate) async fn take(&mut self, input: Input) -> Option<Closing> {
        let mut topics = Vec::new();
        if let Input::Message(ClientMessage::Connect(connect)) = &input {
            self.liveness.introduced();
            if self.callback_context.is_some() && connect.token.is_some() {
                topics.clone_from(&connect.topics);
            }
        }
        let mut outputs = self.machine.take(input, now_ms());
        while !outputs.is_empty() {
            let mut answer = None;
            for output in outputs {
                match output {
                    Output::End(closing) => return Some(closing),
                    Output::Check(token) => {
                        answer = Some(Input::Checked(self.check(token, std::mem::take(&mut topics)).await));
                    }
                    Output::Admit { user } => answer = Some(Input::Admitted(self.slot.admit(&user))),
                    output => self.perform(output).await,
                }
            }
            outputs = answer.map_or_else(Vec::new, |answer| self.machine.take(answer, now_ms()));
        }
        None
    }

    /// Whose token this is. `topics`: what `connect` asks for.
    async fn check(&mut self, token: String, topics: Vec<String>) -> Result<Box<Identity>, String> {
        if !self.slot.renew() {
            return Err("too many tokens and sessions of this user (limits.editor_requests_per_second): try again in a moment".into());
        }
        // In mode `callback`, the cookies of the handshake do not vouch for a token that came after them.
        let callback_context = self.callback_context.as_deref().cloned().unwrap_or_default();
        let mut credentials = Credentials::default()
            .with_token(token)
            .with_callback_context(CallbackContext { topics, ..callback_context });
        match self.context.auth.renew(&credentials).await {
            Ok(identity) => {
                // What is followed changes by and by: renewals name no topics.
                credentials.callback_context.topics.clear();
                self.credentials = self.context.auth.can_renew().then(|| Box::new(credentials));
                Ok(Box::new(identity))
            }
            Err(refusal) => {
                self.context.metrics.refused.get_or_create(&ReasonLabel { reason: "unauthenticated" }).inc();
                Err(refusal.to_string())
            }
        }
    }

    async fn perform(&mut self, output: Output) {
        let (relay, outbox) = (&self.context.relay, self.liveness.outbox());
        match output {
            Output::Say(message) => outbox.message(message),
            Output::Until(until) => self.liveness.hold(until, now_ms(), self.credentials.is_some()),
            Output::Connect(welcome, proof, mut request) => {
                self.ration(&mut request);
                self.liveness.prove(Arc::clone(&proof));
                self.liveness.open();
                self.slot.heard();
                let transport = self.liveness.transport().name();
                self.context.metrics.welcomed.get_or_create(&TransportLabel { transport }).inc();
                tracing::debug!(
                    session = welcome.session,
                    user = welcome.user,
                    transport,
                    "a session is open"
                );
                self.count_refused(&request);
                outbox.ask();
                relay.connect(outbox, welcome, proof, request).await;
            }
            Output::Renew(proof) => {
                self.liveness.prove(Arc::clone(&proof));
                relay.renew(outbox, proof).await;
            }
            Output::Subscribe(mut request) => {
                self.ration(&mut request);
                self.count_refused(&request);
                outbox.ask();
                relay.subscribe(outbox, request).await;
            }
            Output::Unsubscribe(subjects) => relay.unsubscribe(outbox, subjects).await,
            Output::Ping => relay.ping(outbox).await,
            // Answered by `take`.
            Output::Check(_) | Output::Admit { .. } | Output::End(_) => {}
        }
    }

    /// Takes out of a request what its editor may not follow any more now.
    fn ration(&self, request: &mut Request) {
        let over = self.slot.ration(&mut request.subjects);
        let refused = over
            .into_iter()
            .map(|subject| Refused { topic: subject.to_string(), code: RefusedCode::TooMany });
        request.refused.extend(refused);
    }

    /// Whether so many frames that carry no message are still few enough; before `connect` too.
    pub(crate) fn affords(&mut self, frames: u32) -> bool {
        frames == 0 || self.machine.affords(frames, now_ms())
    }

    fn count_refused(&self, request: &Request) {
        for refused in &request.refused {
            self.context.metrics.refused.get_or_create(&ReasonLabel { reason: refused.code.name() }).inc();
        }
    }

    /// Does what the outbox says. `Some(Ok)`: the session ends so. `Some(Err)`: it has ended.
    pub(crate) async fn notice(&mut self, notice: Notice) -> Option<Result<Closing, ()>> {
        match notice {
            Notice::Closing(closing) => Some(Ok(closing)),
            Notice::Broken => Some(Err(())),
            Notice::Drained => {
                self.context.relay.drained(self.liveness.outbox()).await;
                None
            }
            Notice::Work if self.liveness.take(TaskRequest::Renew) => self.renew().await.map(Ok),
            Notice::Work => None,
        }
    }

    /// Asks for the identity again. A refusal ends the session; no answer is tried again while the identity lasts.
    async fn renew(&mut self) -> Option<Closing> {
        let credentials = self.credentials.as_deref()?;
        match self.context.auth.renew(credentials).await {
            Ok(identity) => self.take(Input::Renewed(Ok(Box::new(identity)))).await,
            Err(AuthError::Away(_)) => {
                self.liveness.warn_again(now_ms() + RENEW_AGAIN);
                None
            }
            Err(refusal) => self.take(Input::Renewed(Err(refusal.to_string()))).await,
        }
    }

    /// [`Session::leave`] for a session whose outbox has the socket. The relay may hold the outbox a moment longer, so the socket is shut
    /// down first.
    pub(crate) async fn hang_up(self, closing: Option<&Closing>) {
        if let Some(socket) = self.outbox().socket() {
            socket.shutdown(std::net::Shutdown::Both);
        }
        self.leave(closing).await;
    }

    /// The session is over: nothing more is delivered, and its slot is given back.
    pub(crate) async fn leave(self, closing: Option<&Closing>) {
        if let Some(closing) = closing {
            self.context.metrics.closed.get_or_create(&CodeLabel { code: closing.code.number() }).inc();
            tracing::debug!(
                user = self.liveness.user(),
                code = closing.code.number(),
                closing.reason,
                "session closed"
            );
        }
        self.context.relay.leave(self.liveness.outbox()).await;
    }
}
