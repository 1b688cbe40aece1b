//! The words of the wire: topics, events, positions, messages, close codes and problems.
//!
//! Pure values with their grammar and nothing else, so that every way in (WebSocket, SSE, long-poll, HTTP,
//! Redis, command line) speaks exactly the same language. Each close code, refusal, problem code and reason stands here
//! once; a test compares these tables with docs/contract.md.

mod claim;
pub mod codes;
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

pub use codes::{CloseCode, ErrorCode, ProblemCode, Reason, RefusedCode};
pub use event::{Event, EventError};
pub use late::Late;
pub use message::{ClientMessage, NodeMessage, Refused, Resume};
pub use naming::{NameError, Naming};
pub use passed::Passed;
pub use position::{EntryId, Lineage, Position};
pub use problem::Problem;
pub use revocation::{Heard, Kind, Made, Proof, Revocation, Revocations, Whom};
pub use subject::Subject;
pub use topic::{Areas, Topic, TopicError};
