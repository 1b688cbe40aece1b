//! The promise, simulated: nodes of the real switch, feeds, hub, outboxes and sessions, clients of every kind and a simulated
//! Redis in one thread and virtual time, under schedules that a seed decides. The auditor holds every session against
//! docs/contract.md. A seed that fails is replayed exactly, and its schedule is shrunk to the few steps that matter.
//!
//! Run by `tests/simulation/run`; what it covers, and what it cannot, is in docs/reliability.md.

#![allow(clippy::expect_used, reason = "a test that cannot go on stops")]

mod answers;
mod arguments;
mod audit;
mod budget;
mod bus;
mod client;
mod cms;
mod deeds;
mod devoted;
mod generate;
mod hear;
mod live;
mod mutants;
mod node;
mod orders;
mod people;
mod pipe;
mod plan;
mod redis;
mod report;
mod search;
mod serving;
mod shrink;
mod shut_out;
mod stages;
mod stale;
mod themes;
mod wire;
mod work;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(order) = arguments::read() else {
        eprintln!("{}", arguments::USAGE);
        return ExitCode::from(2);
    };
    if search::run(&order) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
