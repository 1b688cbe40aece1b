//! Mode `callback`: the CMS is asked who a browser's cookies or `Authorization` belong to.
//!
//! The answer is believed for a few seconds for the same credentials, because a long-poll asks with every poll. At most
//! a few dozen questions are under way at once: a thousand browsers that come back together must not take the CMS down.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Deserialize;
use tokio::{sync::Semaphore, time::Instant};

use super::{AuthError, CallbackContext, Credentials, fetch::Remote, token::Claims};
use crate::{
    config::Secret,
    outbound::Authorities,
    protocol::{Made, Naming, Proof, time::now_ms},
    seldom::Seldom,
};

/// How long an answer is believed without asking again.
const CACHED: Duration = Duration::from_secs(5);
/// Answers that are remembered.
const MAX_CACHED: usize = 10_000;
/// How long good credentials are known as such at least.
const MET: Duration = Duration::from_hours(1);
/// Credentials that are known as good.
const MAX_MET: usize = 100_000;
/// Questions under way at once: so many for credentials that were good lately, and so many for all others.
const MAX_QUESTIONS: usize = 64;
/// How long a question may wait for its turn.
const TURN: Duration = Duration::from_secs(3);
/// Bytes of the topics that the CMS is told: its server bounds a request's headers, often at 8 KiB.
const MAX_TOPICS: usize = 4096;
/// The longest time that an answer may claim, seconds.
const MAX_LIFE: u64 = 86_400;

/// Where to ask, and what was answered lately.
#[derive(Debug)]
pub(super) struct CallbackClient {
    remote: Remote,
    naming: Naming,
    /// Room for questions about credentials that were good lately, and for all others: strangers do not keep editors waiting.
    turns: (Semaphore, Semaphore),
    /// Credentials that were good lately, and until when that is remembered; keys are two keyed hashes of them.
    met: Mutex<HashMap<(u64, u64), Instant>>,
    /// What is logged of failures.
    failures: Mutex<Seldom>,
    /// By two keyed hashes (128 bits) of the credentials and of what the CMS is told besides, so that no credentials lie about in memory.
    answers: Mutex<HashMap<(u64, u64), (Instant, Claims)>>,
    hashers: (RandomState, RandomState),
}

#[derive(Deserialize)]
struct CallbackAnswer {
    sub: String,
    topics: Option<Vec<String>>,
    publish: Option<Vec<String>>,
    expires_in: f64,
}

impl CallbackClient {
    /// A URL to ask about editors who are named so.
    pub(super) fn new(url: &Secret, trusted: Option<Authorities>, naming: Naming) -> Result<Self, String> {
        let turns = (Semaphore::new(MAX_QUESTIONS), Semaphore::new(MAX_QUESTIONS));
        Ok(Self {
            remote: Remote::new(url, trusted)?,
            naming,
            turns,
            met: Mutex::default(),
            failures: Mutex::default(),
            answers: Mutex::default(),
            hashers: Default::default(),
        })
    }

    /// The same, asking a CMS in a simulation.
    #[cfg(feature = "simulation")]
    pub(super) fn asking(self, cms: Arc<dyn super::fetch::ScriptedCms>) -> Self {
        Self { remote: self.remote.scripted(cms), ..self }
    }

    /// Who it is. A `fresh` answer is not taken from memory. `known`: what is revoked, as far as is known now.
    pub(super) async fn ask(
        &self,
        credentials: &Credentials,
        fresh: bool,
        known: u64,
    ) -> Result<Claims, AuthError> {
        // The answer is as old as the question.
        let made = Made::Asked { known, at: now_ms() };
        let mut headers = headers(credentials)?;
        let who = self.hash(&[header::COOKIE, header::AUTHORIZATION], &headers);
        tell(&credentials.callback_context, &mut headers);
        let question = self.hash(&[header::COOKIE, header::AUTHORIZATION, HOST, PROTO, TOPICS], &headers);
        if !fresh && let Some(claims) = self.remembered(question) {
            return Ok(claims);
        }
        let turns = if self.has_met(who) { &self.turns.0 } else { &self.turns.1 };
        let Ok(turn) = tokio::time::timeout(TURN, turns.acquire()).await else {
            return Err(
                self.away(&format!("{MAX_QUESTIONS} questions are under way, and none was answered in time"))
            );
        };
        let (status, body) = self.remote.get(headers).await.map_err(|failure| {
            self.log(&failure.why);
            self.away(&failure.told)
        })?;
        drop(turn);
        let (claims, life) = self.read(status, &body, made)?;
        self.remember(question, &claims, life.min(CACHED));
        self.meet(who, life.max(MET));
        Ok(claims)
    }

    /// The error for a CMS that cannot be asked. It does not tell the client the address; the log does.
    fn away(&self, why: &str) -> AuthError {
        self.log(why);
        AuthError::Away(format!("the CMS does not answer as it should (auth.callback_url): {why}"))
    }

    /// What an answer says, and how long that counts.
    fn read(&self, status: StatusCode, body: &[u8], made: Made) -> Result<(Claims, Duration), AuthError> {
        if status.is_server_error() {
            return Err(self.away(&format!("the answer was {status}")));
        }
        if status.is_redirection() {
            return Err(AuthError::Refused(format!(
                "the CMS refused (its answer was {status}, a redirect, which is not followed: probably to its login page)"
            )));
        }
        if status != StatusCode::OK {
            return Err(AuthError::Refused(format!("the CMS refused (its answer was {status})")));
        }
        // The parser's message may quote the answer; its place in it is enough.
        let answer: CallbackAnswer = serde_json::from_slice(body).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            self.away(&format!("the answer is not {{\"sub\":…,\"topics\":[…],\"expires_in\":…}} ({place})"))
        })?;
        if answer.sub.trim().is_empty() {
            return Err(self.away("the answer's `sub` is empty: it must name the editor"));
        }
        let named = self.naming.key(&answer.sub);
        let key = named.map_err(|why| {
            AuthError::Refused(format!("the `sub` in the CMS' answer {why}: nobody can be called so"))
        })?;
        if answer.expires_in < 1.0 {
            return Err(AuthError::Refused("the CMS answered with a session that has already ended".into()));
        }
        #[expect(clippy::cast_sign_loss, reason = "positive, as was just seen")]
        let life = (answer.expires_in as u64).min(MAX_LIFE);
        let exp = now_ms() / 1000 + life;
        let proof = Arc::new(Proof { user: key.into(), sid: None, jti: None, made });
        let (topics, publish) = (answer.topics, answer.publish);
        let claims = Claims { user: answer.sub, proof, exp, topics, publish };
        Ok((claims, Duration::from_secs(life)))
    }

    /// Two keyed hashes of these headers.
    fn hash(&self, names: &[HeaderName], headers: &HeaderMap) -> (u64, u64) {
        let values: Vec<_> = names.iter().map(|name| headers.get(name).map(HeaderValue::as_bytes)).collect();
        (self.hashers.0.hash_one(&values), self.hashers.1.hash_one(&values))
    }

    fn has_met(&self, key: (u64, u64)) -> bool {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.get(&key).is_some_and(|until| *until > Instant::now())
    }

    fn meet(&self, key: (u64, u64), life: Duration) {
        let now = Instant::now();
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if met.len() >= MAX_MET {
            met.retain(|_, until| *until > now);
        }
        if met.len() < MAX_MET {
            met.insert(key, now + life);
        }
    }

    /// One line for many failures.
    fn log(&self, why: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(others) = failures.due(Instant::now().into_std()) {
            tracing::warn!(place = self.remote.shown(), why, others, "the CMS cannot say who somebody is");
        }
    }

    fn remembered(&self, key: (u64, u64)) -> Option<Claims> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(&key).filter(|(until, _)| *until > Instant::now()).map(|(_, claims)| claims.clone())
    }

    fn remember(&self, key: (u64, u64), claims: &Claims, life: Duration) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if answers.len() >= MAX_CACHED {
            answers.retain(|_, (until, _)| *until > now);
        }
        if answers.len() < MAX_CACHED {
            answers.insert(key, (now + life, claims.clone()));
        }
    }
}

/// The host that the client asked.
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The scheme by which it did.
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The topics that it asked for, with commas between them.
const TOPICS: HeaderName = HeaderName::from_static("x-carillon-topics");

/// Tells the CMS what else is known. What cannot stand in a header is left out, and so are topics that are too many: a
/// part of them would be taken for all.
fn tell(context: &CallbackContext, headers: &mut HeaderMap) {
    let topics = context.topics.join(",");
    let topics = Some(&topics).filter(|topics| !topics.is_empty() && topics.len() <= MAX_TOPICS);
    for (name, value) in [(HOST, context.host.as_ref()), (PROTO, context.scheme.as_ref()), (TOPICS, topics)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
}

/// What is passed on: the cookies and the `Authorization`, or a token that came another way as a bearer.
fn headers(credentials: &Credentials) -> Result<HeaderMap, AuthError> {
    let bearer = credentials.token.as_ref().map(|token| format!("Bearer {token}").into_bytes());
    let authorization = credentials.authorization.as_ref().or(bearer.as_ref());
    if authorization.is_none() && credentials.cookies.is_none() {
        return Err(AuthError::Missing("neither cookies nor a token came with the request".into()));
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in
        [(header::COOKIE, credentials.cookies.as_ref()), (header::AUTHORIZATION, authorization)]
    {
        let Some(value) = value else { continue };
        let mut value = HeaderValue::from_bytes(value).map_err(|_| {
            AuthError::Refused(format!("the {name} header has characters that cannot be passed on"))
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}
