//! The session registry: every session of the node, and the one sweep that looks after all of them.
//!
//! No session has a timer of its own: once a second each is looked at, and what is due (a Ping, a warning that the
//! token ends, a close) is done. The registry also counts sessions, for the limits.

use std::{
    collections::HashMap,
    hash::RandomState,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

use super::{
    allowance::TokenBucket,
    budget::{Budgets, EditorUsage},
    liveness::{SessionLiveness, Transport},
};
use crate::{
    hub::{Closing, Outbox},
    metrics::{Metrics, TransportLabel},
    mutant,
    protocol::{CloseCode, Revocations, Subject, revocation::LEEWAY, time::now_ms},
};

/// A second of sweeping is cut into so many pieces, so that the work is spread.
const PIECES: usize = 10;
/// A sweep that is this late means that the whole node stood still.
const STOOD_STILL: Duration = Duration::from_secs(2);
/// For so many pieces of a second after that, no session is closed as silent or slow: what it sent meanwhile is not read yet.
const CATCHING_UP: usize = 3 * PIECES;
/// A session that begins during a drain is told to reconnect after at most this time, ms.
const LATECOMER: u64 = 1_000;
/// A session that a drain closes is told to reconnect after at most this time, so that everybody is back soon after the
/// window.
const RETURN: Duration = Duration::from_secs(2);

/// Tokens say in whole seconds when they were issued. Sessions are asked for a new one so long after a revocation, so that
/// it is visibly newer.
const NEXT_SECOND: Duration = Duration::from_millis(1_050);

/// How many sessions there may be; 0: any number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// On this node.
    pub sessions: usize,
    /// From one address on this node.
    pub per_address: usize,
    /// New ones per second of those who have proven who they are.
    pub per_second: u32,
    /// Handshakes per second of those who have not, and refusals.
    pub strangers_per_second: u32,
    /// What one editor may use.
    pub editor: Budgets,
    /// Whether budgets count addresses instead of editors (`auth.mode = "none"`: nobody has a name).
    pub by_address: bool,
}

/// Why there is no room for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `limits.sessions`.
    Node,
    /// `limits.sessions_per_address`.
    Address,
    /// `limits.accepts_per_second`.
    Rate,
    /// `limits.strangers_per_second`.
    Strangers,
    /// The node is draining.
    Draining,
}

/// Every session of the node.
#[derive(Debug)]
pub struct SessionRegistry {
    inner: Mutex<Inner>,
    limits: Limits,
    heartbeat: Duration,
    started: Instant,
    emptied: Notify,
    metrics: Metrics,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Inner {
    slots: Slab<Option<Arc<SessionLiveness>>>,
    editors: HashMap<Box<str>, EditorUsage>,
    addresses: HashMap<IpAddr, usize>,
    rate: TokenBucket,
    strangers: TokenBucket,
    draining: bool,
}

impl SessionRegistry {
    /// An empty registry.
    pub fn new(limits: Limits, heartbeat: Duration, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            limits,
            heartbeat,
            started: Instant::now(),
            emptied: Notify::new(),
            metrics,
            hasher: RandomState::new(),
        })
    }

    /// Takes a slot for a session that is about to begin. Fails where a limit is reached.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<SessionSlot, Full> {
        let mut inner = self.lock();
        if inner.draining {
            return Err(Full::Draining);
        }
        if self.limits.sessions > 0 && inner.slots.len() >= self.limits.sessions {
            return Err(Full::Node);
        }
        let count = inner.addresses.get(&address).copied().unwrap_or_default();
        if self.limits.per_address > 0 && count >= self.limits.per_address {
            return Err(Full::Address);
        }
        *inner.addresses.entry(address).or_default() += 1;
        let key = inner.slots.insert(None) as u32;
        Ok(SessionSlot { registry: Arc::downgrade(self), key, address, liveness: None })
    }

    /// Counts a new session against the rate: of those who have proven who they are, or of strangers, whose rate is separate.
    pub fn count(&self, known: bool) -> Result<(), Full> {
        let clock = u64::from(self.clock());
        let mut inner = self.lock();
        let (rate, per_second, full) = if known {
            (&mut inner.rate, self.limits.per_second, Full::Rate)
        } else {
            (&mut inner.strangers, self.limits.strangers_per_second, Full::Strangers)
        };
        if rate.take(1, per_second, clock) { Ok(()) } else { Err(full) }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many editors have a session.
    pub fn editors(&self) -> usize {
        self.lock().editors.values().filter(|editor| editor.sessions > 0).count()
    }

    /// Refuses new sessions from now on.
    pub fn shut(&self) {
        self.lock().draining = true;
    }

    /// Closes all sessions one after another, spread over `window`.
    pub async fn drain(&self, window: Duration) {
        self.shut();
        let mut sessions: Vec<_> =
            self.lock().slots.iter().filter_map(|(_, liveness)| liveness.clone()).collect();
        let step = window / u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
        let begun = Instant::now();
        let mut done = 0;
        while let Some(liveness) = sessions.pop() {
            // Closing is spread over the window already, so the wait is short: nobody should be away for twice the window.
            let late = rand::random_range(0..=window.min(RETURN).as_millis() as u64);
            let closing =
                Closing { code: CloseCode::Drain, reason: "drain".into(), reconnect_after_ms: Some(late) };
            liveness.outbox().close(closing);
            done += 1;
            let due = step * done;
            if !sessions.is_empty() && due > begun.elapsed() + Duration::from_millis(5) {
                tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
            }
        }
    }

    /// Comes back when there is no session.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Looks after all sessions until it is dropped.
    pub async fn sweep(self: Arc<Self>, revocations: Revocations) {
        let (mut seen, mut looks) = (revocations.latest(), Vec::new());
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / PIECES as u32);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last, mut catching_up) = (Instant::now(), 0_usize);
        for piece in (0..PIECES).cycle() {
            ticks.tick().await;
            let late = std::mem::replace(&mut last, Instant::now()).elapsed() > STOOD_STILL;
            catching_up = if late { CATCHING_UP } else { catching_up.saturating_sub(1) };
            let (clock, now) = (self.clock(), now_ms());
            if piece == 0 {
                self.lock().editors.retain(|_, editor| !editor.is_forgotten(now));
            }
            for (liveness, due) in self.due(piece, clock, now) {
                if catching_up == 0 || !due.is_silence() || mutant::is("stood-still") {
                    liveness.act(due, clock, now);
                }
            }
            let latest = revocations.latest();
            if latest != seen {
                seen = latest;
                let begin = Instant::now() + NEXT_SECOND;
                looks.extend([begin, begin + Duration::from_secs(LEEWAY)]);
            }
            let awaited = looks.len();
            looks.retain(|look| *look > Instant::now());
            if looks.len() < awaited {
                self.refresh(&revocations, now);
            }
        }
    }

    /// Tells sessions whose editor's rights have changed to bring a new token: at once, and again after [`LEEWAY`], because an older
    /// token could look new within that time (clocks differ).
    fn refresh(&self, revocations: &Revocations, now: u64) {
        let sessions: Vec<_> =
            self.lock().slots.iter().filter_map(|(_, liveness)| liveness.clone()).collect();
        for liveness in sessions {
            if liveness.proof().is_some_and(|proof| revocations.must_renew(&proof)) {
                liveness.refresh(now);
            }
        }
    }

    fn due(&self, piece: usize, clock: u32, now: u64) -> Vec<(Arc<SessionLiveness>, super::liveness::Due)> {
        let inner = self.lock();
        let slots = inner.slots.iter().filter(|(key, _)| key % PIECES == piece);
        let sessions = slots.filter_map(|(_, liveness)| liveness.as_ref());
        sessions
            .filter_map(|liveness| Some((Arc::clone(liveness), liveness.due(clock, now, self.heartbeat)?)))
            .collect()
    }

    /// Milliseconds since the registry was made: a clock that no change of the time of day disturbs. Wraps after 49 days.
    pub(super) fn clock(&self) -> u32 {
        self.started.elapsed().as_millis() as u32
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete before anything can fail.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of one session in the registry; given back when dropped.
#[derive(Debug)]
pub struct SessionSlot {
    registry: Weak<SessionRegistry>,
    key: u32,
    address: IpAddr,
    liveness: Option<Arc<SessionLiveness>>,
}

impl SessionSlot {
    /// The session begins.
    pub(super) fn begin(&mut self, transport: Transport, outbox: Arc<Outbox>) -> Arc<SessionLiveness> {
        let registry = self.registry.upgrade();
        let liveness = Arc::new(SessionLiveness::new(
            transport,
            outbox,
            registry.as_ref().map_or(0, |registry| registry.clock()),
        ));
        if let Some(registry) = registry {
            registry.metrics.sessions.get_or_create(&TransportLabel { transport: transport.name() }).inc();
            let mut inner = registry.lock();
            inner.slots[self.key as usize] = Some(Arc::clone(&liveness));
            if inner.draining {
                // It took its slot just before the drain began: the drain may not have seen it.
                let late = Some(rand::random_range(0..=LATECOMER));
                let reason = "drain".into();
                liveness.outbox().close(Closing { code: CloseCode::Drain, reason, reconnect_after_ms: late });
            }
        }
        self.liveness = Some(Arc::clone(&liveness));
        liveness
    }

    /// Counts the session for its editor; `false`: they have too many, or begin too many.
    pub(super) fn admit(&self, user: &str) -> bool {
        let (Some(registry), Some(liveness)) = (self.registry.upgrade(), &self.liveness) else {
            return false;
        };
        let mut inner = registry.lock();
        let editor = inner.editors.entry(self.editor(&registry, user)).or_default();
        let most = registry.limits.editor.sessions;
        let enough = most > 0 && editor.sessions >= most;
        if !editor.request(&registry.limits.editor, now_ms()) || enough {
            return false;
        }
        if liveness.name(user) {
            editor.sessions += 1;
        }
        true
    }

    /// Counts a renewal; `false`: their editor asks too often.
    pub(super) fn renew(&self) -> bool {
        self.with_editor(|editor, registry| editor.request(&registry.limits.editor, now_ms())).unwrap_or(true)
    }

    /// Counts topics against the editor's budget. Takes out, and returns, those that are over it.
    pub(super) fn ration(&self, subjects: &mut Vec<Subject>) -> Vec<Subject> {
        let now = now_ms();
        let mut over = Vec::new();
        self.with_editor(|editor, registry| {
            let (fine, refused) = std::mem::take(subjects)
                .into_iter()
                .partition(|subject| editor.follow(&registry.limits.editor, &registry.hasher, subject, now));
            (*subjects, over) = (fine, refused);
        });
        over
    }

    fn with_editor<T>(&self, act: impl FnOnce(&mut EditorUsage, &SessionRegistry) -> T) -> Option<T> {
        let (registry, user) = (self.registry.upgrade()?, self.liveness.as_ref()?.user()?);
        let mut inner = registry.lock();
        let editor = inner.editors.get_mut(&self.editor(&registry, user))?;
        Some(act(editor, &registry))
    }

    /// Whose budgets the session uses.
    fn editor(&self, registry: &SessionRegistry, user: &str) -> Box<str> {
        if registry.limits.by_address { self.address.to_string().into() } else { user.into() }
    }

    /// See [`SessionLiveness::owe`].
    pub(super) fn owe(&self, waits: bool) {
        if let (Some(registry), Some(liveness)) = (self.registry.upgrade(), &self.liveness) {
            liveness.owe(waits.then(|| registry.clock()));
        }
    }

    /// Something was heard of the session.
    pub(super) fn heard(&self) {
        if let (Some(registry), Some(liveness)) = (self.registry.upgrade(), &self.liveness) {
            liveness.heard(registry.clock());
        }
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        let Some(registry) = self.registry.upgrade() else { return };
        let mut inner = registry.lock();
        inner.slots.remove(self.key as usize);
        if inner.slots.is_empty() {
            registry.emptied.notify_waiters();
        }
        leave(&mut inner.addresses, &self.address);
        let Some(liveness) = &self.liveness else { return };
        if let Some(user) = liveness.user()
            && let Some(editor) = inner.editors.get_mut(&self.editor(&registry, user))
        {
            editor.sessions = editor.sessions.saturating_sub(1);
        }
        registry
            .metrics
            .sessions
            .get_or_create(&TransportLabel { transport: liveness.transport().name() })
            .dec();
    }
}

fn leave<K, Q>(counts: &mut HashMap<K, usize>, key: &Q)
where
    K: std::borrow::Borrow<Q> + std::hash::Hash + Eq,
    Q: std::hash::Hash + Eq + ?Sized,
{
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
