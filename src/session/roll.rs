//! The roll: every session of the node, and the one sweep that looks after all of them.
//!
//! No session has a timer of its own: once a second each is looked at, and what is due (a Ping, a warning that the
//! token ends, a close) is done. The roll also counts, for the limits. Must not know what sessions follow.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

use super::{
    allowance::Bucket,
    pulse::{Pulse, Transport},
};
use crate::{
    hub::{Closing, Outbox},
    metrics::{Metrics, TransportLabel},
    protocol::{CloseCode, Kind, Revocations, time::now_ms},
};

/// A second of sweeping is cut into so many pieces, so that the work is spread.
const PIECES: usize = 10;
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
    /// Of one editor on this node.
    pub per_editor: usize,
    /// From one address on this node.
    pub per_address: usize,
    /// New ones per second.
    pub per_second: u32,
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
}

#[derive(Debug, Default)]
struct Inner {
    places: Slab<Option<Arc<Pulse>>>,
    editors: HashMap<Box<str>, usize>,
    addresses: HashMap<IpAddr, usize>,
    rate: Bucket,
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
        })
    }

    /// Takes a place for a session that is about to begin. `new`: it counts against the rate (a poll that goes on with
    /// an earlier one does not).
    pub fn enter(self: &Arc<Self>, address: IpAddr, new: bool) -> Result<Place, Full> {
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
        let clock = u64::from(self.clock());
        if new && !inner.rate.take(1, self.limits.per_second, clock) {
            return Err(Full::Rate);
        }
        *inner.addresses.entry(address).or_default() += 1;
        let key = inner.places.insert(None);
        Ok(Place { roll: Arc::downgrade(self), key, address, pulse: None })
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
        self.lock().editors.len()
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
        let (mut seen, mut due) = (revocations.latest(), None);
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / PIECES as u32);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for piece in (0..PIECES).cycle() {
            ticks.tick().await;
            let (clock, now) = (self.clock(), now_ms());
            for (pulse, due) in self.due(piece, clock, now) {
                pulse.act(due, clock, now);
            }
            let latest = revocations.latest();
            if latest != seen {
                seen = latest;
                due = Some(Instant::now() + NEXT_SECOND);
            }
            if due.is_some_and(|due| due <= Instant::now()) {
                due = None;
                self.refresh(&revocations, now);
            }
        }
    }

    /// Tells those whose rights have changed.
    fn refresh(&self, revocations: &Revocations, now: u64) {
        let pulses: Vec<_> = self.lock().places.iter().filter_map(|(_, pulse)| pulse.clone()).collect();
        for pulse in pulses {
            let proof = pulse.proof();
            if proof.is_some_and(|proof| revocations.covers(&proof, None) == Some(Kind::Refresh)) {
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

    /// Counts the session for its editor; `false`: he has too many.
    pub(super) fn admit(&self, user: &str) -> bool {
        let (Some(roll), Some(pulse)) = (self.roll.upgrade(), &self.pulse) else { return false };
        let mut inner = roll.lock();
        let count = inner.editors.get(user).copied().unwrap_or_default();
        if roll.limits.per_editor > 0 && count >= roll.limits.per_editor {
            return false;
        }
        if pulse.name(user) {
            *inner.editors.entry(user.into()).or_default() += 1;
        }
        true
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
        if let Some(user) = pulse.user() {
            leave(&mut inner.editors, user);
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
mod tests {
    use super::*;

    fn roll(limits: Limits) -> Arc<Roll> {
        Roll::new(limits, Duration::from_secs(25), Metrics::new())
    }

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const AWAY: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    #[test]
    fn places_are_limited_and_given_back() {
        let roll = roll(Limits { sessions: 3, per_editor: 1, per_address: 2, per_second: 0 });
        let mut first = roll.enter(HOME, true).unwrap();
        let mut second = roll.enter(HOME, true).unwrap();
        assert_eq!(roll.enter(HOME, true).unwrap_err(), Full::Address);
        let third = roll.enter(AWAY, true).unwrap();
        assert_eq!(roll.enter(AWAY, true).unwrap_err(), Full::Node);
        first.begin(Transport::WebSocket, Outbox::pulled(1));
        second.begin(Transport::WebSocket, Outbox::pulled(1));
        assert!(first.admit("anna") && !second.admit("anna") && second.admit("bo"));
        drop((first, third));
        assert!(
            !roll.enter(HOME, true).unwrap().admit("anna"),
            "a place that has not begun counts for nobody"
        );
        assert_eq!((roll.len(), roll.editors()), (1, 1));
        drop(second);
        let inner = roll.lock();
        assert!(inner.places.is_empty() && inner.editors.is_empty() && inner.addresses.is_empty());
    }

    #[test]
    fn newcomers_come_at_a_limited_rate() {
        let roll = roll(Limits { per_second: 2, ..Limits::default() });
        let places: Vec<_> = (0..4).map(|_| roll.enter(HOME, true).unwrap()).collect();
        assert_eq!(roll.enter(HOME, true).unwrap_err(), Full::Rate);
        assert!(roll.enter(HOME, false).is_ok());
        assert_eq!(roll.len(), places.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_closes_everybody_within_the_window() {
        let roll = roll(Limits::default());
        let places: Vec<_> = (0..10)
            .map(|_| {
                let mut place = roll.enter(HOME, true).unwrap();
                let pulse = place.begin(Transport::Poll, Outbox::pulled(1));
                (place, pulse)
            })
            .collect();
        let mut late = roll.enter(HOME, true).unwrap();
        roll.drain(Duration::from_millis(200)).await;
        assert_eq!(roll.enter(HOME, true).unwrap_err(), Full::Draining);
        let late = late.begin(Transport::WebSocket, Outbox::pulled(1));
        let notice = futures_util::FutureExt::now_or_never(late.outbox().notice());
        assert!(matches!(notice, Some(crate::hub::Notice::Closing(_))), "it was let in and began too late");
        for (_, pulse) in &places {
            let notice = futures_util::FutureExt::now_or_never(pulse.outbox().notice());
            let Some(crate::hub::Notice::Closing(closing)) = notice else { panic!("{notice:?}") };
            assert_eq!(closing.code, CloseCode::Drain);
            assert!(closing.reconnect_after_ms.unwrap() <= 200);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_away_for_a_second_window() {
        let roll = roll(Limits::default());
        let places: Vec<_> = (0..50)
            .map(|_| {
                let mut place = roll.enter(HOME, true).unwrap();
                let pulse = place.begin(Transport::Poll, Outbox::pulled(1));
                (place, pulse)
            })
            .collect();
        roll.drain(Duration::from_mins(1)).await;
        for (_, pulse) in &places {
            let notice = futures_util::FutureExt::now_or_never(pulse.outbox().notice());
            let Some(crate::hub::Notice::Closing(closing)) = notice else { panic!("{notice:?}") };
            assert!(closing.reconnect_after_ms.unwrap() <= 2_000);
        }
    }
}
