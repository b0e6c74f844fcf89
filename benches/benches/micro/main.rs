//! Micro-benchmarks: what one step of each part costs, without a medium, a network or a peer.
//!
//! `cargo bench -p benches --bench micro [-- FILTER]`, and for the linearizability checker
//! `cargo bench -p benches --bench micro --features checker`.
//!
//! One file a part: [`codec`], the log ([`wal`]), both cores ([`raft`], [`dynamo`]), the table
//! store ([`tree`]) and the `checker`. Each makes sure once, before it measures, that what is
//! measured does what it says. Everything runs on one thread, with the allocator of the shipped
//! program; what needs a disk gets one in memory ([`memory_disk`]).
//!
//! The checker's crate needs the node as tests build it: with counters at each probe and a switch
//! at each planted bug. Its feature builds everything so, and then it alone is measured. All else
//! is measured as it is shipped, so no feature of the node is asked for here.
//!
//! # Left out
//! What users wait for: fsyncs, the network, and requests that wait for each other. The benchmarks
//! `cluster` and `storage` measure that, and the latter the table store with all its work.
#![expect(clippy::expect_used, reason = "a benchmark stops when what it measures fails")]

#[cfg(feature = "checker")]
mod checker;
mod codec;
mod dynamo;
mod memory_disk;
mod raft;
mod tree;
mod wal;

use std::time::Duration;

use criterion::Criterion;
use mangrove::base::Key;

/// All parts are measured with the allocator of the shipped program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests that are dealt with together: what gathers under load while a disk syncs.
const BATCH: u64 = 64;

/// A value of the length that all our benchmarks use.
const VALUE: [u8; 100] = [b'v'; 100];

fn main() {
    let shorter = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .without_plots();
    let mut criterion = shorter.configure_from_args();
    #[cfg(feature = "checker")]
    checker::measure(&mut criterion);
    if !cfg!(feature = "checker") {
        codec::measure(&mut criterion);
        wal::measure(&mut criterion);
        raft::measure(&mut criterion);
        dynamo::measure(&mut criterion);
        tree::measure(&mut criterion);
    }
    criterion.final_summary();
}

/// Returns the key of that number, 16 bytes long.
fn key(number: u64) -> Key {
    Key::new(format!("user{number:012}")).expect("a short key")
}

/// Returns a length as what counts bytes and elements.
fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
