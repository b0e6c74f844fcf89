//! The search for what may have happened before an operation returned: the part of the engine
//! that is exponential, and that the [rules](super::rules) cut down.

use std::collections::BTreeSet;

use super::Undecided;
use super::config::{Config, Frontier, Slots};
use super::engine::{Engine, Pending, bits, legal, writes_nothing};
use super::lower::{Op, Place, Step};
use super::rules::{Mutant, Rule};

/// Where a step comes from.
#[derive(Clone, Copy)]
enum Source {
    Slot(u32),
    Pending(u32),
}

impl Engine<'_> {
    /// Places operations from `start` on, depth first, until `op` is placed; `visited` is what
    /// other starts led to.
    pub(super) fn expand(
        &mut self,
        op: u32,
        slot: u32,
        start: &Config,
        (visited, survivors): (&mut Frontier, &mut Frontier),
    ) -> Result<(), Undecided> {
        let bit: Slots = 1 << slot;
        // What is connected depends on the start, so with rule 6 nothing else may be shared.
        if self.is_local() {
            *visited = Frontier::default();
        }
        let mut stack = vec![start.clone()];
        while let Some(config) = stack.pop() {
            let (near, near_pending) = self.neighbours(&config, op, slot);
            for source in self.candidates(&config, near, &near_pending) {
                self.steps += 1;
                if self.steps > self.steps_max {
                    return Err(Undecided::Steps { steps_max: self.steps_max });
                }
                if !self.allows(&config, source) {
                    continue;
                }
                let next = self.place(&config, source);
                if next.done & bit != 0 {
                    if self.is_connected(start, &next, slot) {
                        survivors.add(&next, |a, b| self.is_as_good(a, b));
                    }
                } else if visited.add(&next, |a, b| self.is_as_good(a, b)) {
                    stack.push(next);
                }
            }
        }
        Ok(())
    }

    /// Tells whether rule 6 is used: for a single cell everything is connected.
    fn is_local(&self) -> bool {
        self.has(Rule::Locality) && self.group.cells.len() > 1
    }

    /// Tells whether all that was placed from `start` to `end` is connected with the operation in
    /// `slot` through what was placed (rule 6).
    fn is_connected(&self, start: &Config, end: &Config, slot: u32) -> bool {
        let placed = end.done & !start.done & !(1 << slot);
        if !self.is_local() || (placed == 0 && start.spent == end.spent) {
            return true;
        }
        let Some(target) = self.step_of(Source::Slot(slot)) else { return true };
        let mut touched = Touched::new(self.group.cells.len());
        touched.add(target);
        let spent = end.spent.iter().filter(|(class, count)| start.spent_of(*class) < *count);
        let spent = spent.map(|(class, _)| Source::Pending(*class));
        let mut far: Vec<(&Step, bool)> = bits(placed)
            .map(Source::Slot)
            .chain(spent)
            .filter_map(|source| self.step_of(source))
            .map(|step| (step, step.is_inert()))
            .collect();
        loop {
            let before = far.len();
            far.retain(|(step, _)| {
                let joins = touched.conflicts(step);
                if joins {
                    touched.add(step);
                }
                !joins
            });
            if far.len() == before {
                return far.iter().all(|(_, inert)| *inert);
            }
        }
    }

    /// Returns the open and the pending operations that are connected with `target` (rule 6).
    fn neighbours(&self, config: &Config, target: u32, slot: u32) -> (Slots, Vec<u32>) {
        if !self.is_local() {
            return (self.open, self.pending.keys().copied().collect());
        }
        let mut touched = Touched::new(self.group.cells.len());
        touched.add(&self.op(target).step);
        let own = 1 << slot;
        let first = |slot: &u32| self.can_be_first(config, *slot, own);
        let mut far: Vec<u32> = bits(self.open & !config.done & !own).filter(first).collect();
        let left = |(class, pending): &(&u32, &Pending)| {
            config.spent_of(**class) < pending.count && self.can_write(config, &pending.step)
        };
        let mut far_pending: Vec<(&u32, &Pending)> = self.pending.iter().filter(left).collect();
        let (mut near, mut near_pending) = (own, Vec::new());
        let writes_only = self.mutant(Mutant::LocalityIgnoresReads);
        loop {
            let before = far.len() + far_pending.len();
            far.retain(|slot| {
                let Some(op) = self.slots[*slot as usize].map(|op| self.op(op)) else {
                    return false;
                };
                let joins = touched.conflicts(&op.step) && !(writes_only && op.inert);
                if joins {
                    touched.add(&op.step);
                    near |= 1 << *slot;
                }
                !joins
            });
            far_pending.retain(|(class, pending)| {
                let joins = touched.conflicts(&pending.step);
                if joins {
                    touched.add(&pending.step);
                    near_pending.push(**class);
                }
                !joins
            });
            if far.len() + far_pending.len() == before {
                return (near, near_pending);
            }
        }
    }

    /// Tells whether an open operation can be placed before the target: each value that it reads is
    /// there, or something else can write it, and it overwrites nothing that is locked.
    fn can_be_first(&self, config: &Config, slot: u32, target: Slots) -> bool {
        let Some(op) = self.slots[slot as usize] else { return false };
        let own: Slots = 1 << slot;
        let others = self.open & !config.done & !own & !target;
        let step = &self.op(op).step;
        let can_read = |(cell, place): &(u32, Place)| {
            let written = self.traffic[*place as usize].open_writers & others != 0
                || (self.group.values[*place as usize].pending_writers > 0
                    && !self.mutant(Mutant::LocalityIgnoresPending));
            config.state[*cell as usize] == *place || (written && !self.is_locked(config, *cell))
        };
        step.reads.iter().all(can_read) && self.can_write(config, step)
    }

    /// Tells whether an operation overwrites nothing that is locked.
    fn can_write(&self, config: &Config, step: &Step) -> bool {
        step.writes.iter().all(|(cell, place)| {
            config.state[*cell as usize] == *place || !self.is_locked(config, *cell)
        })
    }

    /// Tells whether nothing may overwrite a cell before something is invoked that is not yet:
    /// rule 1 with readers of which none is open.
    fn is_locked(&self, config: &Config, cell: u32) -> bool {
        let place = config.state[cell as usize] as usize;
        self.has(Rule::FutureReads)
            && self.traffic[place].reads_ahead > 0
            && self.group.values[place].sources == 1
    }

    /// Returns the operations that may be placed next, alike ones once (rule 2).
    fn candidates(&self, config: &Config, near: Slots, pending: &[u32]) -> Vec<Source> {
        let undone = self.open & !config.done;
        let early = |slot: &u32| {
            self.slots[*slot as usize].is_some_and(|op| !self.is_late(config, op, *slot))
        };
        let mut candidates: Vec<Source> =
            bits(near & undone).filter(early).map(Source::Slot).collect();
        for class in pending {
            let count = self.pending.get(class).map_or(0, |pending| pending.count);
            let open = self.open_of_class.get(class).is_some_and(|open| open & undone != 0);
            let late =
                open && self.has(Rule::Symmetry) && !self.mutant(Mutant::SymmetryPendingFirst);
            if config.spent_of(*class) < count && !late {
                candidates.push(Source::Pending(*class));
            }
        }
        candidates
    }

    /// Returns what a candidate needs and does.
    fn step_of(&self, source: Source) -> Option<&Step> {
        match source {
            Source::Slot(slot) => self.slots[slot as usize].map(|op| &self.op(op).step),
            Source::Pending(class) => self.pending.get(&class).map(|pending| &pending.step),
        }
    }

    /// Tells whether an operation alike is open that goes first. One that may be left out and one
    /// that may not are not alike.
    fn is_late(&self, config: &Config, op: u32, slot: u32) -> bool {
        let Op { class, ended, .. } = *self.op(op);
        if self.mutant(Mutant::SymmetryPendingFirst) && self.pending.contains_key(&class) {
            return true;
        }
        let excused = config.excused & (1 << slot) != 0;
        let same = if excused { config.excused } else { !config.excused };
        let alike = self.open_of_class.get(&class).map_or(0, |open| open & !config.done & same);
        bits(alike).filter_map(|slot| self.slots[slot as usize]).any(|other| {
            if self.mutant(Mutant::SymmetryLastFirst) {
                self.op(other).ended > ended
            } else {
                self.op(other).ended < ended
            }
        })
    }

    /// Tells whether an operation can and should be placed next.
    fn allows(&self, config: &Config, source: Source) -> bool {
        let Some(step) = self.step_of(source) else { return false };
        if !legal(step, &config.state) {
            return false;
        }
        match source {
            Source::Slot(slot) => {
                (config.excused & (1 << slot) == 0 || self.is_useful(config, step, false))
                    && self.keeps_readable(config, step, 1 << slot)
            }
            Source::Pending(_) => {
                self.is_useful(config, step, true) && self.keeps_readable(config, step, 0)
            }
        }
    }

    /// Returns the place of a value that is written now: a dead value counts as unobserved.
    fn written(&self, (cell, place): (u32, Place)) -> Place {
        if self.dead[place as usize] { cell } else { place }
    }

    /// Rule 1: tells whether no value is lost that still has to be read; `own` is the bit of the
    /// operation itself.
    fn keeps_readable(&self, config: &Config, step: &Step, own: Slots) -> bool {
        if !self.has(Rule::FutureReads) {
            return true;
        }
        let own = if self.mutant(Mutant::FutureReadsCountsItself) { 0 } else { own };
        let undone = !config.done & !own;
        step.writes.iter().all(|(cell, place)| {
            let lost = config.state[*cell as usize];
            if lost == self.written((*cell, *place)) {
                return true;
            }
            let traffic = &self.traffic[lost as usize];
            let wanted = traffic.reads_ahead > 0 || traffic.open_readers & undone != 0;
            if !wanted {
                return true;
            }
            let value = &self.group.values[lost as usize];
            let pending =
                value.pending_writers > 0 && !self.mutant(Mutant::FutureReadsIgnoresPending);
            let comes_again =
                pending || traffic.writers_ahead > 0 || traffic.open_writers & undone != 0;
            value.sources != 1 && comes_again && !self.mutant(Mutant::FutureReadsIgnoresWriters)
        })
    }

    /// Rule 4c: tells whether somebody may notice what an operation writes that may be left out,
    /// and with `now` also whether it must be before what is open.
    fn is_useful(&self, config: &Config, step: &Step, now: bool) -> bool {
        if !self.has(Rule::UsefulPending) {
            return true;
        }
        let contested = if now { self.contested(config, step) } else { BTreeSet::new() };
        step.writes.iter().any(|(cell, place)| {
            let lost = config.state[*cell as usize];
            let must_be_first = || !now || contested.iter().any(|other| other != cell);
            lost != *place
                && (self.is_noticed(config, lost, *place, true)
                    || (must_be_first() && self.is_noticed(config, lost, *place, false)))
        })
    }

    /// Returns the cells of an operation that something else which may be placed now writes.
    fn contested(&self, config: &Config, step: &Step) -> BTreeSet<u32> {
        if self.mutant(Mutant::UsefulIgnoresContest) {
            return BTreeSet::new();
        }
        let mut cells: BTreeSet<u32> = step.writes.iter().map(|(cell, _)| *cell).collect();
        if !self.mutant(Mutant::UsefulIgnoresOwnReads) {
            cells.extend(step.reads.iter().map(|(cell, _)| *cell));
            cells.extend(step.clauses.iter().flatten().map(|test| test.cell));
        }
        cells.retain(|cell| {
            // The operation in question is one of the pending ones itself.
            let own = step.writes_cell(*cell) || self.mutant(Mutant::UsefulMiscountsItself);
            let own = u32::from(own);
            self.is_contested(config, *cell, own)
        });
        cells
    }

    /// Tells whether a reader or a clause may notice that a value replaces another one; with `now`,
    /// one that is open or may be left out.
    fn is_noticed(&self, config: &Config, lost: Place, place: Place, now: bool) -> bool {
        let compares = |place: Place| {
            let traffic = &self.traffic[place as usize];
            (traffic.open_compared & !config.done != 0
                || (traffic.compared_left > 0 && !now)
                || self.group.values[place as usize].pending_compared > 0)
                && !self.mutant(Mutant::UsefulIgnoresClauses)
        };
        let traffic = &self.traffic[place as usize];
        let pending = self.group.values[place as usize].pending_readers > 0
            && !self.mutant(Mutant::UsefulIgnoresPending);
        traffic.open_readers & !config.done != 0
            || (traffic.reads_ahead > 0 && !now)
            || pending
            || compares(lost)
            || compares(place)
    }

    /// Tells whether an open operation writes a cell, or more than `own` pending ones.
    fn is_contested(&self, config: &Config, cell: u32, own: u32) -> bool {
        let open = bits(self.open & !config.done).filter_map(|slot| self.slots[slot as usize]);
        let pending = self.pending.values().filter(|pending| pending.step.writes_cell(cell));
        open.map(|op| &self.op(op).step).any(|step| step.writes_cell(cell))
            || pending.map(|pending| pending.count).sum::<u32>() > own
    }

    /// Returns the configuration after an operation, and after all that follows at no cost.
    fn place(&self, config: &Config, source: Source) -> Config {
        let mut next = config.clone();
        match source {
            Source::Slot(slot) => {
                next.done |= 1 << slot;
                next.excused &= !(1 << slot);
            }
            Source::Pending(class) => next.spend(class, 1),
        }
        let Some(step) = self.step_of(source) else { return next };
        for write in &step.writes {
            next.state[write.0 as usize] = self.written(*write);
        }
        let eager = self.has(Rule::EagerReads);
        let unseen = self.has(Rule::UnseenWrites) && !step.writes.is_empty();
        for slot in bits(self.open & !next.done) {
            let Some(other) = self.slots[slot as usize] else { continue };
            let other = self.op(other);
            let reads = eager && other.inert && legal(&other.step, &next.state);
            let hides = unseen && other.unseen && self.overwrites(step, &other.step);
            let nothing = self.mutant(Mutant::EagerWrites)
                && other.step.reads.is_empty()
                && legal(&other.step, &next.state)
                && writes_nothing(&other.step, &next.state);
            let done = hides && self.mutant(Mutant::UnseenIgnoresClauses);
            if reads || nothing || done {
                next.done |= 1 << slot;
            } else if hides {
                next.excused |= 1 << slot;
            }
        }
        next
    }

    /// Rule 5: tells whether `step` overwrites all that `hidden` writes without looking at it.
    fn overwrites(&self, step: &Step, hidden: &Step) -> bool {
        let blind = self.mutant(Mutant::UnseenBeforeReader);
        hidden.writes.iter().all(|(cell, _)| {
            let looks = step.reads.iter().any(|(read, _)| read == cell);
            (blind || !looks) && step.writes_cell(*cell)
        })
    }
}

/// The cells that some operations read and write.
struct Touched {
    read: Vec<bool>,
    written: Vec<bool>,
}

impl Touched {
    fn new(cells: usize) -> Self {
        Self { read: vec![false; cells], written: vec![false; cells] }
    }

    fn add(&mut self, step: &Step) {
        for (cell, _) in &step.reads {
            self.read[*cell as usize] = true;
        }
        for test in step.clauses.iter().flatten() {
            self.read[test.cell as usize] = true;
        }
        for (cell, _) in &step.writes {
            self.written[*cell as usize] = true;
        }
    }

    fn conflicts(&self, step: &Step) -> bool {
        let written = |cell: u32| self.written[cell as usize];
        step.writes.iter().any(|(cell, _)| written(*cell) || self.read[*cell as usize])
            || step.reads.iter().any(|(cell, _)| written(*cell))
            || step.clauses.iter().flatten().any(|test| written(test.cell))
    }
}
