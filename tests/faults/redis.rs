//! Redis servers of the tests' own: alone, under Sentinel, and as a cluster.
//!
//! Each keeps its port and its directory over a restart.

mod cluster;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

pub(crate) use cluster::Cluster;

use crate::{
    process::{Process, free_port, until},
    resp::{self, Value},
};

/// How long a server may take to answer after its start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Name of the master under Sentinel.
pub(crate) const MASTER: &str = "main";

/// One server.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) port: u16,
    dir: PathBuf,
    settings: Vec<String>,
    program: String,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server that keeps what it acknowledges (AOF).
    pub(crate) async fn start(dir: &Path, settings: &[&str]) -> Result<Self> {
        let port = free_port()?;
        let dir = dir.join(format!("redis-{port}"));
        std::fs::create_dir_all(&dir)?;
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut redis = Self { port, dir, settings, program: "redis-server".into(), process: None };
        redis.run(None).await?;
        Ok(redis)
    }

    /// Starts the process; `clock`: how faketime is to falsify its clock.
    pub(crate) async fn run(&mut self, clock: Option<&str>) -> Result<()> {
        let mut args: Vec<String> =
            vec!["--port".into(), self.port.to_string(), "--dir".into(), self.dir.display().to_string()];
        let fixed = "--bind 127.0.0.1 --protected-mode no --save  --appendonly yes --appendfsync everysec \
                     --repl-diskless-sync-delay 0 --enable-debug-command yes --repl-ping-replica-period 1";
        args.extend(fixed.split(' ').map(ToOwned::to_owned));
        args.extend(self.settings.iter().cloned());
        let log = self.dir.join("redis.log");
        let name = format!("redis {}", self.port);
        let process = match clock {
            None => Process::start(&name, Path::new(&self.program), &args, &[], log)?,
            Some(clock) => {
                // Redis' own allocator asks for the time before libfaketime is ready to answer: glibc's takes its place.
                let lib =
                    format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
                ensure!(Path::new(&lib).exists(), "{lib} is missing: install faketime");
                let preload = format!("LD_PRELOAD=libc_malloc_debug.so.0:{lib}");
                let mut with_clock = vec![preload, format!("FAKETIME={clock}"), self.program.clone()];
                with_clock.extend(args);
                Process::start(&name, Path::new("env"), &with_clock, &[], log)?
            }
        };
        self.process = Some(process);
        let answers = until("Redis answers", PATIENCE, || async {
            matches!(self.ask(&["PING"]).await, Ok(Value::Text(_)))
        });
        answers.await.with_context(|| self.process.as_ref().map(Process::tail).unwrap_or_default())
    }

    /// Kills it (SIGKILL).
    pub(crate) async fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Forgets everything that it kept; it must not be running.
    pub(crate) fn wipe(&self) -> Result<()> {
        let aof = self.dir.join("appendonlydir");
        if aof.exists() {
            std::fs::remove_dir_all(aof)?;
        }
        Ok(())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Sends the process a signal.
    pub(crate) async fn signal(&self, signal: &str) -> Result<()> {
        self.process.as_ref().context("Redis is not running")?.signal(signal).await
    }

    /// Asks, on a connection of its own.
    pub(crate) async fn ask(&self, args: &[&str]) -> Result<Value> {
        Ok(resp::ask(self.port, args).await?)
    }

    /// Asks, and takes an error answer for an error.
    pub(crate) async fn must(&self, args: &[&str]) -> Result<Value> {
        match self.ask(args).await? {
            Value::Error(text) => bail!("{args:?} on {}: {text}", self.port),
            value => Ok(value),
        }
    }

    /// A field of INFO.
    pub(crate) async fn info(&self, section: &str, field: &str) -> Result<String> {
        let text = self.must(&["INFO", section]).await?;
        let text = text.text().unwrap_or_default().to_owned();
        let value =
            text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
        value.with_context(|| format!("INFO {section} has no {field}"))
    }

    /// Whether INFO replication says so.
    async fn is(&self, field: &str, value: &str) -> bool {
        self.info("replication", field).await.is_ok_and(|found| found == value)
    }
}

/// A master with replicas, watched by three sentinels.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) servers: Vec<Redis>,
    sentinels: Vec<(u16, Process)>,
}

impl Watched {
    /// Starts `count` servers and three sentinels. `clocks`: how to falsify the clock of each server.
    pub(crate) async fn start(
        dir: &Path,
        count: usize,
        settings: &[&str],
        clocks: &[Option<&str>],
    ) -> Result<Self> {
        let mut servers = Vec::new();
        for n in 0..count {
            let mut server = Redis::start(dir, settings).await?;
            if let Some(Some(clock)) = clocks.get(n) {
                server.kill().await?;
                server.run(Some(clock)).await?;
            }
            servers.push(server);
        }
        for replica in &servers[1..] {
            replica.must(&["REPLICAOF", "127.0.0.1", &servers[0].port.to_string()]).await?;
        }
        let mut watched = Self { servers, sentinels: Vec::new() };
        watched.replicas_follow().await?;
        for _ in 0..3 {
            let sentinel = watched.sentinel(dir).await?;
            watched.sentinels.push(sentinel);
        }
        let ports = watched.ports();
        until("the sentinels know each other and the replicas", PATIENCE, || async {
            for port in &ports {
                let Ok(Value::List(fields)) = resp::ask(*port, &["SENTINEL", "MASTER", MASTER]).await else {
                    return false;
                };
                let field = |name: &str| {
                    let at = fields.iter().position(|field| field.text() == Some(name));
                    at.and_then(|at| fields.get(at + 1)?.text()?.parse::<usize>().ok())
                };
                if field("num-other-sentinels") != Some(2) || field("num-slaves") != Some(count - 1) {
                    return false;
                }
            }
            true
        })
        .await?;
        Ok(watched)
    }

    async fn sentinel(&self, dir: &Path) -> Result<(u16, Process)> {
        let port = free_port()?;
        let dir = dir.join(format!("sentinel-{port}"));
        std::fs::create_dir_all(&dir)?;
        let file = dir.join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nprotected-mode no\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds {MASTER} 1500\nsentinel failover-timeout {MASTER} 6000\n\
             sentinel parallel-syncs {MASTER} 2\n",
            dir.display(),
            self.servers[0].port
        );
        std::fs::write(&file, text)?;
        let args = [file.display().to_string(), "--sentinel".to_owned()];
        let name = format!("sentinel {port}");
        let process = Process::start(&name, Path::new("redis-server"), &args, &[], dir.join("log"))?;
        until("the sentinel answers", PATIENCE, || async { resp::ask(port, &["PING"]).await.is_ok() })
            .await?;
        Ok((port, process))
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.sentinels.iter().map(|(port, _)| *port).collect()
    }

    /// Index of the server that the sentinels call the master.
    pub(crate) async fn master(&self) -> Result<usize> {
        let port = master_port(&self.ports()).await.context("no sentinel knows a master")?;
        self.servers.iter().position(|server| server.port == port).context("the master is none of ours")
    }

    /// Waits until every running replica is in step with the master.
    pub(crate) async fn replicas_follow(&self) -> Result<()> {
        until("the replicas follow the master", PATIENCE, || async {
            let mut masters = 0;
            for server in self.servers.iter().filter(|server| server.is_running()) {
                match server.info("replication", "role").await.as_deref() {
                    Ok("master") => masters += 1,
                    Ok(_) if server.is("master_link_status", "up").await => {}
                    _ => return false,
                }
            }
            masters == 1
        })
        .await
    }

    /// Waits until the sentinels have made another server the master, and it takes writes.
    pub(crate) async fn master_other_than(&self, old: usize) -> Result<usize> {
        until("the sentinels promote another server", Duration::from_secs(40), || async {
            let Ok(new) = self.master().await else { return false };
            // Until the old one has been told, there are two masters: the trouble is not over.
            let old = &self.servers[old];
            let told = !old.is_running() || old.is("role", "slave").await;
            told && self.servers[new].port != old.port && self.servers[new].is("role", "master").await
        })
        .await?;
        self.master().await
    }
}

/// The port of the master, as a sentinel says.
pub(crate) async fn master_port(sentinels: &[u16]) -> Option<u16> {
    for port in sentinels {
        if let Ok(answer) = resp::ask(*port, &["SENTINEL", "get-master-addr-by-name", MASTER]).await
            && let Some(port) = answer.list().get(1).and_then(|port| port.text()?.parse().ok())
        {
            return Some(port);
        }
    }
    None
}
