//! Runs kept inputs, and made-up ones around them, on the stable toolchain alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mangrove::base::Rng;

use crate::{Target, check, targets};

/// Longest time for the made-up inputs of one target; the slow ones get fewer.
const TIME_MAX: Duration = Duration::from_millis(500);

/// Longest made-up input that a script is.
const SCRIPT_BYTES_MAX: u64 = 400;

/// Replays every target; returns how many kept inputs each has. `made_up` is for each.
///
/// # Panics
/// If a target does, or costs more than it may, once all have been tried. The message names the
/// targets; what was said before names the inputs.
pub fn all(corpus: &Path, made_up: usize) -> Vec<(&'static str, usize)> {
    let (mut replayed, mut broken) = (Vec::new(), Vec::new());
    for target in targets() {
        let folder = corpus.join(target.name);
        match std::panic::catch_unwind(|| one(target, &folder, made_up)) {
            Ok(count) => replayed.push((target.name, count)),
            Err(_) => broken.push(target.name),
        }
    }
    assert!(broken.is_empty(), "these targets are broken: {}", broken.join(", "));
    replayed
}

/// Replays one target with the inputs of a folder; returns how many there are.
///
/// # Panics
/// As of [`all`].
pub fn one(target: &Target, folder: &Path, made_up: usize) -> usize {
    let mut kept = kept(folder);
    // What all targets share is made once, and is not on the account of one input.
    (target.run)(&[]);
    for (name, input) in &kept {
        run(target, name, input);
    }
    let count = kept.len();
    kept.extend((target.seeds)().into_iter().map(|seed| ("seed".to_owned(), seed)));
    let (begin, mut rng) = (Instant::now(), Rng::new(20_261_125));
    for number in 0..made_up {
        if begin.elapsed() > TIME_MAX {
            break;
        }
        let mut input = match kept.get(rng.index(kept.len().max(1))) {
            Some((_, input)) if rng.chance(0.9) => input.clone(),
            _ => (0..rng.range(0, SCRIPT_BYTES_MAX)).map(|_| rng.next_u64() as u8).collect(),
        };
        for _ in 0..rng.range(1, 6) {
            mutate(&mut input, &mut rng);
        }
        run(target, &format!("made-up {number}"), &input);
    }
    count
}

/// Runs the files that a program of one target is given.
///
/// # Panics
/// As of [`all`], and if a file cannot be read.
pub fn files(target: &Target) {
    for path in std::env::args().skip(1) {
        match fs::read(&path) {
            Ok(input) => run(target, &path, &input),
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

/// Returns the inputs of a folder, in the order of their names.
fn kept(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut kept: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            match entry.and_then(|entry| Ok((entry.file_name(), fs::read(entry.path())?))) {
                Ok((name, input)) => (name.to_string_lossy().into_owned(), input),
                Err(error) => panic!("{}: {error}", folder.display()),
            }
        })
        .collect();
    kept.sort();
    kept
}

fn run(target: &Target, name: &str, input: &[u8]) {
    let run = std::panic::AssertUnwindSafe(|| check(target, input));
    if let Err(panic) = std::panic::catch_unwind(run) {
        let shown: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{} fails with {name}, in hexadecimal: {shown}", target.name);
        std::panic::resume_unwind(panic);
    }
}

fn mutate(input: &mut Vec<u8>, rng: &mut Rng) {
    let byte = rng.next_u64() as u8;
    match rng.range(0, 5) {
        0 if !input.is_empty() => {
            let at = rng.index(input.len());
            input[at] = byte;
        }
        1 if !input.is_empty() => {
            let at = rng.index(input.len());
            input[at] ^= 1 << (byte % 8);
        }
        2 if !input.is_empty() => input.truncate(rng.index(input.len())),
        3 if input.len() >= 8 => {
            let at = rng.index(input.len() - 7);
            let number = [0, 1, u64::MAX, u64::MAX - 1, 1 << 32][rng.index(5)];
            input[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        _ => input.push(byte),
    }
}
