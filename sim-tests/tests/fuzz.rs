//! The inputs that fuzzing has found and kept, on every decoder and every recovery.
//!
//! The targets are in `fuzz/`, a workspace of its own because of what libFuzzer needs; they are
//! plain functions of bytes, so they are replayed here, where `cargo test` finds them. A program
//! of its own, because memory is counted for the whole process.
//!
//! The target `replay_file` is here: that format belongs to the simulator, which no fuzzer builds.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mangrove_fuzz::{Kind, Target, replay};
use serde_json::{Value as Json, json};
use sim_tests::case::Case;
use sim_tests::options::{Mode, Plan, Profile};
use sim_tests::run::{Keep, run_case};
use sim_tests::world::Record;

/// Made-up inputs per target, beside the kept ones; the time for them is bounded as well.
const MADE_UP: usize = 500;

/// Made-up replay files: nothing else looks for bad ones.
const MADE_UP_FILES: usize = 2_000;

/// A run written down.
const REPLAY_FILE: Target = Target {
    name: "replay_file",
    kind: Kind::Decoder,
    what: "a run written down: bytes, or a file with other values in it",
    run: replay_file,
    seeds: replay_file_seeds,
    // An input of one byte is a whole file: some hundred faults and operations, three times.
    bytes_max: (8 << 20, 4 << 10),
};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

/// One test, because memory is counted for the whole process.
#[test]
fn kept_inputs_of_every_target_pass() {
    let mut replayed = replay::all(&corpus(), MADE_UP);
    let files = corpus().join(REPLAY_FILE.name);
    replayed.push((REPLAY_FILE.name, replay::one(&REPLAY_FILE, &files, MADE_UP_FILES)));
    for (name, kept) in replayed {
        assert!(kept > 0, "{name} has no corpus");
    }
}

/// Either a file, which begins with a brace, or
///
/// ```text
/// which u8: one of the files that there are │ (place u16 LE │ value u8)*
/// ```
/// where each edit puts another value at a place of the file.
fn replay_file(input: &[u8]) {
    let text = if input.starts_with(b"{") {
        String::from_utf8_lossy(input).into_owned()
    } else {
        let Some((&which, edits)) = input.split_first() else { return };
        altered(usize::from(which), edits)
    };
    let Ok(case) = Case::from_json(&text) else { return };
    let written = case.to_json();
    match Case::from_json(&written) {
        Ok(again) => assert_eq!(again.to_json(), written, "a case is itself after writing"),
        Err(error) => panic!("{error} in what was written of {text}: {written}"),
    }
}

fn replay_file_seeds() -> Vec<Vec<u8>> {
    let edits = (0..).zip(files()).map(|(which, _)| vec![which, 9, 0, 3, 40, 0, 7]);
    edits.chain(files().iter().map(|file| file.to_string().into_bytes())).collect()
}

/// Returns one of the files with other values in it.
fn altered(which: usize, edits: &[u8]) -> String {
    const EDITS_MAX: usize = 8;
    let mut file = files()[which % files().len()].clone();
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(u64::MAX),
        json!(0.000_000_4),
        json!(1e300),
        json!(""),
        json!("c1.1"),
        json!("all"),
        json!([]),
        json!({}),
    ];
    let (edits, _) = edits.as_chunks::<3>();
    for &[low, high, value] in edits.iter().take(EDITS_MAX) {
        let place = usize::from(u16::from_le_bytes([low, high])) % count(&file);
        if let Some(there) = nth(&mut file, &mut { place }) {
            *there = values[usize::from(value) % values.len()].clone();
        }
    }
    file.to_string()
}

/// Returns how many values there are, one within the other.
fn count(json: &Json) -> usize {
    match json {
        Json::Array(all) => 1 + all.iter().map(count).sum::<usize>(),
        Json::Object(all) => 1 + all.values().map(count).sum::<usize>(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => 1,
    }
}

/// Returns the value with so many before it.
fn nth<'a>(json: &'a mut Json, before: &mut usize) -> Option<&'a mut Json> {
    if *before == 0 {
        return Some(json);
    }
    *before -= 1;
    match json {
        Json::Array(all) => all.iter_mut().find_map(|inner| nth(inner, before)),
        Json::Object(all) => all.values_mut().find_map(|inner| nth(inner, before)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

/// The files to begin with: a drawn run of each kind, and one of each mode with everything listed.
fn files() -> &'static [Json] {
    static FILES: OnceLock<Vec<Json>> = OnceLock::new();
    FILES.get_or_init(|| {
        let plans = [Mode::PrimaryBackup, Mode::Masterless].into_iter().flat_map(|mode| {
            [Profile::Standard, Profile::Storage].map(|profile| Plan { mode, profile })
        });
        let mut cases = Vec::new();
        for plan in plans {
            let drawn = Case::drawn(plan.draw(3));
            if plan.profile == Profile::Standard {
                cases.push(listed(&drawn));
            }
            cases.push(drawn);
        }
        let parsed = cases.iter().map(|case| serde_json::from_str(&case.to_json()));
        parsed.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}"))
    })
}

/// Returns the case with what it came to, cut short.
fn listed(drawn: &Case) -> Case {
    let mut case = drawn.written(&run_case(drawn, Keep { trace: Record::Nothing, log: true }));
    case.operations.iter_mut().for_each(|all| all.truncate(12));
    if let Some(expected) = &mut case.expected {
        expected.events.truncate(3);
        expected.digest.truncate(8);
    }
    case
}
