//! Nodes that a bench starts for itself: this program as `serve`, on loopback, open to everybody there.

use std::{net::TcpListener, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    process::{Child, Command},
    time::Instant,
};

use super::meter::Http;

/// How long a node may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node of the bench's own; it ends with the bench.
pub(super) struct Node {
    child: Child,
    /// Where clients connect.
    pub(super) url: String,
    /// The internal listener.
    pub(super) internal: String,
}

impl Node {
    /// Starts a node on a Redis, or, with an empty URL, on the memory bus.
    pub(super) async fn start(redis: &str, http: &Http, settings: &[String]) -> Result<Self> {
        let (public, internal) = (free_port()?, free_port()?);
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command
            .arg("serve")
            .env("CARILLON__HTTP__LISTEN", format!("127.0.0.1:{public}"))
            .env("CARILLON__INTERNAL__LISTEN", format!("127.0.0.1:{internal}"))
            .env("CARILLON__AUTH__MODE", "none")
            .env("CARILLON__AUTH__DEFAULT_TOPICS", "*")
            .env("CARILLON__LIMITS__ACCEPTS_PER_SECOND", "100000")
            // All clients come from this machine, and in mode none the address is the editor.
            .env("CARILLON__LIMITS__SESSIONS_PER_EDITOR", "0")
            .env("CARILLON__LIMITS__EDITOR_REQUESTS_PER_SECOND", "0")
            .env("CARILLON__LIMITS__EDITOR_TOPICS_PER_SECOND", "0")
            .env("CARILLON__LIMITS__EDITOR_TOPICS_PER_HOUR", "0")
            .env("CARILLON__DRAIN__WINDOW_SECONDS", "0")
            .env("CARILLON__TELEMETRY__LEVEL", "warn")
            .env("CARILLON__REDIS__URL", redis);
        for setting in settings {
            let (name, value) = setting.split_once('=').context("a setting is section.key=value")?;
            command.env(format!("CARILLON__{}", name.replace('.', "__").to_uppercase()), value);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
        let url = format!("ws://127.0.0.1:{public}/realtime");
        let mut node = Self { child, url, internal: format!("http://127.0.0.1:{internal}") };
        node.ready(http).await?;
        Ok(node)
    }

    async fn ready(&mut self, http: &Http) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let url: hyper::Uri = format!("{}/readyz", self.internal).parse()?;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                bail!("a node did not start ({status}); its error stands above");
            }
            if http.get(url.clone()).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("a node was not ready within {} s", PATIENCE.as_secs());
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
