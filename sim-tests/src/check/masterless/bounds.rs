//! What a read must see at least: a stamp for each cell, by how many replicas certainly have it.

use mangrove::base::Stamp;

use crate::history::{CellId, OpId};

/// The least that a read may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    /// What is shown has this stamp or a larger one.
    pub stamp: Stamp,
    /// The cell is deleted with that stamp or a larger one: a value must have a larger one.
    pub is_deleted: bool,
}

impl Bound {
    /// Tells whether a value with that stamp may be shown.
    pub fn admits(self, stamp: Stamp) -> bool {
        stamp > self.stamp || (stamp == self.stamp && !self.is_deleted)
    }
}

/// The bounds of all cells, with who is the reason.
#[derive(Debug, Default)]
pub struct Bounds {
    /// By cell, then by number of holders.
    cells: Vec<Vec<Option<(Bound, OpId)>>>,
}

impl Bounds {
    /// Begins without any.
    pub fn new(cell_count: usize) -> Self {
        Self { cells: vec![Vec::new(); cell_count] }
    }

    /// Notes that `holders` replicas have what `bound` says.
    pub fn raise(&mut self, cell: CellId, holders: u32, bound: Bound, by: OpId) {
        let held = &mut self.cells[cell.0 as usize];
        let at = holders as usize;
        if held.len() <= at {
            held.resize(at + 1, None);
        }
        if held[at].is_none_or(|(known, _)| known < bound) {
            held[at] = Some((bound, by));
        }
    }

    /// Returns the greatest bound that at least so many replicas have.
    pub fn get(&self, cell: CellId, holders_min: u32) -> Option<(Bound, OpId)> {
        let held = self.cells[cell.0 as usize].iter().skip(holders_min.max(1) as usize);
        held.flatten().max_by_key(|(bound, _)| *bound).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_counts_only_for_reads_that_meet_a_holder() {
        let (cell, op) = (CellId(0), OpId(0));
        let bound = |stamp, is_deleted| Bound { stamp: Stamp::from_version(stamp), is_deleted };
        let mut bounds = Bounds::new(1);
        bounds.raise(cell, 1, bound(9, false), op);
        bounds.raise(cell, 2, bound(5, false), op);
        bounds.raise(cell, 2, bound(5, true), op);
        bounds.raise(cell, 2, bound(4, true), op);
        assert_eq!(bounds.get(cell, 1), Some((bound(9, false), op)));
        assert_eq!(bounds.get(cell, 2), Some((bound(5, true), op)));
        assert_eq!(bounds.get(cell, 3), None);
        assert!(!bound(5, true).admits(Stamp::from_version(5)));
        assert!(bound(5, false).admits(Stamp::from_version(5)));
    }

    #[test]
    fn what_no_replica_holds_for_certain_is_no_bound() {
        let mut bounds = Bounds::new(1);
        let bound = Bound { stamp: Stamp::from_version(1), is_deleted: false };
        bounds.raise(CellId(0), 0, bound, OpId(0));
        assert_eq!(bounds.get(CellId(0), 0), None);
    }
}
