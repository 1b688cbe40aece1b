//! Tokens: JWTs (RFC 7519) that the CMS signs and nodes verify.
//!
//! Which algorithms are accepted is the operator's word, and a key is only ever used with algorithms of its own kind: a token
//! cannot talk a public key into being a shared secret, nor the signature away. `jsonwebtoken` checks the signature, and this
//! file the claims, so that a refusal can say precisely what is wrong (once the signature is good; it never quotes the token).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    AuthError, SettingError, crypto, fetch,
    jwks::Jwks,
    keys::{self, Key},
    names::naming,
};
use crate::{
    config::{self, Algorithm, Jwt, KeySource, Secret, shown_url},
    printable::quoted,
    protocol::{
        Made, Naming, Proof,
        time::{now_ms, rfc3339},
    },
};

pub use crate::protocol::revocation::LEEWAY;
/// The longest token, bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Seconds since 1970 up to the year 9999: what lies beyond is no time but a mistake, mostly milliseconds.
const END_OF_TIME: u64 = 253_402_300_799;

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The editor, as the token's `sub` has it.
    pub user: String,
    /// Who that is, and what a revocation is compared with.
    pub proof: Arc<Proof>,
    /// When the token ends, seconds since 1970; at most `auth.max_token_seconds` after it was issued.
    pub exp: u64,
    /// What may be followed; `None` where the token does not say.
    pub topics: Option<Vec<String>>,
    /// What may be published to; `None` where the token does not say.
    pub publish: Option<Vec<String>>,
}

/// What tokens are checked against.
#[derive(Debug)]
pub struct Verifier {
    keys: VerificationKeys,
    algorithms: Vec<Algorithm>,
    issuer: Vec<String>,
    audience: Vec<String>,
    longest: u64,
    naming: Naming,
}

#[derive(Debug)]
enum VerificationKeys {
    Fixed(Vec<Key>),
    Set(Box<Jwks>),
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Verifier {
    /// Reads the key material that `jwt` names; `settings` are the whole of `[auth]`.
    pub fn new(jwt: &Jwt, settings: &config::Auth) -> Result<Self, SettingError> {
        crypto::install();
        let mut algorithms = jwt.algorithms.clone();
        let keys = match &jwt.keys {
            KeySource::Secret { current, previous } => {
                let key = |secret: &Secret| Key::new(DecodingKey::from_secret(secret.expose().as_bytes()));
                VerificationKeys::Fixed(std::iter::once(current).chain(previous).map(key).collect())
            }
            KeySource::PublicKey(path) => {
                let complaint = |what: &str| {
                    SettingError::new("auth.public_key_file", format_args!("is {}: {what}", path.display()))
                };
                let pem = std::fs::read(path).map_err(|error| complaint(&error.to_string()))?;
                let (own, key) = keys::from_pem(&pem).map_err(complaint)?;
                if algorithms.is_empty() {
                    algorithms.push(own);
                } else if algorithms != [own] {
                    let what = format!("does not fit {}, whose algorithm is {own}", path.display());
                    return Err(SettingError::new("auth.algorithms", what));
                }
                VerificationKeys::Fixed(vec![key])
            }
            KeySource::JwksFile(path) => {
                let complaint = |what: String| {
                    // Perhaps a URL with a password and a slip of the pen.
                    let shown = shown_url(&path.display().to_string());
                    SettingError::new("auth.jwks", format_args!("is {shown}: {what}"))
                };
                VerificationKeys::Set(Box::new(Jwks::file(path.clone()).map_err(complaint)?))
            }
            KeySource::JwksUrl(url) => {
                let jwks = Jwks::url(url, fetch::trusted(settings)?);
                VerificationKeys::Set(Box::new(jwks.map_err(|what| SettingError::new("auth.jwks", what))?))
            }
        };
        let (issuer, audience) = (jwt.issuer.clone(), jwt.audience.clone());
        let (longest, naming) = (settings.max_token.as_secs(), naming(settings));
        Ok(Self { keys, algorithms, issuer, audience, longest, naming })
    }

    /// Checks a token as of now.
    pub async fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        let header = header(token)?;
        let algorithm = self.algorithm(&header)?;
        let found;
        let keys = match &self.keys {
            VerificationKeys::Fixed(keys) => keys,
            VerificationKeys::Set(jwks) => {
                found = jwks.find(header.kid.as_deref(), algorithm).await?;
                &found
            }
        };
        let mut claims = signed_claims(token, keys, algorithm);
        if claims.is_err()
            && let VerificationKeys::Set(jwks) = &self.keys
            && keys.iter().any(Key::is_unnamed)
            && jwks.reread().await
        {
            claims = signed_claims(token, &jwks.find(header.kid.as_deref(), algorithm).await?, algorithm);
        }
        let claims = claims?;
        self.check(&claims, now_ms() / 1000).map_err(AuthError::Refused)
    }

    fn algorithm(&self, header: &TokenHeader) -> Result<Algorithm, AuthError> {
        let known = self.algorithms.iter().find(|algorithm| algorithm.name() == header.alg);
        known.copied().ok_or_else(|| {
            let accepted = self.algorithms.iter().map(|a| a.name()).collect::<Vec<_>>().join(", ");
            AuthError::Refused(format!(
                "the token's algorithm is {}, but only {accepted} is accepted here (auth.algorithms)",
                quoted(&header.alg)
            ))
        })
    }

    /// The claims, judged at a time in seconds since 1970.
    fn check(&self, claims: &Map<String, Value>, now: u64) -> Result<Claims, String> {
        let (issued, exp) = self.life(claims, now)?;
        if now > exp.saturating_add(LEEWAY) {
            return Err(format!("the token expired {} ago, at {}", span(now - exp), instant(exp)));
        }
        if let Some(nbf) = seconds(claims, "nbf")?.filter(|nbf| *nbf > now.saturating_add(LEEWAY)) {
            return Err(format!(
                "the token is not valid before {} (`nbf`), in {}",
                instant(nbf),
                span(nbf - now)
            ));
        }
        one_of(claims, "iss", "auth.issuer", &self.issuer)?;
        one_of(claims, "aud", "auth.audience", &self.audience)?;
        let sub = match claims.get("sub") {
            Some(Value::String(sub)) if sub.trim().is_empty() => {
                return Err("the token's `sub` is empty: it must name the editor".into());
            }
            Some(Value::String(sub)) => sub.clone(),
            Some(_) => return Err("the token's `sub` is not a text: it must name the editor".into()),
            None => return Err("the token has no `sub`: it must name the editor".into()),
        };
        let key = self
            .naming
            .key(&sub)
            .map_err(|why| format!("the token's `sub` {why}: nobody can be called so"))?;
        let (sid, jti, made) = (name(claims, "sid")?, name(claims, "jti")?, Made::At(issued));
        let proof = Arc::new(Proof { user: key.into(), sid, jti, made });
        let (topics, publish) = (texts(claims, "topics")?, texts(claims, "publish")?);
        Ok(Claims { user: sub, proof, exp, topics, publish })
    }

    /// When it was issued and when it ends, seconds since 1970. A revocation is kept until all that it concerns has ended:
    /// no token may be good for longer than that, nor hide its age.
    fn life(&self, claims: &Map<String, Value>, now: u64) -> Result<(u64, u64), String> {
        let exp = seconds(claims, "exp")?.ok_or("the token has no `exp`: it must say when it ends")?;
        let soon = now.saturating_add(LEEWAY);
        match seconds(claims, "iat")? {
            Some(issued) if issued > soon => Err(format!(
                "the token is from the future: its `iat` is {}, in {}; is the clock of whoever signs it right?",
                instant(issued),
                span(issued - now)
            )),
            Some(issued) => Ok((issued, exp.min(issued.saturating_add(self.longest)))),
            None if exp.saturating_sub(self.longest) > soon => Err(format!(
                "the token has no `iat` and ends at {}, which is more than {} away (auth.max_token_seconds): write \
                 `iat`, or let it end earlier",
                instant(exp),
                span(self.longest)
            )),
            None => Ok((exp.saturating_sub(self.longest), exp)),
        }
    }
}

fn header(token: &str) -> Result<TokenHeader, AuthError> {
    let refused = |what: &str| AuthError::Refused(what.into());
    if token.len() > MAX_TOKEN {
        return Err(refused("the token is longer than 16 KiB"));
    }
    let not_a_jwt =
        || refused("the token is not a JWT: it must be three base64url parts with dots between them");
    if token.split('.').count() != 3 {
        return Err(not_a_jwt());
    }
    let first = token.split('.').next().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(first).map_err(|_| not_a_jwt())?;
    let header: TokenHeader = serde_json::from_slice(&bytes).map_err(|_| not_a_jwt())?;
    if header.crit.is_some() {
        return Err(refused("the token has a `crit` header, none of which is understood here"));
    }
    Ok(header)
}

/// The claims, if one of the keys made the signature.
fn signed_claims(token: &str, keys: &[Key], algorithm: Algorithm) -> Result<Map<String, Value>, AuthError> {
    let mut validation = Validation::new(algorithm.into());
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    for key in keys.iter().filter(|key| key.fits(algorithm)) {
        match jsonwebtoken::decode(token, key.decoding(), &validation) {
            Ok(data) => return Ok(data.claims),
            Err(error) => match error.kind() {
                ErrorKind::Json(_) | ErrorKind::Utf8(_) => {
                    return Err(AuthError::Refused("the token's claims are not a JSON object".into()));
                }
                // Another key may fit, for example the one before the rotation.
                _ => {}
            },
        }
    }
    let what = "the token's signature is wrong: it was signed with another key, or changed on the way";
    Err(AuthError::Refused(what.into()))
}

fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    let number = match claims.get(name) {
        None | Some(Value::Null) => return Ok(None),
        // Fractions are allowed (RFC 7519, 2).
        Some(Value::Number(number)) => number.as_f64().unwrap_or(f64::INFINITY),
        Some(_) => return Err(format!("the token's `{name}` is not a number of seconds since 1970")),
    };
    if !(0.0..=END_OF_TIME as f64).contains(&number) {
        return Err(format!(
            "the token's `{name}` is no time in seconds since 1970 (milliseconds, perhaps?)"
        ));
    }
    #[expect(clippy::cast_sign_loss, reason = "positive, as was just seen")]
    Ok(Some(number as u64))
}

/// A name that `POST /disconnect` knows the token or its session by. It is a text (RFC 7519, 4.1.7); some write a number.
fn name(claims: &Map<String, Value>, claim: &str) -> Result<Option<Box<str>>, String> {
    match claims.get(claim).unwrap_or(&Value::Null) {
        Value::Null => Ok(None),
        Value::String(name) => Ok(Some(name.as_str().into())),
        Value::Number(number) => Ok(Some(number.to_string().into())),
        _ => Err(format!("the token's `{claim}` is not a text: nobody could revoke it by that name")),
    }
}

fn texts(claims: &Map<String, Value>, name: &str) -> Result<Option<Vec<String>>, String> {
    let Some(value) = claims.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    // One text is a list too: many write "*".
    if let Some(text) = value.as_str() {
        return Ok(Some(text.split(',').map(|item| item.trim().to_owned()).collect()));
    }
    let items =
        value.as_array().and_then(|items| items.iter().map(|item| item.as_str().map(Into::into)).collect());
    items.map(Some).ok_or_else(|| format!("the token's `{name}` is not a list of texts"))
}

fn one_of(claims: &Map<String, Value>, name: &str, key: &str, accepted: &[String]) -> Result<(), String> {
    if accepted.is_empty() {
        return Ok(());
    }
    let given: Vec<&str> = match claims.get(name) {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if given.iter().any(|text| accepted.iter().any(|accepted| accepted == text)) {
        return Ok(());
    }
    let accepted = accepted.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" or ");
    let given = given.iter().take(3).map(|text| quoted(text)).collect::<Vec<_>>().join(", ");
    if given.is_empty() {
        return Err(format!("the token has no `{name}`: it must be {accepted} ({key})"));
    }
    Err(format!("the token's `{name}` is {given}: it must be {accepted} ({key})"))
}

fn span(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

fn instant(seconds: u64) -> String {
    // Later than the year 9999 there is no RFC 3339.
    rfc3339(seconds.min(END_OF_TIME) * 1000).replace(".000Z", "Z")
}

/// A token to be made, for tests of a set-up, demos and scripts; a CMS makes its own.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// The editor.
    pub sub: String,
    /// How long it is good.
    pub ttl: Duration,
    /// What may be followed.
    pub topics: Option<Vec<String>>,
    /// What may be published to.
    pub publish: Option<Vec<String>>,
    /// Who made it.
    pub iss: Option<String>,
    /// Whom it is for.
    pub aud: Option<String>,
    /// The token's own name, by which `POST /disconnect` can refuse it.
    pub jti: Option<String>,
    /// The name of its sign-in, by which `POST /disconnect` can close its sessions.
    pub sid: Option<String>,
}

impl NewToken {
    /// With the first issuer and audience that are accepted, where none is named.
    #[must_use]
    pub fn accepted_by(mut self, jwt: &Jwt) -> Self {
        self.iss = self.iss.or_else(|| jwt.issuer.first().cloned());
        self.aud = self.aud.or_else(|| jwt.audience.first().cloned());
        self
    }

    /// The token as `jwt` accepts it, signed with its shared secret and its first algorithm (HS256 where it names none).
    pub fn sign_for(self, jwt: &Jwt, secret: &Secret) -> Result<String, jsonwebtoken::errors::Error> {
        let algorithm = jwt.algorithms.first().copied().unwrap_or(Algorithm::Hs256);
        self.accepted_by(jwt).sign(secret, algorithm)
    }

    /// The token, signed with a shared secret.
    pub fn sign(&self, secret: &Secret, algorithm: Algorithm) -> Result<String, jsonwebtoken::errors::Error> {
        let now = now_ms() / 1000;
        let mut claims: BTreeMap<&str, Value> = BTreeMap::new();
        claims.insert("sub", self.sub.as_str().into());
        claims.insert("iat", now.into());
        claims.insert("exp", now.saturating_add(self.ttl.as_secs()).into());
        let lists = [("topics", &self.topics), ("publish", &self.publish)];
        claims.extend(lists.into_iter().filter_map(|(name, list)| Some((name, list.clone()?.into()))));
        let texts = [("iss", &self.iss), ("aud", &self.aud), ("jti", &self.jti), ("sid", &self.sid)];
        claims.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?.into()))));
        sign(&claims, secret, algorithm)
    }
}

/// Any claims as a token, signed with a shared secret. Fails for an algorithm that needs a private key.
pub fn sign(
    claims: &impl Serialize,
    secret: &Secret,
    algorithm: Algorithm,
) -> Result<String, jsonwebtoken::errors::Error> {
    crypto::install();
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm.into()), claims, &key)
}
