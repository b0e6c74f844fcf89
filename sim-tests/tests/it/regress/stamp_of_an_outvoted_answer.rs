//! A read that found nothing, with the stamp of an answer that was outvoted.
//!
//! A bulk write is acknowledged at One by node 3, and its other replicas are slow. The same session
//! reads one of the cells at Quorum, by way of node 3, which asks a third replica because the
//! second takes too long; the two that have nothing outvote its own answer. The reply came with the
//! largest stamp of all answers, that of the outvoted value, and so the session took its write for
//! deleted.
//!
//! Found by masterless seed 20001247 (`--profile storage`), shrunk from 587 decisions to 12. Now
//! the stamp is of what the answer shows; see `dynamo::read`, and `dynamo::healing_tests::reads`
//! for D60, which tells the other one. Here that one is of the very write that is read: a session
//! does not believe it to be deleted by that any more, so this holds with D60, too.
//!
//! ```text
//! 5.457 s  the network is bad for 871.8 ms: latency 77.7 ms (f3)
//! 5.914 s  client 4 writes in one batch k2-1, k2-3, k2-1 (c4.139): ok at One
//! 5.928 s  client 4 reads k2-3 (c4.140): ok null at Quorum
//! ```

use mangrove::dynamo::Level;
use sim_tests::case::directed::{Scenario, at, cell, ms};
use sim_tests::nemesis::{Action, Weather};
use sim_tests::operation::Request;
use sim_tests::options::Mode;

#[test]
fn session_takes_its_own_write_for_deleted_if_an_outvoted_answer_lends_its_stamp() {
    let mut case = Scenario::new(Mode::Masterless, 20_001_247);
    case.set("clients", 4);
    case.set("fault_phase_ms", 6111.2);
    case.set("floor_interval_ms", 1_000_000_000.0);
    case.set("mechanism", "reads alone");
    case.set("nodes", 4);
    case.set("repair.hints", false);
    case.set("session_chance", 0.5);
    case.set("sync_interval_ms", 1_000_000_000.0);
    case.ask("c4.3", at(153.2), Some(Level::Quorum), Request::Get(cell("k0-2")));
    let batch =
        vec![(cell("k2-1"), Some(281)), (cell("k2-3"), Some(252)), (cell("k2-1"), Some(233))];
    case.ask("c4.139", at(5914.2), Some(Level::One), Request::BulkSet(batch));
    case.ask("c4.140", at(5928.0), Some(Level::Quorum), Request::Get(cell("k2-3")));
    let weather = Weather {
        loss: 0.0,
        burst: 0.0,
        latency: ms(77.7),
        bit_flip: 0.0,
        reset: 0.0,
        clients: false,
        bytes_per_second: None,
    };
    case.strike("f3", at(5456.8), Action::Weather { weather, length: ms(871.8) });
    case.holds();
    case.holds_with("D60");
}
