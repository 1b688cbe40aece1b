//! What `carillon bench` does: how fast is it, and does everything arrive?
//!
//! Opens sessions in processes of their own, publishes at a pace, checks every delivery, and measures what it cost the
//! nodes; on request beside the floor, a bare loop of `send(2)`. One file for each thing: `plan` (who follows what),
//! `reader` and `connection` (the sessions), `floor` and `forward`, `fleet` (the child processes), `round`, `meter`, `report`, `page`.

mod connection;
mod fleet;
mod floor;
mod forward;
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

use std::path::PathBuf;

use carillon::config::Layers;
use clap::{Args, ValueEnum};
use futures_util::future::BoxFuture;

use crate::round::Pace;

/// Wrong usage that only the bench itself could see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// What is measured, and how.
#[derive(Debug, Args)]
pub struct Options {
    /// Measure this node, ws://host:port/realtime; may be repeated
    #[arg(long = "node", value_name = "URL", conflicts_with = "spawn")]
    nodes: Vec<String>,
    /// Internal listener of a node: publish there, read CPU and memory
    #[arg(long, value_name = "URL")]
    internal: Vec<String>,
    /// Processes of the nodes on this machine, for CPU and memory
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// Start so many nodes; more than one need --redis
    #[arg(long, value_name = "N")]
    spawn: Option<u32>,
    /// A setting of the nodes that are started: section.key=value
    #[arg(long = "set", value_name = "SETTING", requires = "spawn")]
    settings: Vec<String>,
    /// Publish here instead of by HTTP; nodes that are started use it
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    redis: String,
    /// How to publish: recorded or live (Redis), http or http-live
    #[arg(long, value_enum, hide_possible_values = true)]
    by: Option<By>,
    /// Token of all sessions
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// File with the token for publishing by HTTP
    #[arg(long, value_name = "FILE")]
    publish_token_file: Option<PathBuf>,
    /// Sessions in all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    sessions: u32,
    /// Topics in all
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
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
    /// lone (one by one), flat (as fast as can be), or events a second
    #[arg(long, default_value = "lone")]
    pace: Pace,
    /// With --pace flat: events that may be on their way
    #[arg(long, value_name = "N", default_value_t = 256)]
    window: u64,
    /// Events in a round [default: 20 lone, 2000 flat, else 10 seconds]
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Rounds; the least, the middle and the most are told
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Before each round the bare loop of send(2) on as many sockets
    #[arg(long)]
    floor: bool,
    /// Also a bare receive from Redis, and send; needs --redis
    #[arg(long, requires = "floor")]
    forward: bool,
    /// Each round once more, with so many sessions that do not read
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    slow: u32,
    /// Before the rounds: what idle sessions cost, for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    idle: u64,
    /// Connect and leave so many times; tells the memory after each
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..))]
    cycles: u32,
    /// Processes that hold the sessions [default: as `ulimit -n` asks]
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
    part: Option<ChildRole>,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    /// Text for people, or JSON; empty for a child process.
    pub report: String,
    /// Every delivery was as it must be.
    pub flawless: bool,
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
enum ChildRole {
    Reader,
    Floor,
}

impl Options {
    /// Measures, with the nodes' settings in `layers` where it publishes by Redis. A child process answers on standard output
    /// and reports nothing. An error is a [`Usage`], or what went wrong. The future is in a box, so that it is compiled
    /// here, and not again with the command line.
    pub fn run(self, layers: Layers) -> BoxFuture<'static, anyhow::Result<Outcome>> {
        Box::pin(async move {
            let nothing = Outcome { report: String::new(), flawless: true };
            match self.part {
                Some(ChildRole::Reader) => reader::run().map(|()| nothing),
                Some(ChildRole::Floor) => floor::run().map(|()| nothing),
                None => run::run(self, layers).await,
            }
        })
    }
}
