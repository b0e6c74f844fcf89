//! What a crash test has done and found.

use serde::Serialize;

use super::ledger::{Slot, Wrong};
use super::{Place, Variant};
use crate::wire::Outcome;

/// Most bytes of a value that are shown.
const SHOWN_BYTES: usize = 60;

/// What was done, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Disturbances.
    pub rounds: u32,
    /// Processes that were killed.
    pub kills: u64,
    /// Rounds in which one node was killed.
    pub killed_one: u64,
    /// Rounds in which a majority was.
    pub killed_majority: u64,
    /// Rounds in which all were.
    pub killed_all: u64,
    /// Writes of one cell that were acknowledged.
    pub sets: u64,
    /// Bulk writes that were acknowledged.
    pub bulks: u64,
    /// Writes that surely had no effect.
    pub not_applied: u64,
    /// Writes whose outcome nobody knows.
    pub unknown: u64,
    /// Requests that asked a node to lose what it writes to its tables; about half are granted.
    pub loss_requests: u64,
    /// Acknowledged writes that were read back at once.
    pub reads: u64,
    /// Cells that were compared when the nodes were back.
    pub checked_cells: u64,
}

impl Tally {
    pub(super) fn on_written(&mut self, is_bulk: bool, came_to: Result<(), Outcome>) {
        let count = match came_to {
            Ok(()) if is_bulk => &mut self.bulks,
            Ok(()) => &mut self.sets,
            Err(Outcome::NotApplied) => &mut self.not_applied,
            Err(Outcome::Unknown) => &mut self.unknown,
        };
        *count += 1;
    }

    /// Adds another one.
    pub(super) fn add(&mut self, other: &Self) {
        self.rounds += other.rounds;
        for (to, from) in [
            (&mut self.kills, other.kills),
            (&mut self.killed_one, other.killed_one),
            (&mut self.killed_majority, other.killed_majority),
            (&mut self.killed_all, other.killed_all),
            (&mut self.sets, other.sets),
            (&mut self.bulks, other.bulks),
            (&mut self.not_applied, other.not_applied),
            (&mut self.unknown, other.unknown),
            (&mut self.loss_requests, other.loss_requests),
            (&mut self.reads, other.reads),
            (&mut self.checked_cells, other.checked_cells),
        ] {
            *to += from;
        }
    }
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// In which round, over all.
    pub round: u32,
    /// Of which variant.
    pub variant: Option<Variant>,
    /// What is wrong.
    pub wrong: Wrong,
    /// The cells.
    pub keys: Vec<String>,
    /// What must be there.
    pub promised: String,
    /// What is there.
    pub found: Vec<Option<String>>,
    /// When it was read.
    pub when: &'static str,
}

impl Violation {
    pub(super) fn new(
        wrong: Wrong,
        slot: &Slot,
        found: &[Option<Vec<u8>>],
        when: &'static str,
    ) -> Self {
        let shown = |value: &Vec<u8>| {
            let shown = value.get(..value.len().min(SHOWN_BYTES)).unwrap_or_default();
            shown.escape_ascii().to_string()
        };
        Self {
            round: 0,
            variant: None,
            wrong,
            keys: slot.keys().to_vec(),
            promised: slot.promised(),
            found: found.iter().map(|value| value.as_ref().map(shown)).collect(),
            when,
        }
    }

    pub(super) fn at(self, place: Place) -> Self {
        Self { round: place.round, variant: Some(place.variant), ..self }
    }
}

/// What one variant has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VariantReport {
    /// Which.
    pub variant: Variant,
    /// In numbers.
    #[serde(flatten)]
    pub tally: Tally,
}

/// What all have come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The seed of what was random.
    pub seed: u64,
    /// By variant.
    pub variants: Vec<VariantReport>,
    /// Promises that were not kept; none, if all is well.
    pub violations: Vec<Violation>,
    /// Where the nodes' data and logs are, if something is wrong.
    pub kept_directory: Option<String>,
}

impl Report {
    pub(super) fn new(seed: u64, variants: &[Variant]) -> Self {
        let variants = variants
            .iter()
            .map(|variant| VariantReport { variant: *variant, tally: Tally::default() });
        Self { seed, variants: variants.collect(), violations: Vec::new(), kept_directory: None }
    }

    /// Returns the numbers of a variant.
    pub(super) fn of(&mut self, variant: Variant) -> &mut Tally {
        let report = self.variants.iter_mut().find(|report| report.variant == variant);
        let Some(report) = report else { unreachable!("{variant:?} is not tried") };
        &mut report.tally
    }

    /// Returns the rounds so far.
    pub fn rounds(&self) -> u32 {
        self.variants.iter().map(|report| report.tally.rounds).sum()
    }

    /// Returns the numbers of all variants together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for report in &self.variants {
            total.add(&report.tally);
        }
        total
    }
}
