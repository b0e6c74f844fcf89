//! Sessions: a client that carries its token sees its own past and writes after it.
//!
//! **Property.** (1) An acknowledged write has a larger stamp than everything that its session had
//! met before: the token. So writes of a session count in their order, and a write that answers a
//! read counts after it, whichever clocks gave the stamps (monotonic writes, writes follow reads).
//! (2) The session sees what it wrote and what it has read (read your writes, monotonic reads):
//! where the levels of the two overlap, and at any level if its client promises that.
//!
//! **Why the obvious check is wrong.** Comparing a session's answers in the order of *values* would
//! need an order of writes; stamps are that order, but they are only as good as what they are given
//! after, so (1) is asked first: with planted bug D16, a stamp that is the bare wall clock,
//! everything else agrees with itself and the second write of a session is lost.
//!
//! **What is skipped.** Levels that do not overlap, without that promise. With it, absences that a
//! read of several cells showed: the client remembers no places where nothing was. The token that
//! the client library sends: it shows it to nobody, and the one in the history is the harness's
//! own, made of the answers. A library that sent less would show as a stamp that is too small.
//!
//! # Sources
//! Terry et al., "Session guarantees for weakly consistent replicated data", 1994.

use std::collections::BTreeMap;

use mangrove::base::Stamp;

use super::bounds::{Bound, Bounds};
use super::ledger::Ledger;
use super::monotonic_reads::shown;
use crate::check::{Violation, broken};
use crate::history::{Call, EventKind, OpId, Session, ValueId};

/// What one session has met.
struct Past {
    met: Stamp,
    token: Stamp,
    bounds: Bounds,
    /// What a client that promises it remembers.
    own: Bounds,
}

/// Checks every session of a history.
pub fn check(ledger: &Ledger<'_>) -> Result<(), Violation> {
    let history = ledger.history;
    let mut sessions: BTreeMap<Session, Past> = BTreeMap::new();
    for event in history.events() {
        let Some(terms) = history.terms(event.op) else { continue };
        let past = sessions.entry(terms.session).or_insert_with(|| Past {
            met: Stamp::ZERO,
            token: Stamp::ZERO,
            bounds: Bounds::new(history.cell_count()),
            own: Bounds::new(history.cell_count()),
        });
        let fault = match event.kind {
            EventKind::Invoke => begin(ledger, event.op, past),
            EventKind::End => end(ledger, event.op, past),
        };
        if let Some(what) = fault {
            let what = format!("{}: {what}", history.describe(event.op));
            return broken("session_order", event.time_ns, what);
        }
    }
    Ok(())
}

/// Compares the token of the history with the answers in it: if they differ, nothing that is said
/// here means anything.
fn begin(ledger: &Ledger<'_>, op: OpId, past: &mut Past) -> Option<String> {
    let token = ledger.history.terms(op)?.token;
    if token < past.token || token < past.met {
        let (last, met) = (past.token, past.met);
        return Some(format!("the token is {token}, was {last}, and the session has met {met}"));
    }
    past.token = token;
    None
}

fn end(ledger: &Ledger<'_>, op: OpId, past: &mut Past) -> Option<String> {
    let Ledger { history, setting, .. } = ledger;
    let terms = history.terms(op)?;
    let ended = history.op(op).ended.unwrap_or(u32::MAX);
    if let Some((_, stamp, count)) = ledger.acknowledged(op) {
        if stamp <= terms.token {
            let token = terms.token;
            return Some(format!("its stamp {stamp} is not above what the session met: {token}"));
        }
        past.met = past.met.max(stamp);
        for (cell, value) in ledger.effects_of(op) {
            let bound = Bound { stamp, is_deleted: value == ValueId::ABSENT };
            let holders = setting.holders(count, history.op(op));
            past.bounds.raise(cell, holders, bound, op);
            past.own.raise(cell, holders, bound, op);
        }
    }
    if !ledger.is_read(op) {
        return None;
    }
    let needed = setting.holders_needed(ledger.read_count(op));
    for seen in ledger.reads_of(op) {
        let own = past.own.get(seen.cell, 1).filter(|_| terms.is_bound);
        let met = [past.bounds.get(seen.cell, needed), own];
        let before = met.into_iter().flatten().max_by_key(|(bound, _)| *bound);
        if let Some((bound, by)) = before
            && !ledger.is_within(&seen, bound, ended)
        {
            let cell = history.cell_text(seen.cell);
            return Some(format!("in {cell} the session met before: {}", history.describe(by)));
        }
        if let Some(bound) = shown(ledger, op, &seen, before.map(|(bound, _)| bound)) {
            let holders = setting.showing(ledger.read_count(op), history.op(op), bound);
            past.bounds.raise(seen.cell, holders, bound, op);
            if !bound.is_deleted || matches!(history.op(op).call, Call::Get { .. }) {
                past.own.raise(seen.cell, holders, bound, op);
            }
        }
        past.met = past.met.max(seen.stamp.unwrap_or_default());
    }
    past.met = past.met.max(terms.seen);
    None
}

#[cfg(test)]
mod tests {
    use mangrove::dynamo::Level::{One, Quorum};

    use super::*;
    use crate::check::masterless::fixture::Script;

    #[test]
    fn second_write_of_a_session_must_count_after_the_first() {
        let mut script = Script::new();
        script.session(1).set("k", "first", One, 20);
        script.session(1).set("k", "second", One, 30);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.session(1).set("k", "third", One, 25);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn write_of_another_session_may_have_any_stamp() {
        let mut script = Script::new();
        script.session(1).set("k", "first", One, 20);
        script.session(2).set("k", "second", One, 10);
        assert_eq!(check(&script.ledger()), Ok(()));
    }

    #[test]
    fn write_after_a_read_counts_after_what_was_read() {
        let mut script = Script::new();
        script.session(1).set("k", "ahead", One, 50);
        script.session(2).get("k", Some(("ahead", 50)), One);
        script.session(2).set("k", "answer", One, 40);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn session_reads_its_own_write_where_levels_overlap() {
        let mut script = Script::new();
        script.session(1).set("k", "old", Quorum, 10);
        script.session(1).set("k", "new", Quorum, 20);
        script.session(1).get("k", Some(("old", 10)), One);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.session(1).get("k", Some(("old", 10)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn client_that_promises_it_reads_its_own_write_at_any_level() {
        let mut script = Script::new();
        script.is_bound = true;
        script.session(1).set("k", "old", One, 10);
        script.session(1).set("k", "new", One, 20);
        script.session(2).get("k", Some(("old", 10)), One);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.session(1).get("k", Some(("old", 10)), One);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn token_that_forgets_is_refused() {
        let mut script = Script::new();
        script.session(1).set("k", "first", One, 20);
        script.forget_token(1);
        script.session(1).set("k", "second", One, 30);
        assert!(check(&script.ledger()).is_err());
    }
}
