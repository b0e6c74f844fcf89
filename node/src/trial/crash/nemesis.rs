//! One disturbance: which nodes are killed, when, for how long, and how often.

use std::time::Duration;

use super::{CrashError, Place, Tally};
use crate::base::Rng;
use crate::env::Env;
use crate::env::real::RealEnv;
use crate::trial::LocalCluster;

/// Longest time of undisturbed writing before the first kill.
const WAIT_MAX: Duration = Duration::from_millis(400);

/// Longest time between the kills of two nodes.
const STAGGER_MAX: Duration = Duration::from_millis(30);

/// Longest time that the nodes stay down.
const DOWN_MAX: Duration = Duration::from_millis(300);

/// Longest time between the start of a node and a kill that meets its recovery.
const RECOVERY_MAX: Duration = Duration::from_millis(120);

/// Longest time of writing after the cluster serves again.
const TAIL_MAX: Duration = Duration::from_millis(150);

const AGAIN_SHARE: f64 = 0.25;

/// How many nodes are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    One,
    Majority,
    All,
}

/// See the [module](self).
#[derive(Debug, Clone)]
pub(super) struct Disturbance {
    scope: Scope,
    victims: Vec<usize>,
    wait: Duration,
    stagger: Duration,
    down: Duration,
    /// How long after their start they are killed once more.
    again: Option<Duration>,
    pub(super) tail: Duration,
}

impl Disturbance {
    /// Draws one for a cluster of so many nodes.
    pub(super) fn draw(rng: &mut Rng, node_count: usize) -> Self {
        let scope = match rng.range(0, 10) {
            0..=3 => Scope::One,
            4..=6 => Scope::Majority,
            _ => Scope::All,
        };
        let scope = if node_count == 1 { Scope::All } else { scope };
        let victim_count = match scope {
            Scope::One => 1,
            Scope::Majority => node_count / 2 + 1,
            Scope::All => node_count,
        };
        let mut nodes: Vec<usize> = (1..=node_count).collect();
        let mut victims = Vec::new();
        for _ in 0..victim_count {
            victims.push(nodes.swap_remove(rng.index(nodes.len())));
        }
        let mut up_to = |longest| rng.duration(Duration::ZERO, longest);
        let [wait, stagger, down, tail] =
            [WAIT_MAX, STAGGER_MAX, DOWN_MAX, TAIL_MAX].map(&mut up_to);
        let again = up_to(RECOVERY_MAX);
        let again = rng.chance(AGAIN_SHARE).then_some(again);
        // At once, as by a power cut, or one after the other.
        let stagger = if rng.chance(0.5) { Duration::ZERO } else { stagger };
        Self { scope, victims, wait, stagger, down, again, tail }
    }

    /// Kills and starts again.
    pub(super) async fn carry_out(
        &self,
        env: &RealEnv,
        cluster: &mut LocalCluster,
        place: Place,
    ) -> Result<(), CrashError> {
        env.sleep(self.wait).await;
        self.kill_and_start(env, cluster, place).await?;
        if let Some(recovery) = self.again {
            env.sleep(recovery).await;
            self.kill_and_start(env, cluster, place).await?;
        }
        Ok(())
    }

    async fn kill_and_start(
        &self,
        env: &RealEnv,
        cluster: &mut LocalCluster,
        place: Place,
    ) -> Result<(), CrashError> {
        for victim in &self.victims {
            let ended = cluster.node(*victim).kill().map_err(CrashError::io("kill a node"))?;
            if let Some(status) = ended {
                return Err(place.node_died(cluster, *victim, status));
            }
            if !self.stagger.is_zero() {
                env.sleep(self.stagger).await;
            }
        }
        env.sleep(self.down).await;
        for victim in &self.victims {
            cluster.node(*victim).start().map_err(CrashError::io("start a node"))?;
        }
        Ok(())
    }

    /// Adds what was done.
    pub(super) fn count_in(&self, tally: &mut Tally) {
        let count = match self.scope {
            Scope::One => &mut tally.killed_one,
            Scope::Majority => &mut tally.killed_majority,
            Scope::All => &mut tally.killed_all,
        };
        *count += 1;
        let times = 1 + u64::from(self.again.is_some());
        tally.kills += times * u64::try_from(self.victims.len()).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn victims_are_different_nodes_and_as_many_as_the_scope_says() {
        let mut rng = Rng::new(5);
        for _ in 0..200 {
            let drawn = Disturbance::draw(&mut rng, 3);
            let victims: BTreeSet<_> = drawn.victims.iter().copied().collect();
            let count = match drawn.scope {
                Scope::One => 1,
                Scope::Majority => 2,
                Scope::All => 3,
            };
            assert_eq!((victims.len(), drawn.victims.len()), (count, count), "{drawn:?}");
            assert!(victims.iter().all(|node| (1..=3).contains(node)), "{drawn:?}");
        }
        assert_eq!(Disturbance::draw(&mut rng, 1).scope, Scope::All);
    }

    #[test]
    fn same_seed_draws_the_same_disturbances() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            (0..20).map(|_| format!("{:?}", Disturbance::draw(&mut rng, 3))).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
