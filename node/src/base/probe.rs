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
pub use counting::{Aside, hit, take, take_new};

#[cfg(feature = "testing")]
mod counting {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    mod local {
        use super::{BTreeMap, RefCell};
        thread_local! {
            pub(super) static HITS: RefCell<BTreeMap<&'static str, u64>> =
                const { RefCell::new(BTreeMap::new()) };
            pub(super) static NEW: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
        }
    }

    /// Counts one hit of the probe `name` on this thread.
    pub fn hit(name: &'static str) {
        local::HITS.with_borrow_mut(|hits| {
            let count = hits.entry(name).or_default();
            *count += 1;
            if *count == 1 {
                local::NEW.with_borrow_mut(|new| new.push(name));
            }
        });
    }

    /// Sets aside what was counted on this thread, and gives it back when it is dropped: what is
    /// hit in between counts for nobody.
    #[derive(Debug)]
    pub struct Aside {
        hits: BTreeMap<&'static str, u64>,
        new: Vec<&'static str>,
    }

    impl Aside {
        /// Begins.
        #[expect(clippy::new_without_default, reason = "it takes something away")]
        pub fn new() -> Self {
            Self { hits: local::HITS.take(), new: local::NEW.take() }
        }
    }

    impl Drop for Aside {
        fn drop(&mut self) {
            local::HITS.set(std::mem::take(&mut self.hits));
            local::NEW.set(std::mem::take(&mut self.new));
        }
    }

    /// Returns the probes that were hit for the first time since the last call on this thread.
    pub fn take_new() -> Vec<&'static str> {
        local::NEW.take()
    }

    /// Returns the hits counted on this thread since the last call, by probe.
    pub fn take() -> BTreeMap<&'static str, u64> {
        local::NEW.take();
        local::HITS.take()
    }
}
