//! The hub: who follows what, and the outboxes that events are handed to.
//!
//! Synchronous: it never awaits, takes no lock but an outbox's own, and knows no Redis. Who may follow what was decided
//! elsewhere; what a session has already received is decided by `relay`.

mod delivery;
pub mod frame;
mod framing;
mod members;
mod notice;
mod outbox;
mod outbox_state;
mod queue;
mod rooms;
mod socket;

pub use delivery::{Delivered, writers};
pub use frame::Frame;
pub use framing::Framing;
pub use notice::{Closing, Dropped, Notice, Taken};
pub use outbox::Outbox;
pub use queue::{Item, Replay};
pub use rooms::{Entrance, Follow, Hub, Member, MemberId, RoomId, Standing};
#[cfg(feature = "simulation")]
pub use socket::Scripted;
pub use socket::Socket;
