//! Rounds: events are published at a pace, all deliveries awaited, and what they cost is measured.
//!
//! The same pace drives a node and the floor, in turn, so that their figures can be compared.

use std::time::Duration;

use anyhow::{Result, bail};
use carillon::metrics::process::Footprint;
use clap::ValueEnum;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    fleet::{ChildProcess, Readers},
    meter::{Http, Meter},
    order::{Answer, Figures, Order, Side},
    plan::Plan,
    publisher::Publisher,
};

/// How long nothing may come before what is missing is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events that are published in one go when it shall go fast.
const BATCH: u64 = 32;
/// Lateness that the clock of the publisher may have without being the node's fault.
const TOLERANCE: Duration = Duration::from_millis(2);

/// How events follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// One, and the next when everybody has it.
    Lone,
    /// As fast as can be, with at most `window` events on their way.
    Flat,
    /// So many per second.
    Rate(f64),
}

impl std::str::FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<f64>()) {
            ("lone", _) => Ok(Self::Lone),
            ("flat", _) => Ok(Self::Flat),
            (_, Ok(rate)) if rate > 0.0 && rate.is_finite() => Ok(Self::Rate(rate)),
            _ => Err("lone, flat, or events per second".into()),
        }
    }
}

/// What is done in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RoundKind {
    /// The bare loop.
    Floor,
    /// The bare receive and send.
    Forward,
    /// The node.
    Node,
    /// The node, while the slow sessions are not read.
    NodeWithSlow,
}

/// What a round has shown.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    /// What was done.
    pub(super) way: RoundKind,
    /// Events published.
    pub(super) events: u64,
    /// From the first event to the last delivery, s.
    pub(super) seconds: f64,
    /// CPU time of what was measured, s; absent where it cannot be read.
    pub(super) cpu: Option<f64>,
    /// CPU time of the clients, s.
    pub(super) client_cpu: f64,
    /// Memory of what was measured at the end, bytes.
    pub(super) memory: u64,
    /// Figures of all readers.
    #[serde(skip)]
    pub(super) figures: Figures,
}

impl Round {
    /// CPU time per delivery, µs.
    pub(super) fn cost(&self) -> Option<f64> {
        let delivered = self.figures.delivered;
        self.cpu.filter(|_| delivered > 0).map(|cpu| cpu * 1e6 / delivered as f64)
    }

    /// CPU time of the clients per delivery, µs.
    pub(super) fn client_cost(&self) -> Option<f64> {
        let delivered = self.figures.delivered;
        (delivered > 0).then(|| self.client_cpu * 1e6 / delivered as f64)
    }

    /// Deliveries per second.
    pub(super) fn rate(&self) -> f64 {
        self.figures.delivered as f64 / self.seconds
    }
}

/// Everything that takes part.
pub(super) struct Stage {
    pub(super) plan: Plan,
    pub(super) readers: Readers,
    pub(super) publisher: Publisher,
    pub(super) floor: Option<ChildProcess>,
    pub(super) meters: Vec<Meter>,
    pub(super) http: Http,
    /// Followers of each topic, without slow sessions.
    pub(super) followers: Vec<u64>,
    pub(super) sockets: u64,
    pub(super) payload: usize,
    pub(super) window: u64,
    /// Deliveries that were due, and that had come, when the sessions connected.
    pub(super) start: (u64, u64),
    /// Events published so far: to the nodes, and to the floor.
    pub(super) published: (u64, u64),
}

impl Stage {
    /// Sessions have connected: what follows is compared with what has come so far.
    pub(super) fn start(&mut self, followers: &[u64]) {
        self.followers = followers.to_vec();
        let due = self.plan.deliveries(&self.followers, self.published.0);
        self.start = (due, self.readers.counted(Side::Node));
    }

    /// One round; `seen` is told how many events have been published in it.
    pub(super) async fn round(
        &mut self,
        way: RoundKind,
        pace: Pace,
        events: u64,
        seen: impl Fn(u64),
    ) -> Result<Round> {
        let on_floor = matches!(way, RoundKind::Floor | RoundKind::Forward);
        let side = if on_floor { Side::Floor } else { Side::Node };
        if way == RoundKind::NodeWithSlow {
            self.readers.all(&Order::Slow(true)).await?;
        }
        self.readers.figures(side).await?;
        let (before, clients) = (self.read(side).await?, self.readers.cpu()?);
        let began = Instant::now();
        self.run(way, side, pace, events, seen).await?;
        let seconds = began.elapsed().as_secs_f64();
        let (after, client_cpu) = (self.read(side).await?, self.readers.cpu()? - clients);
        let figures = self.readers.figures(side).await?;
        if way == RoundKind::NodeWithSlow {
            self.readers.all(&Order::Slow(false)).await?;
        }
        let measured = side == Side::Floor || !self.meters.is_empty();
        let cpu = measured.then_some(after.cpu - before.cpu);
        Ok(Round { way, events, seconds, cpu, client_cpu, memory: after.memory, figures })
    }

    /// What the measured processes have used so far.
    pub(super) async fn read(&self, side: Side) -> Result<Footprint> {
        match (side, self.floor.as_ref().and_then(ChildProcess::pid)) {
            (Side::Floor, Some(pid)) => Meter::Process(pid).read(&self.http).await,
            _ => Meter::sum(&self.meters, &self.http).await,
        }
    }

    async fn run(
        &mut self,
        way: RoundKind,
        side: Side,
        pace: Pace,
        events: u64,
        seen: impl Fn(u64),
    ) -> Result<()> {
        if way == RoundKind::Forward {
            let Some(floor) = &mut self.floor else { bail!("there is no floor") };
            floor.order(&Order::Forward { events, stride: self.plan.stride() }).await?;
        }
        let began = Instant::now();
        let mut done = 0;
        while done < events {
            let (count, late) = match pace {
                Pace::Lone => (1, Duration::ZERO),
                Pace::Flat => (BATCH.min(events - done), Duration::ZERO),
                Pace::Rate(rate) => wait_until_due(began, rate, done, events).await,
            };
            self.emit(way, count, late).await?;
            done += count;
            seen(done);
            if pace == Pace::Lone && !self.caught_up(side, 0).await {
                break;
            }
            if pace == Pace::Flat && !self.caught_up(side, self.window).await {
                break;
            }
        }
        self.caught_up(side, 0).await;
        if let (RoundKind::Forward, Some(floor)) = (way, &mut self.floor) {
            let Answer::Done = floor.answer().await? else { bail!("not the answer to a forward") };
        }
        Ok(())
    }

    /// Publishes the next events.
    async fn emit(&mut self, way: RoundKind, count: u64, late: Duration) -> Result<()> {
        if way == RoundKind::Floor {
            let Some(floor) = &mut self.floor else { bail!("there is no floor") };
            let (from, stride) = (self.published.1, self.plan.stride());
            let order = Order::Send { from, events: count, bytes: self.payload, stride };
            self.published.1 += count;
            return floor.done(&order).await;
        }
        let (side, published) = match way {
            RoundKind::Forward => (Side::Floor, &mut self.published.1),
            _ => (Side::Node, &mut self.published.0),
        };
        let from = *published;
        *published += count;
        self.publisher.publish((&self.plan, side), from, count, self.payload, late).await
    }

    /// Waits until all but so many events have come everywhere.
    async fn caught_up(&self, side: Side, but: u64) -> bool {
        let expected = if side == Side::Floor {
            self.plan.on_floor(self.sockets, self.published.1.saturating_sub(but))
        } else {
            let due = self.plan.deliveries(&self.followers, self.published.0.saturating_sub(but));
            due.saturating_sub(self.start.0) + self.start.1
        };
        self.readers.wait_for(side, expected, PATIENCE).await
    }
}

/// Waits until the next event is due at a rate; how many are due, and for how long.
async fn wait_until_due(began: Instant, rate: f64, done: u64, events: u64) -> (u64, Duration) {
    let gap = Duration::from_secs_f64(1.0 / rate);
    let due = began + gap.mul_f64(done as f64);
    tokio::time::sleep_until(due).await;
    let passed = (began.elapsed().as_nanos() / gap.as_nanos().max(1)) as u64 + 1;
    let late = Some(due.elapsed()).filter(|late| *late > TOLERANCE);
    (passed.saturating_sub(done).clamp(1, events - done), late.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_word_or_a_rate() {
        assert_eq!("lone".parse(), Ok(Pace::Lone));
        assert_eq!("flat".parse(), Ok(Pace::Flat));
        assert_eq!("0.5".parse(), Ok(Pace::Rate(0.5)));
        for bad in ["", "0", "-1", "inf", "NaN", "fast"] {
            assert!(bad.parse::<Pace>().is_err(), "{bad}");
        }
    }
}
