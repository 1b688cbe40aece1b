//! Carillon tells every connected CMS editor, at once and reliably, that something changed. This is the node; the program
//! `carillon` and its commands are in `crates/cli`.
//!
//! To use Carillon, read `README.md` and then `docs/README.md`, the index of all documents. These pages are for changing it;
//! `ARCHITECTURE.md` is the map.
//!
//! The way of one event: a publisher's `FCALL` → Redis → [`bus`] → [`relay`] → [`hub`] → outbox → socket → `realtime.js`.
//! A module may name only modules on lower rungs (`tests/integration/layering.rs`):
//!
//! ```text
//! 6 app    5 http    4 session    3 relay    2 hub, bus, auth, telemetry
//! 1 protocol, config, metrics, shutdown, outbound, printable, seldom    0 mutant
//! ```

pub mod app;
pub mod auth;
pub mod bus;
pub mod config;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod hub;
pub mod metrics;
mod mutant;
pub mod outbound;
pub mod printable;
pub mod protocol;
pub mod relay;
pub mod seldom;
pub mod session;
pub mod shutdown;
pub mod telemetry;
