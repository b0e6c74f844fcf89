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
struct Traffic {
    /// Operations with an answer that read it and are not yet invoked.
    reads_ahead: u32,
    /// Those that are open.
    open_readers: Slots,
    /// Operations with an answer that write it and are not yet invoked.
    writers_ahead: u32,
    /// Those that are open.
    open_writers: Slots,
    /// Operations with an answer that compare with it in a clause and have not returned.
    compared_left: u32,
    /// Those that are open.
    open_compared: Slots,
}

pub(super) struct Engine<'a> {
    group: &'a Group,
    options: &'a Options,
    configs: Vec<Config>,
    traffic: Vec<Traffic>,
    /// The open operation in each slot.
    slots: Vec<Option<u32>>,
    open: Slots,
    /// Those of the open operations that change nothing.
    open_inert: Slots,
    open_of_class: BTreeMap<u32, Slots>,
    /// Classes by condition and effect, as far as pending operations need new ones.
    classes: BTreeMap<Step, u32>,
    class_count: u32,
    /// How many pending operations were invoked and are not spent in every configuration, by class.
    pending: BTreeMap<u32, Pending>,
    /// By cell, how many clauses of operations that may still be placed compare with it.
    clauses_left: Vec<u32>,
    /// By place: nobody will observe this value any more.
    dead: Vec<bool>,
    since_sweep: u32,
    steps: u64,
    steps_max: u64,
    configs_max: usize,
}

/// Pending operations that are alike.
#[derive(Debug, Clone)]
struct Pending {
    step: Step,
    count: u32,
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
    fn is_as_good(&self, a: &Config, b: &Config) -> bool {
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

    /// Places operations from `start` on, depth first, until `op` is placed; `visited` is what
    /// other starts led to.
    fn expand(
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

    /// Rule 4c: tells whether somebody may notice what an operation writes that may be left out, and
    /// with `now` also whether it must be before what is open.
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
        cells.retain(|cell| self.is_contested(config, *cell));
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

    /// Tells whether something that may be placed now writes a cell, besides one pending operation
    /// that may be the one in question.
    fn is_contested(&self, config: &Config, cell: u32) -> bool {
        let writes = |step: &Step| step.writes.binary_search_by_key(&cell, |write| write.0).is_ok();
        let open = bits(self.open & !config.done).filter_map(|slot| self.slots[slot as usize]);
        let pending = self.pending.values().filter(|pending| writes(&pending.step));
        open.map(|op| &self.op(op).step).any(writes)
            || pending.map(|pending| pending.count).sum::<u32>() > 1
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
