//! The source of stamps: a hybrid logical clock that never goes back, not even over a restart.
//!
//! A stamp is the wall time if that is ahead of everything given and seen, else the latest of
//! these and one more. So stamps of one node grow, a stamp is larger than whatever the node has
//! seen before giving it, and as long as clocks agree it tells the time.
//!
//! What was given must not be given again after a restart, though the wall clock may have been set
//! back meanwhile. So stamps are given below a *ceiling* only, which is durable; it is raised well
//! before it is reached, and a restart begins at it.
//!
//! A disk that is lost takes the ceiling along. Its node gives nothing until a majority has told
//! which stamps it has seen, and until it has been up for somewhat more than a
//! [`ceiling_step`](Config::ceiling_step): by then the wall clock has passed any ceiling that it
//! can have had. What it gave last may have reached nobody yet, or somebody who was not heard; it
//! is smaller than what it gives now all the same. Clients are not kept waiting for so long: see
//! `waiting.rs`.
//!
//! Not so if stamps were ahead of all clocks, because clocks were set back: then they came from
//! the latest stamp, one by one, and no wait passes them. A node that is set up with what others
//! know would give the next of these again. So it goes on a step beyond what the majority knew
//! when it was first heard ([`STEP_AT_CEILING_MS`]): a million stamps later. While stamps come from
//! the clocks, the wait has passed that.
//!
//! A stamp can then be given twice only if somebody who is not heard until then has it, or the
//! network, and if besides: the node gave a million that nobody of the majority heard of; or the
//! majority had been away since before stamps got ahead, and the node comes to the very
//! millisecond again; or the wall clock is set back while the disk is lost, by more than the wait,
//! and comes to it again; or a client said that it had seen a stamp which no node had given.
//!
//! # A disk that comes back older
//! It has an old ceiling, and nobody knows. If the wall clock was set back, too, the node would
//! give stamps that it has given before, or that lie under a floor which others hold, so that they
//! take the write for a ghost (`floor.rs`). So no start among other nodes gives stamps before a
//! majority has told, by heartbeats, which stamps it has seen. Where others are up that takes a
//! round trip, for which writes wait. Then the clock is beyond every floor (for that, one peer is
//! enough) and beyond every stamp of the node's own that the majority has heard of.
//!
//! Somebody may have heard of a start that the disk has forgotten. Then its ceiling counts as lost,
//! and is waited for as above. There is no such sign if the copy was taken during the last start,
//! nor once the node is started again: then its disk knows of a later one.
//!
//! A node that hears no majority goes on alone, by its ceiling and its wall clock, as soon as
//! whoever is up would have been heard ([`first_patience`]): writes at One on a node that is cut
//! off are what this mode is for. What remains is a disk that comes back older on a node that is
//! cut off for longer than that. It may give a stamp twice, or one under a floor, and what it
//! acknowledges meanwhile may be lost, if its wall clock was set back, or is behind the others' by
//! more than a [`floor_age`](Config::floor_age); or if what the disk has forgotten was stamped
//! ahead of the wall clock, as after a restart, and less than a
//! [`ceiling_step`](Config::ceiling_step) ago. In the same cases a majority does not help against
//! a stamp that only others have, or the network.
//!
//! # A wall clock that is far ahead
//! Ten hours ahead, say, and set right an hour later. A stamp from that future would win over
//! every write for ten hours, wherever it got to; and once somebody was told that the write is
//! done, nobody may drop it. So it must never be given. The rule has two halves.
//!
//! *Who gives a stamp is careful.* Heartbeats tell what each node's wall clock shows. The **common
//! time** is the latest time that the clocks of a majority of all nodes have reached, nodes not
//! heard of since the start counting as having reached none. While fewer than half of the clocks
//! are ahead, one of any majority is not; so the common time is not ahead, whoever is up. A node
//! whose own clock lies more than [`clock_ahead_max`](Config::clock_ahead_max) ahead of it gives
//! no stamp, at any level, and says why; nothing was done, so the client asks another node. It
//! goes on as a replica, to which its own clock is of no importance. Nor does it raise its ceiling
//! there: a restart would begin in that future. A node that has not heard from a majority since
//! its start takes for the common time the latest that it ever knew: it is kept with the ceiling,
//! and the right time has only moved on since. The ceiling itself would not do. It may be as far
//! ahead as stamps may, so each restart would add that much again.
//!
//! *Who is given a stamp believes it*, whether it comes with a write, a hint, a batch, a repair or
//! an exchange: by the first half it was near the common time when it was given, and whoever
//! refused it would lose a write, or differ for ever. Only a client's word for what it has seen is
//! that of a stranger, and is refused like the own clock, before anything is done.
//!
//! If a *majority* of clocks is wrong together nobody can know better. Then stamps follow them,
//! and when the clocks are set back the nodes go on from the latest stamp, not from the clock: no
//! write is lost or beaten by an older one, and wall time means nothing until it has caught up.
//! The same holds of a cluster of one.
//!
//! # Sources
//! \[HLC §3\]. Unlike there, the bound is on what is given and not on what is believed, and what it
//! is compared with is not the own clock alone; the ceiling is an addition.
//!
//! [`first_patience`]: super::detector::Detector::first_patience

use super::config::Config;
use crate::base::{NodeId, Stamp};
use crate::{planted, probe};

/// Latest wall time that is believed; what is behind it is room for stamps ahead of it.
const WALL_MS_MAX: u64 = Stamp::MS_MAX - (1 << 36);
/// Latest time of a stamp that is believed, whatever the configuration says.
const SEEN_MS_MAX: u64 = Stamp::MS_MAX - (1 << 35);

/// Milliseconds by which the ceiling is raised while stamps come from it and not from a clock:
/// room for a million stamps. A larger step would put the node, at each restart, that much further
/// into the future. A node whose ceiling is lost begins so far beyond what others know.
const STEP_AT_CEILING_MS: u64 = 16;

/// What a restart must know, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ceiling {
    /// Stamps are given before this.
    pub(super) ms: u64,
    /// The latest common time that was known.
    pub(super) known_ms: u64,
}

/// Gives stamps; see the [module](self).
#[derive(Debug)]
pub(super) struct Clock {
    node: NodeId,
    /// Latest stamp given or seen.
    last: Stamp,
    /// Latest stamp given.
    given: Stamp,
    /// First stamp given in this start.
    first: Option<Stamp>,
    wall_ms: Option<u64>,
    /// The time that a majority of the nodes has reached, if enough were heard of.
    common_ms: Option<u64>,
    /// The latest that this ever was, in earlier starts too.
    known_ms: u64,
    /// The ceiling that the node began with.
    begun_ms: u64,
    /// Stamps may be given before this millisecond: it is durable.
    ceiling_ms: u64,
    /// The largest ceiling that the disk was asked for.
    asked_ms: u64,
    step_ms: u64,
    ahead_ms_max: u64,
    /// No stamps until others have told what time it was: the own ceiling is lost, or may be old.
    is_held: bool,
    /// Then stamps go on from there: what a majority knew when it was first heard, and a step.
    resume_ms: Option<u64>,
}

impl Clock {
    /// Starts with what is durable; nothing at the first start.
    pub(super) fn new(config: &Config, durable: Ceiling) -> Self {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(0);
        let ceiling_ms = durable.ms.min(SEEN_MS_MAX);
        Self {
            node: config.id,
            last: Stamp::new(ceiling_ms, 0, NodeId(0)),
            given: Stamp::ZERO,
            first: None,
            wall_ms: None,
            common_ms: None,
            known_ms: durable.known_ms,
            begun_ms: ceiling_ms,
            ceiling_ms,
            asked_ms: ceiling_ms,
            step_ms: millis(config.ceiling_step).max(2),
            ahead_ms_max: millis(config.clock_ahead_max),
            is_held: false,
            resume_ms: None,
        }
    }

    /// Takes what the wall clock shows, and the common time if it is known.
    pub(super) fn on_wall(&mut self, ms: u64, common_ms: Option<u64>) {
        self.wall_ms = Some(ms.min(WALL_MS_MAX));
        self.common_ms = common_ms;
        self.known_ms = self.known_ms.max(common_ms.unwrap_or_default());
    }

    /// Returns what the wall clock showed last; 0 before the first time.
    pub(super) fn wall_ms(&self) -> u64 {
        self.wall_ms.unwrap_or_default()
    }

    /// Returns the time that a majority of the nodes has reached, if enough were heard of.
    pub(super) fn common_ms(&self) -> Option<u64> {
        self.common_ms
    }

    /// Returns the latest stamp given or seen.
    pub(super) fn last(&self) -> Stamp {
        self.last
    }

    /// Returns the latest stamp given in this start.
    pub(super) fn given(&self) -> Stamp {
        self.given
    }

    /// Tells whether a stamp of this node was given in this start, and not in one before.
    pub(super) fn gave(&self, stamp: Stamp) -> bool {
        self.first.is_some_and(|first| first <= stamp)
    }

    /// Returns a stamp that is smaller than all that will be given, over restarts too.
    pub(super) fn low(&self) -> Stamp {
        self.last.min(Stamp::new(self.ceiling_ms, 0, NodeId(0)))
    }

    /// Moves up to the wall clock, so that [`low`](Self::low) follows it without writes.
    pub(super) fn follow_wall(&mut self) {
        if self.wall_ms() > self.last.ms() && self.ahead_ms() <= self.ahead_ms_max {
            self.last = Stamp::new(self.wall_ms(), 0, NodeId(0));
        }
    }

    /// Gives no stamps until [`release`](Self::release).
    pub(super) fn hold(&mut self) {
        self.is_held = true;
        self.resume_ms = None;
    }

    /// A majority has told which stamps it has seen: what the own lost disk knew of is not far
    /// beyond, or long past when the clock is released.
    pub(super) fn hear_majority(&mut self) {
        if self.is_held && !planted!("D70") {
            self.resume_ms = self.resume_ms.or(Some(self.last.ms() + STEP_AT_CEILING_MS));
        }
    }

    /// Tells whether it is between [`hold`](Self::hold) and [`release`](Self::release).
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Ends [`hold`](Self::hold); if `is_first`, no stamp was ever given.
    pub(super) fn release(&mut self, is_first: bool) {
        self.is_held = false;
        if let Some(ms) = self.resume_ms.take().filter(|_| !is_first) {
            self.last = self.last.max(Stamp::new(ms, 0, NodeId(0)));
        }
    }

    /// Takes note of a stamp that a node has given; false if it cannot be one.
    pub(super) fn observe(&mut self, stamp: Stamp) -> bool {
        let is_possible = stamp.ms() <= SEEN_MS_MAX;
        if is_possible {
            self.last = self.last.max(stamp);
        }
        is_possible
    }

    /// Takes note of a stamp that a client says it has seen.
    ///
    /// # Errors
    /// It lies too far ahead to be believed: by so many milliseconds.
    pub(super) fn observe_client(&mut self, stamp: Stamp) -> Result<(), u64> {
        if stamp <= self.last {
            return Ok(());
        }
        let ahead_ms = stamp.ms().saturating_sub(self.reference_ms());
        if ahead_ms > self.ahead_ms_max || stamp.ms() > SEEN_MS_MAX {
            probe!("dynamo.stamp_too_far_ahead");
            return Err(ahead_ms);
        }
        self.last = stamp;
        Ok(())
    }

    /// What the own clock, and clients, are compared with.
    fn reference_ms(&self) -> u64 {
        let known_ms = if planted!("D53") { self.begun_ms } else { self.known_ms };
        self.common_ms.unwrap_or(known_ms)
    }

    /// Returns how many milliseconds the wall clock is ahead of the others, as far as that matters:
    /// not if stamps are beyond it anyway.
    pub(super) fn ahead_ms(&self) -> u64 {
        let is_used = self.wall_ms() > self.last.ms() && !planted!("D52");
        if is_used { self.wall_ms().saturating_sub(self.reference_ms()) } else { 0 }
    }

    /// Returns how many milliseconds the wall clock is ahead of the others if that is too much to
    /// give a stamp.
    pub(super) fn too_far_ahead_ms(&self) -> Option<u64> {
        Some(self.ahead_ms()).filter(|ahead_ms| *ahead_ms > self.ahead_ms_max)
    }

    /// Tells whether a stamp can be given now.
    pub(super) fn can_give(&self) -> bool {
        self.wall_ms.is_some()
            && !self.is_held
            && self.too_far_ahead_ms().is_none()
            && self.next().ms() < self.ceiling_ms
    }

    /// Gives a stamp; `None` until the next ceiling is durable.
    pub(super) fn give(&mut self, is_delete: bool) -> Option<Stamp> {
        if !self.can_give() {
            return None;
        }
        if planted!("D16") || (planted!("D17") && is_delete) {
            let logical = (self.given.logical() + 1) % Stamp::LOGICAL_MAX;
            self.given = Stamp::new(self.wall_ms(), logical, self.node);
            return Some(self.given);
        }
        let stamp = self.next();
        assert!(
            stamp > self.last && stamp.ms() < self.ceiling_ms,
            "D1: {stamp} after {}, the ceiling is {}",
            self.last,
            self.ceiling_ms
        );
        (self.last, self.given) = (stamp, stamp);
        self.first = self.first.or(Some(stamp));
        Some(stamp)
    }

    fn next(&self) -> Stamp {
        let (ms, logical) = (self.last.ms(), self.last.logical());
        match self.wall_ms {
            Some(wall_ms) if wall_ms > ms => Stamp::new(wall_ms, 0, self.node),
            _ if logical < Stamp::LOGICAL_MAX => Stamp::new(ms, logical + 1, self.node),
            _ => {
                probe!("dynamo.clock_counter_overflows");
                Stamp::new(ms + 1, 0, self.node)
            }
        }
    }

    /// Returns the ceiling that should be made durable next, each once, if it is time.
    pub(super) fn take_wanted_ceiling(&mut self) -> Option<Ceiling> {
        let wall_ms = self.wall_ms?;
        let is_ahead = self.too_far_ahead_ms().is_some();
        let now_ms = if is_ahead { self.last.ms() } else { wall_ms.max(self.last.ms()) };
        let is_at_ceiling =
            (is_ahead || now_ms > wall_ms) && now_ms <= self.begun_ms + STEP_AT_CEILING_MS;
        let step_ms =
            if is_at_ceiling { self.step_ms.min(STEP_AT_CEILING_MS) } else { self.step_ms };
        if now_ms + step_ms / 2 < self.asked_ms {
            return None;
        }
        self.asked_ms = now_ms + step_ms;
        Some(Ceiling { ms: self.asked_ms, known_ms: self.known_ms })
    }

    /// A ceiling is durable.
    pub(super) fn on_ceiling(&mut self, ceiling_ms: u64) {
        assert!(
            ceiling_ms >= self.ceiling_ms && ceiling_ms <= self.asked_ms,
            "D1: ceiling {ceiling_ms} after {}, asked for {}",
            self.ceiling_ms,
            self.asked_ms
        );
        self.ceiling_ms = ceiling_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamo::Placement;
    use proptest::prelude::*;
    use std::time::Duration;

    fn config(node: u64) -> Config {
        let nodes = vec![NodeId(1), NodeId(node)];
        let placement = Placement::new(&nodes, 1, 1);
        Config::new(NodeId(node), nodes, placement)
    }

    fn raise(clock: &mut Clock) {
        if let Some(ceiling) = clock.take_wanted_ceiling() {
            clock.on_ceiling(ceiling.ms);
        }
    }

    #[test]
    fn clock_before_its_ceiling_is_durable_gives_nothing() {
        let mut clock = Clock::new(&config(1), Ceiling::default());
        clock.on_wall(5_000, Some(5_000));
        assert_eq!(clock.give(false), None);
        assert!(clock.take_wanted_ceiling().is_some());
        assert_eq!((clock.take_wanted_ceiling(), clock.give(false)), (None, None));
        clock.on_ceiling(clock.asked_ms);
        assert_eq!(clock.give(false), Some(Stamp::new(5_000, 0, NodeId(1))));
        assert_eq!(clock.give(false), Some(Stamp::new(5_000, 1, NodeId(1))));
    }

    #[test]
    fn counter_that_overflows_goes_to_the_next_millisecond() {
        let mut clock = Clock::new(&config(1), Ceiling::default());
        clock.on_wall(5_000, Some(5_000));
        raise(&mut clock);
        assert!(clock.observe(Stamp::new(5_000, Stamp::LOGICAL_MAX, NodeId(2))));
        assert_eq!(clock.give(false), Some(Stamp::new(5_001, 0, NodeId(1))));
    }

    #[test]
    fn clients_word_is_believed_up_to_the_bound_and_a_nodes_beyond() {
        let mut clock = Clock::new(&config(1), Ceiling::default());
        clock.on_wall(5_000, Some(5_000));
        let ahead_ms = u64::try_from(config(1).clock_ahead_max.as_millis()).unwrap();
        let stamp = |ms| Stamp::new(ms, 0, NodeId(2));
        assert_eq!(clock.observe_client(stamp(5_000 + ahead_ms)), Ok(()));
        assert_eq!(clock.observe_client(stamp(5_001 + ahead_ms)), Err(1 + ahead_ms));
        assert!(clock.observe(stamp(9_000 + ahead_ms)));
        assert_eq!(clock.observe_client(stamp(9_000 + ahead_ms)), Ok(()), "it was seen before");
        assert!(!clock.observe(Stamp::from_version(u64::MAX)));
        assert!(clock.observe_client(Stamp::from_version(u64::MAX)).is_err());
    }

    #[test]
    fn clock_too_far_ahead_of_the_others_gives_nothing_and_raises_no_ceiling() {
        let mut clock = Clock::new(&config(1), Ceiling::default());
        clock.on_wall(5_000, Some(5_000));
        raise(&mut clock);
        let ahead_ms = clock.ahead_ms_max;
        clock.on_wall(5_000 + ahead_ms, Some(5_000));
        assert_eq!(clock.too_far_ahead_ms(), None);
        clock.on_wall(5_001 + ahead_ms, Some(5_000));
        assert_eq!(clock.too_far_ahead_ms(), Some(ahead_ms + 1));
        clock.follow_wall();
        assert_eq!((clock.give(false), clock.take_wanted_ceiling()), (None, None));
        clock.on_wall(5_001, Some(5_001));
        assert_eq!(clock.give(false), Some(Stamp::new(5_001, 0, NodeId(1))));
    }

    #[test]
    fn clock_that_has_heard_nobody_is_compared_with_what_it_knew() {
        let durable = Ceiling { ms: 45_000, known_ms: 40_000 };
        let mut clock = Clock::new(&config(1), durable);
        clock.on_wall(40_000 + clock.ahead_ms_max, None);
        assert_eq!(clock.too_far_ahead_ms(), None);
        clock.on_wall(40_001 + clock.ahead_ms_max, None);
        assert!(clock.too_far_ahead_ms().is_some());
        clock.observe(Stamp::new(50_000 + clock.ahead_ms_max, 0, NodeId(2)));
        assert_eq!(clock.too_far_ahead_ms(), None, "stamps do not come from the wall clock now");
    }

    /// The ceiling is no time that others have reached.
    #[cfg(feature = "testing")]
    #[test]
    fn restart_alone_does_not_lead_twice_as_far() {
        crate::base::planted::loses_only_with("D53", || {
            let mut clock = Clock::new(&config(1), Ceiling::default());
            clock.on_wall(5_000, Some(5_000));
            let ahead_ms = clock.ahead_ms_max;
            clock.on_wall(5_000 + ahead_ms, Some(5_000));
            let durable = clock.take_wanted_ceiling().unwrap();
            clock.on_ceiling(durable.ms);
            assert_eq!(clock.give(false), Some(Stamp::new(5_000 + ahead_ms, 0, NodeId(1))));
            let mut clock = Clock::new(&config(1), durable);
            clock.on_wall(durable.ms + 1, None);
            raise(&mut clock);
            clock.give(false).is_some()
        });
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Wall(u64),
        Observe(u64, u64),
        Give,
        Durable,
        Restart,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..20_000u64).prop_map(Event::Wall),
            (0..20_000u64, 0..=Stamp::LOGICAL_MAX).prop_map(|(ms, n)| Event::Observe(ms, n)),
            Just(Event::Give),
            Just(Event::Durable),
            Just(Event::Restart),
        ]
    }

    proptest! {
        #[test]
        fn stamps_grow_over_restarts(events in prop::collection::vec(event(), 1..200)) {
            let mut config = config(3);
            config.ceiling_step = Duration::from_millis(100);
            let mut clock = Clock::new(&config, Ceiling::default());
            let (mut last, mut durable) = (Stamp::ZERO, Ceiling::default());
            let mut asked = None::<Ceiling>;
            for event in events {
                match event {
                    Event::Wall(ms) => clock.on_wall(ms, Some(ms)),
                    Event::Observe(ms, logical) => {
                        let stamp = Stamp::new(ms, logical, NodeId(5));
                        if clock.observe(stamp) { last = last.max(stamp); }
                    }
                    Event::Give => {
                        let low = clock.low();
                        if let Some(stamp) = clock.give(false) {
                            prop_assert!(stamp > last && stamp > low, "{stamp} after {last}");
                            last = stamp;
                        }
                    }
                    Event::Durable => if let Some(ceiling) = asked.take() {
                        clock.on_ceiling(ceiling.ms);
                        durable = ceiling;
                    },
                    Event::Restart => {
                        let wall_ms = clock.wall_ms;
                        clock = Clock::new(&config, durable);
                        // What it only saw may be forgotten; what it gave may not.
                        last = last.min(Stamp::new(durable.ms, 0, NodeId(0)));
                        if let Some(ms) = wall_ms { clock.on_wall(ms, Some(ms)); }
                        asked = None;
                    }
                }
                asked = clock.take_wanted_ceiling().or(asked);
            }
        }
    }
}
