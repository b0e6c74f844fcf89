//! Leaders that die as soon as they lead.
//!
//! What a leader has begun is the hardest thing that its successors meet, so the nemesis leaves it
//! in every state that there is. A leader may die by itself, within a round trip or an fsync. It
//! may go *unheard* from the moment it leads: what it writes stays on its own disk, and the next
//! ones write other things at the same places. And everybody may lose power in the moment when a
//! leader knows of its first commit, so that only what was durable tells that there was one. Two
//! unheard leaders and such a commit are Figure 8 of the Raft paper.

use std::time::Duration;

use mangrove::base::{Index, NodeId, Term};

use super::{Cluster, Undo};
use crate::world::{Host, World};

/// Longest time in which leaders are waited for that are to die.
const TOPPLE_MAX: Duration = Duration::from_secs(8);

/// Leaders that are to die.
#[derive(Debug)]
pub(super) struct Toppling {
    /// How long each of them leads, the last one first.
    lives: Vec<Duration>,
    /// Time until each is started again.
    down: Duration,
    /// How many of the next ones nobody hears.
    unheard: u64,
    /// Whether the others lead until they know of a commit.
    at_commit: bool,
    /// The one that leads until then, and up to where it knew of commits when it came to lead.
    awaited: Option<(NodeId, Index)>,
    /// The term of the last of them.
    term: Term,
    /// When it is given up.
    until: Duration,
}

impl Toppling {
    pub(super) fn new(lives: Vec<Duration>, down: Duration, unheard: u64, at_commit: bool) -> Self {
        let (awaited, term, until) = (None, 0, Duration::ZERO);
        Self { lives, down, unheard, at_commit, awaited, term, until }
    }
}

impl Cluster {
    pub(super) fn begin_to_topple(&mut self, toppling: Toppling) {
        let until = self.world.now() + TOPPLE_MAX;
        self.toppling = Some(Toppling { until, ..toppling });
        self.topple();
    }

    /// Sees to it that whoever has come to lead does not do so for long.
    pub(super) fn topple(&mut self) {
        let Some(mut toppling) = self.toppling.take() else { return };
        if self.world.now() >= toppling.until {
            return;
        }
        if let Some((leader, commit)) = toppling.awaited
            && self.watch.commit_of(leader) > commit
        {
            toppling.awaited = None;
            let all: Vec<u64> = self.nodes().collect();
            self.lose_power(&all, true, toppling.down);
        }
        let leader = self.watch.leader().map(|leader| (leader, self.watch.term_of(leader)));
        if let Some((leader, term)) = leader
            && term > toppling.term
        {
            toppling.term = term;
            toppling.awaited = None;
            if let Some(life) = toppling.lives.pop() {
                self.reign_shortly(&mut toppling, leader, life);
            }
        }
        let is_over = toppling.lives.is_empty() && toppling.awaited.is_none();
        self.toppling = (!is_over).then_some(toppling);
    }

    fn reign_shortly(&mut self, toppling: &mut Toppling, leader: NodeId, life: Duration) {
        let (node, down) = (leader.0, toppling.down);
        if toppling.unheard > 0 {
            toppling.unheard -= 1;
            let own = self.server(node);
            let others = self.servers.iter().copied().filter(|other| *other != own);
            let links: Vec<(Host, Host)> = others.map(|other| (own, other)).collect();
            self.each_of(&links, World::block);
            // What it wanted to say is gone with its power, before the links are whole again.
            self.later(life, Undo::ToppleUnheard(node, down));
            self.later(life, Undo::Unblock(links));
        } else if toppling.at_commit {
            toppling.awaited = Some((leader, self.watch.commit_of(leader)));
        } else {
            self.later(life, Undo::Topple(node, down));
        }
    }
}
