//! `[auth]`: the decision who may connect, checked for completeness. There is no default.
//!
//! Key material is only located here (but for the shared secrets); `auth` reads keys and knows what a token is.

use std::{fmt, path::PathBuf, time::Duration};

use super::{Config, ConfigError, reader::ValueReader, secret::Secret};

/// Bytes that a shared secret must have (RFC 7518, 3.2, for HS256).
const SECRET_BYTES: usize = 32;

/// `[auth]`
#[derive(Debug, Clone)]
pub struct Auth {
    /// The decision; `None` where nobody made it, see [`Config::auth_mode`].
    pub mode: Option<AuthMode>,
    /// Name of the cookie that may carry the token.
    pub cookie: Option<String>,
    /// Topics for those whose token or callback answer names none.
    pub default_topics: Vec<String>,
    /// Authorities (PEM) for the https of [`KeySource::JwksUrl`] and [`Callback`], in place of the system's.
    pub tls_ca: Option<PathBuf>,
    /// How long after its issue a token counts at most.
    pub max_token: Duration,
    /// Whether editors' names do not distinguish case.
    pub fold_subject: bool,
}

/// Who may connect.
#[derive(Debug, Clone)]
pub enum AuthMode {
    /// Bearers of signed tokens.
    Jwt(Jwt),
    /// Whom the CMS vouches for when asked.
    Callback(Callback),
    /// Everybody.
    None,
}

/// What a token must satisfy.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// What signatures are checked with.
    pub keys: KeySource,
    /// Accepted algorithms; never empty but for [`KeySource::PublicKey`], where that means «the one of the key».
    pub algorithms: Vec<Algorithm>,
    /// Accepted `iss`; empty: any.
    pub issuer: Vec<String>,
    /// Accepted `aud`; empty: any.
    pub audience: Vec<String>,
}

/// What signatures are checked with.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A secret shared with the CMS.
    Secret {
        /// In use.
        current: Secret,
        /// In use before, during rotation.
        previous: Option<Secret>,
    },
    /// A public key, PEM.
    PublicKey(PathBuf),
    /// A set of public keys in a file.
    JwksFile(PathBuf),
    /// A set of public keys behind a URL (secret, since its query may hold one).
    JwksUrl(Secret),
}

/// A signature algorithm of JWTs (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// Those of a shared secret.
    pub const SYMMETRIC: [Self; 3] = [Self::Hs256, Self::Hs384, Self::Hs512];
    /// Those of a public key.
    pub const ASYMMETRIC: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the CMS is asked.
#[derive(Debug, Clone)]
pub struct Callback {
    /// `http://` or `https://` (secret, since its query may hold one).
    pub url: Secret,
}

#[derive(Clone, Copy)]
enum Word {
    Jwt,
    Callback,
    None,
}

impl Auth {
    pub(super) fn read(reader: &mut ValueReader) -> Self {
        let words = [("jwt", Word::Jwt), ("callback", Word::Callback), ("none", Word::None)];
        let word = reader.choice("auth.mode", &words);
        // Everything is read in any mode, so that a typing error does not wait for the day the mode changes.
        let jwt = Jwt::read(reader, matches!(word, Some(Word::Jwt)));
        let callback = url(reader, "auth.callback_url");
        let cookie = |text: &str| text.bytes().all(is_cookie_byte).then(|| text.to_owned());
        let auth = Self {
            mode: None,
            cookie: reader.parsed("auth.cookie", "a cookie's name (letters, digits, - and _)", cookie),
            default_topics: reader.list("auth.default_topics"),
            tls_ca: reader.file("auth.tls_ca"),
            max_token: reader.seconds("auth.max_token_seconds", 60..=31_536_000),
            fold_subject: reader.flag("auth.fold_subject"),
        };
        let mode = match word {
            Some(Word::Jwt) => jwt.map(AuthMode::Jwt),
            Some(Word::Callback) => {
                if callback.is_none() {
                    reader.complain("auth.mode", "is callback, which needs auth.callback_url");
                }
                callback.map(|url| AuthMode::Callback(Callback { url }))
            }
            Some(Word::None) => Some(AuthMode::None),
            None => None,
        };
        Self { mode, ..auth }
    }
}

/// A byte of a cookie's name (RFC 6265: a token of RFC 9110).
fn is_cookie_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    !authority.is_empty()
        && !authority.contains('@')
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

pub(super) fn url(reader: &mut ValueReader, key: &str) -> Option<Secret> {
    let url = reader.text(key)?;
    if !is_url(&url) {
        reader.complain(
            key,
            "must be a URL that starts with https:// or http:// and has no user name or password",
        );
    }
    Some(Secret::new(url))
}

impl Jwt {
    fn read(reader: &mut ValueReader, needed: bool) -> Option<Self> {
        let keys = KeySource::read(reader, needed);
        let all = [Algorithm::SYMMETRIC, Algorithm::ASYMMETRIC].concat();
        let fitting: &[Algorithm] = match keys {
            Some(KeySource::Secret { .. }) => &Algorithm::SYMMETRIC,
            Some(_) => &Algorithm::ASYMMETRIC,
            None => &all,
        };
        let names = fitting.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ");
        let allowed = format!("one of {names} (what auth's key can verify)");
        let find = |text: &str| fitting.iter().copied().find(|algorithm| algorithm.name() == text);
        let mut algorithms = reader.parsed_list("auth.algorithms", &allowed, find);
        if algorithms.is_empty() && !matches!(keys, Some(KeySource::PublicKey(_))) {
            algorithms = fitting.to_vec();
        }
        let (issuer, audience) = (reader.list("auth.issuer"), reader.list("auth.audience"));
        Some(Self { keys: keys?, algorithms, issuer, audience })
    }
}

impl KeySource {
    fn read(reader: &mut ValueReader, needed: bool) -> Option<Self> {
        let secret = shared(reader, "auth.secret");
        let previous = shared(reader, "auth.previous_secret");
        let public = reader.file("auth.public_key_file");
        let jwks = match reader.text("auth.jwks") {
            Some(text) if text.contains("://") => url(reader, "auth.jwks").map(Self::JwksUrl),
            Some(_) => reader.file("auth.jwks").map(Self::JwksFile),
            None => None,
        };
        let count =
            usize::from(secret.is_some()) + usize::from(public.is_some()) + usize::from(jwks.is_some());
        if count > 1 {
            let what =
                "is jwt with more than one of auth.secret, auth.public_key_file and auth.jwks: keep one";
            reader.complain("auth.mode", what);
        } else if count == 0 && needed {
            let what = "is jwt, which needs one of auth.secret (or auth.secret_file), auth.public_key_file and auth.jwks";
            reader.complain("auth.mode", what);
        }
        match (secret, public, jwks) {
            (Some(current), ..) => Some(Self::Secret { current, previous }),
            (None, Some(file), _) => Some(Self::PublicKey(file)),
            (None, None, jwks) => jwks,
        }
    }
}

/// A secret that others have too: long enough not to be guessed.
pub(super) fn shared(reader: &mut ValueReader, key: &str) -> Option<Secret> {
    let secret = reader.secret(key)?;
    let bytes = secret.expose().len();
    if secret.expose().contains("-----BEGIN") {
        // A public key as shared secret would let everybody sign.
        reader
            .complain_of_secret(key, "is a PEM key: a key belongs in a file that auth.public_key_file names");
    } else if bytes < SECRET_BYTES {
        let need = format!(
            "has {bytes} bytes: it must have {SECRET_BYTES} or more, for example from `openssl rand -hex 32`"
        );
        reader.complain_of_secret(key, need);
    }
    Some(secret)
}

impl Config {
    /// The decision who may connect, or how to make one.
    pub fn auth_mode(&self) -> Result<&AuthMode, ConfigError> {
        self.auth.mode.as_ref().ok_or_else(|| ConfigError(vec![UNDECIDED.into()]))
    }
}

const UNDECIDED: &str = "\
nobody has decided who may connect: auth.mode is not set, and there is no default. \
For tokens that your CMS signs write auth.mode = \"jwt\" and auth.secret_file = \"/run/secrets/carillon\" (32 bytes or \
more, for example from `openssl rand -hex 32`; or auth.public_key_file, or auth.jwks), and to have your CMS asked with each \
browser's cookies write auth.mode = \"callback\" and auth.callback_url = \"https://cms.example.com/who\". \
On a trusted network only, auth.mode = \"none\" with auth.default_topics = [\"*\"] lets everybody in; and to look \
around, `carillon dev` needs no decision.";
