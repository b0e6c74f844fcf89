//! The failure detector: who is believed to be up, from when their heartbeats came.
//!
//! Each peer's recent inter-arrival times give a mean and a deviation; a peer that is silent for
//! the mean and so many deviations is believed down. A busy network makes the deviation larger
//! and the detector more patient. A wrong belief costs a hint or an `Unavailable`, never data.
//!
//! # Sources
//! \[Phi\]. Unlike there, the threshold is said in deviations and not in phi = −log₁₀ of the
//! probability of such a silence: for a normal distribution it is the same (5.6 deviations are
//! phi 8), and it needs no logarithm, which might differ between machines.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::config::Config;
use super::message::Heartbeat;
use crate::base::{Instant, NodeId};
use crate::probe;

/// Who is up; see the [module](self).
#[derive(Debug)]
pub(super) struct Detector {
    id: NodeId,
    node_count: usize,
    peers: BTreeMap<NodeId, Peer>,
    interval: Duration,
    window: usize,
    deviation_min: Duration,
    deviations: u32,
    doubt: Duration,
}

#[derive(Debug)]
struct Peer {
    heartbeat: Heartbeat,
    /// The start of the peer that was known before this one; 0 if none was.
    before: u64,
    arrived: Instant,
    /// Nanoseconds between arrivals, the latest last.
    intervals: VecDeque<u64>,
    /// Believed down from then on.
    suspect_at: Instant,
}

impl Detector {
    /// Starts without having heard of anybody: all peers are believed down.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            id: config.id,
            node_count: config.nodes.len(),
            peers: BTreeMap::new(),
            interval: config.heartbeat_interval,
            window: config.detector_window,
            deviation_min: config.detector_deviation_min,
            deviations: config.detector_deviations,
            doubt: config.detector_doubt,
        }
    }

    /// Tells whether a node is believed to be up; the own one always is.
    pub(super) fn is_up(&self, node: NodeId, now: Instant) -> bool {
        node == self.id || self.peers.get(&node).is_some_and(|peer| now < peer.suspect_at)
    }

    /// Returns the latest heartbeat of a peer, which may be down by now.
    pub(super) fn heartbeat(&self, peer: NodeId) -> Option<&Heartbeat> {
        self.peers.get(&peer).map(|peer| &peer.heartbeat)
    }

    /// Returns which start of a peer the peer is told that it was heard of; 0 for none. As long as
    /// it has heard nothing from here since that start, it is told the one before: what it must
    /// find out is whether its disk has forgotten that one.
    pub(super) fn heard(&self, peer: NodeId) -> u64 {
        self.peers.get(&peer).map_or(0, |peer| {
            let is_heard = peer.heartbeat.heard != 0 || peer.before == 0;
            if is_heard { peer.heartbeat.generation } else { peer.before }
        })
    }

    /// Returns how many peers were ever heard of.
    pub(super) fn heard_count(&self) -> usize {
        self.peers.len()
    }

    /// Returns the latest time that the wall clocks of a majority of the nodes have reached, the
    /// own one showing `own_ms`; `None` if too few were heard of. Clocks of nodes that are down go
    /// on from their last word.
    pub(super) fn common_ms(&self, own_ms: u64, now: Instant) -> Option<u64> {
        let shown_ms = |peer: &Peer| {
            let since = u64::try_from(now.since(peer.arrived).as_millis()).unwrap_or(u64::MAX);
            peer.heartbeat.wall_ms.saturating_add(since)
        };
        let all = || self.peers.values().map(shown_ms).chain([own_ms]);
        let majority = self.node_count / 2 + 1;
        let is_reached = |ms: &u64| all().filter(|other| other >= ms).count() >= majority;
        all().filter(is_reached).max()
    }

    /// A heartbeat arrived; tells whether it is the first one of that start of the peer. One of
    /// an earlier start is late, and counts for nothing.
    pub(super) fn on_heartbeat(
        &mut self,
        from: NodeId,
        heartbeat: Heartbeat,
        now: Instant,
    ) -> bool {
        let known = self.peers.remove(&from);
        let (is_new, mut peer) = match known {
            Some(peer) if heartbeat.generation < peer.heartbeat.generation => {
                probe!("dynamo.heartbeat_of_an_earlier_start");
                // If it is not late but of a start that forgot the known one, it must be told.
                self.peers.insert(from, Peer { before: 0, ..peer });
                return false;
            }
            Some(mut peer) if heartbeat.generation == peer.heartbeat.generation => {
                if now < peer.suspect_at {
                    let nanos = u64::try_from(now.since(peer.arrived).as_nanos());
                    peer.intervals.push_back(nanos.unwrap_or(u64::MAX));
                } else {
                    // It was away; how long says nothing about how it is when it is there.
                    peer.intervals.clear();
                }
                (false, Peer { heartbeat, arrived: now, ..peer })
            }
            known => {
                let before = known.map_or(0, |peer| peer.heartbeat.generation);
                (true, Peer { before, ..Peer::new(heartbeat, now) })
            }
        };
        while peer.intervals.len() > self.window {
            peer.intervals.pop_front();
        }
        peer.suspect_at = now + self.patience(&peer.intervals);
        self.peers.insert(from, peer);
        is_new
    }

    /// The connection to a peer broke: it must be heard of soon.
    pub(super) fn on_peer_lost(&mut self, peer: NodeId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.suspect_at = peer.suspect_at.min(now + self.doubt);
        }
    }

    /// Returns how long after the start a peer that is up may be silent.
    pub(super) fn first_patience(&self) -> Duration {
        self.patience(&VecDeque::new())
    }

    /// Returns the longest silence that is not suspicious.
    fn patience(&self, intervals: &VecDeque<u64>) -> Duration {
        let Ok(count @ 1..) = u64::try_from(intervals.len()) else {
            return self.interval + self.deviation_min * self.deviations;
        };
        let mean = intervals.iter().fold(0, |sum: u64, &nanos| sum.saturating_add(nanos)) / count;
        let squares = intervals.iter().map(|&nanos| u128::from(nanos.abs_diff(mean)).pow(2));
        let variance = squares.fold(0, u128::saturating_add) / u128::from(count);
        let deviation = u64::try_from(variance.isqrt()).unwrap_or(u64::MAX);
        let deviation = Duration::from_nanos(deviation).max(self.deviation_min);
        Duration::from_nanos(mean) + deviation.saturating_mul(self.deviations)
    }
}

impl Peer {
    fn new(heartbeat: Heartbeat, now: Instant) -> Self {
        let intervals = VecDeque::new();
        Self { heartbeat, before: 0, arrived: now, intervals, suspect_at: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Stamp;
    use crate::dynamo::Placement;

    const PEER: NodeId = NodeId(2);

    fn heartbeat(generation: u64) -> Heartbeat {
        Heartbeat {
            generation,
            clock: Stamp::ZERO,
            wall_ms: 0,
            heard: 0,
            placement: 0,
            low_water: Stamp::ZERO,
            is_whole: true,
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// Returns a detector that has heard a heartbeat every `step_ms`, the last one at 10 s.
    fn after_heartbeats(step_ms: u64) -> Detector {
        let nodes = vec![NodeId(1), PEER];
        let placement = Placement::new(&nodes, 2, 1);
        let mut detector = Detector::new(&Config::new(NodeId(1), nodes, placement));
        for ms in (0..=10_000).filter(|ms| ms % step_ms == 0) {
            detector.on_heartbeat(PEER, heartbeat(1), at(ms));
        }
        detector
    }

    #[test]
    fn peer_never_heard_of_is_down_and_the_own_node_is_up() {
        let detector = after_heartbeats(200);
        assert!(detector.is_up(NodeId(1), at(99_999)));
        assert!(!detector.is_up(NodeId(3), at(0)));
    }

    #[test]
    fn peer_silent_for_mean_and_six_deviations_is_down() {
        let detector = after_heartbeats(200);
        assert!(detector.is_up(PEER, at(10_799)));
        assert!(!detector.is_up(PEER, at(10_800)));
        let slow = after_heartbeats(500);
        assert!(slow.is_up(PEER, at(11_099)), "patience follows the mean");
    }

    #[test]
    fn irregular_peer_is_given_more_time() {
        let mut detector = after_heartbeats(200);
        let mut ms = 10_000;
        for step_ms in [100, 500].repeat(30) {
            ms += step_ms;
            detector.on_heartbeat(PEER, heartbeat(1), at(ms));
        }
        // The mean of the last hundred is 260 ms, their deviation 162 ms.
        assert!(detector.is_up(PEER, at(ms + 1_200)));
        assert!(!detector.is_up(PEER, at(ms + 1_300)));
    }

    #[test]
    fn lost_connection_makes_doubtful_until_the_next_heartbeat() {
        let mut detector = after_heartbeats(200);
        detector.on_peer_lost(PEER, at(10_050));
        assert!(detector.is_up(PEER, at(10_349)));
        assert!(!detector.is_up(PEER, at(10_350)));
        detector.on_heartbeat(PEER, heartbeat(1), at(10_340));
        assert!(detector.is_up(PEER, at(10_900)));
    }

    #[test]
    fn heartbeat_of_an_earlier_start_counts_for_nothing() {
        let mut detector = after_heartbeats(200);
        assert!(detector.on_heartbeat(PEER, heartbeat(2), at(20_000)), "a new start");
        assert!(!detector.on_heartbeat(PEER, heartbeat(1), at(20_700)));
        assert!(!detector.is_up(PEER, at(20_800)));
        assert_eq!(detector.heartbeat(PEER), Some(&heartbeat(2)));
    }

    #[test]
    fn peer_is_told_the_start_before_until_it_hears_of_the_node() {
        let mut detector = after_heartbeats(200);
        assert_eq!(detector.heard(PEER), 1, "there was none before");
        let mut hear = |generation, heard| {
            detector.on_heartbeat(PEER, Heartbeat { heard, ..heartbeat(generation) }, at(20_000));
            detector.heard(PEER)
        };
        assert_eq!(hear(7, 0), 1);
        assert_eq!(hear(7, 0), 1, "the answer may be lost");
        assert_eq!(hear(7, 5), 7);
        assert_eq!(hear(9, 0), 7);
        assert_eq!(hear(8, 0), 9, "a start that has forgotten the latest must learn of it");
    }

    #[test]
    fn common_time_is_what_a_majority_has_reached() {
        let nodes: Vec<NodeId> = (1..=5).map(NodeId).collect();
        let placement = Placement::new(&nodes, 3, 1);
        let mut detector = Detector::new(&Config::new(NodeId(1), nodes, placement));
        let mut hear = |node, wall_ms, ms| {
            let told = Heartbeat { wall_ms, ..heartbeat(1) };
            detector.on_heartbeat(NodeId(node), told, at(ms));
            detector.common_ms(50_000, at(1_000))
        };
        assert_eq!(hear(2, 90_000, 1_000), None, "two of five are no majority");
        assert_eq!(hear(3, 10_000, 1_000), Some(10_000), "of these three one may be right");
        assert_eq!(hear(4, 20_000, 1_000), Some(20_000));
        assert_eq!(hear(5, 60_000, 900), Some(50_000), "two ahead, two behind");
        assert_eq!(hear(3, 59_000, 500), Some(59_500), "its clock goes on");
    }

    #[test]
    fn absence_does_not_count_as_an_interval() {
        let mut detector = after_heartbeats(200);
        assert!(!detector.on_heartbeat(PEER, heartbeat(1), at(60_000)), "the same start");
        assert!(detector.is_up(PEER, at(60_799)));
        assert!(!detector.is_up(PEER, at(60_800)));
    }
}
