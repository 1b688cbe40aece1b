//! Revocations: whose sessions an operator has closed or told to renew, and whether a proof (a token, or an answer of the CMS) still
//! counts.
//!
//! A node has one [`Revocations`]. `auth` looks into it first, and the relay last, in its one order. What is learned is numbered, so
//! that an answer of the CMS counts as older than a revocation that became known after the question, whatever the clocks say.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{Naming, time::now_ms};
use crate::mutant;

/// How far clocks may be apart, seconds.
pub const LEEWAY: u64 = 30;
/// How long an order may have been under way when it is heard at once, and how far clocks are apart where they are kept, ms.
const UNDER_WAY: u64 = 5_000;
/// The longest name of a session or token that can be revoked, bytes.
pub const MAX_NAME: usize = 256;

/// What happens to whom it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Sessions are closed, and their tokens are refused from now on.
    Disconnect,
    /// Rights have changed: sessions go on with what is issued from now on.
    Refresh,
}

/// Whom a revocation concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Whom {
    /// An editor, named as in the token's `sub`.
    User(String),
    /// One session: the name in its `welcome`, or the `sid` claim of its token.
    Session(String),
    /// One token: its `jti`.
    Token(String),
}

/// One order of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What happens.
    pub kind: Kind,
    /// To whom.
    pub whom: Whom,
    /// When it was ordered, ms since 1970 on the clock of the node that took the order.
    pub at: u64,
}

impl Revocation {
    /// Its name in Redis, for example `disconnect user anna`.
    pub fn name(&self) -> String {
        let (word, name) = self.whom.parts();
        let kind = match self.kind {
            Kind::Disconnect => "disconnect",
            Kind::Refresh => "refresh",
        };
        format!("{kind} {word} {name}")
    }

    /// Reads a [`Revocation::name`].
    pub fn parse(name: &str, at: u64) -> Option<Self> {
        let mut parts = name.splitn(3, ' ');
        let kind = match parts.next()? {
            "disconnect" => Kind::Disconnect,
            "refresh" => Kind::Refresh,
            _ => return None,
        };
        let (word, name) = (parts.next()?, parts.next()?.to_owned());
        let whom = match word {
            "user" => Whom::User(name),
            "session" => Whom::Session(name),
            "jti" => Whom::Token(name),
            _ => return None,
        };
        Some(Self { kind, whom, at })
    }
}

impl Whom {
    /// What it is called in an order, and the name.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::User(name) => ("user", name),
            Self::Session(name) => ("session", name),
            Self::Token(name) => ("jti", name),
        }
    }

    /// What is compared.
    fn key(&self, naming: Naming) -> Self {
        match self {
            // No editor can have this name: it matches nobody.
            Self::User(name) => Self::User(naming.key(name).unwrap_or_default()),
            other => other.clone(),
        }
    }
}

/// When a proof was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Whoever signed the token says so: seconds since 1970 by their clock.
    At(u64),
    /// This node asked the CMS, or no proof was needed.
    Asked {
        /// What was known then: [`Revocations::latest`].
        known: u64,
        /// When, ms since 1970 by this node's clock.
        at: u64,
    },
}

/// What a session was let in with, as far as a revocation can concern it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The editor: the [`Naming::key`] of the token's `sub`.
    pub user: Box<str>,
    /// The `sid` of the token.
    pub sid: Option<Box<str>>,
    /// The `jti` of the token.
    pub jti: Option<Box<str>>,
    /// When it was made.
    pub made: Made,
}

impl Proof {
    /// Of somebody whom no revocation concerns: a program of the operator.
    pub fn lasting(user: &str) -> Self {
        Self { user: user.into(), sid: None, jti: None, made: Made::At(u64::MAX) }
    }
}

/// How a node came to know of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The moment it was given.
    AtOnce,
    /// Some time later, from what Redis keeps.
    Later,
}

#[derive(Debug)]
struct Known {
    /// When it was given, ms since 1970 on this node's clock.
    at: u64,
    /// How many were known with it.
    number: u64,
    heard: Heard,
    /// One bit for each second of the half minute after the order, set if a token that was here before claims to be issued in it.
    ahead: AtomicU32,
}

impl Known {
    fn covers(&self, kind: Kind, made: Made, now: u64) -> bool {
        match (made, kind) {
            (Made::At(issued), Kind::Disconnect) => issued <= self.at / 1000 + LEEWAY,
            (Made::At(issued), Kind::Refresh) => self.is_old(issued, now / 1000),
            (Made::Asked { .. }, _) => self.is_in_doubt(made),
        }
    }

    /// Whether a token is older than an order to renew, as far as can be known by now. Editors are to go on at once, so
    /// what says that it is newer counts as newer, if it can be: no token is issued in the future, but by a clock that
    /// is ahead. When the half minute is over, nothing that was issued in it counts any more.
    fn is_old(&self, issued: u64, now: u64) -> bool {
        let Some(after) = issued.checked_sub(self.at / 1000).filter(|after| *after > 0) else { return true };
        if after > LEEWAY {
            return false;
        }
        let bit = 1 << after;
        if issued > now {
            self.ahead.fetch_or(bit, Relaxed);
        }
        now > self.at / 1000 + LEEWAY || self.ahead.load(Relaxed) & bit != 0
    }

    /// Whether it may be older, however well the clocks are kept.
    fn is_in_doubt(&self, made: Made) -> bool {
        match made {
            Made::At(issued) => issued <= self.at / 1000 + LEEWAY,
            // Asked long after an order of which this node heard late: the answer knew of it.
            Made::Asked { known, at } => {
                (self.number > known && !mutant::is("asked"))
                    && (self.heard == Heard::AtOnce || at <= self.at.saturating_add(LEEWAY * 1000))
            }
        }
    }
}

#[derive(Debug, Default)]
struct Store {
    known: HashMap<(Kind, Whom), (Known, Revocation)>,
    /// How many were ever learned.
    number: u64,
}

/// How what a node knows differs from what Redis keeps.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// What this node has yet to learn.
    pub unknown: Vec<Revocation>,
    /// What Redis has lost: it was emptied, or is another one.
    pub lost: Vec<Revocation>,
}

/// The revocations that this node knows. Clones share them.
#[derive(Debug, Clone)]
pub struct Revocations {
    store: Arc<RwLock<Store>>,
    window: Duration,
    naming: Naming,
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new(Duration::from_hours(24), Naming::default())
    }
}

impl Revocations {
    /// None yet. `longest`: how long anything that proves somebody can be good (`auth.max_token_seconds`). `naming`: how
    /// the editors are named whom revocations concern.
    pub fn new(longest: Duration, naming: Naming) -> Self {
        // Clocks may differ when it is issued, when it ends, and when its session ends.
        Self { store: Arc::default(), window: longest + Duration::from_secs(4 * LEEWAY), naming }
    }

    /// How long a revocation is kept: until all that it concerns has ended.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// How many this node has ever learned: what is known at this moment.
    pub fn latest(&self) -> u64 {
        self.read().number
    }

    /// All that may still concern somebody.
    pub fn all(&self) -> Vec<Revocation> {
        let first = now_ms().saturating_sub(self.window.as_millis() as u64);
        let store = self.read();
        let kept = store.known.values().filter(|(known, _)| known.at >= first);
        kept.map(|(_, revocation)| revocation.clone()).collect()
    }

    /// Whether it is known already, or a later one of the same.
    pub fn knows(&self, revocation: &Revocation) -> bool {
        self.last(revocation.kind, &revocation.whom).is_some_and(|at| at >= revocation.at)
    }

    /// Whether what Redis keeps has to be read and compared. `change`: the number of its last change, 0 where it keeps
    /// nothing; `read`: the change up to which this node has read it, 0 for none.
    pub fn must_compare(&self, change: u64, read: u64) -> bool {
        let is_emptied = change == 0 && !self.all().is_empty();
        is_emptied || (change != read && !mutant::is("lost-order"))
    }

    /// Compares what Redis keeps with what is known here.
    pub fn compare(&self, kept: &[Revocation]) -> Comparison {
        let is_kept = |mine: &Revocation| {
            let same = |theirs: &Revocation| {
                (theirs.kind, &theirs.whom) == (mine.kind, &mine.whom) && theirs.at >= mine.at
            };
            kept.iter().any(same) || mutant::is("written-back")
        };
        Comparison {
            unknown: kept.iter().filter(|theirs| !self.knows(theirs)).cloned().collect(),
            lost: self.all().into_iter().filter(|mine| !is_kept(mine)).collect(),
        }
    }

    /// The time of an order that is given `now` (ms since 1970): later than the last of the same, whose clock may have
    /// been ahead.
    pub fn next(&self, kind: Kind, whom: &Whom, now: u64) -> u64 {
        self.last(kind, whom).map_or(now, |last| now.max(last + 1))
    }

    /// When the last order of this kind was given to the same, as it says itself.
    fn last(&self, kind: Kind, whom: &Whom) -> Option<u64> {
        self.read().known.get(&(kind, whom.key(self.naming))).map(|(_, order)| order.at)
    }

    /// Learns one; `false`: it was known. What concerns nothing any more is forgotten.
    pub fn learn(&self, revocation: &Revocation, heard: Heard) -> bool {
        self.learn_by(revocation, heard, now_ms())
    }

    fn learn_by(&self, revocation: &Revocation, heard: Heard, now: u64) -> bool {
        if self.knows(revocation) {
            return false;
        }
        // No order was given after it was heard of, and one that is heard at once was given now: where the clock of the
        // node that took it says something else, this node's own counts, as it does for all that is let in here.
        let at = match heard {
            Heard::AtOnce if now.abs_diff(revocation.at) > UNDER_WAY => now,
            Heard::AtOnce => revocation.at,
            Heard::Later => revocation.at.min(now),
        };
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let kept = at.min(now).saturating_sub(self.window.as_millis() as u64);
        store.known.retain(|_, (known, _)| known.at >= kept);
        store.number += 1;
        let known = Known { at, number: store.number, heard, ahead: AtomicU32::new(0) };
        store.known.insert((revocation.kind, revocation.whom.key(self.naming)), (known, revocation.clone()));
        true
    }

    /// Whether somebody is let in no more by this proof; `session`: the name of the session that it opened.
    pub fn covers(&self, proof: &Proof, session: Option<&str>) -> Option<Kind> {
        self.covers_by(proof, session, now_ms())
    }

    /// Whether a session has to bring a newer proof, because it may be older than an order to renew.
    pub fn must_renew(&self, proof: &Proof) -> bool {
        let user = Whom::User(proof.user.to_string());
        let store = self.read();
        let known = store.known.get(&(Kind::Refresh, user));
        known.is_some_and(|(known, _)| known.is_in_doubt(proof.made))
    }

    fn covers_by(&self, proof: &Proof, session: Option<&str>, now: u64) -> Option<Kind> {
        let store = self.read();
        if store.known.is_empty() {
            return None;
        }
        let find = |kind, whom: Whom| store.known.get(&(kind, whom)).map(|(known, _)| known);
        let names = session.into_iter().chain(proof.sid.as_deref());
        let named = names.map(|name| Whom::Session(name.into()));
        let token = proof.jti.as_deref().map(|name| Whom::Token(name.into()));
        if named.chain(token).any(|whom| find(Kind::Disconnect, whom).is_some()) {
            return Some(Kind::Disconnect);
        }
        let user = Whom::User(proof.user.to_string());
        let covers =
            |kind: &Kind| find(*kind, user.clone()).is_some_and(|known| known.covers(*kind, proof.made, now));
        [Kind::Disconnect, Kind::Refresh].into_iter().find(covers)
    }

    fn read(&self) -> RwLockReadGuard<'_, Store> {
        // Every change is complete before anything can fail.
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "revocation_tests.rs"]
mod tests;
