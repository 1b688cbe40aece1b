//! `carillon publish`: publish events, through a node or straight into Redis.
//!
//! Nothing that was handed over gets lost: what was not accepted is kept in a file, and the last line says where.

use std::{
    io::{IsTerminal, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use carillon::{
    app::wiring,
    auth::NewToken,
    bus::{BusError, redis::Publisher},
    config::{Config, is_coloured},
    protocol::{Event, Topic, time},
    shutdown::Tasks,
};
use clap::Args;
use http_body_util::Full;
use hyper::{Request, StatusCode, header};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
};

use super::{
    Usage,
    exchange::exchange,
    print, say,
    settings::{self, ConfigFile},
    token::shared_secret,
};

/// How long one event may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a token of our own lasts; standard input may go on for long.
const TOKEN_TTL: Duration = Duration::from_hours(24);

/// Publish an event
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the position of each event, one a line. What is not accepted from standard input is kept in a file.

Examples:
  carillon publish comments:42 '{\"type\":\"comment.created\"}'
  carillon publish comments:42 @event.json --url http://10.0.0.5:9090 --token-file token
  producer | carillon publish comments:42 - --redis redis://127.0.0.1:6379")]
pub(super) struct Publish {
    #[command(flatten)]
    file: ConfigFile,
    /// The topic: area or area:key
    topic: String,
    /// The event: JSON, @FILE, or - for one JSON a line on standard input
    event: String,
    /// Live: delivered to whoever is connected now, and not kept
    #[arg(long)]
    live: bool,
    /// Internal listener of a node [default: the configured one on this machine, or, where no node listens there, the
    /// configured Redis]
    #[arg(long, value_name = "URL", conflicts_with = "redis")]
    url: Option<String>,
    /// Publish straight into this Redis
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// File with the token that authorises [default: the configured internal.publish_token, or one minted with the
    /// configured auth.secret]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// With -: where what was not accepted is kept [default: carillon-not-published-TIME.jsonl]
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
}

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let via = PublishVia::open(&self).await?;
        let result = match self.event.as_str() {
            "-" => self.publish_lines(&via).await,
            event => {
                let json = match event.strip_prefix('@') {
                    Some(path) => std::fs::read(path)
                        .with_context(|| format!("the event cannot be read from {path}"))?,
                    None => event.as_bytes().to_vec(),
                };
                let position = via.publish(&json, self.live).await?;
                print(&format!("{position}\n"))?;
                Ok(ExitCode::SUCCESS)
            }
        };
        via.close().await;
        result
    }

    async fn publish_lines(&self, via: &PublishVia) -> anyhow::Result<ExitCode> {
        let mut lines = BufReader::new(tokio::io::stdin()).split(b'\n');
        let progress = progress();
        let mut kept = Kept::new(self.keep.clone());
        let (mut number, mut accepted, mut away) = (0u64, 0u64, false);
        while let Some(line) = lines.next_segment().await.context("standard input cannot be read")? {
            number += 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            // With Redis or the node away the rest is kept without trying: each try would wait in vain.
            if away {
                kept.add(&line)?;
                continue;
            }
            match via.publish(&line, self.live).await {
                Ok(position) => {
                    accepted += 1;
                    progress.suspend(|| print(&format!("{position}\n")))?;
                }
                Err(error) => {
                    kept.add(&line)?;
                    progress.suspend(|| say(format_args!("line {number} was not published: {error:#}")));
                    away = error.downcast_ref::<BusError>().is_some_and(|e| matches!(e, BusError::Away(_)))
                        || error.is::<Unreachable>();
                }
            }
            progress.set_message(format!("{accepted} accepted, {} not", kept.count));
            progress.tick();
        }
        progress.finish_and_clear();
        if kept.count == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        bail!(
            "{} of {} events were not accepted and are kept in {}: mend what the lines above say and publish that file",
            kept.count,
            kept.count + accepted,
            kept.path.display()
        )
    }
}

fn progress() -> ProgressBar {
    let shown = is_coloured(std::io::stderr().is_terminal());
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    ProgressBar::with_draw_target(None, target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// What was not accepted, as it came.
struct Kept {
    path: PathBuf,
    file: Option<std::fs::File>,
    count: u64,
}

impl Kept {
    fn new(path: Option<PathBuf>) -> Self {
        let path = path.unwrap_or_else(|| format!("carillon-not-published-{}.jsonl", time::now_ms()).into());
        Self { path, file: None, count: 0 }
    }

    fn add(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let place = || format!("what was not accepted cannot be kept in {}", self.path.display());
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(std::fs::File::create(&self.path).with_context(place)?),
        };
        file.write_all(line)
            .and_then(|()| file.write_all(b"\n"))
            .with_context(|| "what was not accepted cannot be kept")?;
        self.count += 1;
        Ok(())
    }
}

/// A node that cannot be reached, or that cannot reach Redis.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreachable(String);

/// Where events are handed over.
enum PublishVia {
    Redis { publisher: Publisher, topic: Topic, limit: usize, tasks: Tasks },
    Node { url: String, topic: String, token: Option<String> },
}

impl PublishVia {
    async fn open(command: &Publish) -> anyhow::Result<Self> {
        let mut layers = command.file.layers();
        if command.url.is_none() && command.redis.is_none() && command.token_file.is_none() {
            layers = settings::beside_dev(layers)?;
        }
        if let Some(url) = &command.redis {
            layers = layers.set("redis.url", url, "--redis");
        }
        let config = layers.load()?;
        let node = reachable(config.internal.listen);
        let elsewhere = command.url.is_none() && command.token_file.is_none() && config.redis.url.is_some();
        if command.redis.is_some() || (elsewhere && !is_listening(node).await) {
            return Self::redis(&config, &command.topic).await;
        }
        let token = match &command.token_file {
            Some(path) => Some(read_token(path)?),
            None => own_token(&config, &command.topic)?,
        };
        let url = command.url.clone().unwrap_or_else(|| format!("http://{node}"));
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(
                Usage(format!("{url} is not an address: write one like http://127.0.0.1:9090")).into()
            );
        }
        Ok(Self::Node { url: url.trim_end_matches('/').to_owned(), topic: command.topic.clone(), token })
    }

    async fn redis(config: &Config, topic: &str) -> anyhow::Result<Self> {
        if config.redis.url.is_none() {
            return Err(Usage("--redis needs an address, for example redis://127.0.0.1:6379".into()).into());
        }
        let areas = wiring::areas(config)?;
        let topic = Topic::parse_named(topic, &areas)?;
        let (tasks, limit) = (Tasks::new(), config.limits.event_bytes);
        let publisher = Publisher::open(wiring::bus(config, &areas), &tasks).await?;
        Ok(Self::Redis { publisher, topic, limit, tasks })
    }

    /// Checks here what needs no node: what follows an event on its line must not become part of the request.
    async fn publish(&self, json: &[u8], live: bool) -> anyhow::Result<String> {
        let json = Bytes::copy_from_slice(json.trim_ascii());
        match self {
            Self::Redis { publisher, topic, limit, .. } => {
                let event = Event::parse(json, *limit)?;
                if live {
                    publisher.publish_live(topic, &event).await?;
                    return Ok("live".into());
                }
                Ok(publisher.publish(topic, &event).await?.to_string())
            }
            Self::Node { url, topic, token } => {
                let event = Event::parse(json, usize::MAX)?;
                post(url, topic, token.as_deref(), event.json(), live).await
            }
        }
    }

    async fn close(self) {
        if let Self::Redis { tasks, .. } = self {
            tasks.end(Duration::from_secs(1)).await;
        }
    }
}

async fn post(
    url: &str,
    topic: &str,
    token: Option<&str>,
    json: &[u8],
    live: bool,
) -> anyhow::Result<String> {
    let text = std::str::from_utf8(json).context("the event is not valid UTF-8")?;
    let topic = serde_json::to_string(topic)?;
    let body = format!(r#"{{"topic":{topic},"event":{text}}}"#);
    let mut request = Request::post(format!("{url}/publish{}", if live { "?live=1" } else { "" }))
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request =
        request.body(Full::new(Bytes::from(body))).map_err(|_| Usage(format!("{url} is not an address")))?;
    let (status, answer) = exchange(request, PATIENCE)
        .await
        .map_err(|error| Unreachable(format!("{error:#}: start a node there, or name one with --url")))?;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
    if status == StatusCode::OK {
        return Ok(answer["positions"][0].as_str().unwrap_or("live").to_owned());
    }
    let detail =
        answer["detail"].as_str().or(answer["title"].as_str()).unwrap_or("no reason was given").to_owned();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(Unreachable(detail).into());
    }
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        bail!(
            "{url} does not take events ({status}): publish at a node's internal listener (internal.listen, \
             http://127.0.0.1:9090 unless it was changed), not at the public one that browsers use"
        );
    }
    bail!("{detail} ({status})")
}

/// The configured token, or one of our own for this area; a node that wants none does without.
fn own_token(config: &Config, topic: &str) -> anyhow::Result<Option<String>> {
    if let Some(token) = &config.internal.publish_token {
        return Ok(Some(token.expose().to_owned()));
    }
    let Ok((jwt, secret)) = shared_secret(config) else { return Ok(None) };
    let area = topic.split(':').next().unwrap_or_default();
    let token = NewToken {
        sub: "publish".into(),
        ttl: TOKEN_TTL,
        topics: Some(Vec::new()),
        publish: Some(vec![format!("{area}:*")]),
        ..NewToken::default()
    };
    Ok(Some(token.sign_for(jwt, secret)?))
}

/// Whether anybody answers there.
pub(super) async fn is_listening(address: SocketAddr) -> bool {
    tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(address)).await.is_ok_and(|c| c.is_ok())
}

pub(super) fn read_token(path: &std::path::Path) -> anyhow::Result<String> {
    let token = std::fs::read_to_string(path)
        .with_context(|| format!("no token can be read from {}", path.display()))?;
    Ok(token.trim().to_owned())
}

/// A listener's address as a client on the same machine reaches it.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if address.ip().is_unspecified() {
        let own =
            if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(own);
    }
    address
}
