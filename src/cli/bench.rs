//! `carillon bench`: how fast is it, and does everything arrive?
//!
//! Opens sessions in processes of their own, publishes at a pace, checks every delivery, and measures what it cost the
//! nodes; on request beside the floor, a bare loop of `send(2)`. One file for each thing: `plan` (who follows what),
//! `reader` and `line` (the sessions), `floor`, `fleet` (the child processes), `round`, `meter`, `report`, `page`.

mod fleet;
mod floor;
mod line;
mod meter;
mod nodes;
mod order;
mod page;
mod plan;
mod publisher;
mod reader;
mod report;
mod round;
mod run;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};

use self::round::Pace;

/// Measure nodes under load, and check every delivery
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon bench --spawn 1 --sessions 1000 --pace 20
  carillon bench --spawn 2 --redis redis://127.0.0.1:6379 --sessions 10000 --floor --rounds 5
  carillon bench --node ws://10.0.0.5:8080/realtime --internal http://10.0.0.5:9090 --token TOKEN --pace flat --json

Sessions are checked for order, loss and duplicates; the exit code is 1 where anything was not as it must be.
Each process holds at most as many sockets as `ulimit -n` allows: --readers spreads them over more.")]
pub(super) struct Bench {
    #[command(flatten)]
    file: super::settings::ConfigFile,
    /// Measure these nodes (ws://host:port/realtime); repeat for several
    #[arg(long = "node", value_name = "URL", conflicts_with = "spawn")]
    nodes: Vec<String>,
    /// Internal listeners of the nodes: for publishing by HTTP, and for their CPU time and memory
    #[arg(long, value_name = "URL")]
    internal: Vec<String>,
    /// Processes of the nodes on this machine, for their CPU time and memory
    #[arg(long = "pid")]
    pids: Vec<u32>,
    /// Start so many nodes for the bench; more than one need --redis
    #[arg(long, value_name = "N")]
    spawn: Option<u32>,
    /// Settings of the nodes that are started: section.key=value
    #[arg(long = "set", value_name = "SETTING", requires = "spawn")]
    settings: Vec<String>,
    /// Publish here instead of by HTTP, and let nodes that are started use it
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    redis: String,
    /// How events are published
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Token of all sessions
    #[arg(long)]
    token: Option<String>,
    /// File with the token that authorises publishing by HTTP
    #[arg(long, value_name = "FILE")]
    publish_token_file: Option<PathBuf>,
    /// Sessions in all
    #[arg(long, default_value_t = 1000)]
    sessions: u32,
    /// Topics in all
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    topics: u32,
    /// Topics that a session follows
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    per_session: u32,
    /// Area of the topics
    #[arg(long, default_value = "comments")]
    area: String,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    payload: usize,
    /// lone (the next event when everybody has the last), flat (as fast as can be), or events per second
    #[arg(long, default_value = "lone")]
    pace: Pace,
    /// With --pace flat: events that may be on their way
    #[arg(long, value_name = "EVENTS", default_value_t = 256)]
    window: u64,
    /// Events in a round [default: 20 lone, 2000 flat, or what is due in 10 seconds]
    #[arg(long)]
    events: Option<u64>,
    /// Rounds; the least, the middle and the most are told
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Before each round the bare loop: one send(2) per socket of the same frame to as many sockets
    #[arg(long)]
    floor: bool,
    /// Each round twice: once with so many sessions that do not read
    #[arg(long, value_name = "N", default_value_t = 0)]
    slow: u32,
    /// Before the rounds: measure for so long what idle sessions cost
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    idle: u64,
    /// Connect and leave so many times, and tell the memory after each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    cycles: u32,
    /// Processes that hold the sessions [default: as few as their sockets allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    readers: Option<u32>,
    /// Handshakes that are under way at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write the report as an HTML page with plots
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What the bench starts itself as
    #[arg(long, hide = true)]
    part: Option<Part>,
}

/// How events are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// FCALL in Redis: recorded [default with --redis]
    Recorded,
    /// PUBLISH in Redis: live
    Live,
    /// POST /publish: recorded [default without --redis]
    Http,
    /// POST /publish?live=1
    HttpLive,
}

/// The child processes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    Reader,
    Floor,
}

impl Bench {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.part {
            Some(Part::Reader) => reader::run().map(|()| ExitCode::SUCCESS),
            Some(Part::Floor) => floor::run().map(|()| ExitCode::SUCCESS),
            None => run::run(self).await,
        }
    }
}
