//! The program that libFuzzer drives: one target, named by `MANGROVE_FUZZ_TARGET`.
//!
//! All targets are in one program, so that a fresh machine links once and not thirty times. With
//! `MANGROVE_FUZZ_PLANTED` a planted bug is on: see `fuzz/run planted`.
#![no_main]

use std::sync::OnceLock;

use mangrove_fuzz::{Target, find};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("MANGROVE_FUZZ_TARGET").unwrap_or_default();
        let target = find(&name).unwrap_or_else(|| {
            eprintln!("MANGROVE_FUZZ_TARGET={name:?} is none of the targets:");
            for target in mangrove_fuzz::targets() {
                eprintln!("  {:20} {}", target.name, target.what);
            }
            std::process::exit(2);
        });
        TARGET.get_or_init(|| target);
        if let Ok(code) = std::env::var("MANGROVE_FUZZ_PLANTED") {
            mangrove::base::planted::turn_on(Some(code.leak()));
        }
    },
    |input: &[u8]| {
        if let Some(target) = TARGET.get() {
            mangrove_fuzz::check(target, input);
        }
    }
);
