//! Who may connect, and what they may follow and publish.
//!
//! One door for all ways of proving oneself: [`Authenticator::authenticate`] turns [`Credentials`] into an [`Identity`].
//! Knows neither transports nor sessions; when to ask again is the caller's business, from [`Identity::expires`].

mod callback;
mod crypto;
mod fetch;
pub mod grant;
mod jwks;
mod keys;
mod names;
#[cfg(test)]
mod tests;
pub mod token;

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;

#[cfg(feature = "simulation")]
pub use self::fetch::ScriptedCms;
use self::{callback::CallbackClient, names::CaseNotice};
pub use self::{
    grant::{Grant, Patterns},
    names::naming,
    token::{Claims, LEEWAY, NewToken, Verifier},
};
use crate::{
    config::{self, AuthMode, KeySource},
    protocol::{Areas, Kind, Made, Proof, Revocations, Subject, Topic, time::now_ms},
};

/// The user of every session in mode `none`.
pub const ANONYMOUS: &str = "anonymous";

/// What a client shows to prove who it is. Never prints.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The token: from `Authorization: Bearer`, the configured cookie, `connect`, or `token=`.
    pub token: Option<String>,
    /// The request's cookies, for mode `callback`: bytes, as they came.
    pub cookies: Option<Vec<u8>>,
    /// The request's `Authorization` header, for mode `callback`: bytes, as they came.
    pub authorization: Option<Vec<u8>>,
    /// What the CMS is told besides, in mode `callback`.
    pub callback_context: CallbackContext,
}

/// What the CMS is told besides the credentials: a CMS with several sites asks itself which of them it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallbackContext {
    /// `http` or `https`, as the client sees the node.
    pub scheme: Option<String>,
    /// The host that the client asked, with its port where one is written.
    pub host: Option<String>,
    /// The topics that are asked for, as they were written. Empty: they are not known yet.
    pub topics: Vec<String>,
}

impl Credentials {
    /// What stands in a request's headers: `Authorization`, and all of its cookies in one list. `cookie` is the name of
    /// the cookie that may carry the token.
    pub fn from_headers(
        authorization: Option<&[u8]>,
        cookies: Option<Vec<u8>>,
        cookie: Option<&str>,
    ) -> Self {
        let bearer = authorization.and_then(bearer);
        let from_cookie = || cookie_value(cookies.as_deref()?, cookie?);
        Self {
            token: bearer.or_else(from_cookie).map(Into::into),
            authorization: authorization.map(Into::into),
            cookies,
            callback_context: CallbackContext::default(),
        }
    }

    /// The same, with what the CMS is told besides.
    #[must_use]
    pub fn with_callback_context(mut self, callback_context: CallbackContext) -> Self {
        self.callback_context = callback_context;
        self
    }

    /// The same with a token that came in a message or in the query.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Whether there is nothing to prove anything with.
    pub fn is_empty(&self) -> bool {
        self.token.is_none() && self.cookies.is_none() && self.authorization.is_none()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

/// The token of an `Authorization` header of the scheme `Bearer` (RFC 6750; schemes know no case).
pub fn bearer(authorization: &[u8]) -> Option<&str> {
    let (scheme, token) = std::str::from_utf8(authorization).ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// The first cookie of that name that can be a token (RFC 6265, 4.2): empty ones and those with bytes outside ASCII,
/// which another program may have set under the same name, are passed over.
pub fn cookie_value<'a>(cookies: &'a [u8], name: &str) -> Option<&'a str> {
    cookies.split(|byte| *byte == b';').find_map(|pair| {
        let (found, value) = std::str::from_utf8(pair).ok()?.trim().split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        (found.trim() == name && !value.is_empty() && value.is_ascii()).then_some(value)
    })
}

/// Who somebody is, and what that allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The editor, as the token's `sub` has it.
    pub user: String,
    /// What may be followed.
    pub grant: Grant,
    /// What may be published to by `POST /publish`.
    pub publish: Patterns,
    /// When it ends, seconds since 1970 (the token's `exp`; [`LEEWAY`] may be added for clocks that differ). `None`: never.
    pub expires: Option<u64>,
    /// What a revocation is compared with.
    pub proof: Arc<Proof>,
}

/// Why somebody is not let in. The texts are for people and quote neither token nor cookie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There was nothing to judge.
    #[error("{0}")]
    Missing(String),
    /// The credentials were judged and are bad.
    #[error("{0}")]
    Refused(String),
    /// They cannot be judged now, because the keys or the CMS are out of reach. At the door this refuses like the
    /// others; a renewal may be tried again until the identity ends.
    #[error("who you are cannot be checked now: {0}")]
    Away(String),
}

/// Why a setting cannot be used, found only where its value was: `what` continues «auth.jwks (carillon.toml) …».
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {what}")]
pub struct SettingError {
    /// The key in the configuration.
    pub key: &'static str,
    /// What is wrong with its value.
    pub what: String,
}

impl SettingError {
    fn new(key: &'static str, what: impl fmt::Display) -> Self {
        Self { key, what: what.to_string() }
    }
}

/// Judges credentials by the configured mode. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Authenticator {
    mode: Arc<ArcSwap<Mode>>,
    default_topics: Arc<[String]>,
    areas: Areas,
    notice: Arc<CaseNotice>,
    revocations: Revocations,
}

#[derive(Debug)]
enum Mode {
    Jwt(Verifier),
    Callback(Box<CallbackClient>),
    None,
}

impl Authenticator {
    /// Reads the key material of the mode that was decided on; `settings` are the whole of `[auth]`. Refuses where key
    /// material is unusable, and where a default topic is not one.
    pub fn new(mode: &AuthMode, settings: &config::Auth, areas: &Areas) -> Result<Self, SettingError> {
        let mode = match mode {
            AuthMode::Jwt(jwt) => Mode::Jwt(Verifier::new(jwt, settings)?),
            AuthMode::Callback(callback) => Mode::Callback(Box::new(
                CallbackClient::new(&callback.url, fetch::trusted(settings)?, naming(settings))
                    .map_err(|what| SettingError::new("auth.callback_url", what))?,
            )),
            AuthMode::None => Mode::None,
        };
        for pattern in settings.default_topics.iter().filter(|pattern| *pattern != "*") {
            if let Err(error) = Subject::parse(pattern, areas) {
                let what = format_args!("has {pattern:?}: {error}");
                return Err(SettingError::new("auth.default_topics", what));
            }
        }
        let default_topics = settings.default_topics.clone().into();
        let revocations = Revocations::new(settings.max_token, naming(settings));
        let areas = areas.clone().with_naming(naming(settings));
        let mode = Arc::new(ArcSwap::from_pointee(mode));
        Ok(Self { mode, default_topics, areas, notice: Arc::default(), revocations })
    }

    /// The same over a CMS in a simulation (mode `callback`).
    #[cfg(feature = "simulation")]
    pub fn asking(self, cms: Arc<dyn ScriptedCms>, mode: &AuthMode) -> Result<Self, SettingError> {
        if let AuthMode::Callback(callback) = mode {
            let callback = CallbackClient::new(&callback.url, None, self.areas.naming())
                .map_err(|what| SettingError::new("auth.callback_url", what))?;
            self.mode.store(Arc::new(Mode::Callback(Box::new(callback.asking(cms)))));
        }
        Ok(self)
    }

    /// Who it is. Mode `callback` may answer from a memory of a few seconds; for those who ask again and again.
    pub async fn authenticate(&self, credentials: &Credentials) -> Result<Identity, AuthError> {
        self.judge(credentials, false).await
    }

    /// Who it is, asked anew: for a new session, or one whose identity is about to end.
    pub async fn renew(&self, credentials: &Credentials) -> Result<Identity, AuthError> {
        self.judge(credentials, true).await
    }

    /// Takes the keys of a configuration that was read again. If they cannot be used, the old ones stay. Key sets from a URL are not
    /// touched: they are read again by themselves.
    pub fn rotate(&self, mode: &AuthMode, settings: &config::Auth) -> Result<(), SettingError> {
        let AuthMode::Jwt(jwt) = mode else { return Ok(()) };
        if self.has_publish_claims() && !matches!(jwt.keys, KeySource::JwksUrl(_)) {
            self.mode.store(Arc::new(Mode::Jwt(Verifier::new(jwt, settings)?)));
        }
        Ok(())
    }

    /// What operators have revoked, as far as this node knows: whoever lets somebody in looks here last.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Whether the node itself can extend a session's identity, by [`Authenticator::renew`]; otherwise the client must bring a token.
    pub fn can_renew(&self) -> bool {
        matches!(**self.mode.load(), Mode::Callback(_))
    }

    /// Whether the configuration itself lets publishers in by their tokens (the CMS that is asked in mode `callback` may
    /// do so as well, but need not).
    pub fn has_publish_claims(&self) -> bool {
        matches!(**self.mode.load(), Mode::Jwt(_))
    }

    /// Whether clients prove who they are at all, so that a `publish` claim means something.
    pub fn reads_credentials(&self) -> bool {
        !matches!(**self.mode.load(), Mode::None)
    }

    async fn judge(&self, credentials: &Credentials, fresh: bool) -> Result<Identity, AuthError> {
        let mode = self.mode.load_full();
        let claims = match &*mode {
            Mode::None => return Ok(self.anonymous()),
            Mode::Callback(callback) => {
                let known = self.revocations.latest();
                match callback.ask(credentials, fresh, known).await? {
                    // It was remembered, and something was revoked since.
                    claims if !fresh && self.revoked(&claims.proof).is_some() => {
                        callback.ask(credentials, true, known).await?
                    }
                    claims => claims,
                }
            }
            Mode::Jwt(verifier) => {
                let missing = || {
                    AuthError::Missing("there is no token: send one in `Authorization: Bearer`, in the configured cookie or in `connect`".into())
                };
                verifier.verify(credentials.token.as_deref().ok_or_else(missing)?).await?
            }
        };
        if let Some(kind) = self.revoked(&claims.proof) {
            return Err(AuthError::Refused(why_revoked(kind).into()));
        }
        self.notice(&claims.user);
        let topics = claims.topics.as_deref().unwrap_or(&self.default_topics);
        let publish = claims.publish.iter().flatten().map(|pattern| self.spelled(pattern));
        Ok(Identity {
            grant: Grant::new(&claims.proof.user, topics),
            publish: Patterns::new(publish),
            expires: Some(claims.exp),
            user: claims.user,
            proof: claims.proof,
        })
    }

    /// A pattern in the spelling of this node's topics: in private areas, the editor's name may be written differently.
    fn spelled(&self, pattern: &str) -> String {
        Topic::parse_named(pattern, &self.areas).map_or_else(|_| pattern.into(), |topic| topic.to_string())
    }

    /// Looks at an editor's name, and warns the operator if upper and lower case count but perhaps should not.
    pub fn notice(&self, name: &str) {
        if self.areas.naming().minds_case_of(name) {
            self.notice.tell(name);
        }
    }

    fn revoked(&self, proof: &Proof) -> Option<Kind> {
        self.revocations.covers(proof, None)
    }

    fn anonymous(&self) -> Identity {
        let grant = Grant::new(ANONYMOUS, self.default_topics.iter());
        let made = Made::Asked { known: self.revocations.latest(), at: now_ms() };
        let proof = Arc::new(Proof { user: ANONYMOUS.into(), sid: None, jti: None, made });
        Identity { user: ANONYMOUS.into(), grant, publish: Patterns::default(), expires: None, proof }
    }
}

/// Why a proof that was good is refused now, for the client's developer.
pub fn why_revoked(kind: Kind) -> &'static str {
    match kind {
        Kind::Disconnect => {
            "an operator has closed this editor's sessions: what was issued up to half a minute after that is refused, get a new token"
        }
        Kind::Refresh => {
            "the editor's rights have changed: what was issued before is refused, get a new token"
        }
    }
}
