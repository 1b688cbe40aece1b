//! The hub: who follows what, and the outboxes that events are handed to.
//!
//! It never awaits and takes no lock but an outbox's own. `session` has decided who may follow what, and `relay` decides from
//! which event on a session gets a topic.

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
