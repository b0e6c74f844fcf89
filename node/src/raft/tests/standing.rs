//! Empty disks: the founding of a cluster, and disks that were lost.

use super::*;

fn start_as_new() -> (Lone, u64) {
    let mut lone = Lone::recovered(Recovered { standing: Standing::New, ..Recovered::default() });
    let asked = lone.expire().send;
    let [(N2, Message::Compare { nonce }), (N3, Message::Compare { .. })] = asked[..] else {
        panic!("{asked:?}")
    };
    (lone, nonce)
}

fn standing(term: Term, nonce: u64, standing: Standing, last: (Index, Term)) -> Message {
    let last = SnapshotMeta { index: last.0, term: last.1 };
    Message::Standing { term, nonce, standing, last }
}

/// Makes the disks of all nodes new, and starts those.
fn with_new_disks(started: &[NodeId]) -> Cluster {
    let mut cluster = Cluster::new(3, 1, |_, _| {});
    for id in cluster.ids() {
        cluster.exchange(id);
    }
    cluster.network.clear();
    for id in started {
        cluster.start(*id);
    }
    cluster
}

fn standing_of(cluster: &Cluster, id: NodeId) -> Standing {
    cluster.node(id).raft().standing()
}

/// Lets things happen one by one, until something has come true.
fn creep_until(cluster: &mut Cluster, done: impl Fn(&Cluster) -> bool) {
    const STEPS_MAX: usize = 10_000;
    for _ in 0..STEPS_MAX {
        if done(cluster) {
            return;
        }
        cluster.now = cluster.now + Duration::from_millis(1);
        for id in cluster.ids() {
            cluster.tick_if_due(id);
        }
        cluster.flow(1);
    }
    panic!("it does not come true");
}

#[test]
fn cluster_is_founded_once_all_its_nodes_are_there() {
    let mut cluster = with_new_disks(&[N1, N2]);
    cluster.run(Duration::from_secs(5), |_, _| false);
    assert_eq!(cluster.leader(), None, "the third may have lost what it promised");
    assert_eq!(cluster.node(N1).raft().awaited(), Some(Awaited::Answers(vec![N3])));
    cluster.start(N3);
    cluster.run(Duration::from_secs(3), |_, _| false);
    assert!(cluster.leader().is_some(), "nobody leads");
    for id in cluster.ids() {
        assert_eq!((standing_of(&cluster, id), cluster.node(id).disk.standing), Default::default());
        assert_eq!(cluster.node(id).raft().awaited(), None);
    }
}

/// One takes part already, and two start again. They need not believe that too many disks are new.
#[test]
fn founding_is_remembered_by_those_who_start_again() {
    let mut cluster = with_new_disks(&[N1, N2, N3]);
    let whole = |cluster: &Cluster| {
        let mut ids = cluster.ids().into_iter();
        ids.find(|id| standing_of(cluster, *id) == Standing::Whole)
    };
    creep_until(&mut cluster, |cluster| whole(cluster).is_some());
    let first = whole(&cluster);
    for id in cluster.ids().into_iter().filter(|id| Some(*id) != first) {
        cluster.crash(id, 0);
        cluster.start(id);
        assert_eq!(standing_of(&cluster, id), Standing::Founding);
    }
    cluster.run(Duration::from_secs(3), |_, _| false);
    assert!(cluster.leader().is_some(), "nobody leads");
    assert!(cluster.ids().into_iter().all(|id| standing_of(&cluster, id) == Standing::Whole));
}

/// A cluster in which the leader and one follower, which are returned, have committed an entry that
/// the third has not heard of.
fn committed_beside_a_stale_follower() -> (Cluster, NodeId, NodeId) {
    let mut cluster = Cluster::new(3, 1, |_, _| {});
    cluster.run(Duration::from_secs(2), |_, _| false);
    let Some(leader) = cluster.leader() else { panic!("nobody leads") };
    let (follower, stale) = (NodeId(leader.0 % 3 + 1), NodeId((leader.0 + 1) % 3 + 1));
    cluster.propose(leader);
    cluster.run(Duration::from_millis(200), |from, to| from == stale || to == stale);
    let last = |id| cluster.node(id).raft().last_index();
    assert_eq!(cluster.node(leader).raft().commit_index(), last(follower));
    assert_eq!(last(stale) + 1, last(follower), "the third has it, too");
    (cluster, leader, follower)
}

/// The leader and one follower have committed something, and the follower loses its disk. Without
/// the leader it and the third are a majority, of which neither has it.
#[test]
pub(super) fn new_disk_elects_nobody_who_lacks_what_the_lost_one_had() {
    let (mut cluster, leader, loser) = committed_beside_a_stale_follower();
    cluster.exchange(loser);
    cluster.start(loser);
    cluster.run(Duration::from_secs(5), |from, to| from == leader || to == leader);
    assert_eq!(standing_of(&cluster, loser), Standing::New, "the leader has not answered");
    cluster.run(Duration::from_secs(3), |_, _| false);
    assert!(cluster.leader().is_some(), "nobody leads");
    let machine = &cluster.node(leader).machine;
    assert_eq!(&cluster.node(loser).machine, machine, "the new disk has been filled");
    assert_eq!(standing_of(&cluster, loser), Standing::Whole);
}

#[test]
pub(super) fn vote_given_before_the_disk_was_lost_is_not_given_again() {
    let (mut lone, nonce) = start_as_new();
    lone.receive(N2, standing(5, nonce, Standing::Whole, (4, 4)));
    lone.receive(N3, standing(3, nonce, Standing::Whole, (7, 2)));
    assert_eq!(lone.raft.standing(), Standing::Filling(SnapshotMeta { index: 4, term: 4 }));
    assert_eq!(lone.receive(N2, vote(5, (4, 4))), [(N2, vote_reply(5, false))], "perhaps N3's");
    assert_eq!(lone.receive(N3, vote(6, (7, 2))), [(N3, vote_reply(6, false))], "it lacks 4@4");
    assert_eq!(lone.receive(N2, vote(6, (4, 4))), [(N2, vote_reply(6, true))]);
    lone.receive(N2, append(6, (0, 0), &[1, 1, 4], 0));
    lone.pass(Duration::from_secs(5));
    assert_eq!((lone.raft.role(), lone.raft.is_recovering()), (Role::Follower, true));
    lone.receive(N2, append(6, (3, 4), &[4], 0));
    assert_eq!((lone.raft.standing(), lone.raft.is_recovering()), (Standing::Whole, false));
}

/// The leader and one follower have committed something, and the follower's disk forgets it. The
/// leader dies before it has filled the follower. Without it, that one and the third are a
/// majority, of which neither has what is committed.
#[test]
pub(super) fn leader_tells_a_follower_what_its_disk_has_forgotten() {
    let (mut cluster, leader, liar) = committed_beside_a_stale_follower();
    let raft = cluster.node(leader).raft();
    let last = SnapshotMeta { index: raft.commit_index(), term: raft.term() };
    let known = last.index - 1;
    cluster.crash(liar, 0);
    cluster.node_mut(liar).disk.lose_after(known);
    cluster.start(liar);
    cluster.network.clear();
    creep_until(&mut cluster, |cluster| {
        cluster.node(liar).disk.standing == Standing::Filling(last)
    });
    assert_eq!(cluster.node(liar).raft().last_index(), known, "it is filled already");
    cluster.crash(leader, 0);
    cluster.network.clear();
    cluster.crash(liar, 0);
    cluster.start(liar);
    cluster.run(Duration::from_secs(5), |_, _| false);
    assert_eq!(cluster.leader(), None, "neither has what is committed");
    cluster.start(leader);
    cluster.run(Duration::from_secs(3), |_, _| false);
    assert_eq!(cluster.leader(), Some(leader), "the one that has it");
    assert_eq!(cluster.node(liar).machine, cluster.node(leader).machine);
    assert_eq!(standing_of(&cluster, liar), Standing::Whole, "it has what it had");
}

#[test]
fn follower_that_is_told_what_it_lost_has_no_vote_left_in_the_term() {
    let mut lone = Lone::new(&[1, 1], 5);
    let told = |last| Message::Forgotten { term: 5, last };
    lone.receive(N2, told(SnapshotMeta { index: 2, term: 1 }));
    assert_eq!(lone.raft.standing(), Standing::Whole, "it has that");
    let last = SnapshotMeta { index: 4, term: 4 };
    lone.receive(N2, told(last));
    assert_eq!(lone.raft.standing(), Standing::Filling(last));
    lone.receive(N2, told(SnapshotMeta { index: 3, term: 4 }));
    assert_eq!(lone.raft.standing(), Standing::Filling(last), "a late word takes nothing back");
    assert_eq!(lone.raft.hard_state(), HardState { term: 5, vote: Some(N1) });
    lone.pass(Duration::from_secs(5));
    assert_eq!(lone.raft.role(), Role::Follower, "it does not campaign");
    assert_eq!(lone.receive(N3, vote(6, (3, 4))), [(N3, vote_reply(6, false))], "it lacks 4@4");
    lone.receive(N2, append(6, (0, 0), &[1, 1, 4, 4], 0));
    assert_eq!((lone.raft.standing(), lone.raft.is_recovering()), (Standing::Whole, false));
}

/// Starts n1 with a log of the given terms, in that state, and its last vote lost.
fn start_without_vote(terms: &[Term], hard_state: HardState) -> (Lone, u64) {
    let standing = Standing::Unsure;
    let entries = entries(1, terms);
    let mut lone =
        Lone::recovered(Recovered { hard_state, entries, standing, ..Recovered::default() });
    let asked = lone.expire().send;
    let [(N2, Message::Compare { nonce }), (N3, Message::Compare { .. })] = asked[..] else {
        panic!("{asked:?}")
    };
    (lone, nonce)
}

#[test]
pub(super) fn vote_whose_record_was_lost_is_not_given_again() {
    let (mut lone, nonce) = start_without_vote(&[1, 1, 4], HardState { term: 4, vote: None });
    lone.receive(N2, standing(5, nonce, Standing::Whole, (4, 4)));
    assert_eq!(lone.receive(N2, vote(6, (4, 4))), [], "n3 has not answered");
    assert_eq!(lone.raft.awaited(), Some(Awaited::Answers(vec![N3])));
    lone.receive(N3, standing(4, nonce, Standing::Whole, (3, 4)));
    assert_eq!(lone.raft.standing(), Standing::Filling(SnapshotMeta { index: 4, term: 4 }));
    assert_eq!(lone.raft.hard_state(), HardState { term: 5, vote: Some(N1) });
    assert_eq!(lone.receive(N2, vote(5, (4, 4))), [(N2, vote_reply(5, false))], "perhaps N3's");
    assert_eq!(lone.receive(N3, vote(6, (3, 4))), [(N3, vote_reply(6, false))], "it lacks 4@4");
    lone.receive(N2, append(6, (3, 4), &[4], 0));
    assert_eq!((lone.raft.standing(), lone.raft.is_recovering()), (Standing::Whole, false));
}

#[test]
fn node_whose_vote_was_lost_keeps_its_log_and_a_vote_of_the_latest_term() {
    let known = HardState { term: 5, vote: Some(N2) };
    let (mut lone, nonce) = start_without_vote(&[1, 4, 4], known);
    for peer in [N2, N3] {
        lone.receive(peer, standing(5, nonce, Standing::Whole, (2, 1)));
    }
    assert_eq!((lone.raft.standing(), lone.raft.hard_state()), (Standing::Whole, known));
    assert_eq!(lone.terms(), [1, 4, 4]);
    assert_eq!(lone.receive(N2, vote(5, (3, 4))), [(N2, vote_reply(5, true))], "as before");
}

#[test]
fn node_whose_vote_was_lost_founds_nothing() {
    let (mut lone, nonce) = start_without_vote(&[1], HardState { term: 1, vote: None });
    for peer in [N2, N3] {
        lone.receive(peer, standing(0, nonce, Standing::New, (0, 0)));
    }
    assert_eq!(lone.raft.standing(), Standing::Unsure);
    assert_eq!(lone.raft.awaited(), Some(Awaited::WholeDisk(vec![N2, N3])));
}

#[test]
fn new_disk_keeps_silent_while_too_few_others_are_whole() {
    let (mut lone, nonce) = start_as_new();
    lone.receive(N2, standing(5, nonce, Standing::Whole, (4, 4)));
    lone.receive(N3, standing(0, nonce, Standing::New, (0, 0)));
    assert_eq!(lone.receive(N2, vote(6, (4, 4))), []);
    assert_eq!(lone.receive(N2, append(5, (0, 0), &[1], 1)), []);
    let asked = lone.pass(Duration::from_secs(5)).send;
    assert_eq!(asked.len(), 2, "it goes on asking: {asked:?}");
    let awaited = Awaited::WholeDisk(vec![N3]);
    assert_eq!(awaited.to_string(), "one of n3 to come back with its old disk");
    assert_eq!(lone.raft.awaited(), Some(awaited));
    lone.receive(N3, standing(5, nonce, Standing::Filling(SnapshotMeta::default()), (1, 5)));
    assert_eq!(lone.raft.standing(), Standing::New, "that one lacks something, too");
    lone.receive(N3, standing(5, nonce, Standing::Whole, (4, 4)));
    assert_eq!(lone.raft.standing(), Standing::Filling(SnapshotMeta { index: 4, term: 4 }));
}

#[test]
fn answer_to_the_disk_before_counts_for_nothing() {
    let (mut lone, nonce) = start_as_new();
    for peer in [N2, N3] {
        lone.receive(peer, standing(5, nonce ^ 1, Standing::Whole, (4, 4)));
    }
    assert_eq!((lone.raft.standing(), lone.raft.term()), (Standing::New, 0));
}

#[test]
fn disk_that_is_being_filled_remembers_over_a_crash_what_it_lacks() {
    let mut cluster = Cluster::new(3, 1, |_, _| {});
    cluster.run(Duration::from_secs(2), |_, _| false);
    let Some(leader) = cluster.leader() else { panic!("nobody leads") };
    cluster.propose(leader);
    cluster.run(Duration::from_millis(200), |_, _| false);
    let loser = NodeId(leader.0 % 3 + 1);
    cluster.exchange(loser);
    cluster.start(loser);
    let is_filling = |standing| matches!(standing, Standing::Filling(_));
    creep_until(&mut cluster, |cluster| is_filling(cluster.node(loser).disk.standing));
    cluster.crash(loser, 0);
    cluster.start(loser);
    assert!(is_filling(standing_of(&cluster, loser)), "{:?}", standing_of(&cluster, loser));
    assert!(cluster.node(loser).raft().is_recovering(), "it takes itself for whole");
    cluster.run(Duration::from_secs(1), |_, _| false);
    assert_eq!(standing_of(&cluster, loser), Standing::Whole);
    cluster.crash(loser, 0);
    cluster.start(loser);
    assert_eq!(standing_of(&cluster, loser), Standing::Whole, "the disk says so, too");
}

#[test]
fn nobody_is_told_of_a_past_that_the_disk_does_not_know() {
    let (mut lone, nonce) = start_as_new();
    let asks = || Input::Peer { from: N2, message: Message::Compare { nonce: 9 } };
    let told =
        |ready: Ready| ready.send.iter().map(|(_, message)| message.clone()).collect::<Vec<_>>();
    assert_eq!(told(lone.step(asks())), [standing(0, 9, Standing::New, (0, 0))]);
    for peer in [N2, N3] {
        let answer = standing(0, nonce, Standing::New, (0, 0));
        lone.raft.step(lone.now, Input::Peer { from: peer, message: answer });
    }
    assert_eq!(told(lone.step(asks())), [], "it is founding, and not durably");
    assert_eq!(lone.raft.awaited(), Some(Awaited::Founding(vec![N2, N3])));
    let ready = lone.step(Input::Persisted { through: 1 });
    assert!(told(ready).contains(&standing(0, 9, Standing::Founding, (0, 0))));
}
