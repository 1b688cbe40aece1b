//! `carillon serve`: run a node until SIGTERM or SIGINT.

use std::process::ExitCode;

use anyhow::Context;
use carillon::{
    app::{self, Listeners},
    config::Config,
    telemetry,
};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::settings::ConfigFile;

/// Run a node
#[derive(Debug, Args)]
#[command(after_help = "\
SIGTERM and SIGINT drain: sessions are told to go elsewhere, spread over drain.window_seconds; then exit code 0.

Examples:
  carillon serve --config /etc/carillon/carillon.toml
  CARILLON__AUTH__MODE=jwt CARILLON__AUTH__SECRET_FILE=/run/secrets/carillon carillon serve")]
pub(super) struct Serve {
    #[command(flatten)]
    file: ConfigFile,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.file.load()?;
        let listeners = Listeners::bind(&config)?;
        telemetry::start(&config.telemetry);
        if config.redis.url.is_none() {
            tracing::warn!(
                "redis.url is not set: this node keeps everything in memory, shares it with no other node, and forgets it \
                 when it stops. In production set redis.url (CARILLON__REDIS__URL)"
            );
        }
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        run_node(config, listeners).await
    }
}

/// Runs a node until it is told to end, or cannot go on.
pub(super) async fn run_node(config: Config, listeners: Listeners) -> anyhow::Result<ExitCode> {
    telemetry::start(&config.telemetry);
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened for")?;
    let shutdown = CancellationToken::new();
    let node = app::run(config, listeners, shutdown.clone());
    tokio::pin!(node);
    let ended = tokio::select! {
        ended = &mut node => Some(ended),
        _ = terminate.recv() => None,
        _ = tokio::signal::ctrl_c() => None,
    };
    if let Some(ended) = ended {
        ended?;
    } else {
        shutdown.cancel();
        node.await?;
    }
    Ok(ExitCode::SUCCESS)
}
