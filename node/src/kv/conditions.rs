//! Judges the conditions of a batch, and reads for it no more than it must.
//!
//! The [`machine`](super::machine) calls it, on every replica at the same entry, in one step that
//! nothing interrupts. What most conditions ask for is when a cell was written. Its value, up to
//! 1 MiB, is fetched only to be compared with one, of which the batch has as many bytes itself, or
//! to be told to who is refused. And a cell that several conditions name is looked up once. How
//! many there may be, [`super::validate()`] says before the log; here any number is judged.

use std::collections::BTreeMap;

use super::command::{CommandReply, Condition, Expectation};
use super::query::{Cell, Version};
use super::read;
use crate::base::{Column, Key};
use crate::codec::keycode;
use crate::planted;
use crate::storage::{Engine, StorageError};

/// What is known of a cell.
enum Known {
    /// When it was written; `None` if there is none.
    Version(Option<Version>),
    /// All of it.
    Cell(Option<Cell>),
}

/// Returns the answer for the first condition that does not hold.
pub(super) fn first_failed(
    engine: &impl Engine,
    conditions: &[Condition],
) -> Result<Option<CommandReply>, StorageError> {
    let mut known_cells: BTreeMap<(&Key, &Column), Known> = BTreeMap::new();
    for (position, condition) in (0..).zip(conditions) {
        if planted!("R56") && position > 0 {
            break;
        }
        let place = (&condition.key, &condition.column);
        let before = known_cells.remove(&place).filter(|known| known.is_enough_for(condition));
        let known = before.map_or_else(|| Known::look(engine, condition), Ok)?;
        if !known.meets(&condition.expected) {
            let current = known.into_cell(engine, condition)?;
            return Ok(Some(CommandReply::ConditionFailed { position, current }));
        }
        // The one condition of a compare-and-set is nothing to remember.
        if conditions.len() > 1 {
            known_cells.insert(place, known);
        }
    }
    Ok(None)
}

impl Known {
    /// Looks at the cell of a condition, as closely as that needs.
    fn look(engine: &impl Engine, condition: &Condition) -> Result<Self, StorageError> {
        let Condition { key, column, expected } = condition;
        match expected {
            Expectation::Value(_) => read::get(engine, key, column).map(Self::Cell),
            Expectation::Absent | Expectation::Present | Expectation::Version(_) => {
                let place = keycode::encode_cell(key.as_bytes(), column.as_bytes());
                Ok(Self::Version(engine.version_of(&place)?.map(Version)))
            }
        }
    }

    fn version(&self) -> Option<Version> {
        match self {
            Self::Version(version) => *version,
            Self::Cell(cell) => cell.as_ref().map(|cell| cell.version),
        }
    }

    /// Tells whether a condition on the cell can be judged by it.
    fn is_enough_for(&self, condition: &Condition) -> bool {
        match self {
            Self::Version(Some(_)) => !matches!(condition.expected, Expectation::Value(_)),
            Self::Version(None) | Self::Cell(_) => true,
        }
    }

    fn meets(&self, expected: &Expectation) -> bool {
        match expected {
            Expectation::Absent => self.version().is_none(),
            Expectation::Present => self.version().is_some(),
            Expectation::Version(version) => self.version() == Some(*version),
            Expectation::Value(value) => match self {
                Self::Version(_) => false,
                Self::Cell(cell) => cell.as_ref().is_some_and(|cell| cell.value == *value),
            },
        }
    }

    /// Returns all of the cell of a condition.
    fn into_cell(
        self,
        engine: &impl Engine,
        Condition { key, column, .. }: &Condition,
    ) -> Result<Option<Cell>, StorageError> {
        match self {
            Self::Version(Some(_)) => read::get(engine, key, column),
            Self::Version(None) => Ok(None),
            Self::Cell(cell) => Ok(cell),
        }
    }
}
