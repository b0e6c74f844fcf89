//! Cases made by hand, or by the shrinker: a few lines of Rust for each decision.
//!
//! ```text
//! let mut case = Scenario::new(Mode::PrimaryBackup, 42);
//! case.set("flush_log_bytes", 2048);
//! case.ask("c1.1", at(1200.0), None, Request::Set { cell: cell("k0"), bytes: 8 });
//! case.strike("f1", at(1300.0), Action::Pause { node: 1, length: ms(500.0) });
//! case.holds();
//! ```

use std::time::Duration;

use mangrove::dynamo::Level;

use super::{Case, ms as millis, settings};
use crate::bugs;
use crate::nemesis::{Action, Fault, FaultId};
use crate::operation::{Cell, Operation, OperationId, Request};
use crate::options::{Mode, Plan, Profile};
use crate::run::{Keep, run_case};
use crate::world::{Decided, Reseed};

/// A case in the making. Whatever makes no sense panics: it is a mistake in a test.
#[derive(Debug, Clone)]
pub struct Scenario(Case);

/// Names a cell, `key/column`.
pub fn cell(name: &str) -> Cell {
    Cell(name.to_owned())
}

/// Returns a length of so many milliseconds.
pub fn ms(number: f64) -> Duration {
    millis::duration(number).unwrap_or_else(|| panic!("{number} ms is no duration"))
}

/// Returns a time of so many milliseconds since the world began.
pub fn at(number: f64) -> Duration {
    ms(number)
}

impl Scenario {
    /// Begins with a calm cluster of three and one client that asks for nothing.
    pub fn new(mode: Mode, seed: u64) -> Self {
        Self(Case::plain(Plan { mode, profile: Profile::Standard }, seed))
    }

    /// Gives an option another than the plain value.
    pub fn set(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        let values = [(name.to_owned(), value.into())].into_iter().collect();
        if let Err(what) = settings::put(&mut self.0.options, &values) {
            panic!("{what}");
        }
    }

    /// Lets a client ask for something.
    pub fn ask(&mut self, id: &str, at: Duration, level: Option<Level>, request: Request) {
        let id: OperationId = id.parse().unwrap_or_else(|what| panic!("{what}"));
        let operation = Operation { id, at, level, request };
        self.0.operations.get_or_insert_default().push(operation);
    }

    /// Lets something go wrong.
    pub fn strike(&mut self, id: &str, at: Duration, action: Action) {
        let id: FaultId = id.parse().unwrap_or_else(|what| panic!("{what}"));
        let fault = Fault { id, at, instead_of: None, action };
        self.0.faults.get_or_insert_default().push(fault);
    }

    /// Lets a fate be so that would be drawn.
    pub fn decide(&mut self, fate: Decided) {
        self.0.decided.push(fate);
    }

    /// Lets everything that is drawn be drawn anew from a moment on; each number is another draw.
    pub fn reseed(&mut self, at: Duration, number: u64) {
        self.0.reseed = Some(Reseed { at, number });
    }

    /// Lets a client write from the moment of healing on, as `sim liveness` does.
    pub fn timed(&mut self) {
        self.0.is_timed = true;
    }

    /// Demands that no promise is broken.
    pub fn holds(&self) {
        let report = run_case(&self.0, Keep::default());
        assert_eq!(report.violation, None, "a promise is broken");
    }

    /// Demands that no promise is broken though a planted bug is there: something else mends it.
    pub fn holds_with(mut self, planted: &str) {
        self.0.options.planted = bugs::find(planted);
        assert!(self.0.options.planted.is_some(), "there is no {planted}");
        self.holds();
    }

    /// Demands that a planted bug breaks a promise here, and that nothing else does.
    pub fn breaks_only_with(mut self, planted: &str, checker: &str) {
        self.holds();
        self.0.options.planted = bugs::find(planted);
        let report = run_case(&self.0, Keep::default());
        let spoke = report.violation.map(|violation| violation.checker);
        assert_eq!(spoke, Some(checker), "{planted} was to be found");
    }
}
