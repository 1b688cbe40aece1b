//! Revocations: whose sessions an operator has closed or told to renew, and what proves somebody in spite of it.
//!
//! One [`Revocations`] is shared by everybody on a node who lets somebody in: the doors look early, the relay looks last,
//! in its one order. It numbers what it learns, so that an answer of the CMS that was asked for before a revocation
//! became known counts as older, whatever the clocks say. Must not know Redis, tokens or sessions.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use super::Topic;

/// How far clocks may be apart, seconds.
pub const LEEWAY: u64 = 30;
/// The longest name of a session or token that can be revoked, bytes.
pub const MAX_NAME: usize = 256;

/// What happens to whom it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Sessions are closed, and what proved them opens no door any more.
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
    /// When it was ordered, ms since 1970 on the clock of Redis.
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
    fn key(&self) -> Self {
        match self {
            Self::User(name) => Self::User(Topic::own_key(name)),
            other => other.clone(),
        }
    }
}

/// When a proof was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Whoever signed the token says so: seconds since 1970 by their clock.
    At(u64),
    /// This node asked somebody, or nobody had to be asked.
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
    /// The editor, as in the token's `sub`.
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

#[derive(Debug, Clone, Copy)]
struct Known {
    at: u64,
    /// How many were known with it.
    number: u64,
}

impl Known {
    fn covers(&self, kind: Kind, made: Made) -> bool {
        let leeway = if kind == Kind::Disconnect { LEEWAY } else { 0 };
        match made {
            Made::At(issued) => issued <= self.at / 1000 + leeway,
            // Asked long after an order of which this node heard late: the answer knew of it.
            Made::Asked { known, at } => self.number > known && at <= self.at.saturating_add(LEEWAY * 1000),
        }
    }
}

#[derive(Debug, Default)]
struct Store {
    known: HashMap<(Kind, Whom), (Known, Revocation)>,
    /// How many were ever learned.
    number: u64,
}

/// The revocations that this node knows. Clones share them.
#[derive(Debug, Clone)]
pub struct Revocations {
    store: Arc<RwLock<Store>>,
    window: Duration,
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new(Duration::from_hours(24))
    }
}

impl Revocations {
    /// None yet. `longest`: how long anything that proves somebody can be good (`auth.max_token_seconds`).
    pub fn new(longest: Duration) -> Self {
        // Clocks may differ when it is issued, when it ends, and when its session ends.
        Self { store: Arc::default(), window: longest + Duration::from_secs(4 * LEEWAY) }
    }

    /// How long a revocation is kept: until all that it concerns has ended.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// How many this node has ever learned: what is known at this moment.
    pub fn latest(&self) -> u64 {
        self.read().number
    }

    /// The clock of the latest order; 0 without any.
    pub fn newest(&self) -> u64 {
        self.read().known.values().map(|(known, _)| known.at).max().unwrap_or(0)
    }

    /// All that are kept.
    pub fn all(&self) -> Vec<Revocation> {
        self.read().known.values().map(|(_, revocation)| revocation.clone()).collect()
    }

    /// Whether it is known already, or a later one of the same.
    pub fn knows(&self, revocation: &Revocation) -> bool {
        let known =
            self.read().known.get(&(revocation.kind, revocation.whom.key())).map(|(known, _)| known.at);
        known.is_some_and(|at| at >= revocation.at)
    }

    /// Learns one; `false`: it was known. What concerns nothing any more is forgotten.
    pub fn learn(&self, revocation: &Revocation) -> bool {
        if self.knows(revocation) {
            return false;
        }
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let kept = revocation.at.saturating_sub(self.window.as_millis() as u64);
        store.known.retain(|_, (known, _)| known.at >= kept);
        store.number += 1;
        let known = Known { at: revocation.at, number: store.number };
        store.known.insert((revocation.kind, revocation.whom.key()), (known, revocation.clone()));
        true
    }

    /// Whether somebody is let in no more by this proof; `session`: the name of the session that it opened.
    pub fn covers(&self, proof: &Proof, session: Option<&str>) -> Option<Kind> {
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
        let user = Whom::User(Topic::own_key(&proof.user));
        let covers =
            |kind: &Kind| find(*kind, user.clone()).is_some_and(|known| known.covers(*kind, proof.made));
        [Kind::Disconnect, Kind::Refresh].into_iter().find(covers)
    }

    fn read(&self) -> RwLockReadGuard<'_, Store> {
        // Every change is complete before anything can fail.
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(user: &str, made: Made) -> Proof {
        Proof { user: user.into(), sid: Some("browser 1".into()), jti: Some("token 1".into()), made }
    }

    fn order(kind: Kind, whom: Whom, at: u64) -> Revocation {
        Revocation { kind, whom, at }
    }

    fn anna() -> Whom {
        Whom::User("anna".into())
    }

    #[test]
    fn a_token_from_before_the_order_is_covered_and_for_a_while_a_later_one() {
        let all = Revocations::default();
        let covers = |user: &str, issued| all.covers(&proof(user, Made::At(issued)), None);
        assert_eq!(covers("anna", 1), None);
        assert!(all.learn(&order(Kind::Disconnect, anna(), 1_000_999)));
        for issued in [0, 999, 1000, 1030] {
            assert_eq!(covers("anna", issued), Some(Kind::Disconnect), "{issued}");
        }
        assert_eq!((covers("anna", 1031), covers("bo", 1)), (None, None));
        assert!(all.learn(&order(Kind::Refresh, Whom::User("bo".into()), 1_000_999)));
        assert_eq!(
            (covers("bo", 1000), covers("bo", 1001)),
            (Some(Kind::Refresh), None),
            "a new one counts at once"
        );
    }

    #[test]
    fn an_answer_counts_as_of_when_it_was_asked_for() {
        let all = Revocations::default();
        let asked = |known, at| all.covers(&proof("anna", Made::Asked { known, at }), None);
        let before = all.latest();
        all.learn(&order(Kind::Disconnect, anna(), 1_000_000));
        assert_eq!(
            asked(before, 1_000_000),
            Some(Kind::Disconnect),
            "the answer may be older than the order"
        );
        assert_eq!(asked(all.latest(), 1_000_000), None, "it was asked for afterwards");
        assert_eq!(asked(before, 1_030_001), None, "this node heard of the order late");
        all.learn(&order(Kind::Refresh, anna(), 1_000_000));
        assert_eq!(asked(before + 1, 1_000_000), Some(Kind::Refresh));
    }

    #[test]
    fn one_session_and_one_token_can_be_named() {
        let all = Revocations::default();
        let token = proof("anna", Made::At(2_000));
        all.learn(&order(Kind::Disconnect, Whom::Session("abc".into()), 1_000_000));
        assert_eq!((all.covers(&token, None), all.covers(&token, Some("abd"))), (None, None));
        assert_eq!(all.covers(&token, Some("abc")), Some(Kind::Disconnect));
        for whom in [Whom::Session("browser 1".into()), Whom::Token("token 1".into())] {
            let all = Revocations::default();
            all.learn(&order(Kind::Disconnect, whom, 1_000_000));
            assert_eq!(all.covers(&token, None), Some(Kind::Disconnect));
        }
    }

    #[test]
    fn what_concerns_nothing_any_more_is_forgotten_and_the_latest_wins() {
        let all = Revocations::new(Duration::from_secs(100));
        assert!(all.learn(&order(Kind::Disconnect, anna(), 5_000)));
        assert!(
            !all.learn(&order(Kind::Disconnect, anna(), 5_000))
                && !all.learn(&order(Kind::Disconnect, anna(), 4_000))
        );
        assert!(all.learn(&order(Kind::Disconnect, anna(), 6_000)));
        assert_eq!((all.all().len(), all.newest(), all.latest()), (1, 6_000, 2));
        assert!(all.learn(&order(Kind::Disconnect, Whom::User("bo".into()), 6_001 + 220_000)));
        assert_eq!(all.all().len(), 1, "all that it concerned has ended");
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in [Kind::Disconnect, Kind::Refresh] {
            for whom in [Whom::User("a b\n c".into()), Whom::Session(" x".into()), Whom::Token("ü".into())] {
                let written = order(kind, whom, 7);
                assert_eq!(Revocation::parse(&written.name(), 7), Some(written));
            }
        }
        for bad in ["", "disconnect", "disconnect user", "eat user anna", "disconnect cat tom"] {
            assert_eq!(Revocation::parse(bad, 7), None);
        }
    }
}
