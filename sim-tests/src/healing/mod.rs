//! How a run is healed: everything at once, or a quorum first, which must then do without the rest.
//!
//! A cluster that needs every one of its nodes to recover would pass all runs that end with all of
//! them. What is promised is more: as soon as a majority is up, connected and has working disks,
//! it serves, whoever else stays away. So in some runs a drawn [`Quorum`] is healed alone, and must
//! have a leader, acknowledge a write and answer for every cell (`alone`); only then is the rest
//! healed, too.
//!
//! # Who can be one of them
//! Not everybody has a vote. Who has lost something of its disk waits for *all* others before it
//! votes or answers again, and so does who has never taken part, in both modes; the ones that lack
//! nothing promise to do without it. So the quorum is drawn from the nodes whose disks have lost
//! nothing in the whole run, and say so themselves. In a run that
//! [must be survived](crate::atlas::Contract::MustSurvive) they are a majority, but for clusters
//! whose founding was never finished; and they hold all that was acknowledged.
//!
//! In the masterless mode a majority of the nodes need not be one of each partition's replicas. It
//! is asked at QUORUM if it is, and at ONE if it is not; nodes are added until there is one of
//! each.
//!
//! Where there is no such quorum, or nobody is left to stay away, the run is as it ever was, and
//! the [`Tally`] of a swarm says how often.

#[cfg(madsim)]
pub(crate) mod alone;
#[cfg(madsim)]
mod tally;

use std::collections::BTreeSet;
use std::time::Duration;

use mangrove::base::Rng;
use mangrove::dynamo::{Level, Placement};

#[cfg(madsim)]
pub use self::tally::Tally;

/// Share of the runs in which a quorum is healed first: such a run takes one election longer, and
/// one more read of everything.
const QUORUM_FIRST_CHANCE: f64 = 0.25;

/// Who is healed when the faults are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Healing {
    /// Everything at once.
    #[default]
    AtOnce,
    /// A quorum first, while the processes of the others do not run.
    OthersDown,
    /// A quorum first, while nothing passes between the others and anybody.
    OthersCutOff,
}

impl Healing {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::AtOnce, Self::OthersDown, Self::OthersCutOff];

    /// Returns its name in replay files.
    pub fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::OthersDown => "others down",
            Self::OthersCutOff => "others cut off",
        }
    }

    /// Returns what happens, in words.
    pub fn what(self) -> &'static str {
        match self {
            Self::AtOnce => "everything heals",
            Self::OthersDown => "a quorum heals, while the others stay down, and then everything",
            Self::OthersCutOff => {
                "a quorum heals, while the others stay cut off, and then everything"
            }
        }
    }

    /// Draws how the run of a seed is healed; `may_crash` tells whether processes die in it.
    pub fn draw(seed: u64, may_crash: bool) -> Self {
        let root = Rng::new(seed).split("options.healing");
        if !root.split("quorum_first").chance(QUORUM_FIRST_CHANCE) {
            Self::AtOnce
        } else if may_crash && root.split("down").chance(0.5) {
            Self::OthersDown
        } else {
            Self::OthersCutOff
        }
    }
}

/// What came of the time in which a quorum was alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alone {
    /// Everything was healed at once, or the run was over before.
    #[default]
    NotTried,
    /// No quorum had to serve.
    Skipped,
    /// It served.
    Served {
        /// Where the others were.
        healing: Healing,
        /// At what level it was asked; of no account in the primary-backup mode.
        level: Level,
        /// After what time since it was healed it had answered everything.
        after: Duration,
    },
}

/// Those who are healed first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// The nodes.
    pub healed: BTreeSet<u64>,
    /// The strongest level at which they must answer for every partition.
    pub level: Level,
}

impl Quorum {
    /// Draws as few as possible of the `sound` nodes; `None` if they do not have to serve, or if
    /// that leaves nobody to stay away. In the masterless mode there is a `placement`.
    pub fn draw(
        node_count: u64,
        sound: &BTreeSet<u64>,
        placement: Option<&Placement>,
        rng: &mut Rng,
    ) -> Option<Self> {
        let nodes = usize::try_from(node_count).unwrap_or(usize::MAX);
        let is_enough = |healed: &BTreeSet<u64>| {
            healed.len() > nodes / 2 && of_each(placement, healed, |there, _| there > 0)
        };
        let mut order: Vec<(u64, u64)> = sound.iter().map(|id| (rng.next_u64(), *id)).collect();
        order.sort_unstable();
        let mut healed = BTreeSet::new();
        for (_, node) in order {
            if is_enough(&healed) {
                break;
            }
            healed.insert(node);
        }
        if !is_enough(&healed) || healed.len() >= nodes {
            return None;
        }
        // The nodes are not asked what a quorum is: they may be wrong about that.
        let is_quorum = of_each(placement, &healed, |there, replicas| there > replicas / 2);
        let level = if is_quorum { Level::Quorum } else { Level::One };
        Some(Self { healed, level })
    }
}

/// Tells whether so many replicas of each partition are among the healed, of all that it has.
fn of_each(
    placement: Option<&Placement>,
    healed: &BTreeSet<u64>,
    are_enough: impl Fn(usize, usize) -> bool,
) -> bool {
    placement.is_none_or(|placement| {
        (0..placement.partition_count()).all(|partition| {
            let replicas = placement.replicas(partition);
            let there = replicas.iter().filter(|node| healed.contains(&node.0)).count();
            are_enough(there, replicas.len())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mangrove::base::NodeId;

    fn all(nodes: u64) -> BTreeSet<u64> {
        (1..=nodes).collect()
    }

    fn placed(nodes: u64, factor: usize, partitions: u16) -> Placement {
        let nodes: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        Placement::new(&nodes, factor, partitions)
    }

    #[test]
    fn quorum_is_the_smallest_majority_of_the_sound() {
        for (nodes, quorum) in [(3, 2), (4, 3), (5, 3), (7, 4)] {
            let mut seen = BTreeSet::new();
            for seed in 0..50 {
                let drawn = Quorum::draw(nodes, &all(nodes), None, &mut Rng::new(seed)).unwrap();
                assert_eq!((drawn.healed.len(), drawn.level), (quorum, Level::Quorum));
                seen.insert(drawn.healed);
            }
            assert!(seen.len() >= 3, "{nodes} nodes: always the same of {seen:?}");
        }
        let sound = BTreeSet::from([2, 4, 5]);
        let drawn = Quorum::draw(5, &sound, None, &mut Rng::new(1));
        assert_eq!(drawn.map(|quorum| quorum.healed), Some(sound));
    }

    #[test]
    fn too_few_sound_nodes_or_nobody_to_stay_away_make_none() {
        for nodes in [1, 2] {
            assert_eq!(Quorum::draw(nodes, &all(nodes), None, &mut Rng::new(1)), None);
        }
        assert_eq!(Quorum::draw(5, &BTreeSet::from([1, 3]), None, &mut Rng::new(1)), None);
    }

    #[test]
    fn masterless_quorum_has_a_replica_of_each_partition() {
        for seed in 0..50 {
            let draw = |nodes, factor, partitions| {
                let placement = placed(nodes, factor, partitions);
                let drawn = Quorum::draw(nodes, &all(nodes), Some(&placement), &mut Rng::new(seed));
                drawn.unwrap()
            };
            assert_eq!(draw(3, 3, 16).level, Level::Quorum);
            assert_eq!(draw(4, 3, 16).level, Level::Quorum);
            assert_eq!(draw(5, 3, 16).level, Level::One, "two are away of some three");
            let two = draw(6, 2, 16);
            assert!(two.healed.len() >= 4 && two.level == Level::One, "{two:?}");
            let holes = (1..=6)
                .filter(|node| !two.healed.contains(node) && !two.healed.contains(&(node % 6 + 1)));
            assert_eq!(holes.count(), 0, "{two:?}");
        }
        let placement = placed(3, 1, 3);
        assert_eq!(Quorum::draw(3, &all(3), Some(&placement), &mut Rng::new(1)), None);
    }

    #[test]
    fn quarter_of_the_runs_heals_a_quorum_first() {
        let count = |may_crash, healing| {
            (0..1000).filter(|seed| Healing::draw(*seed, may_crash) == healing).count()
        };
        for healing in [Healing::OthersDown, Healing::OthersCutOff] {
            assert!((90..160).contains(&count(true, healing)), "{}", count(true, healing));
        }
        assert_eq!(count(false, Healing::OthersDown), 0, "a process dies");
        assert!((200..300).contains(&count(false, Healing::OthersCutOff)));
    }
}
