//! Replays the kept inputs, and made-up ones around them, on every target.

use std::path::Path;

use mangrove::base::Rng;
use mangrove_fuzz::TARGETS;

/// Made-up inputs per target: enough to notice a decoder that panics at a glance.
const MADE_UP: usize = 20_000;

#[test]
fn kept_inputs_pass() {
    let mut count = 0;
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        for entry in std::fs::read_dir(&folder).expect("every target has a corpus") {
            target(&std::fs::read(entry.expect("a file").path()).expect("it can be read"));
            count += 1;
        }
    }
    assert!(count >= TARGETS.len(), "only {count} inputs: the corpus is missing");
}

#[test]
fn mutated_inputs_pass() {
    let mut rng = Rng::new(20_261_121);
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let entries = std::fs::read_dir(&folder).expect("every target has a corpus");
        let seeds: Vec<Vec<u8>> = entries
            .map(|entry| std::fs::read(entry.expect("a file").path()).expect("it can be read"))
            .collect();
        for _ in 0..MADE_UP {
            let mut input = seeds[rng.index(seeds.len())].clone();
            for _ in 0..rng.range(1, 6) {
                mutate(&mut input, &mut rng);
            }
            target(&input);
        }
    }
}

fn mutate(input: &mut Vec<u8>, rng: &mut Rng) {
    let byte = u8::try_from(rng.range(0, 256)).unwrap_or(0);
    match rng.range(0, 4) {
        0 if !input.is_empty() => {
            let at = rng.index(input.len());
            input[at] = byte;
        }
        1 if !input.is_empty() => {
            let at = rng.index(input.len());
            input[at] ^= 1 << (byte % 8);
        }
        2 if !input.is_empty() => input.truncate(rng.index(input.len())),
        _ => input.push(byte),
    }
}
