//! How often each verdict fell: a simulation that never meets one says nothing about it.
//!
//! Counted only in a build with the feature `simulation`; in every other build nothing of this is left in the program.

#[cfg(feature = "simulation")]
mod counting {
    use std::{cell::RefCell, collections::BTreeMap};

    thread_local! {
        static FALLEN: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// A verdict of this name has fallen.
    pub(crate) fn count(name: &'static str) {
        FALLEN.with_borrow_mut(|fallen| *fallen.entry(name).or_default() += 1);
    }

    /// What has fallen in this thread since this was asked last, by name.
    pub fn take() -> BTreeMap<&'static str, u64> {
        FALLEN.take()
    }
}

#[cfg(feature = "simulation")]
pub(super) use counting::count;
#[cfg(feature = "simulation")]
pub use counting::take;

/// A verdict has fallen.
#[cfg(not(feature = "simulation"))]
#[inline]
pub(super) const fn count(_name: &'static str) {}
