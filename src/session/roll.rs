//! The roll: every session of the node, and the one sweep that looks after all of them.
//!
//! No session has a timer of its own: once a second each is looked at, and what is due (a Ping, a warning that the
//! token ends, a close) is done. The roll also counts, for the limits. Must not know what sessions follow.

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
    allowance::Bucket,
    budget::{Budgets, Editor},
    pulse::{Pulse, Transport},
};
use crate::{
    hub::{Closing, Outbox},
    metrics::{Metrics, TransportLabel},
    protocol::{CloseCode, Revocations, Subject, revocation::LEEWAY, time::now_ms},
};

/// A second of sweeping is cut into so many pieces, so that the work is spread.
const PIECES: usize = 10;
/// The sweep comes by so much late only where the whole node stood still.
const STOOD_STILL: Duration = Duration::from_secs(2);
/// For how many pieces of a second nobody is called silent or slow after that: what they said lies unread.
const CATCHING_UP: usize = 3 * PIECES;
/// When a session that begins during a drain comes back at the latest, ms.
const LATECOMER: u64 = 1_000;
/// How long a session that a drain closes waits at most before it comes back: it is away for little longer than this,
/// and everybody is back soon after the window.
const RETURN: Duration = Duration::from_secs(2);

/// Tokens say in whole seconds when they were issued: one that is asked for now must show that it is later than the
/// order.
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
    /// Whether the address takes the editor's place (`auth.mode = "none"`).
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
pub struct Roll {
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
    places: Slab<Option<Arc<Pulse>>>,
    editors: HashMap<Box<str>, Editor>,
    addresses: HashMap<IpAddr, usize>,
    rate: Bucket,
    strangers: Bucket,
    draining: bool,
}

impl Roll {
    /// An empty roll.
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

    /// Takes a place for a session that is about to begin.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let mut inner = self.lock();
        if inner.draining {
            return Err(Full::Draining);
        }
        if self.limits.sessions > 0 && inner.places.len() >= self.limits.sessions {
            return Err(Full::Node);
        }
        let count = inner.addresses.get(&address).copied().unwrap_or_default();
        if self.limits.per_address > 0 && count >= self.limits.per_address {
            return Err(Full::Address);
        }
        *inner.addresses.entry(address).or_default() += 1;
        let key = inner.places.insert(None);
        Ok(Place { roll: Arc::downgrade(self), key, address, pulse: None })
    }

    /// Counts somebody new against the rate: of those who are known, or of strangers, who cannot use up the others'.
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
        self.lock().places.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many editors have a session.
    pub fn editors(&self) -> usize {
        self.lock().editors.values().filter(|editor| editor.sessions > 0).count()
    }

    /// Lets nobody in any more.
    pub fn shut(&self) {
        self.lock().draining = true;
    }

    /// Closes all sessions one after another, spread over `window`.
    pub async fn drain(&self, window: Duration) {
        self.shut();
        let mut pulses: Vec<_> = self.lock().places.iter().filter_map(|(_, pulse)| pulse.clone()).collect();
        let step = window / u32::try_from(pulses.len()).unwrap_or(u32::MAX).max(1);
        let begun = Instant::now();
        let mut done = 0;
        while let Some(pulse) = pulses.pop() {
            // The window spreads them already: a wait as long as that would have some away for twice the window.
            let late = rand::random_range(0..=window.min(RETURN).as_millis() as u64);
            let closing =
                Closing { code: CloseCode::Drain, reason: "drain".into(), reconnect_after_ms: Some(late) };
            pulse.outbox().close(closing);
            done += 1;
            let due = step * done;
            if !pulses.is_empty() && due > begun.elapsed() + Duration::from_millis(5) {
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
            for (pulse, due) in self.due(piece, clock, now) {
                if catching_up == 0 || !due.is_silence() {
                    pulse.act(due, clock, now);
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

    /// Tells those whose rights have changed: at once, and when the half minute is over in which clocks that are not
    /// quite right could have made an older token look new.
    fn refresh(&self, revocations: &Revocations, now: u64) {
        let pulses: Vec<_> = self.lock().places.iter().filter_map(|(_, pulse)| pulse.clone()).collect();
        for pulse in pulses {
            if pulse.proof().is_some_and(|proof| revocations.must_renew(&proof)) {
                pulse.refresh(now);
            }
        }
    }

    fn due(&self, piece: usize, clock: u32, now: u64) -> Vec<(Arc<Pulse>, super::pulse::Due)> {
        let inner = self.lock();
        let places = inner.places.iter().filter(|(key, _)| key % PIECES == piece);
        let pulses = places.filter_map(|(_, pulse)| pulse.as_ref());
        pulses.filter_map(|pulse| Some((Arc::clone(pulse), pulse.due(clock, now, self.heartbeat)?))).collect()
    }

    /// Milliseconds on the roll's clock, which no change of the time of day disturbs; it wraps after 49 days.
    pub(super) fn clock(&self) -> u32 {
        self.started.elapsed().as_millis() as u32
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete before anything can fail.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place on the roll; given back when dropped.
#[derive(Debug)]
pub struct Place {
    roll: Weak<Roll>,
    key: usize,
    address: IpAddr,
    pulse: Option<Arc<Pulse>>,
}

impl Place {
    /// The session begins.
    pub(super) fn begin(&mut self, transport: Transport, outbox: Arc<Outbox>) -> Arc<Pulse> {
        let roll = self.roll.upgrade();
        let pulse = Arc::new(Pulse::new(transport, outbox, roll.as_ref().map_or(0, |roll| roll.clock())));
        if let Some(roll) = roll {
            roll.metrics.sessions.get_or_create(&TransportLabel { transport: transport.name() }).inc();
            let mut inner = roll.lock();
            inner.places[self.key] = Some(Arc::clone(&pulse));
            if inner.draining {
                // It came through the door just before that was shut, and the drain may have passed its place.
                let late = Some(rand::random_range(0..=LATECOMER));
                let reason = "drain".into();
                pulse.outbox().close(Closing { code: CloseCode::Drain, reason, reconnect_after_ms: late });
            }
        }
        self.pulse = Some(Arc::clone(&pulse));
        pulse
    }

    /// Counts the session for its editor; `false`: they have too many, or begin too many.
    pub(super) fn admit(&self, user: &str) -> bool {
        let (Some(roll), Some(pulse)) = (self.roll.upgrade(), &self.pulse) else { return false };
        let mut inner = roll.lock();
        let editor = inner.editors.entry(self.editor(&roll, user)).or_default();
        let most = roll.limits.editor.sessions;
        let enough = most > 0 && editor.sessions >= most;
        if !editor.request(&roll.limits.editor, now_ms()) || enough {
            return false;
        }
        if pulse.name(user) {
            editor.sessions += 1;
        }
        true
    }

    /// Counts a renewal; `false`: their editor asks too often.
    pub(super) fn renew(&self) -> bool {
        self.with_editor(|editor, roll| editor.request(&roll.limits.editor, now_ms())).unwrap_or(true)
    }

    /// Counts topics that are followed; the result has those that their editor may not follow any more now.
    pub(super) fn ration(&self, subjects: &mut Vec<Subject>) -> Vec<Subject> {
        let now = now_ms();
        let mut over = Vec::new();
        self.with_editor(|editor, roll| {
            let (fine, refused) = std::mem::take(subjects)
                .into_iter()
                .partition(|subject| editor.follow(&roll.limits.editor, &roll.hasher, subject, now));
            (*subjects, over) = (fine, refused);
        });
        over
    }

    fn with_editor<T>(&self, act: impl FnOnce(&mut Editor, &Roll) -> T) -> Option<T> {
        let (roll, user) = (self.roll.upgrade()?, self.pulse.as_ref()?.user()?);
        let mut inner = roll.lock();
        let editor = inner.editors.get_mut(&self.editor(&roll, user))?;
        Some(act(editor, &roll))
    }

    /// Whose budgets the session uses.
    fn editor(&self, roll: &Roll, user: &str) -> Box<str> {
        if roll.limits.by_address { self.address.to_string().into() } else { user.into() }
    }

    /// See [`Pulse::owe`].
    pub(super) fn owe(&self, waits: bool) {
        if let (Some(roll), Some(pulse)) = (self.roll.upgrade(), &self.pulse) {
            pulse.owe(waits.then(|| roll.clock()));
        }
    }

    /// Something was heard of the session.
    pub(super) fn heard(&self) {
        if let (Some(roll), Some(pulse)) = (self.roll.upgrade(), &self.pulse) {
            pulse.heard(roll.clock());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(roll) = self.roll.upgrade() else { return };
        let mut inner = roll.lock();
        inner.places.remove(self.key);
        if inner.places.is_empty() {
            roll.emptied.notify_waiters();
        }
        leave(&mut inner.addresses, &self.address);
        let Some(pulse) = &self.pulse else { return };
        if let Some(user) = pulse.user()
            && let Some(editor) = inner.editors.get_mut(&self.editor(&roll, user))
        {
            editor.sessions = editor.sessions.saturating_sub(1);
        }
        roll.metrics.sessions.get_or_create(&TransportLabel { transport: pulse.transport().name() }).dec();
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
#[path = "roll_tests.rs"]
mod tests;
