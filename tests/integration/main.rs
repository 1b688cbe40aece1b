//! The integration tests, in one program: it links once, and its modules share what stands in `support`.
//!
//! One module for each thing that is tested; `tests/README.md` says where a new test goes and how to run one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

mod budgets;
mod bus;
mod bus_access;
mod bus_corpus;
mod bus_disk;
mod bus_doctor;
mod bus_faults;
mod bus_generations;
mod bus_history;
mod bus_logs;
mod bus_marks;
mod bus_names;
mod bus_publish;
mod bus_reach;
mod bus_reads;
mod bus_refused;
mod bus_reshard;
mod bus_rights;
mod bus_setups;
mod bus_slots;
mod bus_topologies;
mod callback;
mod canary;
mod cli;
mod cli_dev;
mod cli_traps;
mod contract;
mod demo;
mod docs;
mod doors;
mod forged;
mod forget;
mod headers;
mod internal;
mod layering;
mod levels;
mod limits;
mod node_secret;
mod private_keys;
mod readme;
mod refused_bodies;
mod relay;
mod relay_parts;
mod revocation;
mod revoked_names;
mod rfc6455;
mod rotation;
mod runbooks;
mod security;
mod simulated_redis;
mod sources;
mod streams;
mod terminals;
#[cfg(feature = "otlp")]
mod traces;
mod transports;
mod websocket;
