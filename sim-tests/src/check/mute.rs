//! A checker that says nothing, to learn who else would have noticed.
//!
//! Every checker is there because something would go unnoticed without it. An *ablation* hunts a
//! planted bug once more while the one who spoke first is mute: if another speaks, the two guard
//! the same thing from different sides; if nobody does, that one alone stands between the bug and
//! the users.
//!
//! The switch belongs to the thread, as that of planted bugs does: one run owns one thread. An
//! assertion of the node cannot be mute, for it stops the node.

use std::cell::Cell;

mod local {
    use super::Cell;
    thread_local! {
        pub(super) static MUTE: Cell<Option<&'static str>> = const { Cell::new(None) };
    }
}

/// Makes one checker of this thread mute, or none.
pub fn turn_on(checker: Option<&'static str>) {
    local::MUTE.set(checker);
}

/// Tells whether a checker is mute.
pub(super) fn is(checker: &str) -> bool {
    local::MUTE.get() == Some(checker)
}

#[cfg(test)]
mod tests {
    use super::super::broken;
    use super::*;

    #[test]
    fn only_the_mute_one_says_nothing() {
        turn_on(Some("durability"));
        let [durability, liveness] =
            ["durability", "liveness"].map(|checker| broken(checker, 7, "gone".to_owned()));
        turn_on(None);
        assert_eq!(durability, Ok(()));
        assert_eq!(liveness.unwrap_err().to_string(), "liveness at 7: gone");
        assert!(broken("durability", 7, "gone".to_owned()).is_err());
    }
}
