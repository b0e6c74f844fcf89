//! What became of the faults of a run: which of them were done, and until when they were on.
//!
//! A run lists its faults as they were to be done, so that it can be had again: also those that it
//! ended before, or that came while something else had to have the world for itself. Whoever tells
//! a run to people asks here.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::nemesis::{Action, Fault, FaultId};

/// What became of a fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Deed {
    /// The fault.
    pub id: FaultId,
    /// When it was done, if anything was.
    pub done_at: Option<Duration>,
    /// What was done in its place, if only a part of it could be.
    pub instead: Option<Action>,
    /// When it was over, if it was on for a while and no event of a machine tells.
    pub ended_at: Option<Duration>,
}

/// The faults of a run so far.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    /// Each with when it was done, if it was.
    faults: Vec<(Fault, Option<Duration>)>,
    /// What was done in place of some of them.
    instead: BTreeMap<FaultId, Action>,
    /// When all faults were ended, if they were.
    over_at: Option<Duration>,
}

impl Deeds {
    /// Begins to wait for a fault.
    pub(crate) fn await_fault(&mut self, fault: Fault) {
        self.faults.push((fault, None));
    }

    /// Takes note of what was aimed at, and when, before it is done: it may end the run.
    pub(crate) fn begin(&mut self, fault: Fault, now: Duration) {
        if let Some(last) = self.faults.last_mut() {
            *last = (fault, Some(now));
        }
    }

    /// Takes note of what came of the last one, if anything did.
    pub(crate) fn came_to(&mut self, did: Option<Action>) {
        let Some((fault, done_at)) = self.faults.last_mut() else { return };
        match did {
            None => *done_at = None,
            Some(action) if action == fault.action => {}
            Some(action) => {
                self.instead.insert(fault.id, action);
            }
        }
    }

    /// Takes note of when all faults were ended.
    pub(crate) fn end(&mut self, over_at: Option<Duration>) {
        self.over_at = self.over_at.or(over_at);
    }

    /// Returns the faults as they were to be done, and what became of each.
    pub(crate) fn told(&self) -> (Vec<Fault>, Vec<Deed>) {
        let deed = |(fault, done_at): &(Fault, Option<Duration>)| Deed {
            id: fault.id,
            done_at: *done_at,
            instead: self.instead.get(&fault.id).cloned(),
            ended_at: done_at.and_then(|done_at| self.ended_at(fault, done_at)),
        };
        let deeds = self.faults.iter().map(deed).collect();
        (self.faults.iter().map(|(fault, _)| fault.clone()).collect(), deeds)
    }

    /// Returns when a fault was over: the end of one ends all others of its kind in that place.
    fn ended_at(&self, fault: &Fault, done_at: Duration) -> Option<Duration> {
        let (place, _) = fault.action.quiet_length()?;
        let end = |(other, at): &(Fault, Option<Duration>)| {
            let (other_place, length) = other.action.quiet_length()?;
            let is_same = other_place == place && other.action.kind() == fault.action.kind();
            Some((*at)? + length).filter(|end| is_same && *end >= done_at)
        };
        self.faults.iter().filter_map(end).chain(self.over_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn full(id: u32, node: u64, length: u64) -> Fault {
        let action = Action::DiskFull { node, room_bytes: 0, length: ms(length) };
        Fault { id: FaultId(id), at: Duration::ZERO, instead_of: None, action }
    }

    #[test]
    fn fault_is_on_until_its_like_or_everything_ends() {
        let mut deeds = Deeds::default();
        for (fault, at) in [
            (full(1, 1, 100), Some(ms(0))),
            (full(2, 1, 500), Some(ms(50))),
            (full(3, 1, 500), Some(ms(120))),
            (full(4, 2, 9000), Some(ms(130))),
            (full(5, 2, 10), None),
        ] {
            deeds.await_fault(fault.clone());
            if let Some(at) = at {
                deeds.begin(fault, at);
            }
        }
        let ends = |deeds: &Deeds| {
            deeds.told().1.iter().map(|deed| deed.ended_at).collect::<Vec<Option<Duration>>>()
        };
        let wanted = [Some(ms(100)), Some(ms(100)), Some(ms(550)), Some(ms(9130)), None];
        assert_eq!(ends(&deeds), wanted);
        deeds.end(Some(ms(700)));
        deeds.end(Some(ms(800)));
        assert_eq!(ends(&deeds)[3], Some(ms(700)), "the first end counts");
        assert_eq!(deeds.told().1.iter().filter(|deed| deed.done_at.is_some()).count(), 4);
        assert_eq!(deeds.told().0.len(), 5);
    }
}
