//! The words of the wire: topics, events, positions, messages, close codes and problems.
//!
//! Pure values with their grammar and nothing else, so that every door (WebSocket, SSE, long-poll, HTTP, Redis,
//! command line) speaks exactly the same language. Must not know sockets, Redis, tasks or clocks.

mod claim;
pub mod close;
pub mod event;
mod late;
pub mod message;
pub mod naming;
pub(crate) mod object;
mod passed;
pub mod position;
pub mod problem;
pub mod revocation;
pub mod subject;
pub mod time;
pub mod topic;

pub use close::CloseCode;
pub use event::{Event, EventError};
pub use late::Late;
pub use message::{ClientMessage, NodeMessage, Reason, Refused, RefusedCode, Resume};
pub use naming::{NameError, Naming};
pub use passed::Passed;
pub use position::{EntryId, Lineage, Position};
pub use problem::Problem;
pub use revocation::{Heard, Kind, Made, Proof, Revocation, Revocations, Whom};
pub use subject::Subject;
pub use topic::{Areas, Topic, TopicError};
