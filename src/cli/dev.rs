//! `carillon dev`: one node to look around with: in-memory bus, a secret of its own, the demo page.

use std::{fmt::Write, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::anyhow;
use clap::Args;

use super::{print, serve::run_node, settings::ConfigFile, token::shared_secret};
use crate::{
    app::Listeners,
    auth::token::NewToken,
    config::{Algorithm, Config},
};

/// How long the printed token is good.
const TOKEN_TTL: Duration = Duration::from_hours(24);

/// Run one node to look around with, and print a link to its demo
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon dev
  carillon dev --redis redis://127.0.0.1:6379 --listen 127.0.0.1:8000")]
pub(super) struct Dev {
    #[command(flatten)]
    file: ConfigFile,
    /// Use this Redis instead of memory
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Public listener; port 0 is any free port [default: the configured http.listen, else 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Internal listener; port 0 is any free port [default: the configured internal.listen]
    #[arg(long, value_name = "ADDRESS")]
    internal: Option<SocketAddr>,
}

impl Dev {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let secret = || format!("dev-{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let mut layers = self
            .file
            .layers()
            .set_default("auth.mode", "jwt", "carillon dev")
            .set_default("auth.secret", secret(), "carillon dev")
            .set_default("internal.publish_token", secret(), "carillon dev")
            .set_default("drain.window_seconds", "1", "carillon dev")
            .set_default("drain.grace_seconds", "2", "carillon dev")
            .set_default("http.listen", "127.0.0.1:8080", "carillon dev")
            .set("demo.enabled", "true", "carillon dev");
        let addresses =
            [("http.listen", self.listen, "--listen"), ("internal.listen", self.internal, "--internal")];
        for (key, address, option) in addresses {
            if let Some(address) = address {
                layers = layers.set(key, address.to_string(), option);
            }
        }
        if let Some(url) = &self.redis {
            layers = layers.set("redis.url", url, "--redis");
        }
        let config = layers.load()?;
        let listeners = Listeners::bind(&config).map_err(|error| {
            anyhow!("{error}, with --listen for the public and --internal for the other listener")
        })?;
        print(&tour(&config, listeners.public.local_addr()?, listeners.internal.local_addr()?)?)?;
        run_node(config, listeners).await
    }
}

/// What to do next, in lines that work as printed.
fn tour(config: &Config, public: SocketAddr, internal: SocketAddr) -> anyhow::Result<String> {
    let program = std::env::current_exe()?;
    let program = program.display();
    let base = &config.http.base_path;
    let bus = if config.redis.url.is_some() { "Redis" } else { "in memory, nothing survives it" };
    let token = config.internal.publish_token.as_ref().map_or("", |token| token.expose());
    let mut text = format!(
        "
  Carillon {} is running. The bus is {bus}.

  Open the demo                    http://{public}/demo/
  Watch the node                   http://{internal}/

  Publish an event                 CARILLON__INTERNAL__PUBLISH_TOKEN={token} \\
                                   {program} publish --url http://{internal} comments:42 '{{\"type\":\"comment.created\"}}'
",
        env!("CARGO_PKG_VERSION"),
    );
    if let Ok((jwt, secret)) = shared_secret(config) {
        let token = NewToken {
            sub: "anna".into(),
            ttl: TOKEN_TTL,
            topics: Some(vec!["*".into()]),
            publish: None,
            iss: jwt.issuer.first().cloned(),
            aud: jwt.audience.first().cloned(),
        };
        let token = token.sign(secret, jwt.algorithms.first().copied().unwrap_or(Algorithm::Hs256))?;
        write!(
            text,
            "
  Listen with any WebSocket client npx --yes wscat -c 'ws://{public}{base}' -H 'Authorization: Bearer {token}' \\
                                   -w 3600 -x '{{\"type\":\"connect\",\"topics\":[\"comments:42\"]}}'
"
        )?;
    }
    text += "\n  Ctrl-C ends it.\n\n";
    Ok(text)
}
