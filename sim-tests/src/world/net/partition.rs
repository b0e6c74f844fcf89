//! Faults that are done to links and connections on purpose: partitions, clogs, resets.

use super::connection::{ConnId, Connection, EndState, ResetState, Side};
use super::link::resend_at;
use super::{Core, Event, Fate, Fault, For, Host, Net, bytes_u64};

/// What holds a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::world) enum Hold {
    /// A partition (N4).
    Block,
    /// A clog (N5).
    Clog,
}

impl Hold {
    fn fault(self) -> Fault {
        match self {
            Self::Block => Fault::N4,
            Self::Clog => Fault::N5,
        }
    }
}

/// Which ends of a connection learn that it is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Both.
    Both,
    /// Only the end on the first machine; the other one is left with silence.
    First,
    /// Only the end on the second machine.
    Second,
}

impl Net {
    /// Holds all that goes from one machine to another.
    pub(in crate::world) fn hold(&mut self, core: &mut Core, from: Host, to: Host, hold: Hold) {
        if from == to {
            return;
        }
        let now = core.now();
        let link = self.link(from, to);
        let was_held = match hold {
            Hold::Block => link.blocked_since.replace(link.blocked_since.unwrap_or(now)),
            Hold::Clog => link.clogged_since.replace(link.clogged_since.unwrap_or(now)),
        };
        if was_held.is_some() {
            return;
        }
        core.faults.injected(hold.fault());
        let kind = if hold == Hold::Block { "net.block" } else { "net.clog" };
        let name = &self.endpoint(to).name;
        core.event(from, kind, (bytes_u64(to.0), 0), || format!("to {name}"));
        let chance = self.link_options(from, to).reset_on_block;
        for (id, side) in self.ends_at(to) {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            let (own, peer) = connection.halves(side);
            if peer.host != from {
                continue;
            }
            own.hold(core, now, hold.fault());
            let breaks = hold == Hold::Block
                && chance > 0.0
                && self.link(from, to).segments.next(now).chance(For::Block, chance);
            if breaks {
                core.faults.observed(Fault::N4);
                self.reset_end(core, id, side);
                self.reset_end(core, id, side.other());
            }
        }
    }

    /// Lets pass what was held.
    pub(in crate::world) fn release(&mut self, core: &mut Core, from: Host, to: Host, hold: Hold) {
        let link = self.link(from, to);
        let held = match hold {
            Hold::Block => link.blocked_since.take(),
            Hold::Clog => link.clogged_since.take(),
        };
        let Some(since) = held else { return };
        let kind = if hold == Hold::Block { "net.unblock" } else { "net.unclog" };
        let is_held = link.is_held();
        let name = &self.endpoint(to).name;
        core.event(from, kind, (bytes_u64(to.0), 0), || format!("to {name}"));
        if is_held {
            return;
        }
        for (id, side) in self.ends_at(to) {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.halves(side).1.host == from {
                self.release_end(core, id, side, (since, hold));
            }
        }
        self.wake_hanging();
    }

    fn release_end(&mut self, core: &mut Core, id: ConnId, side: Side, held: (u64, Hold)) {
        let (since, hold) = held;
        let now = core.now();
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (own, peer) = connection.halves(side);
        let (from, to) = (peer.host, own.host);
        // A clog lets everything out at once; after a partition TCP sends again in its own time.
        let passage = self.pass(core, from, to, 0);
        let again = match hold {
            Hold::Block => resend_at(since, now, &self.options, passage.fate),
            Hold::Clog => now,
        };
        let at = passage.at.saturating_add(again - now);
        let is_up = self.endpoint(to).is_up;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (own, peer) = connection.halves(side);
        if own.reset == ResetState::Held {
            own.reset = ResetState::Coming(core.insert(at, Event::Reset(id, side)));
        }
        if own.state == EndState::Open {
            own.release(at);
            own.await_arrival(core, id, side);
        } else if is_up && own.buffered() > 0 && peer.state == EndState::Open {
            // What was sent to an end that is gone is answered with a reset.
            self.send_reset(core, id, side.other(), at - now);
        }
    }

    /// Adds a delay to everything that goes from one machine to another (N2).
    pub(in crate::world) fn delay(&mut self, from: Host, to: Host, nanos: u64) {
        self.link(from, to).extra_delay = nanos;
    }

    /// Returns every connection between two machines, each with its end on the first.
    pub(in crate::world) fn between(&self, first: Host, second: Host) -> Vec<(ConnId, Side)> {
        let ends = self.connections.iter().filter_map(|(id, connection)| {
            match (connection.dialer.host, connection.acceptor.host) {
                (dialer, acceptor) if (dialer, acceptor) == (first, second) => {
                    Some((id, Side::Dialer))
                }
                (dialer, acceptor) if (acceptor, dialer) == (first, second) => {
                    Some((id, Side::Acceptor))
                }
                _ => None,
            }
        });
        ends.collect()
    }

    /// Returns when the last of all that is on its way between servers arrives, however it came
    /// to be held up: a segment that was lost comes seconds after the loss has ended.
    pub(in crate::world) fn quiet_at(&self) -> u64 {
        let servers = self.servers();
        let between_servers = |connection: &&Connection| {
            [connection.dialer.host, connection.acceptor.host]
                .iter()
                .all(|host| servers.contains(host))
        };
        let connections = self.connections.iter().map(|(_, connection)| connection);
        let ends = connections
            .filter(between_servers)
            .map(|connection| connection.dialer.quiet_at().max(connection.acceptor.quiet_at()));
        ends.max().unwrap_or(0)
    }

    /// Breaks a connection (N7); an end that is not told is left with silence. Tells whether there
    /// was an end to be told.
    pub(in crate::world) fn reset(
        &mut self,
        core: &mut Core,
        id: ConnId,
        side: Side,
        ends: Reset,
    ) -> bool {
        core.faults.injected(Fault::N7);
        let told = match ends {
            Reset::Both => [Some(side), Some(side.other())],
            Reset::First => [Some(side), None],
            Reset::Second => [None, Some(side.other())],
        };
        let mut is_told = false;
        for side in told.into_iter().flatten() {
            is_told |= self.reset_end(core, id, side);
        }
        if is_told {
            core.faults.observed(Fault::N7);
        }
        is_told
    }

    /// Breaks a connection at one end, the other, or both.
    pub(super) fn reset_some_ends(&mut self, core: &mut Core, id: ConnId, fate: Fate) {
        let ends = match fate.below(For::ResetEnds, 4) {
            0 => Reset::First,
            1 => Reset::Second,
            _ => Reset::Both,
        };
        self.reset(core, id, Side::Dialer, ends);
    }

    /// Ends one direction of a connection as if its writer had done so (N7).
    pub(in crate::world) fn half_close(&mut self, core: &mut Core, id: ConnId, side: Side) {
        core.faults.injected(Fault::N7);
        core.faults.observed(Fault::N7);
        self.finish(core, id, side);
    }

    /// Tells one end that its connection is broken; to the other end it has become a stranger.
    /// Tells whether that was news.
    fn reset_end(&mut self, core: &mut Core, id: ConnId, side: Side) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let (own, _) = connection.halves(side);
        if own.state != EndState::Open {
            return false;
        }
        let is_news = own.reset != ResetState::Arrived;
        own.break_off(core);
        let host = own.host;
        core.event(host, "net.reset", (id.0, side.number()), || format!("#{} by fault", id.0));
        is_news
    }

    /// Tells whether something waits for a clog to end that goes from one machine to another, and
    /// nothing else holds it.
    pub(in crate::world) fn has_piled_up(&mut self, from: Host, to: Host) -> bool {
        let link = self.link(from, to);
        if link.clogged_since.is_none() || link.blocked_since.is_some() {
            return false;
        }
        self.ends_at(to).into_iter().any(|(id, side)| {
            let Some(connection) = self.connections.get_mut(id) else { return false };
            let (own, peer) = connection.halves(side);
            peer.host == from && own.is_live() && own.holds(Fault::N5)
        })
    }

    /// Draws the times at which a machine is clogged and unclogged (N6), within `length`.
    pub(in crate::world) fn draw_swizzle(&mut self, length: u64) -> Option<(u64, u64)> {
        let rng = &mut self.swizzle;
        if length < 4 || !rng.chance(0.5) {
            return None;
        }
        Some((rng.range(0, length / 2), rng.range(length / 2, length)))
    }
}
