//! What only nodes may say through Redis, sealed with a secret that publishers do not have (`redis.node_secret`).
//!
//! Rights in Redis keep publishers away from what nodes tell each other. Whoever has more rights than they should, or the
//! node's own password, still cannot make a seal: HMAC-SHA-256 over the prefix, the kind of what is said, Redis' time, a
//! random id and the words.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;

use crate::protocol::time::now_ms;

/// How old a message may be, ms: clocks of a Redis and its replicas differ, and messages are under way.
const FRESH: u64 = 30_000;
/// Ids that are remembered at most: more orders than this in half a minute are refused.
const REMEMBERED: usize = 100_000;
/// No clock of Redis is known.
const UNKNOWN: i64 = i64::MIN;

/// Why something is not taken for a node's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    #[error("it is not signed by a node (redis.node_secret)")]
    Missing,
    #[error("its signature is not of a node with this redis.node_secret")]
    Wrong,
    #[error("it is older than 30 seconds, or from the future")]
    Old,
    #[error("it was heard before")]
    Repeated,
}

/// The seal of this node's Redis. Clones share what was heard.
#[derive(Clone, Default)]
pub struct Seal(Option<Arc<Inner>>);

struct Inner {
    prefix: String,
    keys: ArcSwap<Vec<hmac::Key>>,
    required: bool,
    /// By how much Redis' clock is ahead of this node's, ms.
    ahead: AtomicI64,
    /// Ids of messages that were heard lately, and when they were sealed.
    heard: Mutex<HashMap<String, u64>>,
}

impl Seal {
    /// Seals with `secret`, and accepts seals of `previous` as well. `required`: what has no seal is refused.
    pub fn new(prefix: &str, secret: &str, previous: Option<&str>, required: bool) -> Self {
        Self(Some(Arc::new(Inner {
            prefix: prefix.into(),
            keys: ArcSwap::from_pointee(keys(secret, previous)),
            required,
            ahead: AtomicI64::new(UNKNOWN),
            heard: Mutex::default(),
        })))
    }

    /// Other secrets take the place of these, in all clones; a node without any goes on without.
    pub fn rotate(&self, secret: &str, previous: Option<&str>) {
        if let Some(inner) = &self.0 {
            inner.keys.store(Arc::new(keys(secret, previous)));
        }
    }

    /// No secret: everything is believed.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether there is a secret.
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// A probe came back: the time on Redis' clock, ms.
    pub(super) fn redis_says(&self, at: u64) {
        if let Some(inner) = &self.0 {
            inner.ahead.store(at.cast_signed().saturating_sub(now_ms().cast_signed()), Relaxed);
        }
    }

    /// The seal of words of a kind, as of now; `None` without a secret, or before Redis' clock is known.
    pub(super) fn sign(&self, kind: &str, words: &str) -> Option<String> {
        let inner = self.0.as_ref()?;
        let now = inner.now()?;
        let id = format!("{:032x}", rand::random::<u128>());
        Some(format!("{now} {id} {}", inner.mac(&inner.message(kind, &now.to_string(), &id, words))))
    }

    /// Whether a message is a node's word, of half a minute ago at most, and heard for the first time.
    pub(super) fn hear(&self, kind: &str, words: &str, seal: Option<&str>) -> Result<(), SealError> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let Some(seal) = seal else { return inner.unsigned() };
        let (at, id) = self.fresh(kind, words, seal, FRESH)?;
        let mut heard = inner.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.contains_key(id) || heard.len() >= REMEMBERED {
            heard.retain(|_, sealed| *sealed + 2 * FRESH > at);
            if heard.contains_key(id) || heard.len() >= REMEMBERED {
                return Err(SealError::Repeated);
            }
        }
        heard.insert(id.into(), at);
        Ok(())
    }

    /// The same for a message that stays in Redis for `life` ms and is read again and again.
    pub(super) fn read(
        &self,
        kind: &str,
        words: &str,
        seal: Option<&str>,
        life: u64,
    ) -> Result<(), SealError> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let Some(seal) = seal else { return inner.unsigned() };
        self.fresh(kind, words, seal, FRESH.max(life)).map(drop)
    }

    /// A seal that does not expire, for what holds until it is deleted; `None` without a secret.
    pub(super) fn keep(&self, kind: &str, words: &str) -> Option<String> {
        self.0.as_ref().map(|inner| inner.mac(&inner.message(kind, "", "", words)))
    }

    /// Whether a [`Seal::keep`] is a node's.
    pub(super) fn is_kept(&self, kind: &str, words: &str, seal: Option<&str>) -> Result<(), SealError> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let Some(seal) = seal else { return inner.unsigned() };
        inner.verify(&inner.message(kind, "", "", words), seal)
    }

    /// When it was sealed, and its id.
    fn fresh<'a>(
        &self,
        kind: &str,
        words: &str,
        seal: &'a str,
        life: u64,
    ) -> Result<(u64, &'a str), SealError> {
        let inner = self.0.as_ref().ok_or(SealError::Wrong)?;
        let mut parts = seal.splitn(3, ' ');
        let (Some(at), Some(id), Some(mac)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SealError::Wrong);
        };
        inner.verify(&inner.message(kind, at, id, words), mac)?;
        let at = at.parse::<u64>().map_err(|_| SealError::Wrong)?;
        let now = inner.now().ok_or(SealError::Old)?;
        if now.abs_diff(at) > life { Err(SealError::Old) } else { Ok((at, id)) }
    }
}

impl Inner {
    fn now(&self) -> Option<u64> {
        let ahead = self.ahead.load(Relaxed);
        (ahead != UNKNOWN).then(|| now_ms().saturating_add_signed(ahead))
    }

    fn unsigned(&self) -> Result<(), SealError> {
        if self.required { Err(SealError::Missing) } else { Ok(()) }
    }

    /// What is signed: only the words, which come last, can have line breaks.
    fn message(&self, kind: &str, at: &str, id: &str, words: &str) -> String {
        format!("{}\n{kind}\n{at}\n{id}\n{words}", self.prefix)
    }

    fn mac(&self, message: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.keys.load()[0], message.as_bytes()))
    }

    fn verify(&self, message: &str, mac: &str) -> Result<(), SealError> {
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| SealError::Wrong)?;
        let fits = |key: &hmac::Key| hmac::verify(key, message.as_bytes(), &mac).is_ok();
        if self.keys.load().iter().any(fits) { Ok(()) } else { Err(SealError::Wrong) }
    }
}

/// The first one signs, any is accepted.
fn keys(secret: &str, previous: Option<&str>) -> Vec<hmac::Key> {
    let key = |secret: &str| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    std::iter::once(secret).chain(previous).map(key).collect()
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("is_set", &self.is_set()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a node's secret of 32 bytes or more";

    fn seal(secret: &str, previous: Option<&str>, required: bool) -> Seal {
        let seal = Seal::new("carillon", secret, previous, required);
        seal.redis_says(now_ms() + 500_000);
        seal
    }

    #[test]
    fn a_nodes_word_is_heard_once() {
        let (one, other) = (seal(SECRET, None, true), seal(SECRET, None, true));
        let signed = one.sign("order", "a b").unwrap();
        assert_eq!(other.hear("order", "a b", Some(&signed)), Ok(()));
        assert_eq!(other.hear("order", "a b", Some(&signed)), Err(SealError::Repeated));
        assert_ne!(one.sign("order", "a b"), Some(signed));
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let (one, other) = (seal(SECRET, None, true), seal(SECRET, None, true));
        let signed = one.sign("order", "a b").unwrap();
        let (at, rest) = signed.split_once(' ').unwrap();
        let later = format!("{} {rest}", at.parse::<u64>().unwrap() + 1);
        let again = signed.replacen(' ', " 0", 1);
        for (kind, words, seal) in [
            ("order", "a c", signed.as_str()),
            ("node", "a b", &signed),
            ("order", "a b", &later),
            ("order", "a b", &again),
            ("order", "a b", ""),
            ("order", "a b", "1 2"),
            ("order", "a b", &signed[..signed.len() - 2]),
        ] {
            assert_eq!(other.hear(kind, words, Some(seal)), Err(SealError::Wrong), "{kind} {words} {seal}");
        }
        let elsewhere = Seal::new("other", SECRET, None, true);
        elsewhere.redis_says(now_ms());
        assert_eq!(elsewhere.hear("order", "a b", Some(&signed)), Err(SealError::Wrong), "another site");
        assert_eq!(other.hear("order", "a b", None), Err(SealError::Missing));
        assert_eq!(other.hear("order", "a b", Some(&signed)), Ok(()));
    }

    #[test]
    fn what_is_old_by_redis_clock_is_refused() {
        let (one, other) = (seal(SECRET, None, true), seal(SECRET, None, true));
        let signed = one.sign("order", "a").unwrap();
        for away in [31_000, -31_000] {
            other.redis_says((now_ms() + 500_000).saturating_add_signed(away));
            assert_eq!(other.hear("order", "a", Some(&signed)), Err(SealError::Old));
            assert_eq!(other.read("order", "a", Some(&signed), 60_000), Ok(()));
        }
        let unaware = Seal::new("carillon", SECRET, None, true);
        assert_eq!(unaware.hear("order", "a", Some(&signed)), Err(SealError::Old), "no clock is known yet");
        assert_eq!(unaware.sign("order", "a"), None);
        let kept = one.keep("kept", "a").unwrap();
        assert_eq!(unaware.is_kept("kept", "a", Some(&kept)), Ok(()));
        assert_eq!(unaware.is_kept("kept", "b", Some(&kept)), Err(SealError::Wrong));
    }

    #[test]
    fn it_is_turned_on_and_replaced_step_by_step() {
        let (signing, requiring) = (seal(SECRET, None, false), seal(SECRET, None, true));
        assert_eq!(signing.hear("order", "a", None), Ok(()), "of a node that has no secret yet");
        assert_eq!(Seal::default().hear("order", "a", signing.sign("order", "a").as_deref()), Ok(()));
        assert_eq!(requiring.hear("order", "a", signing.sign("order", "a").as_deref()), Ok(()));
        let next = "the next secret, as long as that one";
        let (both, new) = (seal(SECRET, Some(next), true), seal(next, Some(SECRET), true));
        assert_eq!(both.hear("order", "a", new.sign("order", "a").as_deref()), Ok(()));
        assert_eq!(new.hear("order", "a", both.sign("order", "a").as_deref()), Ok(()));
        let signed = new.sign("order", "a");
        assert_eq!(requiring.hear("order", "a", signed.as_deref()), Err(SealError::Wrong));
    }
}
