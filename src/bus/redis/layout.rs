//! Which server has which slot at this moment, and which slots are being moved. The connections of a link share it, so that each
//! knows what another has learned.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use fred::prelude::Server;

use super::slots::{Slots, slot};

/// Where what lies.
#[derive(Debug)]
pub(super) struct Layout {
    state: Mutex<LayoutState>,
    /// The masters that the link was built with.
    masters: Vec<Server>,
}

#[derive(Debug)]
struct LayoutState {
    slots: Slots,
    /// Slots that are being moved, and to which server: keys that are there already are asked for there.
    leaving: HashMap<u16, Server>,
}

impl Layout {
    pub(super) fn new(slots: Slots) -> Self {
        let masters = slots.masters();
        Self { state: Mutex::new(LayoutState { slots, leaving: HashMap::new() }), masters }
    }

    fn state(&self) -> MutexGuard<'_, LayoutState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The masters that the link was built with.
    pub(super) fn masters(&self) -> &[Server] {
        &self.masters
    }

    /// Who has the slot of a key or channel.
    pub(super) fn owner(&self, name: &str) -> Option<Server> {
        self.state().slots.owner(name).cloned()
    }

    /// Who is about to get the slot of a key or channel.
    pub(super) fn heir(&self, name: &str) -> Option<Server> {
        let state = self.state();
        if state.leaving.is_empty() { None } else { state.leaving.get(&slot(name)).cloned() }
    }

    /// Everything was asked for anew. The masters that have come since the link was built.
    pub(super) fn renew(&self, slots: Slots) -> Vec<Server> {
        let new = slots.masters().into_iter().filter(|master| !self.masters.contains(master)).collect();
        let mut state = self.state();
        state.leaving.retain(|slot, heir| slots.owner_of(*slot) != Some(heir));
        state.slots = slots;
        new
    }

    /// A slot lies with one of the masters, and is on its way to nobody; `false` where it is none of them.
    pub(super) fn moved(&self, slot: u16, to: &Server) -> bool {
        let mut state = self.state();
        state.leaving.remove(&slot);
        let known = self.masters.contains(to);
        if known {
            state.slots.moved(slot, to.clone());
        }
        known
    }

    /// A server cannot be reached: nothing is on its way there, until that is said again.
    pub(super) fn loses(&self, heir: &Server) {
        self.state().leaving.retain(|_, to| to != heir);
    }

    /// A slot is on its way.
    pub(super) fn is_leaving(&self, slot: u16, to: &Server) {
        self.state().leaving.insert(slot, to.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "carillon:comments:42";

    fn server(port: u16) -> Server {
        Server::new("h", port)
    }

    #[test]
    fn a_slot_on_its_way_has_an_heir_until_it_has_arrived_or_stays() {
        let layout = Layout::new(Slots::only(server(1)));
        assert_eq!((layout.owner(NAME), layout.heir(NAME)), (Some(server(1)), None));
        layout.is_leaving(slot(NAME), &server(2));
        assert!(layout.renew(Slots::only(server(1))).is_empty(), "the slots are the same");
        assert_eq!(layout.heir(NAME), Some(server(2)), "still on its way");
        assert_eq!(layout.heir("carillon:other"), None);
        assert_eq!(layout.renew(Slots::only(server(2))), [server(2)], "a new master");
        assert_eq!((layout.owner(NAME), layout.heir(NAME)), (Some(server(2)), None));
        layout.is_leaving(slot(NAME), &server(3));
        assert!(layout.moved(slot(NAME), &server(1)), "it stayed");
        assert_eq!((layout.owner(NAME), layout.heir(NAME)), (Some(server(1)), None));
        assert!(!layout.moved(slot(NAME), &server(9)), "no master of ours");
    }
}
