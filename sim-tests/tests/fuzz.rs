//! The inputs that fuzzing has found and kept, on every decoder and every recovery.
//!
//! The targets are in `fuzz/`, a workspace of its own because of what libFuzzer needs; they are
//! plain functions of bytes, so they are replayed here, where `cargo test` finds them. A program
//! of its own, because memory is counted for the whole process.

use std::path::Path;

use mangrove_fuzz::replay;

/// Made-up inputs per target, beside the kept ones; the time for them is bounded as well.
const MADE_UP: usize = 500;

#[test]
fn kept_inputs_of_every_target_pass() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, kept) in replay::all(&corpus, MADE_UP) {
        assert!(kept > 0, "{name} has no corpus");
    }
}
