//! Committed entries that a power loss took from all but one, because they were acknowledged before
//! they were synced.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// What the tables of the one have, which a flush had synced.
const TABLES: SnapshotMeta = SnapshotMeta { index: 100, term: 2 };

/// Starts n1 with these tables and no log.
fn with_tables(may_lose_committed: bool) -> Lone {
    let config = Config { may_lose_committed, ..Config::new(N1, vec![N1, N2, N3]) };
    let hard_state = HardState { term: TABLES.term, vote: None };
    Lone::configured(config, Recovered { hard_state, snapshot: TABLES, ..Recovered::default() })
}

fn chunk(term: Term, meta: (Index, Term)) -> Message {
    let meta = SnapshotMeta { index: meta.0, term: meta.1 };
    Message::SnapshotChunk { term, meta, offset: 0, data: Payload::default(), done: false }
}

/// The accident: the one that still had them took a probe before its tables for proof that a new
/// leader had all of them, and acknowledged an entry that it did not have.
#[test]
fn tables_ahead_of_a_new_leader_are_not_acknowledged_to_it() {
    let probe = || append(3, (99, 2), &[], 0);
    assert_eq!(with_tables(true).receive(N2, probe()), [(N2, matched(3, 99))]);
    // Where nothing committed can be lost, it is no question that the leader has it.
    assert_eq!(with_tables(false).receive(N2, probe()), [(N2, matched(3, 100))]);
    let mut lone = with_tables(true);
    let entries = append(3, (98, 2), &[2, 2, 3], 0);
    assert_eq!(lone.raft.contradicted_by(N2, &entries), None);
    assert_eq!(lone.receive(N2, entries), [(N2, matched(3, 101))], "the leader has the same");
}

/// The accident: the next append named the other entry in its place, which the core took for the
/// end of all promises, at every start.
#[test]
fn leader_without_what_is_committed_is_recognized_by_the_first_entry_in_its_place() {
    let lone = with_tables(true);
    let named = |message: &Message| {
        lone.raft.contradicted_by(N2, message).map(|named| (named.index, named.term))
    };
    for (message, expected) in [
        (append(3, (100, 3), &[], 0), Some((100, 3))),
        (append(3, (99, 2), &[3, 3], 0), Some((100, 3))),
        (append(3, (100, 1), &[3], 0), Some((100, 1))),
        // Cut off the log, but of a term that no entry before its base can have.
        (append(3, (97, 2), &[3], 0), Some((98, 3))),
        (append(3, (90, 3), &[], 0), Some((90, 3))),
        (chunk(3, (98, 3)), Some((98, 3))),
        (chunk(3, (100, 3)), Some((100, 3))),
        // The same, or nothing can be said, or it is not committed here.
        (append(3, (100, 2), &[3], 0), None),
        (append(3, (90, 1), &[2], 0), None),
        (append(3, (0, 0), &[], 0), None),
        (append(3, (101, 3), &[3], 0), None),
        (chunk(3, (98, 2)), None),
        (chunk(3, (101, 3)), None),
        // Nobody follows that one any more, or nobody says that.
        (append(1, (100, 1), &[], 0), None),
        (append(3, (100, 4), &[], 0), None),
    ] {
        assert_eq!(named(&message), expected, "{message}");
    }
    let stranger = append(3, (100, 3), &[], 0);
    assert_eq!(lone.raft.contradicted_by(NodeId(9), &stranger), None);
    let mut always = with_tables(false);
    let step = AssertUnwindSafe(|| always.receive(N2, append(3, (100, 3), &[], 0)));
    assert!(catch_unwind(step).is_err(), "where nothing can be lost, it is the end");
}

/// Has n2, which lacks the last entries, lead n1, with tables up to the given entry of term 1, and
/// without n3, until it contradicts n1; returns whether it does. It may commit nothing meanwhile.
fn is_contradicted_before_it_counts(entries: usize, tables: Index) -> bool {
    let config = Config { may_lose_committed: true, ..Config::new(N1, vec![N1, N2, N3]) };
    let hard_state = HardState { term: 1, vote: None };
    let snapshot = SnapshotMeta { index: tables, term: 1 };
    let recovered = Recovered { hard_state, snapshot, ..Recovered::default() };
    let mut follower = Lone::configured(config.clone(), recovered);

    let config = Config { id: N2, ..config };
    let log = super::entries(1, &vec![1; entries]);
    let recovered = Recovered { hard_state, entries: log, ..Recovered::default() };
    let mut leader = Lone::configured(config, recovered);
    leader.expire();
    leader.receive(N3, Message::PreVoteReply { term: 2, granted: true });
    let mut sent = leader.receive(N3, vote_reply(2, true));
    assert_eq!(leader.raft.role(), Role::Leader);
    for _ in 0..20 {
        let mut answers = Vec::new();
        for (_, message) in sent.into_iter().filter(|(to, _)| *to == N1) {
            if follower.raft.contradicted_by(N2, &message).is_some() {
                return true;
            }
            answers.extend(follower.receive(N2, message));
        }
        sent = Vec::new();
        for (_, message) in answers.into_iter().filter(|(to, _)| *to == N2) {
            sent.extend(leader.receive(N1, message));
        }
        assert_eq!(leader.raft.commit_index(), 0, "of n1 it counts what n1 does not have");
        if sent.is_empty() {
            leader.receive(N3, rejected(2, 0, (0, 0)));
            sent = leader.expire().send;
        }
    }
    false
}

#[test]
fn new_leader_counts_nothing_of_who_has_what_it_lacks() {
    for (entries, tables) in [(99, 100), (3, 4), (3, 50), (1, 2), (0, 1), (0, 9)] {
        assert!(is_contradicted_before_it_counts(entries, tables), "{entries} of {tables}");
    }
}
