//! Failures of planted bugs become small, and stay the failures that they were.

use sim_tests::bugs::{BUGS, MASTERLESS_BUGS};
use sim_tests::options::Mode;
use sim_tests::shrink::shrink_first;

#[test]
fn failures_of_planted_bugs_become_small() {
    let bugs = [
        (Mode::PrimaryBackup, "W1"),
        (Mode::PrimaryBackup, "R8"),
        (Mode::PrimaryBackup, "R3"),
        (Mode::Masterless, "D3"),
    ];
    for (mode, code) in bugs {
        let bug = BUGS.iter().chain(MASTERLESS_BUGS).find(|bug| bug.code == code).unwrap();
        let row = shrink_first(*bug, mode, 2).unwrap_or_else(|| panic!("{code} was not found"));
        assert!(row.is_shown_again, "{}", row.to_line());
        assert!(row.after * 4 < row.before, "{}", row.to_line());
        assert!(row.after <= 25, "{}", row.to_line());
    }
}
