//! The invariant checkers on short stories: what each must accuse, and what it must not.

use std::collections::{BTreeMap, BTreeSet};

use mangrove::base::{NodeId, RequestSeq, SessionId};
use sim_tests::check::mirror::{Log, Stamp};
use sim_tests::check::own_disk::DiskNews;
use sim_tests::check::{Invariants, Observation, Restart};

use Observation::{
    Append, Applied, Commit, Effect, HardState, Installed, Leader, LiedTo, Progress, Promise,
    Resigned, Snapshot, Truncate, Wiped,
};

/// Tells a story to all checkers; returns which one was the first to object.
fn told(story: &[(u64, Observation)]) -> Option<&'static str> {
    let mut invariants = Invariants::default();
    for (at, (node, observation)) in (0..).zip(story) {
        if let Err(violation) = invariants.observe(at, NodeId(*node), observation) {
            assert_eq!(Some(&violation), invariants.first(), "the first violation is kept");
            let last = story.iter().zip(0..).last().map_or(0, |(_, at)| at);
            assert_eq!(violation.at, last, "only the last event is wrong: {violation}");
            return Some(violation.checker);
        }
    }
    None
}

fn fault(of_log: bool) -> Observation {
    Observation::Disk(DiskNews::Fault { of_log })
}

fn acknowledged(index: u64, term: u64, told_in: u64) -> Observation {
    Observation::Disk(DiskNews::Acknowledged { index, term, told_in })
}

fn term(term: u64) -> Observation {
    HardState { term, vote: None }
}

fn entry(index: u64, term: u64) -> Observation {
    Append { index, term, crc: 7 }
}

fn commit(index: u64, term: u64) -> Observation {
    Commit { index, term, crc: 7 }
}

fn applied(index: u64, hash: u64) -> Observation {
    Applied { index, term: 1, hash }
}

fn restart(term: u64, vote: Option<u64>, entries: &[u64]) -> Observation {
    let entries = entries.iter().map(|term| Stamp { term: *term, crc: 7 }).collect();
    let log = Log { entries, ..Log::default() };
    let vote = vote.map(NodeId);
    Observation::Restart(Box::new(Restart { term, vote, log, ..Restart::default() }))
}

#[test]
fn election_safety_two_leaders_of_one_term_are_accused() {
    let first = (1, Leader { term: 3 });
    assert_eq!(told(&[first.clone(), first.clone()]), None, "told twice");
    assert_eq!(told(&[first.clone(), (2, Leader { term: 4 })]), None, "two terms");
    let late = [first, (1, restart(3, Some(1), &[])), (2, Leader { term: 3 })];
    assert_eq!(told(&late), Some("election_safety"), "not at the same time");
}

#[test]
fn log_matching_different_logs_are_accused() {
    let same = [(1, entry(1, 1)), (2, entry(1, 1)), (1, entry(2, 2)), (2, entry(2, 2))];
    assert_eq!(told(&same), None);
    let other = [(1, entry(1, 1)), (2, Append { index: 1, term: 1, crc: 8 })];
    assert_eq!(told(&other), Some("log_matching"), "same place, other command");
    let prefix = [(1, entry(1, 1)), (1, entry(2, 3)), (2, entry(1, 2)), (2, entry(2, 3))];
    assert_eq!(told(&prefix), Some("log_matching"), "same place, other past");
    let gap = [(1, entry(1, 1)), (1, entry(3, 1))];
    assert_eq!(told(&gap), Some("log_matching"), "gap");
    let falling = [(1, entry(1, 2)), (1, entry(2, 1))];
    assert_eq!(told(&falling), Some("log_matching"), "terms fall along the log");
    let replaced = [(1, entry(1, 1)), (1, entry(2, 1)), (1, entry(2, 2)), (1, entry(3, 2))];
    assert_eq!(told(&replaced), None, "a suffix that was not committed");
    let recovered = [(1, entry(1, 1)), (1, entry(2, 2)), (2, restart(2, None, &[2, 2]))];
    assert_eq!(told(&recovered), Some("log_matching"), "found on the disk");
}

#[test]
fn committed_immutable_changes_are_accused() {
    let mut story = vec![(1, term(1)), (1, entry(1, 1)), (1, commit(1, 1))];
    let end = |story: &[(u64, Observation)], last: (u64, Observation)| {
        let mut story = story.to_vec();
        story.push(last);
        told(&story)
    };
    let immutable = Some("committed_immutable");
    assert_eq!(end(&story, (2, commit(1, 1))), None);
    assert_eq!(end(&story, (2, commit(1, 2))), immutable, "two entries committed");
    assert_eq!(end(&story, (1, Truncate { from: 1 })), immutable, "own commit cut");
    assert_eq!(end(&story, (1, entry(1, 1))), None, "appended again, last");
    assert_eq!(end(&story, (1, entry(1, 2))), immutable, "own commit replaced");
    assert_eq!(end(&story, (2, Truncate { from: 1 })), None, "another node, not committed there");
    assert_eq!(end(&story, (2, Snapshot { index: 1, term: 2 })), immutable, "snapshot of another");
    story.push((1, entry(2, 1)));
    assert_eq!(end(&story, (1, entry(1, 1))), immutable, "cuts what follows and itself (R20)");
    story.push((1, restart(1, None, &[])));
    assert_eq!(end(&story, (1, entry(1, 2))), None, "the commit index is volatile");
    assert_eq!(end(&story, (1, commit(1, 2))), immutable, "what was committed is not");
}

#[test]
fn leader_completeness_leader_without_committed_entry_is_accused() {
    let committed = [(1, term(2)), (1, entry(1, 2)), (1, commit(1, 2))];
    let mut with = committed.to_vec();
    with.extend([(2, entry(1, 2)), (2, Leader { term: 3 })]);
    assert_eq!(told(&with), None);
    let mut without = committed.to_vec();
    without.push((2, Leader { term: 3 }));
    assert_eq!(told(&without), Some("leader_completeness"));
    let mut older = committed.to_vec();
    older.push((2, Leader { term: 1 }));
    assert_eq!(told(&older), None, "an old leader need not have it");
    let mut snapshot = committed.to_vec();
    snapshot.extend([(2, Installed { index: 1, term: 2, hash: None }), (2, Leader { term: 3 })]);
    assert_eq!(told(&snapshot), None, "covered by a snapshot");
    // Figure 8: an entry of term 2 is committed in term 4 only; the leader of term 3 may lack it.
    let figure_8 = [(1, entry(1, 2)), (3, Leader { term: 3 }), (1, term(4)), (1, commit(1, 2))];
    assert_eq!(told(&figure_8), None);
    let later = [(1, term(2)), (1, entry(1, 2)), (3, Leader { term: 3 }), (1, commit(1, 2))];
    assert_eq!(told(&later), Some("leader_completeness"), "the commit is seen after the election");
    let resigned =
        [(1, term(2)), (1, entry(1, 2)), (3, Leader { term: 3 }), (3, Resigned), (1, commit(1, 2))];
    assert_eq!(told(&resigned), None, "its log may have changed since");
}

#[test]
fn state_machine_safety_different_states_are_accused() {
    assert_eq!(told(&[(1, applied(1, 5)), (2, applied(1, 5))]), None);
    let differs = [(1, applied(1, 5)), (1, applied(2, 6)), (2, applied(1, 4))];
    assert_eq!(told(&differs), Some("state_machine_safety"));
    assert_eq!(
        told(&[(1, applied(1, 5)), (1, applied(3, 6))]),
        Some("state_machine_safety"),
        "gap"
    );
    let again = [(1, applied(1, 5)), (1, applied(2, 6)), (1, restart(0, None, &[]))];
    let mut good = again.to_vec();
    good.extend([(1, applied(1, 5)), (1, applied(2, 6))]);
    assert_eq!(told(&good), None, "replayed after a restart");
    let mut bad = again.to_vec();
    bad.push((1, applied(1, 9)));
    assert_eq!(told(&bad), Some("state_machine_safety"), "replayed differently");
    let installed = [(1, applied(1, 5)), (2, Installed { index: 1, term: 1, hash: Some(4) })];
    assert_eq!(told(&installed), Some("state_machine_safety"), "a snapshot of another state");
}

#[test]
fn term_monotonic_regressions_are_accused() {
    let monotonic = Some("term_monotonic");
    let vote = |term: u64, vote: u64| HardState { term, vote: Some(NodeId(vote)) };
    let promise = |term: u64, vote: u64| Promise { term, vote: Some(NodeId(vote)) };
    assert_eq!(told(&[(1, term(1)), (1, vote(1, 2)), (1, term(2)), (1, vote(2, 3))]), None);
    assert_eq!(told(&[(1, term(2)), (1, term(1))]), monotonic, "term falls");
    assert_eq!(told(&[(1, vote(1, 2)), (1, vote(1, 3))]), monotonic, "vote changes");
    assert_eq!(told(&[(1, vote(1, 2)), (1, term(1))]), monotonic, "vote forgotten");
    assert_eq!(told(&[(1, vote(3, 2)), (1, restart(2, None, &[]))]), None, "nobody was told");
    let told_term = [(1, Promise { term: 3, vote: None }), (1, restart(2, None, &[]))];
    assert_eq!(told(&told_term), monotonic, "others were told of the term");
    let told_vote = [(1, promise(3, 2)), (1, restart(3, None, &[]))];
    assert_eq!(told(&told_vote), monotonic, "others were told of the vote (R2, W10)");
    assert_eq!(told(&[(1, promise(3, 2)), (1, restart(3, Some(2), &[]))]), None);
    let twice = [(1, promise(3, 2)), (1, restart(3, Some(2), &[])), (1, promise(3, 1))];
    assert_eq!(told(&twice), monotonic, "two votes left");
    assert_eq!(told(&[(1, promise(3, 2)), (1, LiedTo), (1, restart(0, None, &[]))]), None, "lie");
    let progress = |commit: u64, applied: u64| (1, Progress { commit, applied });
    assert_eq!(told(&[progress(2, 1), progress(2, 2), progress(3, 2)]), None);
    assert_eq!(told(&[progress(2, 1), progress(1, 1)]), monotonic, "commit falls");
    assert_eq!(told(&[progress(2, 2), progress(2, 1)]), monotonic, "applied falls");
    assert_eq!(told(&[progress(1, 2)]), monotonic, "applied before committed");
    assert_eq!(told(&[progress(2, 2), (1, restart(0, None, &[])), progress(1, 0)]), None);
}

#[test]
fn term_monotonic_vote_that_a_fault_has_taken_is_excused_until_it_is_given_again() {
    let monotonic = Some("term_monotonic");
    let promise = |term: u64, vote: u64| Promise { term, vote: Some(NodeId(vote)) };
    let unsure = |term: u64, vote: Option<u64>| {
        let vote = vote.map(NodeId);
        let restart = Restart { term, vote, vote_lost: true, ..Restart::default() };
        Observation::Restart(Box::new(restart))
    };
    let after = |cause: &[Observation], rest: &[&Observation]| {
        let mut story = vec![(1, promise(3, 2))];
        let rest = cause.iter().chain(rest.iter().copied());
        story.extend(rest.map(|observation| (1, observation.clone())));
        told(&story)
    };
    let (lost, spent) = (unsure(0, None), restart(3, Some(1), &[]));
    let rot = [fault(true)];
    assert_eq!(after(&rot, &[&lost]), None, "it says so");
    assert_eq!(after(&[], &[&lost]), monotonic, "for no reason");
    assert_eq!(after(&[fault(false)], &[&lost]), monotonic, "no vote is in tables");
    assert_eq!(after(&[], &[&unsure(3, Some(2))]), None, "it has lost something else");
    assert_eq!(after(&rot, &[&restart(0, None, &[])]), monotonic, "it says nothing");
    assert_eq!(after(&rot, &[&lost, &promise(3, 1)]), monotonic, "it votes again all the same");
    assert_eq!(after(&rot, &[&lost, &restart(2, None, &[])]), monotonic, "it did not find out");
    assert_eq!(after(&rot, &[&lost, &spent]), None, "it has voted for nobody");
    assert_eq!(after(&rot, &[&spent]), monotonic, "it was never in doubt");
    let later = [&lost, &promise(4, 2), &restart(4, Some(1), &[])];
    assert_eq!(after(&rot, &later), monotonic, "nor is it in a later term");
    let new = [Wiped];
    assert_eq!(after(&new, &[&lost, &promise(3, 1)]), monotonic, "with a new disk (R53)");
    assert_eq!(after(&new, &[&lost, &spent]), None, "it has voted for nobody");
    assert_eq!(after(&new, &[&lost, &lost, &spent, &promise(4, 1)]), None, "nor did it twice");
    assert_eq!(after(&new, &[&restart(0, None, &[])]), monotonic, "it does not see that it is new");
    assert_eq!(after(&[LiedTo], &[&restart(0, None, &[]), &promise(3, 1)]), None, "it cannot know");
}

#[test]
fn acknowledged_is_durable_entry_that_is_gone_is_accused() {
    let durable = Some("acknowledged_is_durable");
    let mut story = vec![(1, term(2)), (1, entry(1, 1)), (1, entry(2, 2)), (1, entry(3, 2))];
    story.push((1, acknowledged(3, 2, 2)));
    let end = |story: &[(u64, Observation)], last: &[Observation]| {
        let mut story = story.to_vec();
        story.extend(last.iter().map(|observation| (1, observation.clone())));
        told(&story)
    };
    assert_eq!(end(&story, &[restart(2, None, &[1, 2, 2])]), None);
    assert_eq!(end(&story, &[restart(2, None, &[1, 2])]), durable, "the last one is gone (R3)");
    assert_eq!(end(&story, &[Wiped, restart(0, None, &[])]), None, "another disk");
    assert_eq!(end(&story, &[fault(true), restart(2, None, &[1])]), None, "rot");
    let cut = [term(4), entry(2, 3), restart(4, None, &[1])];
    assert_eq!(end(&story, &cut), None, "replaced, and that was not on the disk yet");
    let cut = [term(4), entry(2, 3), restart(4, None, &[])];
    assert_eq!(end(&story, &cut), durable, "the entry before it was not");
    let cut = [term(4), entry(2, 2), restart(4, None, &[1, 2])];
    assert_eq!(end(&story, &cut), None, "the log ends earlier now");
    let cut = [entry(2, 1), restart(2, None, &[1, 1])];
    assert_eq!(end(&story, &cut), durable, "taken back in the same term");
    let cut = [term(4), Truncate { from: 3 }, restart(4, None, &[1, 2])];
    assert_eq!(end(&story, &cut), None, "cut by a later leader");
    let installed = |index, term| Installed { index, term, hash: None };
    let cut = [term(4), installed(2, 3), restart(4, None, &[])];
    assert_eq!(end(&story, &cut), durable, "tables that were installed are gone");
    let log = |base_index, base_term| Log { base_index, base_term, ..Log::default() };
    let tables = |log| {
        let restart = Restart { term: 4, log, applied: 2, ..Restart::default() };
        Observation::Restart(Box::new(restart))
    };
    assert_eq!(end(&story, &[term(4), installed(2, 3), tables(log(2, 3))]), None);
    assert_eq!(end(&story, &[tables(log(2, 3))]), None, "nobody saw it installed");
    assert_eq!(end(&story, &[tables(log(2, 2))]), durable, "and the log went on behind it");
    assert_eq!(end(&story, &[tables(log(3, 2))]), None, "in tables");
}

#[test]
fn damage_without_cause_is_accused() {
    let complaint = Observation::Disk(DiskNews::SaysLost { what: "it lacks something".to_owned() });
    let without = Some("damage_without_cause");
    assert_eq!(told(&[(1, complaint.clone())]), without);
    assert_eq!(told(&[(2, fault(true)), (1, complaint.clone())]), without, "of another disk");
    for cause in [fault(true), fault(false), Wiped] {
        assert_eq!(told(&[(1, cause), (1, complaint.clone())]), None);
    }
}

#[test]
fn session_order_second_effect_is_accused() {
    let effect = |node: u64, index: u64, seq: u64, below: u64| {
        let (session, seq) = (SessionId(9), RequestSeq(seq));
        (node, Effect { index, session, seq, acked_below: RequestSeq(below) })
    };
    let order = Some("session_order");
    assert_eq!(told(&[effect(1, 1, 1, 1), effect(2, 1, 1, 1), effect(1, 2, 2, 1)]), None);
    assert_eq!(told(&[effect(1, 2, 2, 1), effect(1, 3, 1, 1)]), None, "overtaken in flight");
    assert_eq!(told(&[effect(1, 1, 1, 1), effect(1, 2, 1, 1)]), order, "twice (R45)");
    assert_eq!(told(&[effect(1, 1, 1, 1), effect(2, 2, 1, 1)]), order, "twice, on another node");
    assert_eq!(told(&[effect(1, 1, 1, 1), effect(2, 1, 2, 1)]), order, "nodes disagree");
    let late = [effect(1, 1, 2, 2), effect(1, 2, 1, 2)];
    assert_eq!(told(&late), order, "after the client had its answer");
}

#[test]
fn durability_write_on_a_minority_of_disks_is_accused() {
    let log = |base_index: u64, terms: &[u64]| Log {
        base_index,
        base_term: 1,
        entries: terms.iter().map(|term| Stamp { term: *term, crc: 7 }).collect(),
        lost_through: None,
    };
    let disks = |logs: [Log; 3]| -> BTreeMap<NodeId, Log> { (1..).map(NodeId).zip(logs).collect() };
    let mut invariants = Invariants::default();
    for (at, observation) in
        (0..).zip([term(1), entry(1, 1), entry(2, 1), commit(1, 1), commit(2, 1)])
    {
        invariants.observe(at, NodeId(1), &observation).unwrap();
    }
    invariants.observe_acknowledged(5, 2).unwrap();
    let none = BTreeSet::new();
    let mut check = |logs: [Log; 3], excused: &BTreeSet<NodeId>| {
        invariants.check_disks(6, &disks(logs), excused).map_err(|violation| violation.checker)
    };
    let accused = Err("durability");
    let full = log(0, &[1, 1]);
    let short = log(0, &[1]);
    assert_eq!(check([full.clone(), full.clone(), short.clone()], &none), Ok(()));
    assert_eq!(check([full.clone(), log(2, &[]), short.clone()], &none), Ok(()), "in a snapshot");
    assert_eq!(check([full.clone(), short.clone(), short.clone()], &none), accused);
    assert_eq!(check([full.clone(), log(0, &[1, 2]), short.clone()], &none), accused, "other term");
    let excused = BTreeSet::from([NodeId(3)]);
    let destroyed = [full.clone(), short.clone(), log(0, &[])];
    assert_eq!(check(destroyed, &excused), Ok(()), "one disk destroyed");
    assert_eq!(check([short.clone(), short.clone(), log(0, &[])], &excused), accused);
    // The accident (storage seed 73000958): the tables of one node rot, and it finds out between
    // its acknowledgement and the fsync of the leader.
    let knows = |lost| Log { lost_through: Some(lost), ..Log::default() };
    assert_eq!(check([full.clone(), short.clone(), knows((1, 2))], &none), Ok(()), "it guards it");
    assert_eq!(check([full, short.clone(), knows((1, 1))], &none), accused, "an older one");
    assert_eq!(check([short, knows((1, 2)), knows((1, 2))], &none), accused, "nobody has it");
    let early = invariants.observe_acknowledged(7, 3).map_err(|violation| violation.checker);
    assert_eq!(early, accused, "acknowledged before it was committed");
}
