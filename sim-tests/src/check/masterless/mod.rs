//! The checkers of the masterless mode: every promise of it, one property a file.
//!
//! Three kinds of evidence. The [history](crate::history) says what clients asked and were told,
//! with the stamps ([`Terms`](crate::history::Terms)); the [`stores`] are what a power loss now
//! would leave on the disks, recovered by the node's own code; and what nodes say of themselves
//! counts only where a promise is about it (dropped hints must be confessed).
//!
//! What the mode promises is *not* linearizability: two clocks decide which of two writes counts,
//! and a write that nobody waited for may surface later. So no checker looks for an order of
//! operations. Each compares stamps, which are unique and totally ordered, and whether they are is
//! a checker too ([`origin`]): a store that invents stamps to please the others is found there.
//!
//! | promise | checker |
//! |---|---|
//! | a read at R sees what was acknowledged at W before, if R + W > N | [`acknowledged_floor`] |
//! | quorum reads that do not overlap never go back | [`monotonic_reads`] |
//! | a session reads its writes, and writes after what it read | [`session_order`] |
//! | what is read was written, once, with one stamp | [`origin`] |
//! | no stamp lies far in the future, whatever one clock shows | [`stamp_lead`] |
//! | deleted stays deleted | [`no_resurrection`] |
//! | a key that is listed has a cell | [`listed_keys`] |
//! | acknowledged at W is on W disks | [`durability`] |
//! | replicas become equal | [`convergence`] |
//! | a bulk write takes effect as a whole, in the end | [`batch_atomicity`] |
//! | a replica that missed a write is owed a hint | [`hint_accounting`] |

pub mod acknowledged_floor;
pub mod batch_atomicity;
pub mod bounds;
pub mod convergence;
pub mod durability;
#[cfg(test)]
mod fixture;
pub mod hint_accounting;
pub mod ledger;
pub mod listed_keys;
pub mod monotonic_reads;
pub mod no_resurrection;
pub mod origin;
pub mod session_order;
pub mod stamp_lead;
pub mod stores;

pub use ledger::{Lead, Ledger, Loss, Setting, Unnoticed};
pub use stores::{Store, Stores};

use super::Violation;

/// Makes all checks that need nothing but the history.
///
/// The one that says most about the cause comes first: a value that nobody wrote is also below
/// every floor.
pub fn check_history(ledger: &Ledger<'_>) -> Result<(), Violation> {
    origin::check(ledger)?;
    stamp_lead::check(ledger)?;
    no_resurrection::check_reads(ledger)?;
    listed_keys::check(ledger)?;
    session_order::check(ledger)?;
    acknowledged_floor::check(ledger)?;
    monotonic_reads::check(ledger)
}

/// Makes all checks of disks after healing, when the replicas say that they are equal.
pub fn check_healed(ledger: &Ledger<'_>, stores: &Stores, at: u64) -> Result<(), Violation> {
    convergence::check(stores, at)?;
    origin::check_stores(ledger, stores, at)?;
    stamp_lead::check_stores(ledger, stores, at)?;
    no_resurrection::check_stores(ledger, stores, at)?;
    batch_atomicity::check(ledger, stores, at)?;
    durability::check(ledger, stores, at, 0)
}
