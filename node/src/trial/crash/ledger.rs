//! What one writer was promised about the cells that only it writes.
//!
//! A [`Slot`] is one cell, or several that are always written together in one bulk write. Each
//! write carries a number of its own, so what is read back tells which write it is of. A slot is
//! written by one task, one write after the other; a write whose outcome is unknown is the last
//! one of its slot, because nobody could say in which order two writes take effect of which one is
//! still under way. So what must be found is the last acknowledged write, or the one in doubt, and
//! nothing else.

use std::collections::BTreeSet;

use crate::wire::Outcome;

/// What is in a slot: the number of the write that put it there, or nothing.
pub(super) type Content = Option<u64>;

/// What is wrong with what was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// An acknowledged write is not there.
    Missing,
    /// What is there is older than an acknowledged write.
    Older,
    /// Some cells of a bulk write are as one write left them, some as another.
    HalfApplied,
    /// A write is there that was reported as not applied.
    RefusedYetApplied,
    /// Something is there that nobody wrote there.
    Foreign,
}

/// A write whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt(Content);

/// Cells that are written together by one writer; see the [module](self).
#[derive(Debug, Clone)]
pub(super) struct Slot {
    keys: Vec<String>,
    acknowledged: Content,
    in_doubt: Option<Doubt>,
    refused: BTreeSet<u64>,
}

impl Slot {
    /// Makes a slot of cells that were never written.
    pub(super) fn new(keys: Vec<String>) -> Self {
        Self { keys, acknowledged: None, in_doubt: None, refused: BTreeSet::new() }
    }

    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Tells whether the last write is in doubt: nothing may be written any more.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.is_some()
    }

    /// Takes note of what a write came to.
    ///
    /// # Panics
    /// If the write before is in doubt.
    pub(super) fn on_written(&mut self, content: Content, came_to: Result<(), Outcome>) {
        assert!(!self.is_in_doubt(), "{self:?} is written while in doubt");
        match (came_to, content) {
            (Ok(()), _) => self.acknowledged = content,
            (Err(Outcome::NotApplied), Some(number)) => {
                self.refused.insert(number);
            }
            // A deletion leaves no number; that it did not happen shows by what is still there.
            (Err(Outcome::NotApplied), None) => {}
            (Err(Outcome::Unknown), _) => self.in_doubt = Some(Doubt(content)),
        }
    }

    /// Says what is wrong with what was found in the cells, in the order of the keys.
    pub(super) fn judge(&mut self, found: &[Option<Vec<u8>>]) -> Result<(), Wrong> {
        assert_eq!(found.len(), self.keys.len(), "an answer for each cell");
        let mut contents = Vec::new();
        for (key, value) in self.keys.iter().zip(found) {
            contents.push(match value {
                None => None,
                Some(value) => Some(number_in(key, value).ok_or(Wrong::Foreign)?),
            });
        }
        let Some(&content) = contents.first() else { return Ok(()) };
        if contents.iter().any(|other| *other != content) {
            return Err(Wrong::HalfApplied);
        }
        if Some(Doubt(content)) == self.in_doubt {
            // Who has seen it once sees it from now on.
            self.acknowledged = content;
            self.in_doubt = None;
            return Ok(());
        }
        if content == self.acknowledged {
            return Ok(());
        }
        Err(match content {
            None => Wrong::Missing,
            Some(number) if self.refused.contains(&number) => Wrong::RefusedYetApplied,
            Some(number) if self.acknowledged.is_none_or(|last| number < last) => Wrong::Older,
            Some(_) => Wrong::Foreign,
        })
    }

    /// Says what was promised, for people.
    pub(super) fn promised(&self) -> String {
        let shown = |content: Content| {
            content.map_or_else(|| "nothing".to_owned(), |number| format!("write {number}"))
        };
        let doubt = self.in_doubt.map(|Doubt(content)| format!(", or {} in doubt", shown(content)));
        format!("{}{}", shown(self.acknowledged), doubt.unwrap_or_default())
    }
}

/// Returns the value of the write with this number for a key, `bytes` long if that is enough.
pub(super) fn value_of(number: u64, key: &str, bytes: usize) -> Vec<u8> {
    let mut value = format!("{number}|{key}|").into_bytes();
    value.resize(value.len().max(bytes), b'.');
    value
}

/// Returns the number in a value, if it is one that is written to that key.
fn number_in(key: &str, value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let (number, rest) = text.split_once('|')?;
    let padding = rest.strip_prefix(key)?.strip_prefix('|')?;
    padding.chars().all(|c| c == '.').then_some(())?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(cell_count: usize) -> Slot {
        Slot::new((0..cell_count).map(|cell| format!("k/{cell}")).collect())
    }

    /// What is found if each cell is as that write left it.
    fn found(slot: &Slot, numbers: &[Content]) -> Vec<Option<Vec<u8>>> {
        let cells = slot.keys().iter().zip(numbers);
        cells.map(|(key, number)| number.map(|number| value_of(number, key, 40))).collect()
    }

    fn judged(slot: &mut Slot, numbers: &[Content]) -> Result<(), Wrong> {
        let found = found(slot, numbers);
        slot.judge(&found)
    }

    #[test]
    fn last_acknowledged_write_must_be_there() {
        let mut slot = slot(1);
        assert_eq!(judged(&mut slot, &[None]), Ok(()));
        slot.on_written(Some(1), Ok(()));
        slot.on_written(Some(4), Ok(()));
        assert_eq!(judged(&mut slot, &[Some(4)]), Ok(()));
        assert_eq!(judged(&mut slot, &[None]), Err(Wrong::Missing));
        assert_eq!(judged(&mut slot, &[Some(1)]), Err(Wrong::Older));
        assert_eq!(judged(&mut slot, &[Some(5)]), Err(Wrong::Foreign));
        slot.on_written(None, Ok(()));
        assert_eq!(judged(&mut slot, &[None]), Ok(()));
        assert_eq!(judged(&mut slot, &[Some(4)]), Err(Wrong::Older), "a deletion came undone");
    }

    #[test]
    fn write_in_doubt_may_be_there_and_stays_once_it_was_seen() {
        let mut slot = slot(1);
        slot.on_written(Some(1), Ok(()));
        slot.on_written(Some(2), Err(Outcome::Unknown));
        assert!(slot.is_in_doubt());
        assert_eq!(judged(&mut slot, &[Some(1)]), Ok(()));
        assert!(slot.is_in_doubt(), "it may still come");
        assert_eq!(judged(&mut slot, &[Some(2)]), Ok(()));
        assert!(!slot.is_in_doubt());
        assert_eq!(judged(&mut slot, &[Some(1)]), Err(Wrong::Older));
    }

    #[test]
    fn write_that_was_refused_must_not_be_there() {
        let mut slot = slot(1);
        slot.on_written(Some(1), Ok(()));
        slot.on_written(Some(2), Err(Outcome::NotApplied));
        assert_eq!(judged(&mut slot, &[Some(1)]), Ok(()));
        assert_eq!(judged(&mut slot, &[Some(2)]), Err(Wrong::RefusedYetApplied));
    }

    #[test]
    fn cells_of_a_bulk_write_are_of_one_write() {
        let mut slot = slot(3);
        slot.on_written(Some(1), Ok(()));
        slot.on_written(Some(2), Err(Outcome::Unknown));
        assert_eq!(judged(&mut slot, &[Some(1), Some(2), Some(1)]), Err(Wrong::HalfApplied));
        assert_eq!(judged(&mut slot, &[Some(1), None, Some(1)]), Err(Wrong::HalfApplied));
        assert_eq!(judged(&mut slot, &[Some(2); 3]), Ok(()));
    }

    #[test]
    fn value_of_another_key_or_shape_is_foreign() {
        let mut slot = slot(1);
        slot.on_written(Some(1), Ok(()));
        for value in [value_of(1, "k/1", 9), b"1|k/0".to_vec(), b"1|k/0|x".to_vec(), vec![255]] {
            assert_eq!(slot.judge(&[Some(value)]), Err(Wrong::Foreign));
        }
    }
}
