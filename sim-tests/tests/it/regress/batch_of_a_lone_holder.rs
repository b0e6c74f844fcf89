//! A batch that its holder alone had, and took over.
//!
//! Node 2 asks node 4 to hold a batch, and loses power before its own note is durable. Node 4 does
//! not hear of the end, takes over, and sends the shares; one of them arrives, the others do not,
//! because their replicas are away at that time. Then the disk of node 4 came back as it had been
//! before it held the batch, unnoticed, and nobody knew of the rest.
//!
//! Found by masterless seed 775483647275 (`--profile storage`), shrunk from 173 decisions to 20.
//! Now a holder that takes over has another node hold the batch first; see `dynamo::batch`.
//!
//! ```text
//! 2.28 s  9.96 s from now node 4 gets its disk of now back, after 100 ms (f3)
//! 2.64 s  node 2 loses power while a disk is busy, nothing unsynced is left, for 90 ms (f4)
//! 2.69 s  client 2 writes in one batch k0-3 (deleted), k0-2 (c2.78): outcome unknown
//! 3.33 s  node 1 is cut off for 4.47 s (f6)
//! 6.57 s  node 5 crashes, for 2.33 s (f10)
//! 7.65 s  node 2 crashes, for 100 ms (f11)
//! 9.47 s  node 4 loses power, nothing unsynced is left, for 100 ms (f14)
//! ```

use mangrove::dynamo::Level;
use sim_tests::case::directed::{Scenario, at, cell, ms};
use sim_tests::nemesis::Action;
use sim_tests::operation::Request;
use sim_tests::options::Mode;

#[test]
fn half_a_batch_is_left_if_the_holder_that_takes_over_is_the_only_one() {
    let mut case = Scenario::new(Mode::Masterless, 775_483_647_275);
    case.set("batch_takeover_ms", 5_160.928_518);
    case.set("clients", 2);
    case.set("fault_phase_ms", 13_180.0);
    case.set("floor_age_ms", 4_997.315_422);
    case.set("floor_interval_ms", 732.747_366);
    case.set("hint_after_ms", 303.412_253);
    case.set("nodes", 5);
    case.set("partitions", 64);
    case.set("request_timeout_ms", 1_276.998_013);
    case.set("sync_interval_ms", 772.726_653);
    let quorum = Some(Level::Quorum);
    let cells = ["k0-2", "k0-0", "k0-3/b", "k0-3"].map(cell);
    case.ask("c2.1", at(10.0), quorum, Request::MultiGet(cells.to_vec()));
    let deletes = vec![(cell("k0-2"), None), (cell("k0-0"), None)];
    case.ask("c2.30", at(1040.0), Some(Level::Three), Request::BulkSet(deletes));
    let set = Request::Set { cell: cell("k0-3"), bytes: 67 };
    case.ask("c2.35", at(1270.0), Some(Level::Three), set);
    let batch = vec![(cell("k0-3"), Some(136)), (cell("k0-3"), None), (cell("k0-2"), Some(13))];
    case.ask("c2.78", at(2690.0), quorum, Request::BulkSet(batch));
    case.strike("f3", at(2280.0), Action::OldDisk { node: 4, age: ms(9960.0), down: ms(100.0) });
    let power_loss = |node, while_busy, down| Action::PowerLoss {
        nodes: vec![node],
        strict: true,
        while_busy,
        down: ms(down),
    };
    case.strike("f4", at(2640.0), power_loss(2, true, 90.0));
    let away = Action::Absence { node: 1, is_cut_off: true, length: ms(4470.0) };
    case.strike("f6", at(3330.0), away);
    let crash = |node, down| Action::Crash { node, while_busy: false, down: ms(down) };
    case.strike("f10", at(6570.0), crash(5, 2330.0));
    case.strike("f11", at(7650.0), crash(2, 100.0));
    case.strike("f14", at(9470.0), power_loss(4, false, 100.0));
    case.breaks_only_with("D59", "batch_atomicity");
}
