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

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Config, Frontier, Slots};
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
pub(super) struct Traffic {
    /// Operations with an answer that read it and are not yet invoked.
    pub(super) reads_ahead: u32,
    /// Those that are open.
    pub(super) open_readers: Slots,
    /// Operations with an answer that write it and are not yet invoked.
    pub(super) writers_ahead: u32,
    /// Those that are open.
    pub(super) open_writers: Slots,
    /// Operations with an answer that compare with it in a clause and have not returned.
    pub(super) compared_left: u32,
    /// Those that are open.
    pub(super) open_compared: Slots,
}

pub(super) struct Engine<'a> {
    pub(super) group: &'a Group,
    pub(super) options: &'a Options,
    configs: Vec<Config>,
    pub(super) traffic: Vec<Traffic>,
    /// The open operation in each slot.
    pub(super) slots: Vec<Option<u32>>,
    pub(super) open: Slots,
    /// Those of the open operations that change nothing.
    pub(super) open_inert: Slots,
    pub(super) open_of_class: BTreeMap<u32, Slots>,
    /// Classes by condition and effect, as far as pending operations need new ones.
    classes: BTreeMap<Step, u32>,
    class_count: u32,
    /// How many pending operations were invoked and are not spent in every configuration, by class.
    pub(super) pending: BTreeMap<u32, Pending>,
    /// By cell, how many clauses of operations that may still be placed compare with it.
    pub(super) clauses_left: Vec<u32>,
    /// By place: nobody will observe this value any more.
    pub(super) dead: Vec<bool>,
    since_sweep: u32,
    pub(super) steps: u64,
    pub(super) steps_max: u64,
    configs_max: usize,
}

/// Pending operations that are alike.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) step: Step,
    pub(super) count: u32,
}

impl<'a> Engine<'a> {
    pub(super) fn new(group: &'a Group, options: &'a Options, steps_max: u64) -> Self {
        let traffic = |value: &super::lower::Value| Traffic {
            reads_ahead: value.reads,
            writers_ahead: value.writers,
            compared_left: value.compared,
            ..Traffic::default()
        };
        let mut clauses_left = vec![0; group.cells.len()];
        for test in group.ops.iter().flat_map(|op| op.step.clauses.iter().flatten()) {
            clauses_left[test.cell as usize] += 1;
        }
        Self {
            group,
            options,
            configs: vec![Config {
                state: group.initial.clone(),
                done: 0,
                excused: 0,
                spent: Vec::new(),
            }],
            traffic: group.values.iter().map(traffic).collect(),
            slots: Vec::new(),
            open: 0,
            open_inert: 0,
            open_of_class: BTreeMap::new(),
            classes: BTreeMap::new(),
            class_count: group.class_count,
            pending: BTreeMap::new(),
            clauses_left,
            dead: vec![false; group.values.len()],
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

    pub(super) fn op(&self, op: u32) -> &'a Op {
        &self.group.ops[op as usize]
    }

    pub(super) fn has(&self, rule: Rule) -> bool {
        self.options.rules.has(rule)
    }

    pub(super) fn mutant(&self, mutant: Mutant) -> bool {
        self.options.mutant == Some(mutant)
    }

    fn invoke_pending(&mut self, op: u32) {
        let Op { step, class, .. } = self.op(op);
        let (class, step) = self.alive(*class, step.clone());
        self.pending.entry(class).or_insert(Pending { step, count: 0 }).count += 1;
        self.since_sweep += 1;
        if self.since_sweep >= SWEEP_EVERY && self.has(Rule::UsefulPending) {
            self.since_sweep = 0;
            self.sweep();
        }
    }

    /// Returns a step with dead values replaced by the unobserved ones, and the class of it.
    fn alive(&mut self, class: u32, mut step: Step) -> (u32, Step) {
        let mut changed = false;
        for (cell, place) in &mut step.writes {
            if self.dead[*place as usize] {
                (*place, changed) = (*cell, true);
            }
        }
        if !changed {
            return (class, step);
        }
        let class = if self.has(Rule::Symmetry) { self.class_of(&step) } else { class };
        (class, step)
    }

    /// Returns the class of pending operations with this step, a new one if there is none.
    fn class_of(&mut self, step: &Step) -> u32 {
        if let Some(class) = self.group.classes.get(step) {
            return *class;
        }
        let fresh = self.class_count;
        let class = *self.classes.entry(step.clone()).or_insert(fresh);
        self.class_count += u32::from(class == fresh);
        class
    }

    /// Forgets pending operations that can never be useful again (rule 4c).
    fn sweep(&mut self) {
        let useless = |(class, pending): (&u32, &Pending)| {
            let useful = pending.step.writes.iter().any(|(cell, place)| {
                let traffic = &self.traffic[*place as usize];
                self.clauses_left[*cell as usize] > 0
                    || traffic.reads_ahead > 0
                    || traffic.open_readers != 0
                    || self.group.values[*place as usize].pending_readers > 0
            });
            (!useful).then_some(*class)
        };
        let gone: Vec<u32> = self.pending.iter().filter_map(useless).collect();
        for class in gone {
            self.pending.remove(&class);
            for config in &mut self.configs {
                config.spent.retain(|(spent, _)| *spent != class);
            }
        }
    }

    /// Buries values that nobody will observe any more: they count as unobserved (rule 3).
    fn bury(&mut self, places: impl Iterator<Item = Place>) {
        let cells = number(self.group.cells.len());
        let mut buried = false;
        for place in places.filter(|place| *place >= cells) {
            let (traffic, value) =
                (&self.traffic[place as usize], &self.group.values[place as usize]);
            let pending =
                value.pending_readers > 0 && !self.mutant(Mutant::UnobservedIgnoresPending);
            let compared = traffic.compared_left > 0 || value.pending_compared > 0;
            let compared = compared && !self.mutant(Mutant::UnobservedForgetsClauses);
            if traffic.reads_ahead == 0 && traffic.open_readers == 0 && !pending && !compared {
                self.dead[place as usize] = true;
                buried = true;
            }
        }
        if !buried {
            return;
        }
        for config in &mut self.configs {
            for (cell, place) in (0..).zip(config.state.iter_mut()) {
                if self.dead[*place as usize] {
                    *place = cell;
                }
            }
        }
        let held: Vec<(u32, Step)> =
            self.pending.iter().map(|(class, pending)| (*class, pending.step.clone())).collect();
        for (class, step) in held {
            if !step.writes.iter().any(|(_, place)| self.dead[*place as usize]) {
                continue;
            }
            let (merged, step) = self.alive(class, step);
            let Some(Pending { count, .. }) = self.pending.remove(&class) else { continue };
            self.pending.entry(merged).or_insert(Pending { step, count: 0 }).count += count;
            for config in &mut self.configs {
                let spent = config.spent_of(class);
                config.settle(class, spent);
                config.spend(merged, spent);
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
        self.open_inert |= if self.op(op).inert { bit } else { 0 };
        let Op { step, class, inert, .. } = self.op(op);
        *self.open_of_class.entry(*class).or_default() |= bit;
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
        for place in step.compared() {
            self.traffic[place as usize].open_compared |= bit;
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
        let (mut visited, mut survivors) = (Frontier::default(), Frontier::default());
        for config in std::mem::take(&mut self.configs) {
            if (config.done | config.excused) & bit != 0 {
                survivors.add(&config, |a, b| self.is_as_good(a, b));
            }
            if config.done & bit == 0
                && (config.excused & bit == 0 || self.may_help(op))
                && let Err(undecided) =
                    self.expand(op, slot, &config, (&mut visited, &mut survivors))
            {
                return Some(Found::Undecided(undecided));
            }
        }
        if survivors.len() == 0 {
            return Some(Found::Invalid(op));
        }
        let mut survivors = survivors.into_configs();
        for config in &mut survivors {
            config.done &= !bit;
            config.excused &= !bit;
        }
        self.configs = survivors;
        self.close(op, slot);
        self.keep();
        None
    }

    /// Reduces the configurations.
    fn keep(&mut self) {
        let mut frontier = Frontier::default();
        for config in std::mem::take(&mut self.configs) {
            frontier.add(&config, |a, b| self.is_as_good(a, b));
        }
        self.configs = frontier.into_configs();
        self.configs_max = self.configs_max.max(self.configs.len());
        self.settle();
    }

    /// Rule 4b: tells whether `a`, of the same state as `b`, can be finished whenever `b` can.
    pub(super) fn is_as_good(&self, a: &Config, b: &Config) -> bool {
        if !self.has(Rule::Antichain) {
            return false;
        }
        if self.mutant(Mutant::AntichainKeepsMore) {
            return (a.done, a.excused) == (b.done, b.excused) && b.spent_within(a);
        }
        let different = (a.done ^ b.done) | (a.excused ^ b.excused);
        let better = a.excused | (a.done & self.open_inert);
        let ignores_placed = self.mutant(Mutant::AntichainIgnoresPlaced);
        (different & !better == 0 || ignores_placed) && a.spent_within(b)
    }

    /// Tells whether an operation that may be left out could still make a clause true.
    fn may_help(&self, op: u32) -> bool {
        let rule = self.has(Rule::UsefulPending) && !self.mutant(Mutant::UsefulIgnoresClauses);
        let compared = |(cell, _): &(u32, Place)| self.clauses_left[*cell as usize] > 0;
        !rule || self.op(op).step.writes.iter().any(compared)
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
            if let Some(pending) = self.pending.get_mut(&class) {
                pending.count -= count;
                if pending.count == 0 {
                    self.pending.remove(&class);
                }
            }
        }
    }

    fn close(&mut self, op: u32, slot: u32) {
        let bit: Slots = 1 << slot;
        self.slots[slot as usize] = None;
        self.open &= !bit;
        self.open_inert &= !bit;
        let Op { step, class, .. } = self.op(op);
        if let Some(open) = self.open_of_class.get_mut(class) {
            *open &= !bit;
            if *open == 0 {
                self.open_of_class.remove(class);
            }
        }
        for (_, place) in &step.reads {
            self.traffic[*place as usize].open_readers &= !bit;
        }
        for (_, place) in &step.writes {
            self.traffic[*place as usize].open_writers &= !bit;
        }
        for test in step.clauses.iter().flatten() {
            self.clauses_left[test.cell as usize] -= 1;
        }
        let compared = step.compared();
        for place in &compared {
            let traffic = &mut self.traffic[*place as usize];
            traffic.compared_left -= 1;
            traffic.open_compared &= !bit;
        }
        if self.has(Rule::Unobserved) {
            self.bury(step.reads.iter().map(|(_, place)| *place).chain(compared));
        }
    }

    /// Returns the values that a cell can have now.
    pub(super) fn possible(&self, cell: u32) -> BTreeSet<Place> {
        self.configs.iter().map(|config| config.state[cell as usize]).collect()
    }
}

pub(super) fn legal(step: &Step, state: &[Place]) -> bool {
    step.reads.iter().all(|(cell, place)| state[*cell as usize] == *place)
        && step.clauses.iter().all(|clause| {
            clause.iter().any(|test| (state[test.cell as usize] == test.place) == test.equal)
        })
}

pub(super) fn writes_nothing(step: &Step, state: &[Place]) -> bool {
    step.writes.iter().all(|(cell, place)| state[*cell as usize] == *place)
}

/// Returns the positions of the bits of a set.
pub(super) fn bits(mut set: Slots) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (set != 0).then(|| {
            let position = set.trailing_zeros();
            set &= set - 1;
            position
        })
    })
}
