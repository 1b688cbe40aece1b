//! A node of Carillon as operators run it: the program, its environment, its two listeners.
//!
//! Everything is asked over HTTP, as a probe of an orchestrator or Prometheus would.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::process::{Process, free_port, until};

/// How long a node may take to become ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node. It keeps its name, ports and settings over a restart.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) internal: u16,
    env: Vec<(String, String)>,
    dir: PathBuf,
    process: Option<Process>,
}

impl Node {
    /// Starts a node on a Redis and waits until it is ready.
    pub(crate) async fn start(dir: &Path, name: &str, redis: &str, extra: &[(&str, &str)]) -> Result<Self> {
        let (port, internal) = (free_port()?, free_port()?);
        let mut env: Vec<(String, String)> = [
            ("NODE__NAME", name),
            ("HTTP__LISTEN", &format!("127.0.0.1:{port}")),
            ("INTERNAL__LISTEN", &format!("127.0.0.1:{internal}")),
            ("REDIS__URL", redis),
            ("AUTH__MODE", "none"),
            ("AUTH__DEFAULT_TOPICS", "*"),
            // All sessions come from one address, which is the editor in mode none.
            ("LIMITS__SESSIONS_PER_EDITOR", "0"),
            ("LIMITS__EDITOR_REQUESTS_PER_SECOND", "0"),
            ("LIMITS__EDITOR_TOPICS_PER_SECOND", "0"),
            ("LIMITS__EDITOR_TOPICS_PER_HOUR", "0"),
        ]
        .map(|(key, value)| (format!("CARILLON__{key}"), value.to_owned()))
        .into();
        env.extend(extra.iter().map(|(key, value)| (format!("CARILLON__{key}"), (*value).to_owned())));
        if let Ok(mutant) = std::env::var(crate::mutants::VARIABLE) {
            env.push((crate::mutants::VARIABLE.into(), mutant));
        }
        let mut node = Self { name: name.into(), port, internal, env, dir: dir.into(), process: None };
        node.run().await?;
        Ok(node)
    }

    /// Starts the process (again) and waits until it is ready.
    pub(crate) async fn run(&mut self) -> Result<()> {
        self.spawn()?;
        let ready = until("the node is ready", PATIENCE, || async { self.is_ready().await });
        ready.await.with_context(|| self.tail())
    }

    /// Starts the process (again).
    pub(crate) fn spawn(&mut self) -> Result<()> {
        // The gate names a release build; mutants need the build that has them.
        let given = std::env::var_os("CARILLON_BIN").filter(|_| !cfg!(feature = "mutants"));
        let program = given.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_carillon")), PathBuf::from);
        let log = self.dir.join(format!("{}.log", self.name));
        self.process = Some(Process::start(&self.name, &program, &["serve".into()], &self.env, log)?);
        Ok(())
    }

    pub(crate) fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the node is not running")
    }

    /// Kills it (SIGKILL).
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.process()?.kill().await?;
        self.process = None;
        Ok(())
    }

    /// It has ended, as it was told to.
    pub(crate) fn forget(&mut self) {
        self.process = None;
    }

    /// Whether it ended although nobody told it to.
    pub(crate) fn has_crashed(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::has_ended)
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self) -> String {
        self.process.as_ref().map(Process::tail).unwrap_or_default()
    }

    /// Whether it says that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        self.readiness().await.is_some_and(|(status, _)| status == 200)
    }

    /// What `/readyz` says: status and body.
    pub(crate) async fn readiness(&self) -> Option<(u16, String)> {
        get(self.internal, "/readyz").await
    }

    /// A figure of `/metrics`, summed over its labels that contain `label`.
    pub(crate) async fn figure(&self, name: &str, label: &str) -> f64 {
        let Some((200, text)) = get(self.internal, "/metrics").await else { return 0.0 };
        let figures = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            let bare = key.split('{').next()?;
            (bare == name && key.contains(label)).then(|| value.parse::<f64>().ok())?
        });
        figures.sum()
    }

    /// Whether there is such a figure.
    pub(crate) async fn knows(&self, name: &str) -> bool {
        let Some((200, text)) = get(self.internal, "/metrics").await else { return false };
        text.lines().any(|line| line.starts_with(&format!("{name}{{")))
    }

    /// Asks the node to publish: the status and body of its answer.
    pub(crate) async fn publish(&self, body: &str) -> Option<(u16, String)> {
        let request = format!(
            "POST /publish HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        ask(self.internal, &request).await
    }
}

/// Figures of several nodes, by name of node.
pub(crate) async fn figures(nodes: &[Node], name: &str, label: &str) -> HashMap<String, f64> {
    let mut found = HashMap::new();
    for node in nodes {
        found.insert(node.name.clone(), node.figure(name, label).await);
    }
    found
}

async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    ask(port, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
}

async fn ask(port: u16, request: &str) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let status = text.split(' ').nth(1)?.parse().ok()?;
        Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(8), exchange).await.ok().flatten()
}
