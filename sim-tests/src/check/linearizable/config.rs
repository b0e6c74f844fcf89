//! Configurations: what may have happened so far.

use std::collections::BTreeMap;

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
    /// Which of those that have not may also be left out, because they can have taken effect
    /// unseen before (rule 5).
    pub(super) excused: Slots,
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

    /// Counts `count` more pending operations of `class`.
    pub(super) fn spend(&mut self, class: u32, count: u32) {
        if count == 0 {
            return;
        }
        match self.spent.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(position) => self.spent[position].1 += count,
            Err(position) => self.spent.insert(position, (class, count)),
        }
    }

    /// Takes back `count` of `class`, because every configuration has spent them, or under another
    /// name.
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

/// Configurations of which none is pointless next to another; see [`Frontier::add`].
#[derive(Debug, Default)]
pub(super) struct Frontier {
    by_state: BTreeMap<Box<[Place]>, Vec<Config>>,
    len: usize,
}

impl Frontier {
    /// Adds a configuration, unless one of the same state is at least as good, and takes out those
    /// of the same state than which it is better. Tells whether it was added.
    pub(super) fn add(
        &mut self,
        config: &Config,
        as_good: impl Fn(&Config, &Config) -> bool,
    ) -> bool {
        let Some(held) = self.by_state.get_mut(&config.state) else {
            self.by_state.insert(config.state.clone(), vec![config.clone()]);
            self.len += 1;
            return true;
        };
        if held.iter().any(|other| other == config || as_good(other, config)) {
            return false;
        }
        self.len -= held.len();
        held.retain(|other| !as_good(config, other));
        held.push(config.clone());
        self.len += held.len();
        true
    }

    /// Returns how many configurations there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the configurations, in an order that depends on nothing but them.
    pub(super) fn into_configs(self) -> Vec<Config> {
        self.by_state.into_values().flatten().collect()
    }
}
