//! `carillon tail`: print events as they come, one JSON a line.
//!
//! A client like any other: it keeps the latest positions and resumes with them after a disconnect. `resync` is printed
//! too, because a log with a hole in it must say so.

mod log;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use carillon::{
    app::wiring,
    auth::token::NewToken,
    bus::{Bus, BusEvent},
    config::Config,
    hub::{Item, Notice, Outbox},
    metrics::Metrics,
    protocol::{Areas, Proof, Revocations, Subject, Topic, TopicError, message::Welcome},
    relay::{Relay, Request},
    shutdown::Tasks,
    telemetry::traces::Traces,
};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use rand::RngExt;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest};

use self::log::{Final, Log};
use super::{
    Usage,
    publish::{is_listening, reachable, read_token},
    say,
    settings::{self, ConfigFile},
    token::shared_secret,
};

/// How long a token of our own lasts; a fresh one is made for each connection.
const TOKEN_TTL: Duration = Duration::from_hours(24);
/// The longest wait before connecting again.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Print events as they come, one JSON a line
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the node's `event` and `resync` messages; what the connection is doing goes to standard error.

Examples:
  carillon tail comments:42 projects
  carillon tail 'comments:*' --url https://cms.example.com/realtime --token-file token
  carillon tail comments:42 --redis redis://127.0.0.1:6379")]
pub(super) struct Tail {
    #[command(flatten)]
    file: ConfigFile,
    /// Topics: area, area:key or area:*
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Public address of a node [default: the configured one on this machine, or, where no node listens there, the
    /// configured Redis]
    #[arg(long, value_name = "URL", conflicts_with = "redis")]
    url: Option<String>,
    /// Follow this Redis directly
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// File with the token [default: one minted with the configured auth.secret]
    #[arg(long, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
    /// Whom the minted token is for
    #[arg(long, value_name = "NAME", default_value = "tail")]
    user: String,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Tail {
    pub(super) async fn run(mut self) -> anyhow::Result<ExitCode> {
        let layers = self.file.layers();
        let layers = match &self.redis {
            Some(url) => layers.set("redis.url", url, "--redis"),
            None if self.url.is_none() && self.token_file.is_none() => settings::beside_dev(layers)?,
            None => layers,
        };
        let config = layers.load()?;
        let misspelt = self.spell(&wiring::areas(&config)?);
        let mut log = Log::new(self.count, self.topics.clone(), misspelt);
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened for")?;
        tokio::select! {
            result = async {
                if self.goes_to_redis(&config).await {
                    self.follow_redis(&config, &mut log).await
                } else {
                    self.follow_node(&config, &mut log).await
                }
            } => result?,
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Names editors as nodes of this configuration do. The result: topics whose key is misspelt, and why; whether that is
    /// so, the node decides, which may have other areas.
    fn spell(&mut self, areas: &Areas) -> BTreeMap<String, String> {
        let mut misspelt = BTreeMap::new();
        for topic in &mut self.topics {
            match Topic::parse_named(topic, areas) {
                Ok(named) => *topic = named.to_string(),
                Err(why @ (TopicError::PrivateSpelling { .. } | TopicError::Nobody { .. })) => {
                    misspelt.insert(topic.clone(), why.to_string());
                }
                Err(_) => {}
            }
        }
        misspelt
    }

    async fn goes_to_redis(&self, config: &Config) -> bool {
        let elsewhere = self.url.is_none() && self.token_file.is_none() && config.redis.url.is_some();
        self.redis.is_some() || (elsewhere && !is_listening(reachable(config.http.listen)).await)
    }

    async fn follow_node(&self, config: &Config, log: &mut Log) -> anyhow::Result<()> {
        let url = self.url.clone().unwrap_or_else(|| {
            let scheme = if config.http.tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{}{}", reachable(config.http.listen), config.http.base_path)
        });
        let url = url.replacen("http", "ws", usize::from(url.starts_with("http")));
        if !["ws://", "wss://"].iter().any(|scheme| url.starts_with(scheme)) {
            let what = format!("{url} is not an address: write one like http://127.0.0.1:8080/realtime");
            return Err(Usage(what).into());
        }
        let mut failures = 0u32;
        loop {
            let wait = match self.follow_once(&url, config, log, &mut failures).await {
                Ok(Next::Enough) => return Ok(()),
                Ok(Next::Again(wait)) => wait,
                Err(error) if error.is::<Final>() || error.is::<Usage>() => return Err(error),
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        say(format_args!("{error:#}; trying again"));
                    }
                    let most = LONGEST_WAIT.min(Duration::from_millis(500 << failures.min(6)));
                    Duration::from_millis(rand::rng().random_range(50..=most.as_millis() as u64))
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn follow_once(
        &self,
        url: &str,
        config: &Config,
        log: &mut Log,
        failures: &mut u32,
    ) -> anyhow::Result<Next> {
        let mut request = url.into_client_request().map_err(|_| Usage(format!("{url} is not an address")))?;
        let token = self.token(config)?;
        let minted = token.is_some() && self.token_file.is_none();
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        let (mut socket, _) = match tokio_tungstenite::connect_async(request).await {
            Ok(connected) => connected,
            Err(tungstenite::Error::Http(answer)) if answer.status().is_client_error() => {
                let body = answer.body().as_deref().unwrap_or_default();
                let problem: Value = serde_json::from_slice(body).unwrap_or_default();
                let detail = problem["detail"].as_str().unwrap_or("no reason was given");
                return Err(Final(format!("{url} refuses: {detail} ({})", answer.status())).into());
            }
            Err(error) => bail!("{url} cannot be reached: {}", anyhow::Error::new(error).root_cause()),
        };
        let mut connect = json!({ "type": "connect", "topics": self.topics });
        if let Some(resume) = log.resume() {
            connect["resume"] = resume;
        }
        socket.send(Message::text(connect.to_string())).await?;
        *failures = 0;
        let mut wait = Duration::from_millis(rand::rng().random_range(50..1000));
        while let Some(message) = socket.next().await {
            match message? {
                Message::Text(text) => {
                    if text.contains(r#""type":"closing""#) {
                        let closing: Value = serde_json::from_str(&text)?;
                        if closing["type"] == "closing" {
                            wait = goodbye(&closing, minted)?;
                        }
                    }
                    if log.take(&text)? {
                        let _ = socket.close(None).await;
                        return Ok(Next::Enough);
                    }
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok(Next::Again(wait))
    }

    fn token(&self, config: &Config) -> anyhow::Result<Option<String>> {
        if let Some(path) = &self.token_file {
            return read_token(path).map(Some);
        }
        // Without a secret it goes without a token, and the node says what it thinks of that.
        let Ok((jwt, secret)) = shared_secret(config) else { return Ok(None) };
        let (sub, topics) = (self.user.clone(), Some(self.topics.clone()));
        let token = NewToken { sub, ttl: TOKEN_TTL, topics, ..NewToken::default() };
        Ok(Some(token.sign_for(jwt, secret)?))
    }

    /// A relay of its own, without a node: the same joins, replays and resyncs.
    async fn follow_redis(&self, config: &Config, log: &mut Log) -> anyhow::Result<()> {
        let areas = wiring::areas(config)?;
        let subjects = self.topics.iter().map(|topic| Subject::parse(topic, &areas));
        let subjects = subjects.collect::<Result<Vec<_>, _>>().map_err(|e| Usage(e.to_string()))?;
        let (tasks, metrics) = (Tasks::new(), Metrics::new());
        let (bus, events): (Bus, tokio::sync::mpsc::Receiver<BusEvent>) =
            Bus::start(wiring::bus(config, &areas), metrics.clone(), &tasks).await?;
        let (relay, mut fatal) = Relay::start(
            wiring::relay(config, Revocations::default(), Traces::off()),
            bus,
            events,
            metrics,
            &tasks,
        );
        let outbox = Outbox::pulled(config.limits.outbox_bytes);
        let welcome = Welcome {
            session: "tail".into(),
            node: config.node.name.clone(),
            user: self.user.clone(),
            ..Welcome::default()
        };
        let proof = std::sync::Arc::new(Proof::lasting(&welcome.user));
        relay.connect(&outbox, Box::new(welcome), proof, Request { subjects, ..Request::default() }).await;
        loop {
            for item in outbox.pull(64) {
                let enough = match item {
                    Item::Event(frame) => log.take(std::str::from_utf8(frame.json())?)?,
                    Item::Message(message) => log.take(&message.json())?,
                };
                if enough {
                    tasks.end(Duration::from_secs(1)).await;
                    return Ok(());
                }
            }
            tokio::select! {
                notice = outbox.notice() => if notice == Notice::Drained { relay.drained(&outbox).await },
                Ok(reason) = &mut fatal => bail!(reason),
            }
        }
    }
}

/// The node says goodbye: how long to wait before connecting again. An error where that would not help. `minted`:
/// there will be a fresh token.
fn goodbye(closing: &Value, minted: bool) -> anyhow::Result<Duration> {
    let reason = closing["reason"].as_str().unwrap_or("without a reason");
    match closing["code"].as_u64() {
        Some(4401) if !minted => Err(Final(format!(
            "the node has closed the session: {reason}; give a good token with --token-file, or --config with auth.secret"
        ))
        .into()),
        Some(4400 | 4403) => Err(Final(format!("the node has closed the session: {reason}")).into()),
        _ => {
            say(format_args!("the node has closed the session ({reason}); connecting again"));
            Ok(Duration::from_millis(closing["reconnect_after_ms"].as_u64().unwrap_or(1000)))
        }
    }
}

enum Next {
    /// As many events as were asked for.
    Enough,
    /// Connect again after so long.
    Again(Duration),
}
