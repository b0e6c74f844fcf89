//! The version of a cell in the masterless mode: a hybrid logical time and who gave it.
//!
//! # Layout
//! ```text
//!  63                        22 21              6 5        0
//!  ┌────────────────────────────┬────────────────┬──────────┐
//!  │ milliseconds since 1970    │ logical counter│ node     │
//!  └────────────────────────────┴────────────────┴──────────┘
//!            42 bits (to 2109)       16 bits        6 bits
//! ```
//! So stamps compare as the tuple does, and no two nodes ever give the same one: last-writer-wins
//! needs nothing else. A stamp is also the version under which the table store keeps a cell.
//!
//! # Sources
//! \[HLC\]

use std::fmt;

use bincode::{Decode, Encode};

use super::NodeId;

const NODE_BITS: u32 = 6;
const LOGICAL_BITS: u32 = 16;

/// When a write happened, and at which node; see the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Stamp(u64);

impl Stamp {
    /// Before every write.
    pub const ZERO: Self = Self(0);
    /// Largest node id that a stamp can carry.
    pub const NODE_MAX: u64 = (1 << NODE_BITS) - 1;
    /// Largest logical counter.
    pub const LOGICAL_MAX: u64 = (1 << LOGICAL_BITS) - 1;
    /// Latest time, in milliseconds since 1970.
    pub const MS_MAX: u64 = (1 << (64 - NODE_BITS - LOGICAL_BITS)) - 1;

    /// Returns the stamp of these parts.
    ///
    /// # Panics
    /// If a part is over its limit; the configuration and the clock see to it that none is.
    pub fn new(ms: u64, logical: u64, node: NodeId) -> Self {
        assert!(
            ms <= Self::MS_MAX && logical <= Self::LOGICAL_MAX && node.0 <= Self::NODE_MAX,
            "no stamp has {ms} ms, counter {logical}, node {node}"
        );
        Self(ms << (NODE_BITS + LOGICAL_BITS) | logical << NODE_BITS | node.0)
    }

    /// Returns the stamp that the table store keeps as `version`.
    pub fn from_version(version: u64) -> Self {
        Self(version)
    }

    /// Returns it as the version of a cell in the table store.
    pub fn version(self) -> u64 {
        self.0
    }

    /// Returns the milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0 >> (NODE_BITS + LOGICAL_BITS)
    }

    /// Returns the logical counter within the millisecond.
    pub fn logical(self) -> u64 {
        self.0 >> NODE_BITS & Self::LOGICAL_MAX
    }

    /// Returns the node that gave it.
    pub fn node(self) -> NodeId {
        NodeId(self.0 & Self::NODE_MAX)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.ms(), self.logical(), self.node())
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts() -> impl Strategy<Value = (u64, u64, u64)> {
        (0..=Stamp::MS_MAX, 0..=Stamp::LOGICAL_MAX, 0..=Stamp::NODE_MAX)
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_parts(a in parts(), b in parts()) {
            let stamp = |(ms, logical, node)| Stamp::new(ms, logical, NodeId(node));
            prop_assert_eq!(stamp(a).cmp(&stamp(b)), a.cmp(&b));
            let back = stamp(a);
            prop_assert_eq!((back.ms(), back.logical(), back.node().0), a);
            prop_assert_eq!(Stamp::from_version(back.version()), back);
        }
    }
}
