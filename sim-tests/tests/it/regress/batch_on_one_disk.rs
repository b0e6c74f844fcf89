//! A batch of which one disk alone had a part.
//!
//! Node 1 coordinates a batch whose shares differ. It holds a replica of one share itself, and the
//! other replicas of that share are down, so the share is on its disk: as a replica's, and as
//! hints. That counted as settled: the holder was told that all is done, and forgot the batch. Then
//! the disk of node 1 came back as it had been before, unnoticed, and half of the batch was left.
//! Its outcome was unknown to the client, but half is neither of the two that it may be.
//!
//! Found by masterless seed 838, shrunk from 262 decisions to 9. Now a batch is over when each set
//! of replicas has it on two disks; see `dynamo::batch`.
//!
//! ```text
//! 0.170 s  12.78 s from now node 1 gets its disk of now back, after 100 ms (f1)
//! 1.390 s  nodes 1 to 5 lose power, nothing unsynced is left, for 810 ms each (f3)
//! 3.130 s  the network is bad for 3.84 s: latency 90 ms (f5)
//! 3.260 s  client 3 writes in one batch k0-1/a, k0-2 (c3.9): outcome unknown
//! 6.410 s  nodes 4 and 5 lose power while a disk is busy, for 360 ms each (f9)
//! 8.170 s  nodes 3 to 5 lose power while a disk is busy, for 2.39 s each (f12)
//! ```

use mangrove::dynamo::Level;
use sim_tests::case::directed::{Scenario, at, cell, ms};
use sim_tests::nemesis::{Action, Weather};
use sim_tests::operation::Request;
use sim_tests::options::Mode;

#[test]
fn half_a_batch_is_left_if_one_disk_alone_had_the_rest() {
    let mut case = Scenario::new(Mode::Masterless, 25_981);
    case.set("clients", 3);
    case.set("fault_phase_ms", 14_650.0);
    case.set("nodes", 5);
    case.ask(
        "c3.9",
        at(3260.0),
        Some(Level::Two),
        Request::BulkSet(vec![(cell("k0-1/a"), Some(11)), (cell("k0-2"), Some(8))]),
    );
    case.strike("f1", at(170.0), Action::OldDisk { node: 1, age: ms(12_780.0), down: ms(100.0) });
    case.strike(
        "f3",
        at(1390.0),
        Action::PowerLoss {
            nodes: vec![1, 2, 3, 4, 5],
            strict: true,
            while_busy: false,
            down: ms(810.0),
        },
    );
    case.strike(
        "f5",
        at(3130.0),
        Action::Weather {
            weather: Weather {
                loss: 0.0,
                burst: 0.0,
                latency: ms(90.0),
                bit_flip: 0.0,
                reset: 0.0,
                clients: false,
                bytes_per_second: None,
            },
            length: ms(3840.0),
        },
    );
    case.strike(
        "f9",
        at(6410.0),
        Action::PowerLoss { nodes: vec![4, 5], strict: true, while_busy: true, down: ms(360.0) },
    );
    case.strike(
        "f12",
        at(8170.0),
        Action::PowerLoss {
            nodes: vec![3, 4, 5],
            strict: true,
            while_busy: true,
            down: ms(2390.0),
        },
    );
    case.breaks_only_with("D54", "batch_atomicity");
}
