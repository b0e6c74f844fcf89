//! The `sim` program as a program: what is wrong with its arguments is said before it works for
//! long, with exit code 2.

use std::process::Command;

#[test]
fn arguments_that_cannot_be_are_refused_at_once() {
    let most = u64::MAX.to_string();
    let cases: &[&[&str]] = &[
        // The accident: sums of these were no numbers any more.
        &["run", "--seeds", &most],
        &["liveness", "--seeds", &most],
        &["explore", "--seeds", &most],
        &["determinism", "--seeds", &most],
        &["bugs", "--only", "W1", "--first-seed", &most],
        &["bugs", "--only", "W1", "--ranges", &most],
        &["compare", "--only", "calm", "--first-seed", &most],
        &["run", "--seeds", "0"],
        // The accident: all of the work was done first, and its result lost.
        &["bugs", "--only", "W1", "--markdown", "/nonexistent/page.md"],
        &["shrink", "1", "--output", "/nonexistent/small.json"],
        &["shrink", "1", "--scenario", "/"],
        &["compare", "--only", "calm", "--out", "/nonexistent/page.html"],
        // The accident: it was a broken promise.
        &["determinism", "--against", "/nonexistent/sim"],
        // The accident: it was switched on where nothing could show it.
        &["crash-points", "--planted", "D1"],
        &["branch", "1", "--reseed-from", "99999.5"],
    ];
    for arguments in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(*arguments).output();
        let output = output.unwrap_or_else(|error| panic!("cannot run it: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(!said.trim().is_empty() && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}
