//! The doors: HTTP in front of sessions, for publishers and for operators.
//!
//! Handlers read a request, ask whoever knows, and write an answer; problems go out as RFC 9457 documents. Must not
//! know what a session does once it is inside.

mod assets;
mod cors;
mod crowd;
pub mod demo;
mod disconnect;
mod events;
mod handover;
mod headers;
pub mod history;
mod hosts;
mod internal;
pub mod listener;
pub mod origin;
mod page;
mod positions;
mod public;
mod publish;
mod refusal;
pub mod routes;
pub mod status;
mod tls;
mod tls_stream;
mod upgrade;
mod wish;

pub use crowd::Crowd;
pub use hosts::Hosts;
pub use internal::{Internal, NodeStatus};
pub use listener::{Door, Peer, bind};
pub use origin::Origins;
pub use public::{Public, Settings};
pub use tls::Certificates;
