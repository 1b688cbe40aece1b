//! The doors: HTTP in front of sessions, for publishers and for operators.
//!
//! Handlers read a request, ask whoever knows, and write an answer; problems go out as RFC 9457 documents. Must not
//! know what a session does once it is inside.

mod cors;
pub mod listener;
pub mod origin;
mod public;
mod refusal;
mod upgrade;

pub use listener::{Door, Peer, bind};
pub use origin::Origins;
pub use public::{Public, Settings};
