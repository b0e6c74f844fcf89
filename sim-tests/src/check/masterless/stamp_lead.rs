//! The lead of stamps: none lies far in the future, whatever the clock of one node shows.
//!
//! **Property.** While most wall clocks are about right, every stamp that a client is told, for a
//! write, a value or as the largest that was met, and every stamp on a disk, is ahead of a right
//! clock by no more than those clocks are, and what a node bears, together.
//!
//! From it follows what a user cares for: a write that is later by more than that wins. A stamp
//! from beyond wins over all that is written for hours, though everybody was told that it is done.
//!
//! **Why the obvious check is wrong.** "The later write wins" is what last-writer-wins by clocks
//! does not promise: within the bound the order of two writes is that of two clocks. And that such
//! a stamp is refused *somewhere* is worth nothing: a single path that lets it pass, a hint, a
//! repair, an exchange, brings it to all. So it is looked for wherever it can be seen.
//!
//! **What is skipped.** Runs in which the clocks of a majority are wrong: nobody can know that.

use mangrove::base::Stamp;

use super::ledger::Ledger;
use super::stores::Stores;
use crate::check::{Violation, broken};
use crate::history::EventKind;

const CHECKER: &str = "stamp_lead";

/// Checks everything that clients were told.
pub fn check(ledger: &Ledger<'_>) -> Result<(), Violation> {
    let history = ledger.history;
    for event in history.events() {
        let Some(terms) = history.terms(event.op).filter(|_| event.kind != EventKind::Invoke)
        else {
            continue;
        };
        let told = terms.found.values().copied().chain([terms.seen]).chain(terms.stamp);
        let latest = told.max().unwrap_or_default();
        if let Some(what) = exceeds(ledger, latest, event.time_ns) {
            let what = format!("{}: {what}", history.describe(event.op));
            return broken(CHECKER, event.time_ns, what);
        }
    }
    Ok(())
}

/// Checks every stamp of a cell or a row's deletion on the disks.
pub fn check_stores(ledger: &Ledger<'_>, stores: &Stores, at: u64) -> Result<(), Violation> {
    for (node, stamp) in stores.latest() {
        if let Some(what) = exceeds(ledger, stamp, at) {
            return broken(CHECKER, at, format!("the disk of {node}: {what}"));
        }
    }
    Ok(())
}

fn exceeds(ledger: &Ledger<'_>, stamp: Stamp, time_ns: u64) -> Option<String> {
    let lead_ms = ledger.setting.lead.exceeded_ms(stamp, time_ns)?;
    let max = ledger.setting.lead.lead_ms_max;
    Some(format!("{stamp} is {lead_ms} ms ahead of a right clock, and {max} are allowed"))
}

#[cfg(test)]
mod tests {
    use mangrove::dynamo::Level::{One, Quorum};

    use super::*;
    use crate::check::masterless::fixture::Script;
    use crate::check::masterless::ledger::Lead;

    #[test]
    fn stamp_beyond_the_lead_is_refused_where_it_is_told() {
        let lead = Lead { begin_ms: 1_000, lead_ms_max: 500 };
        let mut script = Script::new();
        script.setting.lead = lead;
        script.set("k", "near", Quorum, 1_500);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.set("k", "far", One, 1_600);
        assert!(check(&script.ledger()).is_err(), "of a write");
        let mut script = Script::new();
        script.setting.lead = lead;
        script.get_deleted("k", 1_600, One);
        assert!(check(&script.ledger()).is_err(), "of a tombstone that a read has met");
        let mut script = Script::new();
        script.setting.lead = lead;
        script.get("k", Some(("far", 1_600)), One);
        assert!(check(&script.ledger()).is_err(), "of a value");
    }
}
