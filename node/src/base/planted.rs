//! Switches for the planted bugs, by which the simulation proves that it finds bugs.
//!
//! `if planted!("R3") { … }` is `if false { … }` in the shipped program: the switch exists only
//! with the feature `testing`, and there it is off unless a run turns it on for its own thread.

/// Tells whether the planted bug of that code is switched on for this run; false when shipped.
#[macro_export]
macro_rules! planted {
    ($code:literal) => {
        $crate::base::planted::is_on($code)
    };
}

#[cfg(feature = "testing")]
pub use switch::{is_on, turn_on};

/// Tells that no bug is on: the shipped program has no switch, and the compiler drops the branch.
#[cfg(not(feature = "testing"))]
#[inline]
pub const fn is_on(_code: &'static str) -> bool {
    false
}

/// Runs a scenario with the right code and with the bug; it tells whether something is lost.
#[cfg(all(test, feature = "testing"))]
pub(crate) fn loses_only_with(code: &'static str, scenario: impl Fn() -> bool) {
    assert!(!scenario(), "the right code loses something");
    turn_on(Some(code));
    let has_lost = scenario();
    turn_on(None);
    assert!(has_lost, "{code} loses nothing");
}

#[cfg(feature = "testing")]
mod switch {
    use std::cell::Cell;

    mod local {
        use super::Cell;
        thread_local! {
            pub(super) static ON: Cell<Option<&'static str>> = const { Cell::new(None) };
        }
    }

    /// Turns one planted bug on for this thread, or all of them off.
    pub fn turn_on(code: Option<&'static str>) {
        local::ON.set(code);
    }

    /// Tells whether the planted bug `code` is on for this thread.
    pub fn is_on(code: &'static str) -> bool {
        local::ON.get() == Some(code)
    }
}
