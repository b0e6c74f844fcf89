//! The search: a just-in-time linearizability checker for one group of cells.
//!
//! It walks through the invocations and returns of a group in order and keeps the set of all
//! configurations: the values of the cells, and which of the operations in flight have taken effect
//! already. An invocation adds a possibility and costs nothing. When operation o returns it must
//! have taken effect: a configuration where it has is kept; from one where it has not, sequences of
//! other operations in flight are placed until o fits, *and not one step further* – what o does not
//! need now is decided when its own return demands it [Lowe '17 §5]. When no configuration is left
//! the return is impossible, and it is the first impossible one.
//!
//! Only operations in flight are in a configuration, so its size is the concurrency and not the
//! length of the history; the cost of a run is linear in its length. What remains exponential is
//! the number of orders that concurrent operations allow; the [rules](super::rules) cut it down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::config::{self, Config, Slots};
use super::lower::{Group, Happening, Op, Place, Step, number};
use super::rules::{Mutant, Rule};
use super::{Options, Undecided};

/// Returns how many pending operations may gather before the useless ones are looked for.
const SWEEP_EVERY: u32 = 64;

/// What a group came to.
#[derive(Debug)]
pub(super) enum Found {
    Valid,
    /// This operation could not return.
    Invalid(u32),
    Undecided(Undecided),
}

/// What is known at the moment about a value of a cell.
#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    /// Operations with an answer that read it and are not yet invoked.
    reads_ahead: u32,
    /// Those that are open.
    open_readers: Slots,
    /// Operations with an answer that write it and are not yet invoked.
    writers_ahead: u32,
    /// Those that are open.
    open_writers: Slots,
}

pub(super) struct Engine<'a> {
    group: &'a Group,
    options: &'a Options,
    configs: Vec<Config>,
    traffic: Vec<Traffic>,
    /// The open operation in each slot.
    slots: Vec<Option<u32>>,
    open: Slots,
    open_of_class: Vec<Slots>,
    /// Invoked pending operations that some configuration has not spent, by class.
    pending: BTreeMap<u32, VecDeque<u32>>,
    since_sweep: u32,
    steps: u64,
    steps_max: u64,
    configs_max: usize,
}

/// Where a step comes from.
#[derive(Clone, Copy)]
enum Source {
    Slot(u32),
    Pending(u32),
}

impl<'a> Engine<'a> {
    pub(super) fn new(group: &'a Group, options: &'a Options, steps_max: u64) -> Self {
        let traffic = |value: &super::lower::Value| Traffic {
            reads_ahead: value.reads,
            writers_ahead: value.writers,
            ..Traffic::default()
        };
        Self {
            group,
            options,
            configs: vec![Config { state: group.initial.clone(), done: 0, spent: Vec::new() }],
            traffic: group.values.iter().map(traffic).collect(),
            slots: Vec::new(),
            open: 0,
            open_of_class: vec![0; group.class_count as usize],
            pending: BTreeMap::new(),
            since_sweep: 0,
            steps: 0,
            steps_max,
            configs_max: 1,
        }
    }

    /// Returns the steps taken and the largest number of configurations held.
    pub(super) fn effort(&self) -> (u64, usize) {
        (self.steps, self.configs_max)
    }

    /// Runs through the group.
    pub(super) fn run(&mut self) -> Found {
        for happening in &self.group.happenings {
            match *happening {
                Happening::Invoke(op) if self.op(op).pending => self.invoke_pending(op),
                Happening::Invoke(op) => {
                    if let Err(undecided) = self.invoke(op) {
                        return Found::Undecided(undecided);
                    }
                }
                Happening::Return(op) => {
                    if let Some(found) = self.complete(op) {
                        return found;
                    }
                }
            }
        }
        Found::Valid
    }

    fn op(&self, op: u32) -> &'a Op {
        &self.group.ops[op as usize]
    }

    fn has(&self, rule: Rule) -> bool {
        self.options.rules.has(rule)
    }

    fn mutant(&self, mutant: Mutant) -> bool {
        self.options.mutant == Some(mutant)
    }

    fn invoke_pending(&mut self, op: u32) {
        self.pending.entry(self.op(op).class).or_default().push_back(op);
        self.since_sweep += 1;
        if self.since_sweep >= SWEEP_EVERY && self.has(Rule::UsefulPending) {
            self.since_sweep = 0;
            self.sweep();
        }
    }

    /// Forgets pending operations that can never be useful again (rule 4c).
    fn sweep(&mut self) {
        let useless = |class: &u32, ops: &VecDeque<u32>| {
            let useful = ops.front().is_some_and(|op| {
                self.op(*op).step.writes.iter().any(|(cell, place)| {
                    let traffic = &self.traffic[*place as usize];
                    self.group.in_clause[*cell as usize]
                        || traffic.reads_ahead > 0
                        || traffic.open_readers != 0
                        || self.group.values[*place as usize].pending_readers > 0
                })
            });
            (!useful).then_some(*class)
        };
        let gone: Vec<u32> =
            self.pending.iter().filter_map(|(class, ops)| useless(class, ops)).collect();
        for class in gone {
            self.pending.remove(&class);
            for config in &mut self.configs {
                config.spent.retain(|(spent, _)| *spent != class);
            }
        }
    }

    fn invoke(&mut self, op: u32) -> Result<(), Undecided> {
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.slots.len() < Slots::BITS as usize => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(Undecided::Concurrency { open_max: Slots::BITS }),
        };
        self.slots[slot] = Some(op);
        let bit = 1 << slot;
        self.open |= bit;
        let Op { step, class, inert, .. } = self.op(op);
        self.open_of_class[*class as usize] |= bit;
        for (_, place) in &step.reads {
            let traffic = &mut self.traffic[*place as usize];
            traffic.reads_ahead -= 1;
            traffic.open_readers |= bit;
        }
        for (_, place) in &step.writes {
            let traffic = &mut self.traffic[*place as usize];
            traffic.writers_ahead -= 1;
            traffic.open_writers |= bit;
        }
        let eager_write = self.mutant(Mutant::EagerWrites) && step.reads.is_empty();
        if self.has(Rule::EagerReads) && (*inert || eager_write) {
            let mut configs = std::mem::take(&mut self.configs);
            for config in &mut configs {
                if legal(step, &config.state) && (*inert || writes_nothing(step, &config.state)) {
                    config.done |= bit;
                }
            }
            self.configs = configs;
        }
        Ok(())
    }

    /// Demands that `op` has taken effect; returns a verdict if that ends the search.
    fn complete(&mut self, op: u32) -> Option<Found> {
        let slot = self.slots.iter().position(|open| *open == Some(op));
        let slot = slot.map(number).unwrap_or_default();
        let bit: Slots = 1 << slot;
        let mut survivors = Vec::new();
        let mut stack = Vec::new();
        for config in std::mem::take(&mut self.configs) {
            if config.done & bit != 0 { survivors.push(config) } else { stack.push(config) }
        }
        if !stack.is_empty() {
            if let Err(undecided) = self.expand(op, slot, stack, &mut survivors) {
                return Some(Found::Undecided(undecided));
            }
            if survivors.is_empty() {
                return Some(Found::Invalid(op));
            }
        }
        for config in &mut survivors {
            config.done &= !bit;
        }
        self.close(op, slot);
        self.keep(survivors);
        None
    }

    /// Makes the survivors the configurations, reduced.
    fn keep(&mut self, mut survivors: Vec<Config>) {
        let ignores_placed = self.mutant(Mutant::AntichainIgnoresPlaced);
        let alike =
            |a: &Config, b: &Config| a.state == b.state && (a.done == b.done || ignores_placed);
        let keeps_more = self.mutant(Mutant::AntichainKeepsMore);
        let better = |a: &Config, b: &Config| {
            if keeps_more { b.spent_within(a) } else { a.spent_within(b) }
        };
        config::reduce(&mut survivors, self.has(Rule::Antichain), alike, better);
        self.configs = survivors;
        self.configs_max = self.configs_max.max(self.configs.len());
        self.settle();
    }

    /// Takes pending operations that every configuration has spent out of all of them.
    fn settle(&mut self) {
        let Some((first, others)) = self.configs.split_first() else { return };
        let common = |(class, count): &(u32, u32)| {
            let least = others.iter().map(|config| config.spent_of(*class)).min();
            let count = least.unwrap_or(*count).min(*count);
            (count > 0).then_some((*class, count))
        };
        let settled: Vec<(u32, u32)> = first.spent.iter().filter_map(common).collect();
        for (class, count) in settled {
            for config in &mut self.configs {
                config.settle(class, count);
            }
            if let Some(ops) = self.pending.get_mut(&class) {
                ops.drain(..(count as usize).min(ops.len()));
                if ops.is_empty() {
                    self.pending.remove(&class);
                }
            }
        }
    }

    fn close(&mut self, op: u32, slot: u32) {
        let bit: Slots = 1 << slot;
        self.slots[slot as usize] = None;
        self.open &= !bit;
        let Op { step, class, .. } = self.op(op);
        self.open_of_class[*class as usize] &= !bit;
        for (_, place) in &step.reads {
            self.traffic[*place as usize].open_readers &= !bit;
        }
        for (_, place) in &step.writes {
            self.traffic[*place as usize].open_writers &= !bit;
        }
    }

    /// Places operations, depth first, until `op` is placed.
    fn expand(
        &mut self,
        op: u32,
        slot: u32,
        mut stack: Vec<Config>,
        survivors: &mut Vec<Config>,
    ) -> Result<(), Undecided> {
        let bit: Slots = 1 << slot;
        let (near, near_pending) = self.neighbours(op);
        let mut visited = BTreeSet::new();
        while let Some(config) = stack.pop() {
            let candidates = self.candidates(&config, near, &near_pending);
            for (source, candidate) in candidates {
                self.steps += 1;
                if self.steps > self.steps_max {
                    return Err(Undecided::Steps { steps_max: self.steps_max });
                }
                if !self.allows(&config, source, candidate) {
                    continue;
                }
                let next = self.place(&config, source, candidate);
                if next.done & bit != 0 {
                    survivors.push(next);
                } else if !visited.contains(&next) {
                    visited.insert(next.clone());
                    stack.push(next);
                }
            }
        }
        Ok(())
    }

    /// Returns the open and the pending operations that are connected with `target` (rule 6).
    fn neighbours(&self, target: u32) -> (Slots, Vec<u32>) {
        let classes = self.pending.keys().copied();
        if self.group.cells.len() <= 1 || !self.has(Rule::Locality) {
            return (self.open, classes.collect());
        }
        let mut touched = Touched::new(self.group.cells.len());
        touched.add(&self.op(target).step);
        let is_target = |slot: &u32| self.slots[*slot as usize] == Some(target);
        let own = bits(self.open).find(is_target).map_or(0, |slot| 1 << slot);
        let mut far = self.open & !own;
        let mut far_pending: Vec<(u32, u32)> =
            self.pending.iter().filter_map(|(class, ops)| Some((*class, *ops.front()?))).collect();
        let mut near = Vec::new();
        let writes_only = self.mutant(Mutant::LocalityIgnoresReads);
        loop {
            let mut grown = false;
            for slot in bits(far) {
                let Some(op) = self.slots[slot as usize] else { continue };
                let step = &self.op(op).step;
                if touched.conflicts(step) && !(writes_only && self.op(op).inert) {
                    touched.add(step);
                    far &= !(1 << slot);
                    grown = true;
                }
            }
            far_pending.retain(|(class, op)| {
                let step = &self.op(*op).step;
                let joins = touched.conflicts(step);
                if joins {
                    touched.add(step);
                    near.push(*class);
                    grown = true;
                }
                !joins
            });
            if !grown {
                return (self.open & !far, near);
            }
        }
    }

    /// Returns the operations that may be placed next, alike ones once (rule 2).
    fn candidates(&self, config: &Config, near: Slots, pending: &[u32]) -> Vec<(Source, u32)> {
        let mut candidates = Vec::new();
        let undone = self.open & !config.done;
        for slot in bits(near & undone) {
            let Some(op) = self.slots[slot as usize] else { continue };
            if !self.is_late(op, undone) {
                candidates.push((Source::Slot(slot), op));
            }
        }
        for class in pending {
            let Some(ops) = self.pending.get(class) else { continue };
            let Some(op) = ops.get(config.spent_of(*class) as usize) else { continue };
            let open = self.open_of_class[*class as usize] & undone != 0;
            if !(open && self.has(Rule::Symmetry) && !self.mutant(Mutant::SymmetryPendingFirst)) {
                candidates.push((Source::Pending(*class), *op));
            }
        }
        candidates
    }

    /// Tells whether an operation alike is open that goes first.
    fn is_late(&self, op: u32, undone: Slots) -> bool {
        let class = self.op(op).class;
        if self.mutant(Mutant::SymmetryPendingFirst) && self.pending.contains_key(&class) {
            return true;
        }
        let alike = self.open_of_class[class as usize] & undone;
        let ended = self.op(op).ended;
        bits(alike).filter_map(|slot| self.slots[slot as usize]).any(|other| {
            if self.mutant(Mutant::SymmetryLastFirst) {
                self.op(other).ended > ended
            } else {
                self.op(other).ended < ended
            }
        })
    }

    /// Tells whether an operation can and should be placed next.
    fn allows(&self, config: &Config, source: Source, op: u32) -> bool {
        let op = self.op(op);
        if !legal(&op.step, &config.state) {
            return false;
        }
        match source {
            Source::Slot(slot) => self.keeps_readable(config, &op.step, 1 << slot),
            Source::Pending(_) => {
                self.is_useful(config, &op.step) && self.keeps_readable(config, &op.step, 0)
            }
        }
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
            if lost == *place {
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

    /// Rule 4c: tells whether somebody may look at what a pending operation writes.
    fn is_useful(&self, config: &Config, step: &Step) -> bool {
        if !self.has(Rule::UsefulPending) {
            return true;
        }
        step.writes.iter().any(|(cell, place)| {
            let traffic = &self.traffic[*place as usize];
            let in_clause =
                self.group.in_clause[*cell as usize] && !self.mutant(Mutant::UsefulIgnoresClauses);
            let pending = self.group.values[*place as usize].pending_readers > 0
                && !self.mutant(Mutant::UsefulIgnoresPending);
            in_clause
                || pending
                || traffic.reads_ahead > 0
                || traffic.open_readers & !config.done != 0
        })
    }

    /// Returns the configuration after an operation, and after all that follows at no cost.
    fn place(&self, config: &Config, source: Source, op: u32) -> Config {
        let mut next = config.clone();
        match source {
            Source::Slot(slot) => next.done |= 1 << slot,
            Source::Pending(class) => next.spend(class),
        }
        let step = &self.op(op).step;
        for (cell, place) in &step.writes {
            next.state[*cell as usize] = *place;
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
            if reads || hides || nothing {
                next.done |= 1 << slot;
            }
        }
        next
    }

    /// Rule 5: tells whether `step` overwrites all that `hidden` writes without looking at it.
    fn overwrites(&self, step: &Step, hidden: &Step) -> bool {
        let blind = self.mutant(Mutant::UnseenBeforeReader);
        hidden.writes.iter().all(|(cell, _)| {
            let looks = step.reads.iter().any(|(read, _)| read == cell);
            (blind || !looks) && step.writes.binary_search_by_key(cell, |write| write.0).is_ok()
        })
    }

    /// Returns the values that a cell can have now.
    pub(super) fn possible(&self, cell: u32) -> BTreeSet<Place> {
        self.configs.iter().map(|config| config.state[cell as usize]).collect()
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

fn legal(step: &Step, state: &[Place]) -> bool {
    step.reads.iter().all(|(cell, place)| state[*cell as usize] == *place)
        && step.clauses.iter().all(|clause| {
            clause.iter().any(|test| (state[test.cell as usize] == test.place) == test.equal)
        })
}

fn writes_nothing(step: &Step, state: &[Place]) -> bool {
    step.writes.iter().all(|(cell, place)| state[*cell as usize] == *place)
}

/// Returns the positions of the bits of a set.
fn bits(mut set: Slots) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (set != 0).then(|| {
            let position = set.trailing_zeros();
            set &= set - 1;
            position
        })
    })
}
