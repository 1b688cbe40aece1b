//! Both listeners: HTTP in front of sessions, for publishers and for operators.
//!
//! `routes` has the paths, and one file per path its handler. Problems go out as RFC 9457 documents.

mod assets;
mod connections;
mod cors;
pub mod demo;
mod disconnect;
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
mod sse_and_poll;
pub mod status;
mod stream_query;
mod tls;
mod tls_stream;
mod unread;
mod upgrade;

pub use connections::Connections;
pub use hosts::Hosts;
pub use internal::{InternalState, NodeStatus};
pub use listener::{HttpServer, Peer, bind};
pub use origin::Origins;
pub use public::{PublicState, Settings};
pub use tls::Certificates;
