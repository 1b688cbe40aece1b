//! The child processes of a bench: readers and the floor, and what they have counted so far.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use carillon::{metrics::process::Footprint, shutdown::Tasks};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{
    order::{Answer, Connected, Figures, Order, Side},
    plan::Plan,
};

/// A child process that takes orders. It ends with its stdin.
pub(super) struct ChildProcess {
    child: Child,
    stdin: ChildStdin,
    answers: mpsc::Receiver<Answer>,
    /// Of the node, of the floor, and sessions welcomed.
    counted: Arc<[AtomicU64; 3]>,
}

impl ChildProcess {
    /// Starts this program again as `name`.
    pub(super) fn start(tasks: &Tasks, name: &str, progress: Arc<Notify>) -> Result<Self> {
        let program = std::env::current_exe().context("where is this program?")?;
        let mut child = Command::new(program)
            .args(["bench", "--part", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (sender, answers) = mpsc::channel(16);
        let counted = Arc::new([const { AtomicU64::new(0) }; 3]);
        let counts = Arc::clone(&counted);
        tasks.spawn_until_end(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(Answer::Progress { node, floor, welcomed }) => {
                        for (count, value) in counts.iter().zip([node, floor, welcomed]) {
                            count.store(value, Ordering::Relaxed);
                        }
                        progress.notify_one();
                    }
                    Ok(answer) => {
                        let _ = sender.send(answer).await;
                    }
                    Err(_) => return,
                }
            }
        });
        Ok(Self { child, stdin, answers, counted })
    }

    /// Gives an order.
    pub(super) async fn order(&mut self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.stdin.write_all(&line).await.context("a part of the bench has ended; its error stands above")
    }

    /// The answer to an order.
    pub(super) async fn answer(&mut self) -> Result<Answer> {
        self.answers.recv().await.context("a part of the bench has ended; its error stands above")
    }

    /// Gives an order that is answered by `Done`.
    pub(super) async fn done(&mut self, order: &Order) -> Result<()> {
        self.order(order).await?;
        match self.answer().await? {
            Answer::Done => Ok(()),
            other => bail!("unexpected answer {other:?}"),
        }
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

/// All readers.
pub(super) struct Readers {
    parts: Vec<ChildProcess>,
    progress: Arc<Notify>,
}

impl Readers {
    /// Starts so many.
    pub(super) fn start(tasks: &Tasks, count: u32) -> Result<Self> {
        let progress = Arc::new(Notify::new());
        let parts = (0..count).map(|_| ChildProcess::start(tasks, "reader", Arc::clone(&progress)));
        Ok(Self { parts: parts.collect::<Result<_>>()?, progress })
    }

    /// Opens `sessions` sessions, shared out among the readers; `seen` is told how many are welcome so far.
    pub(super) async fn connect(
        &mut self,
        plan: &Plan,
        sessions: u32,
        events: u64,
        seen: impl Fn(u64),
    ) -> Result<Connected> {
        let parts = self.parts.len() as u32;
        for (part, (first, count)) in self.parts.iter_mut().zip(shares(sessions, parts)) {
            part.order(&Order::Connect { plan: plan.clone(), first, count, events }).await?;
        }
        let mut all = Connected { followers: vec![0; plan.topics as usize], ..Connected::default() };
        let progress = &self.progress;
        let counts: Vec<_> = self.parts.iter().map(|part| Arc::clone(&part.counted)).collect();
        let watch = async {
            loop {
                progress.notified().await;
                seen(counts.iter().map(|counted| counted[2].load(Ordering::Relaxed)).sum());
            }
        };
        let collect = async {
            for part in &mut self.parts {
                let Answer::Connected(one) = part.answer().await? else {
                    bail!("not the answer to a connect")
                };
                all.welcomed += one.welcomed;
                all.times.add(&one.times);
                all.followers.iter_mut().zip(one.followers).for_each(|(all, one)| *all += one);
                for (reason, count) in one.failed {
                    *all.failed.entry(reason).or_default() += count;
                }
            }
            Ok(all)
        };
        tokio::select! {
            all = collect => all,
            () = watch => bail!("the readers are gone"),
        }
    }

    /// Opens as many plain sockets to the floor.
    pub(super) async fn connect_floor(
        &mut self,
        floor: &mut ChildProcess,
        address: SocketAddr,
        sockets: u32,
    ) -> Result<()> {
        let parts = self.parts.len() as u32;
        floor.order(&Order::Accept(sockets)).await?;
        for (part, (_, count)) in self.parts.iter_mut().zip(shares(sockets, parts)) {
            part.order(&Order::ConnectFloor { address, count }).await?;
        }
        for part in &mut self.parts {
            part.answer().await?;
        }
        floor.answer().await.map(drop)
    }

    /// CPU time that they have used so far, s.
    pub(super) fn cpu(&self) -> Result<f64> {
        let each = self.parts.iter().filter_map(ChildProcess::pid);
        each.map(|pid| Ok(Footprint::read(Some(pid))?.cpu)).sum()
    }

    /// What was received since the last time.
    pub(super) async fn figures(&mut self, side: Side) -> Result<Figures> {
        let mut all = Figures::default();
        for part in &mut self.parts {
            part.order(&Order::Figures(side)).await?;
            let Answer::Figures(one) = part.answer().await? else { bail!("not the answer to figures") };
            all.add(&one);
        }
        Ok(all)
    }

    /// Gives all readers an order that is answered by `Done`.
    pub(super) async fn all(&mut self, order: &Order) -> Result<()> {
        for part in &mut self.parts {
            part.done(order).await?;
        }
        Ok(())
    }

    /// Events that were received or are known to be lost.
    pub(super) fn counted(&self, side: Side) -> u64 {
        self.parts.iter().map(|part| part.counted[side as usize].load(Ordering::Relaxed)).sum()
    }

    /// Waits until so many events have come; `false` where nothing has come for `patience`.
    pub(super) async fn wait_for(&self, side: Side, events: u64, patience: Duration) -> bool {
        let (mut last, mut until) = (self.counted(side), Instant::now() + patience);
        while last < events {
            if tokio::time::timeout_at(until, self.progress.notified()).await.is_err() {
                return false;
            }
            let now = self.counted(side);
            if now != last {
                (last, until) = (now, Instant::now() + patience);
            }
        }
        true
    }
}

/// Parts of a whole: first and count of each.
fn shares(whole: u32, parts: u32) -> impl Iterator<Item = (u32, u32)> {
    let at = move |part: u32| (u64::from(whole) * u64::from(part) / u64::from(parts.max(1))) as u32;
    (0..parts).map(move |part| (at(part), at(part + 1) - at(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_up_the_whole() {
        assert_eq!(shares(10, 3).collect::<Vec<_>>(), [(0, 3), (3, 3), (6, 4)]);
        assert_eq!(shares(2, 1).collect::<Vec<_>>(), [(0, 2)]);
    }
}
