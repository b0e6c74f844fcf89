//! Configurations: what may have happened so far.

use super::lower::Place;

/// A set of open operations, one bit for each slot.
pub(super) type Slots = u128;

/// One way in which the operations so far may have taken effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Config {
    /// The value of every cell.
    pub(super) state: Box<[Place]>,
    /// Which of the open operations have taken effect.
    pub(super) done: Slots,
    /// How many pending operations of a class have taken effect, by class, without zeros.
    pub(super) spent: Vec<(u32, u32)>,
}

impl Config {
    /// Returns how many pending operations of `class` have taken effect.
    pub(super) fn spent_of(&self, class: u32) -> u32 {
        match self.spent.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(position) => self.spent[position].1,
            Err(_) => 0,
        }
    }

    /// Counts one more pending operation of `class`.
    pub(super) fn spend(&mut self, class: u32) {
        match self.spent.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(position) => self.spent[position].1 += 1,
            Err(position) => self.spent.insert(position, (class, 1)),
        }
    }

    /// Takes back `count` of `class`, because every configuration has spent them.
    pub(super) fn settle(&mut self, class: u32, count: u32) {
        if let Ok(position) = self.spent.binary_search_by_key(&class, |(class, _)| *class) {
            self.spent[position].1 -= count;
            if self.spent[position].1 == 0 {
                self.spent.remove(position);
            }
        }
    }

    /// Tells whether all that this one spent the other one spent too.
    pub(super) fn spent_within(&self, other: &Self) -> bool {
        self.spent.iter().all(|(class, count)| *count <= other.spent_of(*class))
    }
}

/// Sorts configurations, drops doubles, and with `antichain` those that spent more than an
/// otherwise equal one; `alike` says when two are otherwise equal.
pub(super) fn reduce(
    configs: &mut Vec<Config>,
    antichain: bool,
    alike: impl Fn(&Config, &Config) -> bool,
    better: impl Fn(&Config, &Config) -> bool,
) {
    configs.sort_unstable();
    configs.dedup();
    if !antichain || configs.iter().all(|config| config.spent.is_empty()) {
        return;
    }
    let mut kept: Vec<Config> = Vec::with_capacity(configs.len());
    let mut run = 0;
    for config in configs.drain(..) {
        if kept.get(run).is_some_and(|first| !alike(first, &config)) {
            run = kept.len();
        }
        if kept[run..].iter().any(|other| better(other, &config)) {
            continue;
        }
        let mut position = run;
        while position < kept.len() {
            if better(&config, &kept[position]) {
                kept.swap_remove(position);
            } else {
                position += 1;
            }
        }
        kept.push(config);
    }
    *configs = kept;
}
