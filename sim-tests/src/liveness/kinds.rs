//! Kinds of faults: what they are called, and how one alone is drawn.

use std::time::Duration;

use super::curves::FAULT_AT;
use super::subject;
use crate::case::Case;
use crate::compare::scenario::loaded;
use crate::nemesis::{Action, Fault, FaultId, Nemesis};
use crate::options::{FaultClasses, Mode, Options};

/// Faults of a seed among which one of a kind is looked for; each class has two or three kinds.
const DRAWS: usize = 200;

/// A kind of fault.
#[derive(Debug)]
pub struct Kind {
    /// Its name, that of the [action](Action::kind).
    pub name: &'static str,
    /// What it is shown with.
    pub group: &'static str,
    /// The only mode that has it, if one alone does.
    only: Option<Mode>,
    /// Switches on what it takes for the nemesis to draw it.
    switch: fn(&mut FaultClasses),
}

const fn both(group: &'static str, name: &'static str, switch: fn(&mut FaultClasses)) -> Kind {
    Kind { name, group, only: None, switch }
}

const fn masterless(
    group: &'static str,
    name: &'static str,
    switch: fn(&mut FaultClasses),
) -> Kind {
    Kind { name, group, only: Some(Mode::Masterless), switch }
}

const PROCESSES: &str = "processes that die";
const LEADERS: &str = "leaders that die as soon as they lead";
const AWAY: &str = "nodes that are away";
const LINKS: &str = "links that are cut";
const WEATHER: &str = "links that are bad";
const WAITING: &str = "disks that wait";
const FAILING: &str = "disks that fail";
const CLOCKS: &str = "clocks that are off";

/// All of them, by groups of as many as a picture bears.
pub const KINDS: &[Kind] = &[
    both(PROCESSES, "crash", |faults| faults.crash = true),
    both(PROCESSES, "crash loop", |faults| faults.crash = true),
    both(PROCESSES, "power loss", |faults| faults.power = true),
    Kind {
        name: "topple",
        group: LEADERS,
        only: Some(Mode::PrimaryBackup),
        switch: |faults| faults.topple = true,
    },
    both(AWAY, "pause", |faults| faults.pause = true),
    masterless(AWAY, "absence", |faults| (faults.absence, faults.crash) = (true, true)),
    masterless(AWAY, "old disk", |faults| faults.old_disk = true),
    both(LINKS, "partition", |faults| faults.partition = true),
    both(LINKS, "clog", |faults| faults.network = true),
    both(LINKS, "client cut", |faults| faults.client_link = true),
    both(WEATHER, "weather", |faults| faults.network = true),
    both(WEATHER, "swizzle", |faults| faults.network = true),
    both(WEATHER, "reset", |faults| faults.connection = true),
    both(WAITING, "stall", |faults| faults.stall = true),
    both(WAITING, "slow", |faults| faults.stall = true),
    both(WAITING, "disk full", |faults| faults.disk_full = true),
    both(FAILING, "disk error", |faults| faults.disk_error = true),
    both(FAILING, "rot", |faults| faults.rot = true),
    both(FAILING, "lie", |faults| faults.lying_fsync = true),
    both(CLOCKS, "clock jump", |faults| faults.clock = true),
    both(CLOCKS, "clock drift", |faults| faults.clock = true),
    masterless(CLOCKS, "clock far", |faults| faults.clock_far = true),
];

/// Returns those that a mode bears.
pub(super) fn of_mode(mode: Mode) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(move |kind| kind.only.is_none_or(|only| only == mode))
}

/// Returns how long a fault takes until it shows: a lie does with the power loss, and an old disk
/// when it is put back.
fn hidden_for(action: &mut Action) -> Option<&mut Duration> {
    if let Action::Lie { length: hidden, .. } | Action::OldDisk { age: hidden, .. } = action {
        Some(hidden)
    } else {
        None
    }
}

impl Kind {
    /// Returns the run of a seed in which one fault of the kind strikes, and nothing else; `None`
    /// if the seed draws none.
    pub fn case(&self, mode: Mode, seed: u64) -> Option<Case> {
        let mut case = loaded(subject(mode), seed);
        case.about = format!("one fault, under load: {}", self.name);
        let mut action = self.drawn(&case.options)?;
        let mut at = FAULT_AT;
        if let Some(hidden) = hidden_for(&mut action.action) {
            *hidden = (*hidden).min(FAULT_AT / 2);
            at = at.saturating_sub(*hidden);
        }
        case.faults = Some(vec![Fault { id: FaultId(1), at, ..action }]);
        Some(case)
    }

    /// Draws one as the nemesis does: the first that is aimed at the leader, or the first.
    fn drawn(&self, options: &Options) -> Option<Fault> {
        let mut options = options.clone();
        (self.switch)(&mut options.faults);
        let faults = Nemesis::new(&options).take(DRAWS);
        let own: Vec<Fault> = faults.filter(|fault| fault.action.kind() == self.name).collect();
        let aimed = own.iter().find(|fault| fault.instead_of.is_some());
        aimed.or(own.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis;
    use crate::options::{Plan, Profile};

    #[test]
    fn every_kind_of_a_mode_is_drawn_and_no_other_fault_strikes() {
        for mode in [Mode::PrimaryBackup, Mode::Masterless] {
            for kind in of_mode(mode) {
                let case = kind.case(mode, 3).unwrap_or_else(|| panic!("no {}", kind.name));
                let faults = case.faults();
                assert_eq!(faults.len(), 1, "{}", kind.name);
                assert_eq!(faults[0].action.kind(), kind.name);
            }
        }
    }

    #[test]
    fn swarm_draws_only_kinds_that_have_a_curve() {
        for mode in [Mode::PrimaryBackup, Mode::Masterless] {
            for seed in 1..60 {
                let options = Plan { mode, profile: Profile::Standard }.draw(seed);
                for fault in nemesis::faults(&options, None) {
                    let name = fault.action.kind();
                    assert!(of_mode(mode).any(|kind| kind.name == name), "{name} in {mode:?}");
                }
            }
        }
    }

    #[test]
    fn kinds_are_called_as_in_replay_files() {
        for kind in KINDS {
            let mode = kind.only.unwrap_or(Mode::Masterless);
            let case = kind.case(mode, 1).unwrap_or_else(|| panic!("{}", kind.name));
            let json = serde_json::to_value(&case.faults()[0].action).unwrap();
            let key = json.as_object().and_then(|object| object.keys().next().cloned());
            assert_eq!(key.map(|key| key.replace('_', " ")).as_deref(), Some(kind.name));
        }
    }
}
