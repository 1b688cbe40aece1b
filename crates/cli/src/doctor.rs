//! `carillon doctor`: why do live updates not arrive?
//!
//! Asks in the order in which a person would: is somebody there, is it a node, does a WebSocket open, does a session
//! live, do the other ways work, is Redis well? Each question has a file under `doctor/`; each answer is one sentence,
//! and where it is a bad one, another says what to change where.

mod clock;
mod compare;
mod fallback;
mod handshake;
mod hop;
mod net;
mod node;
mod place;
mod redis;
mod report;
mod session;
mod token;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use carillon::{
    app::wiring,
    auth::NewToken,
    config::{Config, is_coloured},
    shutdown::Tasks,
};
use clap::Args;

use self::{
    hop::Hop,
    net::{Endpoint, Visitor},
    place::Place,
    report::{Finding, Part, Report},
    session::Session,
};
use super::{Usage, is_written, print, publish::read_token, settings::ConfigFile, token::shared_secret};

/// How long a token of our own lasts.
const TOKEN_TTL: Duration = Duration::from_mins(15);
/// How long one lasts whose end is to be announced; that comes after two thirds of it.
const BRIEF_TTL: Duration = Duration::from_secs(9);

/// Find out why live updates do not arrive: DNS, TLS, proxies, handshake, tokens, idle timeouts, buffering, Redis
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0: nothing is wrong; 1: something is. Nothing is changed; tokens and cookies are never printed.

Examples:
  carillon doctor https://cms.example.com/realtime
  carillon doctor https://cms.example.com/realtime --token-file token --idle 90
  carillon doctor https://cms.example.com/realtime --direct http://10.0.0.5:8080
  carillon doctor https://cms.example.com/realtime --redis redis://:PASSWORD@10.0.0.9:6379 --json")]
pub(super) struct Doctor {
    #[command(flatten)]
    file: ConfigFile,
    /// Public address of a node, as browsers use it
    url: String,
    /// The node itself, past every proxy: to find out who is at fault
    #[arg(long, value_name = "URL")]
    direct: Option<String>,
    /// Origin of the pages that connect [default: that of the address]
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    /// File with a token to connect with [default: one minted with auth.secret of --config]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the Cookie header of an editor who is signed in
    #[arg(long, value_name = "FILE")]
    cookie_file: Option<PathBuf>,
    /// File (PEM) with an authority to trust besides this machine's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Seconds that a connection is left quiet; 0: not at all (then later bytes of SSE are not waited for either)
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    idle: u64,
    /// Examine this Redis too [default: redis.url of --config]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is the same for the public way and the direct one.
struct Plan<'a> {
    config: &'a Config,
    token: Option<String>,
    /// The token is of our own making, and so can others be.
    minted: bool,
    idle: Duration,
    ca: Option<PathBuf>,
    tasks: Tasks,
}

impl Doctor {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config()?;
        let place = Place::parse(&self.url, &config.http.base_path)?;
        let direct = self.direct.as_deref().map(|url| Place::parse(url, &place.base)).transpose()?;
        let (token, minted) = self.token(&config)?;
        let plan = Plan {
            config: &config,
            token,
            minted,
            idle: Duration::from_secs(self.idle),
            ca: self.ca.clone(),
            tasks: Tasks::new(),
        };
        let (public, direct, redis) = tokio::join!(
            self.way("public", place.clone(), &place, &plan),
            async {
                match direct {
                    Some(direct) => self.way("direct", direct, &place, &plan).await.map(Some),
                    None => Ok(None),
                }
            },
            self.redis(&config, &plan.tasks),
        );
        plan.tasks.end(Duration::from_secs(1)).await;
        let ((mut public, hop), direct) = (public?, direct?);
        if let Some((direct, _)) = &direct {
            compare::blame(&mut public, direct, hop.name());
        }
        let parts = std::iter::once(public).chain(direct.map(|(part, _)| part)).chain(redis?);
        let report = Report(parts.collect());
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&report.json())?))?;
        } else {
            is_written(&report.table(is_coloured(std::io::stdout().is_terminal())))?;
        }
        Ok(if report.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn config(&self) -> anyhow::Result<Config> {
        let layers = self.file.layers();
        Ok(match &self.redis {
            Some(url) => layers.set("redis.url", url, "--redis").load()?,
            None => layers.load()?,
        })
    }

    /// The token to show, and whether it is of our own making.
    fn token(&self, config: &Config) -> anyhow::Result<(Option<String>, bool)> {
        if let Some(path) = &self.token_file {
            return Ok((Some(read_token(path)?), false));
        }
        let token = if self.cookie_file.is_some() { None } else { mint(config, TOKEN_TTL)? };
        let minted = token.is_some();
        Ok((token, minted))
    }

    /// Examines Redis, where one is named.
    async fn redis(&self, config: &Config, tasks: &Tasks) -> anyhow::Result<Option<Part>> {
        let settings = wiring::bus(config, &wiring::areas(config)?);
        let Some(target) = &settings.redis else { return Ok(None) };
        let mut findings = redis::examine(&settings, tasks).await;
        if self.redis.is_some() && self.file.path().is_none() && !target.names_user() {
            findings.push(redis::user_is_unknown());
        }
        Ok(Some(Part { name: "redis", place: target.shown(), findings }))
    }

    /// Examines one way to a node. `public` is what pages call it.
    async fn way(
        &self,
        name: &'static str,
        place: Place,
        public: &Place,
        plan: &Plan<'_>,
    ) -> anyhow::Result<(Part, Hop)> {
        let cookie = self.cookie_file.as_deref().map(read_cookie).transpose()?;
        let origin = self.origin.clone().unwrap_or_else(|| public.origin());
        let visitor = Visitor { host: public.authority.clone(), origin, cookie };
        if visitor.origin.parse::<hyper::header::HeaderValue>().is_err() {
            return Err(Usage("--origin cannot be sent in a header".into()).into());
        }
        let shown = place.shown();
        let (mut findings, endpoint) =
            Endpoint::find(place, visitor, plan.ca.as_deref(), plan.tasks.clone()).await?;
        let mut hop = Hop::default();
        if let Some(endpoint) = &endpoint {
            let node = node::ask(endpoint).await;
            findings.extend(node.findings);
            hop = node.hop;
            findings.extend(sessions(endpoint, &hop, node.heartbeat, plan).await);
        }
        Ok((Part { name, place: shown, findings }, hop))
    }
}

/// Everything from the handshake on.
async fn sessions(endpoint: &Endpoint, hop: &Hop, heartbeat: Option<u64>, plan: &Plan<'_>) -> Vec<Finding> {
    let token = plan.token.as_deref();
    let mut findings = Vec::new();
    let session = match handshake::open(endpoint, hop).await {
        Ok((socket, finding)) => {
            findings.push(finding);
            match Session::begin(socket, token).await {
                Ok(session) => {
                    findings.push(if plan.minted {
                        token::minted()
                    } else {
                        token::accepted(token, &session.welcome)
                    });
                    Some(session)
                }
                Err(end) => {
                    findings.push(token::refused(token, &end));
                    findings.push(Finding::untested("round trip", "There is no session to ask."));
                    None
                }
            }
        }
        Err(finding) => {
            findings.push(*finding);
            findings.push(fallback::token(endpoint, token).await);
            None
        }
    };
    let is_node = heartbeat.is_some() || session.is_some();
    // The quiet times run side by side.
    let (live, other) = tokio::join!(live(session, plan, hop), async {
        if is_node {
            let (sse, poll) = tokio::join!(
                plan.sse(endpoint, hop, heartbeat.unwrap_or(25)),
                fallback::poll(endpoint, hop, token, plan.idle)
            );
            return [sse, poll];
        }
        ["sse", "poll"].map(|question| Finding::untested(question, "There is no node to ask."))
    });
    findings.extend(live);
    findings.extend(other);
    findings
}

async fn live(session: Option<Session>, plan: &Plan<'_>, hop: &Hop) -> Vec<Finding> {
    let Some(mut session) = session else { return Vec::new() };
    let mut findings = vec![session.round_trip().await];
    if findings[0].verdict != report::Verdict::Bad && !plan.idle.is_zero() {
        findings.push(session.idle(plan.idle, hop).await);
    }
    findings
}

impl Plan<'_> {
    /// Listens to an SSE stream until the node says something later: that a token ends soon, where we can make one that
    /// does, else its heartbeat.
    async fn sse(&self, endpoint: &Endpoint, hop: &Hop, heartbeat: u64) -> Finding {
        let brief = if self.minted { mint(self.config, BRIEF_TTL).ok().flatten() } else { None };
        let within =
            if brief.is_some() { BRIEF_TTL.mul_f64(0.8) } else { Duration::from_secs(heartbeat + 3) };
        let later = (!self.idle.is_zero()).then_some(within);
        fallback::sse(endpoint, hop, brief.as_deref().or(self.token.as_deref()), later).await
    }
}

/// A token, where there is a secret to sign it with. Without one it goes without, and the node says what it thinks.
fn mint(config: &Config, ttl: Duration) -> anyhow::Result<Option<String>> {
    let Ok((jwt, secret)) = shared_secret(config) else { return Ok(None) };
    let token = NewToken { sub: "carillon-doctor".into(), ttl, ..NewToken::default() };
    Ok(Some(token.sign_for(jwt, secret)?))
}

fn read_cookie(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("no cookie can be read from {}", path.display()))?;
    let text = text.trim();
    Ok(text.strip_prefix("Cookie:").unwrap_or(text).trim().to_owned())
}
