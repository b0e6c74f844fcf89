//! The failure detector.

use std::collections::BTreeMap;

use super::message::Heartbeat;
use crate::base::{Instant, NodeId};

/// Who is up.
#[derive(Debug, Default)]
pub(super) struct Detector {
    heartbeats: BTreeMap<NodeId, Heartbeat>,
}

impl Detector {
    /// Tells whether a node is believed to be up; the own one always is.
    pub(super) fn is_up(&self, node: NodeId, _now: Instant) -> bool {
        self.heartbeats.contains_key(&node)
    }

    /// Returns the latest heartbeat of a peer.
    pub(super) fn heartbeat(&self, peer: NodeId) -> Option<&Heartbeat> {
        self.heartbeats.get(&peer)
    }
}
