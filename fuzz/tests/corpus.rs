//! Replays the kept inputs, and made-up ones around them, on every target, within its bounds.
//!
//! One test, because memory is counted for the whole process.

use std::path::Path;

use mangrove_fuzz::replay;

/// Made-up inputs per target: enough to notice a decoder that panics at a glance.
const MADE_UP: usize = 2_000;

#[test]
fn kept_and_made_up_inputs_pass() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let replayed = replay::all(&corpus, MADE_UP);
    for (name, kept) in &replayed {
        assert!(*kept > 0, "{name} has no corpus");
    }
}
