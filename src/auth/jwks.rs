//! A set of public keys (RFC 7517), from a file or a URL, kept until there is reason to read it again: a token that
//! names an unknown key, or age, so that a withdrawn key goes away.
//!
//! Strangers can name unknown keys at will, so reading again is rate-limited; whoever comes too early waits for the next
//! read instead of being refused, so that a rotation locks nobody out. A source that cannot be read keeps the last keys: an identity provider that is down for an hour must not lock the editors out. Keys for shared secrets
//! in a set are ignored: a set is public.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use hyper::{HeaderMap, StatusCode, header};
use serde_json::Value;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use super::{
    AuthError,
    fetch::{Failure, Remote},
    keys::Key,
};
use crate::{
    config::{Algorithm, Secret},
    outbound::Authorities,
    printable::quoted,
    seldom::Seldom,
};

/// Reads within [`SPAN`], at most.
const READS: usize = 5;
/// See [`READS`].
const SPAN: Duration = Duration::from_secs(50);
/// After that, one read in this time. Strangers who name unknown keys all the time delay a rotation by no more than this.
const STEADY: Duration = Duration::from_secs(3);
/// How long a source that could not be read is left alone.
const FAILED: Duration = Duration::from_secs(1);
/// Age at which keys are read again, unknown key or not.
const MAX_AGE: Duration = Duration::from_mins(10);

/// Reads a set. An empty one is an error: it would lock everybody out.
fn read_set(bytes: &[u8]) -> Result<Vec<Key>, String> {
    let set: Value = serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
    let keys =
        set.get("keys").and_then(Value::as_array).ok_or("it is not a JWKS: there is no list `keys`")?;
    let read: Vec<_> = keys.iter().filter_map(Key::read).collect();
    if read.is_empty() {
        return Err(format!(
            "none of its {} keys is for RS256 (of 2048 bits or more), ES256 or EdDSA signatures",
            keys.len()
        ));
    }
    Ok(read)
}

#[derive(Debug)]
enum KeySetLocation {
    File(PathBuf),
    Url(Box<Remote>),
}

impl KeySetLocation {
    async fn read(&self) -> Result<Vec<Key>, Failure> {
        let read = match self {
            Self::File(path) => {
                let bytes = tokio::fs::read(path).await;
                bytes.map_err(|error| error.to_string()).and_then(|bytes| read_set(&bytes))
            }
            Self::Url(remote) => {
                let json = header::HeaderValue::from_static("application/json");
                match remote.get(HeaderMap::from_iter([(header::ACCEPT, json)])).await? {
                    (StatusCode::OK, body) => read_set(&body),
                    (status, _) => Err(format!("the answer was {status}")),
                }
            }
        };
        read.map_err(Failure::harmless)
    }

    fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(remote) => remote.shown().to_owned(),
        }
    }
}

#[derive(Debug, Clone)]
struct CachedKeys {
    keys: Arc<[Key]>,
    read: Instant,
}

/// Whether the set may be read again now.
enum ReadPermission {
    Now,
    /// It was read often of late: only after this time.
    After(Duration),
    /// It could not be read just now.
    Failed,
}

/// When the last reads ended, and what came of the very last.
#[derive(Debug, Default)]
struct Reads {
    begun: Option<Instant>,
    ended: VecDeque<Instant>,
    outcome: Option<Result<(), String>>,
    /// What is logged of failures.
    failures: Seldom,
}

impl Reads {
    /// Whether it is time for another one.
    fn permission(&self, span: Duration) -> ReadPermission {
        let (Some(first), Some(last)) = (self.ended.front(), self.ended.back()) else {
            return ReadPermission::Now;
        };
        if matches!(self.outcome, Some(Err(_))) && last.elapsed() < FAILED.min(span) {
            return ReadPermission::Failed;
        }
        let many = self.ended.len() >= READS && first.elapsed() < span;
        match STEADY.min(span).checked_sub(last.elapsed()).filter(|wait| many && !wait.is_zero()) {
            Some(wait) => ReadPermission::After(wait),
            None => ReadPermission::Now,
        }
    }

    fn note(&mut self, outcome: Result<(), String>) {
        if self.ended.len() >= READS {
            self.ended.pop_front();
        }
        self.ended.push_back(Instant::now());
        self.outcome = Some(outcome);
    }
}

/// A set of keys and where it is read from.
#[derive(Debug)]
pub(super) struct Jwks {
    place: KeySetLocation,
    span: Duration,
    known: RwLock<Option<CachedKeys>>,
    /// Held while reading: everybody else waits for that one.
    reads: Mutex<Reads>,
}

impl Jwks {
    /// A file, which must be readable now.
    pub(super) fn file(path: PathBuf) -> Result<Self, String> {
        let keys = read_set(&std::fs::read(&path).map_err(|error| error.to_string())?)?;
        let jwks = Self::new(KeySetLocation::File(path));
        jwks.learn(keys);
        Ok(jwks)
    }

    /// A URL, which is read when the first token comes: the CMS may start after us.
    pub(super) fn url(url: &Secret, trusted: Option<Authorities>) -> Result<Self, String> {
        Ok(Self::new(KeySetLocation::Url(Box::new(Remote::new(url, trusted)?))))
    }

    fn new(place: KeySetLocation) -> Self {
        Self { place, span: SPAN, known: RwLock::default(), reads: Mutex::default() }
    }

    /// Reads as often as it is asked to.
    #[cfg(test)]
    pub(super) fn eager(mut self) -> Self {
        self.span = Duration::ZERO;
        self
    }

    fn learn(&self, keys: Vec<Key>) {
        let known = CachedKeys { keys: keys.into(), read: Instant::now() };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    fn known(&self) -> Option<CachedKeys> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys that a token may have been signed with: the one that it names, or, where it names none, all of the
    /// algorithm's kind.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Vec<Key>, AuthError> {
        let came = Instant::now();
        let known = self.known();
        let stale = known.as_ref().is_none_or(|known| known.read.elapsed() > MAX_AGE);
        let found = known.map(|known| pick(&known.keys, id, algorithm)).unwrap_or_default();
        if !found.is_empty() && !stale {
            return Ok(found);
        }
        if !found.is_empty() {
            // Good keys, though old: whoever comes first reads again, nobody else waits.
            if let Ok(reads) = self.reads.try_lock()
                && matches!(reads.permission(self.span), ReadPermission::Now)
            {
                self.read(reads).await.ok();
            }
            let fresh = self.known().map(|known| pick(&known.keys, id, algorithm)).unwrap_or_default();
            return Self::or_unknown(fresh, id);
        }
        let is_found = || self.known().is_some_and(|known| !pick(&known.keys, id, algorithm).is_empty());
        let outcome = self.read_since(came, is_found).await;
        match (self.known(), outcome) {
            (Some(known), _) => Self::or_unknown(pick(&known.keys, id, algorithm), id),
            (None, Err(why)) => Err(AuthError::Away(format!("the keys (auth.jwks) cannot be read: {why}"))),
            (None, Ok(())) => Self::or_unknown(Vec::new(), id),
        }
    }

    /// Reads the set again, because a key without a name may have been replaced. Returns whether that worked.
    pub(super) async fn reread(&self) -> bool {
        self.read_since(Instant::now(), || false).await.is_ok()
    }

    /// Waits until the set was read after `came`, or `is_found` says yes. If it was read too often lately, all callers wait for one
    /// later read.
    async fn read_since(&self, came: Instant, is_found: impl Fn() -> bool) -> Result<(), String> {
        loop {
            let reads = self.reads.lock().await;
            // Whoever held it may have read what is wanted.
            if is_found() {
                return Ok(());
            }
            let since = reads.begun.is_some_and(|begun| begun > came);
            match reads.permission(self.span) {
                ReadPermission::Failed => return reads.outcome.clone().unwrap_or(Ok(())),
                _ if since => return reads.outcome.clone().unwrap_or(Ok(())),
                ReadPermission::Now => return self.read(reads).await,
                ReadPermission::After(wait) => {
                    drop(reads);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn or_unknown(found: Vec<Key>, id: Option<&str>) -> Result<Vec<Key>, AuthError> {
        if !found.is_empty() {
            return Ok(found);
        }
        let which =
            id.map_or_else(|| "no `kid` and an algorithm".into(), |id| format!("the `kid` {}", quoted(id)));
        Err(AuthError::Refused(format!("the token has {which} that fits none of the keys (auth.jwks)")))
    }

    /// Reads again.
    async fn read(&self, mut reads: MutexGuard<'_, Reads>) -> Result<(), String> {
        reads.begun = Some(Instant::now());
        let outcome = self.place.read().await.map(|keys| self.learn(keys)).map_err(|failure| {
            if let Some(others) = reads.failures.due(Instant::now().into_std()) {
                tracing::warn!(
                    place = self.place.shown(),
                    why = failure.why,
                    others,
                    "the keys for tokens cannot be read; the last ones stay in use"
                );
            }
            failure.told
        });
        reads.note(outcome.clone());
        outcome
    }
}

fn pick(keys: &[Key], id: Option<&str>, algorithm: Algorithm) -> Vec<Key> {
    keys.iter().filter(|key| key.is_called(id) && key.fits(algorithm)).cloned().collect()
}
