//! Marks on rare paths, so that a test run can prove that it reached them.
//!
//! `probe!("raft.truncates_conflict")` costs nothing in the shipped program. With the feature
//! `testing` it counts on the current thread; a simulated run owns its thread from start to end,
//! so the counts of a run are exact.

/// Marks a rare path by a unique name, `area.what_happens`.
#[macro_export]
macro_rules! probe {
    ($name:literal) => {
        #[cfg(feature = "testing")]
        $crate::base::probe::hit($name);
    };
}

#[cfg(feature = "testing")]
pub use counting::{hit, take};

#[cfg(feature = "testing")]
mod counting {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    mod local {
        use super::{BTreeMap, RefCell};
        thread_local! {
            pub(super) static HITS: RefCell<BTreeMap<&'static str, u64>> =
                const { RefCell::new(BTreeMap::new()) };
        }
    }

    /// Counts one hit of the probe `name` on this thread.
    pub fn hit(name: &'static str) {
        local::HITS.with_borrow_mut(|hits| *hits.entry(name).or_default() += 1);
    }

    /// Returns the hits counted on this thread since the last call, by probe.
    pub fn take() -> BTreeMap<&'static str, u64> {
        local::HITS.take()
    }
}
