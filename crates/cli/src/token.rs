//! `carillon token mint | show`: tokens for trying out a set-up, and why one is refused.

use std::{
    io::{IsTerminal, Read},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use carillon::{
    auth::{NewToken, Verifier},
    config::{Algorithm, AuthMode, Config, Jwt, KeySource, Layers, Secret},
    protocol::{
        revocation::MAX_NAME,
        time::{now_ms, rfc3339},
    },
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Usage, print, say, settings::ConfigFile};

/// Mint a token, or show what is in one
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  carillon token mint --config carillon.toml --sub anna --topics comments:42 --ttl 15m
  carillon token show --config carillon.toml eyJhbGciOi…")]
pub(super) enum Token {
    /// Sign a token with the shared secret and print it
    #[command(after_help = "\
Examples:
  carillon token mint --config carillon.toml --sub anna --topics comments:42,projects --ttl 15m
  carillon token mint --secret-file /run/secrets/carillon --sub cms --publish 'comments:*' --ttl 24h")]
    Mint(Mint),
    /// Print header and claims of a token, and whether it is good where a key is configured
    #[command(after_help = "\
Examples:
  carillon token show --config carillon.toml eyJhbGciOi…
  carillon token mint --config carillon.toml --sub anna | carillon token show")]
    Show(Show),
}

impl Token {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Mint(mint) => mint.run(),
            Self::Show(show) => show.run().await,
        }
    }
}

#[derive(Debug, Args)]
struct Key {
    #[command(flatten)]
    file: ConfigFile,
    /// Shared secret; others on this machine can see it in the list of processes
    #[arg(long, value_name = "TEXT", conflicts_with = "secret_file")]
    secret: Option<String>,
    /// File with the shared secret
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl Key {
    /// The configuration, with the secret of the options in place of the configured key.
    fn load(self) -> anyhow::Result<Config> {
        let own = |key: &str, value: String, by| {
            let layers = Layers::new().set("auth.mode", "jwt", by).set(key, value, by);
            Ok(layers.load()?)
        };
        match (self.secret, self.secret_file) {
            (Some(secret), _) => own("auth.secret", secret, "--secret"),
            (None, Some(path)) => own("auth.secret_file", path.display().to_string(), "--secret-file"),
            (None, None) => Ok(self.file.load()?),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Hmac {
    Hs256,
    Hs384,
    Hs512,
}

impl From<Hmac> for Algorithm {
    fn from(algorithm: Hmac) -> Self {
        match algorithm {
            Hmac::Hs256 => Self::Hs256,
            Hmac::Hs384 => Self::Hs384,
            Hmac::Hs512 => Self::Hs512,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Mint {
    #[command(flatten)]
    key: Key,
    /// The editor's name
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    sub: String,
    /// What may be followed: topics, area:*, a prefix such as content:2/5/*, or *; without it the node's
    /// auth.default_topics count
    #[arg(long, value_name = "TOPIC,…", value_delimiter = ',')]
    topics: Option<Vec<String>>,
    /// What may be published to by POST /publish; the same patterns
    #[arg(long, value_name = "TOPIC,…", value_delimiter = ',')]
    publish: Option<Vec<String>>,
    /// How long the token is good: 90s (or 90), 15m, 8h; nodes accept it for at most auth.max_token_seconds (a day)
    #[arg(long, default_value = "15m", value_parser = span)]
    ttl: Duration,
    /// Algorithm [default: the first of auth.algorithms]
    #[arg(long)]
    algorithm: Option<Hmac>,
    /// Issuer [default: the first of auth.issuer]
    #[arg(long, value_name = "TEXT")]
    iss: Option<String>,
    /// Audience [default: the first of auth.audience]
    #[arg(long, value_name = "TEXT")]
    aud: Option<String>,
    /// Name of this token: `POST /disconnect {"jti":"…"}` refuses it and closes its sessions
    #[arg(long, value_name = "NAME", value_parser = name)]
    jti: Option<String>,
    /// Name of the sign-in: `POST /disconnect {"session":"…"}` closes the sessions of all its tokens
    #[arg(long, value_name = "NAME", value_parser = name)]
    sid: Option<String>,
}

/// A name that nodes accept in a token.
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME {
        return Err(format!("it must have 1 to {MAX_NAME} bytes"));
    }
    Ok(text.into())
}

/// A time with a unit, or seconds.
fn span(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .or_else(|_| humantime::parse_duration(text).map_err(|_| "it must be like 90s, 15m or 8h".into()))
}

impl Mint {
    fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.key.load()?;
        let longest = config.auth.max_token;
        if self.ttl > longest {
            let span = humantime::format_duration(longest);
            say(format_args!(
                "nodes accept this token for {span} only, whatever --ttl says (auth.max_token_seconds)"
            ));
        }
        let (jwt, secret) = shared_secret(&config)?;
        let token = NewToken {
            sub: self.sub,
            ttl: self.ttl,
            topics: self.topics,
            publish: self.publish,
            iss: self.iss,
            aud: self.aud,
            jti: self.jti,
            sid: self.sid,
        };
        let algorithm = self.algorithm.map(Into::into).or_else(|| jwt.algorithms.first().copied());
        let token = token
            .accepted_by(jwt)
            .sign(secret, algorithm.unwrap_or(Algorithm::Hs256))
            .context("the token cannot be signed")?;
        print(&format!("{token}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The secret that tokens are signed with here, and what they must satisfy.
pub(super) fn shared_secret(config: &Config) -> Result<(&Jwt, &Secret), Usage> {
    match &config.auth.mode {
        Some(AuthMode::Jwt(jwt @ Jwt { keys: KeySource::Secret { current, .. }, .. })) => Ok((jwt, current)),
        Some(AuthMode::Jwt(_)) => Err(Usage(
            "only tokens with a shared secret can be minted here: this configuration has public keys, and the private \
             one is with your CMS"
                .into(),
        )),
        Some(AuthMode::Callback(_) | AuthMode::None) => {
            Err(Usage("no tokens are used here: auth.mode is not jwt (give --secret-file FILE to mint one anyway)".into()))
        }
        None => Err(Usage(
            "there is no secret to sign with: give --secret-file FILE, or --config FILE with auth.mode = \"jwt\" and \
             auth.secret_file"
                .into(),
        )),
    }
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    key: Key,
    /// The token; without it, or with -, it is read from standard input
    token: Option<String>,
    /// Print one line of JSON, instead of several
    #[arg(long)]
    json: bool,
}

impl Show {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let token = match self.token.filter(|token| token != "-") {
            Some(token) => token,
            None => read_token()?,
        };
        let token = token.trim();
        let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
        let [header, claims] = parts(token)?;
        let mut shown = json!({"header": &header, "claims": &claims});
        if let Some(exp) = claims.get("exp").and_then(Value::as_u64) {
            shown["expires"] = expiry(exp).into();
        }
        let config = self.key.load()?;
        let mut refusal = None;
        if let Some(AuthMode::Jwt(jwt)) = &config.auth.mode {
            if let Some(end) = accepted_until(&claims, config.auth.max_token) {
                shown["accepted_until"] = expiry(end).into();
            }
            let verifier = Verifier::new(jwt, &config.auth);
            let verifier = verifier.map_err(|wrong| config.complaint(wrong.key, wrong.what))?;
            let verdict = verifier.verify(token).await;
            shown["good"] = verdict.is_ok().into();
            if let Err(why) = verdict {
                shown["why"] = why.to_string().into();
                refusal = Some(why);
            }
        } else {
            shown["good"] =
                "not checked: give --secret-file FILE, or --config FILE with auth.mode = \"jwt\"".into();
        }
        let text = if self.json { shown.to_string() } else { serde_json::to_string_pretty(&shown)? };
        print(&format!("{text}\n"))?;
        refusal.map_or(Ok(ExitCode::SUCCESS), |why| Err(why.into()))
    }
}

/// When nodes stop accepting a token, where that is before its `exp`: seconds since 1970.
fn accepted_until(claims: &Value, longest: Duration) -> Option<u64> {
    let seconds = |name: &str| claims.get(name).and_then(Value::as_u64);
    let end = seconds("iat")?.checked_add(longest.as_secs())?;
    (seconds("exp")? > end).then_some(end)
}

fn read_token() -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        return Err(Usage("give the token as an argument or on standard input".into()).into());
    }
    let mut text = String::new();
    std::io::stdin().take(1 << 20).read_to_string(&mut text).context("standard input cannot be read")?;
    Ok(text)
}

/// Header and claims, unchecked.
pub(super) fn parts(token: &str) -> Result<[Value; 2], Usage> {
    let not_a_jwt = |what: &str| {
        Usage(format!(
            "that is not a JWT: {what}; a token is one long line of letters and digits with two dots in it, and begins with eyJ"
        ))
    };
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, _] = parts[..] else {
        return Err(not_a_jwt(&match parts.len() - 1 {
            0 => "it has no dots".to_owned(),
            1 => "it has only one dot".to_owned(),
            dots => format!("it has {dots} dots"),
        }));
    };
    let read = |name: &str, part: &str| {
        let bytes =
            URL_SAFE_NO_PAD.decode(part).map_err(|_| not_a_jwt(&format!("its {name} is not base64url")))?;
        serde_json::from_slice(&bytes).map_err(|_| not_a_jwt(&format!("its {name} is not JSON")))
    };
    Ok([read("header", header)?, read("claims", claims)?])
}

fn expiry(exp: u64) -> String {
    let now = now_ms() / 1000;
    let span = humantime::format_duration(Duration::from_secs(now.abs_diff(exp)));
    let when = rfc3339(exp.min(253_402_300_799) * 1000);
    if exp >= now { format!("{when} (in {span})") } else { format!("{when} ({span} ago)") }
}
