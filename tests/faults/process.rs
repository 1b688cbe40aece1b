//! Processes that the tests start, stop and kill, each by its own id, and the ports they listen on.
//!
//! A process dies with the test that started it, whatever happens to the test.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

/// A running program.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: u32,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it writes goes to a file.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        log: PathBuf,
    ) -> Result<Self> {
        let out = File::options().create(true).append(true).open(&log)?;
        // Dies with the test, even when that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(program).args(args).envs(env.iter().cloned()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("ended at once")?;
        Ok(Self { child, pid, name: name.to_owned(), log })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    /// Sends a signal by its name (`STOP`, `CONT`, `TERM`).
    pub(crate) async fn signal(&self, signal: &str) -> Result<()> {
        let status =
            Command::new("kill").args([&format!("-{signal}"), &self.pid.to_string()]).status().await?;
        if !status.success() {
            bail!("{} cannot be sent {signal}: it is gone\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// How many files it has open, and how many it may open.
    pub(crate) async fn files(&self) -> Result<(usize, u64)> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid))?.count();
        let args = ["--pid", &self.pid.to_string(), "--nofile", "--output", "SOFT", "--noheadings"];
        let limit = Command::new("prlimit").args(args).output().await?;
        Ok((open, String::from_utf8_lossy(&limit.stdout).trim().parse()?))
    }

    /// Limits how many files it may open.
    pub(crate) async fn limit_files(&self, limit: u64) -> Result<()> {
        let (pid, limit) = (self.pid.to_string(), format!("--nofile={limit}:"));
        let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status().await?;
        if !status.success() {
            bail!("the files of {} cannot be limited", self.name);
        }
        Ok(())
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self, patience: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} is still running after {patience:?}\n{}", self.name, self.tail()),
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// The last lines of what it wrote.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        format!("--- {}\n{}", self.log.display(), lines[from..].join("\n"))
    }
}

/// Ports that one run may use: below those that the kernel gives to outgoing connections.
const BLOCK: u16 = 1000;

/// A free port, so that a server can come back on it: nobody else takes it while the server is away.
pub(crate) fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static MINE: OnceLock<Option<(u16, File)>> = OnceLock::new();
    let block = MINE.get_or_init(|| (0..17).find_map(take_block)).as_ref();
    let (first, _lock) = block.context("too many runs of the fault tests at once")?;
    for _ in 0..BLOCK {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % BLOCK;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {first} and {}", first + BLOCK)
}

/// Takes a block of ports, unless another run has it: the lock ends with the process.
fn take_block(number: u16) -> Option<(u16, File)> {
    let path = std::env::temp_dir().join(format!("carillon-faults-ports-{number}"));
    let file = File::options().create(true).append(true).open(path).ok()?;
    file.try_lock().ok()?;
    Some((15_000 + number * BLOCK, file))
}

/// Waits until `check` says yes, or fails with what was waited for.
pub(crate) async fn until<F>(what: &str, patience: Duration, mut check: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = bool>,
{
    let end = tokio::time::Instant::now() + patience;
    loop {
        if check().await {
            return Ok(());
        }
        if tokio::time::Instant::now() >= end {
            bail!("waited {patience:?} in vain: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Keeps a fault in place for as long as it lasts.
pub(crate) async fn hold(duration: Duration) {
    tokio::time::sleep(duration).await;
}
