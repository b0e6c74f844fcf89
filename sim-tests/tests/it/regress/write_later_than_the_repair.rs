//! A write that comes after the reads that were to heal everything.
//!
//! With reads as the only mechanism a client read all cells until the replicas were equal, and
//! stopped. Then the write came of another client, who had given it up a second before: its last
//! try was on the way to node 5. Node 4 was just starting and missed its share. Nobody read any
//! more, so it never got it, and the run failed for want of convergence. The defect was the test's.
//!
//! Found by masterless seed 40009167, shrunk from 431 decisions to 14. Now the client reads on
//! until the last look at the replicas; see `masterless::phases`.
//!
//! ```text
//! 49.180 s  node 4 is away for 1.27 s (f22)
//! 49.270 s  client 2 writes k2-4 (c2.197): outcome unknown
//! 50.270 s  everything heals; a client reads all cells, which are equal
//! 50.416 s  node 5 writes k2-4 to itself and node 3
//! ```

use mangrove::dynamo::Level;
use sim_tests::case::directed::{Scenario, at, cell, ms};
use sim_tests::nemesis::{Action, Held};
use sim_tests::operation::Request;
use sim_tests::options::Mode;

#[test]
fn replicas_become_equal_by_reads_though_a_write_comes_late() {
    let mut case = Scenario::new(Mode::Masterless, 1_240_284_180);
    case.set("clients", 2);
    case.set("fault_phase_ms", 50_270.0);
    case.set("faults.clock", true);
    case.set("floor_interval_ms", 1_000_000_000.0);
    case.set("mechanism", "reads alone");
    case.set("nodes", 5);
    case.set("partitions", 16);
    case.set("repair.hints", false);
    case.set("sync_interval_ms", 1_000_000_000.0);
    case.ask("c2.38", at(9550.0), Some(Level::All), Request::Row("k0-2".to_owned()));
    let late = Request::Set { cell: cell("k2-4"), bytes: 21 };
    case.ask("c2.197", at(49_270.0), Some(Level::All), late);
    case.strike("f1", at(2990.0), Action::Crash { node: 5, while_busy: false, down: ms(100.0) });
    let clogs = vec![Held { node: 5, from: ms(140.0), until: ms(2490.0) }];
    case.strike("f4", at(7750.0), Action::Swizzle { clogs });
    let absence = Action::Absence { node: 4, is_cut_off: false, length: ms(1270.0) };
    case.strike("f22", at(49_180.0), absence);
    case.holds();
}
