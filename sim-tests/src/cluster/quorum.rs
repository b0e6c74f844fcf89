//! A quorum that is healed while the others stay away.

use std::collections::BTreeSet;

use super::Cluster;

impl Cluster {
    /// Ends all faults of these nodes and starts them; they are connected with each other and with
    /// the clients. The others do not run, or else nothing passes between them and anybody, until
    /// [everything is healed](Self::heal).
    pub async fn heal_only(&mut self, healed: &BTreeSet<u64>, others_are_down: bool) {
        self.end_faults().await;
        for node in self.nodes().filter(|node| !healed.contains(node)) {
            if others_are_down {
                self.keep_down(node);
            } else {
                self.world.isolate(self.server(node));
            }
        }
        for node in healed {
            self.heal_node(*node).await;
        }
    }

    /// Ends a process, which stays away until somebody starts it.
    fn keep_down(&mut self, node: u64) {
        self.paused.remove(&node);
        self.up_since.remove(&node);
        self.down.insert(node, true);
        self.world.crash(self.server(node));
    }

    /// Tells whether one of these nodes leads, in a term that none of them has left.
    pub fn is_led_among(&self, nodes: &BTreeSet<u64>) -> bool {
        self.watch.leader_among(nodes).is_some_and(|leader| self.is_at_work(leader.0))
    }

    /// Tells whether a node runs and has recovered: what was last seen of one that has not may be
    /// long ago.
    pub(super) fn is_at_work(&self, node: u64) -> bool {
        self.world.is_running(self.server(node)) && !self.lock().recovering.contains_key(&node)
    }
}
