//! The hub: who follows what, and the outboxes that events are handed to.
//!
//! Synchronous: it never awaits, takes no lock but an outbox's own, and knows no Redis. Who may follow what was decided
//! elsewhere; what a session has already received is decided by `relay`.

pub mod frame;
mod outbox;
mod queue;
mod rooms;

pub use frame::Frame;
pub use outbox::{Closing, Notice, Outbox, Taken};
pub use queue::{Item, Replay};
pub use rooms::{Delivered, Follow, Hub, Member, MemberId, RoomId, Standing};
