//! What the masterless mode adds to an operation: how many replicas were asked, and stamps.
//!
//! The black-box checkers of the primary-backup mode must not look at versions. Those of the
//! masterless mode must: its promises are about stamps ("a read sees the acknowledged write *or a
//! larger stamp*"), which its clients are told. A store that lies about stamps is found out by the
//! [origin](crate::check::masterless::origin) checker.

use std::collections::BTreeMap;

use mangrove::base::Stamp;
use mangrove::dynamo::Level;

use super::CellId;

/// A client whose requests carry one token on; it keeps its number when its process is retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Session(pub u32);

/// The terms of one operation: what was asked for, and what was told of stamps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// Of how many replicas an answer was wanted.
    pub level: Level,
    /// Whose request it was.
    pub session: Session,
    /// Whether its client promises that it reads its own writes and never goes back, whatever the
    /// level.
    pub is_bound: bool,
    /// The largest stamp that the session had met when it asked.
    pub token: Stamp,
    /// Of an acknowledged write: its stamp.
    pub stamp: Option<Stamp>,
    /// Of an answered read: the largest stamp that it met, of values and tombstones.
    pub seen: Stamp,
    /// Of an answered read: the stamp of each value found.
    pub found: BTreeMap<CellId, Stamp>,
}

impl Terms {
    /// Begins the terms of a request that is about to be sent.
    pub fn asked(level: Level, session: Session, token: Stamp) -> Self {
        Self { level, session, token, ..Self::default() }
    }
}
