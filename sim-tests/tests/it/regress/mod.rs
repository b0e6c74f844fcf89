//! Accidents that happened, each as a directed scenario with its story in the header.
//!
//! `cargo sim shrink` makes them: a failing run with everything taken away that it does not need,
//! as a test to be put here. A seed means another run as soon as somebody changes how runs are
//! drawn; these list every decision and stay what they are. Those of planted bugs show that the
//! accident still happens with the bug and does not without it.

mod d3_breaks_acknowledged_floor;
mod w1_breaks_durability;

use std::time::Duration;

use sim_tests::case::{Case, settings};
use sim_tests::nemesis::{Action, Fault};
use sim_tests::operation::{Cell, Operation, Request};
use sim_tests::options::{Mode, Plan, Profile};
use sim_tests::run::{Keep, run_case};

/// A case in the making.
struct Scenario(Case);

/// Begins with a calm cluster of three.
fn case(mode: Mode, seed: u64) -> Scenario {
    Scenario(Case::plain(Plan { mode, profile: Profile::Standard }, seed))
}

fn cell(name: &str) -> Cell {
    Cell(name.to_owned())
}

/// Returns a length of so many milliseconds.
fn ms(millis: f64) -> Duration {
    Duration::from_nanos(Duration::from_secs_f64(millis / 1e3).as_nanos().try_into().unwrap())
}

/// Returns a time of so many milliseconds since the world began.
fn at(millis: f64) -> Duration {
    ms(millis)
}

impl Scenario {
    /// Gives an option another than the plain value.
    fn set(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        let values = [(name.to_owned(), value.into())].into_iter().collect();
        settings::put(&mut self.0.options, &values).unwrap();
    }

    /// Lets a client ask for something.
    fn ask(
        &mut self,
        id: &str,
        at: Duration,
        level: Option<mangrove::dynamo::Level>,
        request: Request,
    ) {
        let operation = Operation { id: id.parse().unwrap(), at, level, request };
        self.0.operations.get_or_insert_default().push(operation);
    }

    /// Lets something go wrong.
    fn strike(&mut self, id: &str, at: Duration, action: Action) {
        let fault = Fault { id: id.parse().unwrap(), at, instead_of: None, action };
        self.0.faults.get_or_insert_default().push(fault);
    }

    /// Demands that no promise is broken.
    fn holds(&self) {
        let report = run_case(&self.0, Keep::default());
        assert_eq!(report.violation, None);
    }

    /// Demands that a planted bug breaks a promise here, and that nothing else does.
    fn breaks_only_with(mut self, planted: &str, checker: &str) {
        self.holds();
        self.0.options.planted = sim_tests::bugs::find(planted);
        let report = run_case(&self.0, Keep::default());
        let spoke = report.violation.map(|violation| violation.checker);
        assert_eq!(spoke, Some(checker), "{planted} was to be found");
    }
}
