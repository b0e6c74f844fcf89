//! Reads that nobody serves for long.

use super::*;

/// Has so many clients ask, who all give up and ask again; returns which of them are refused.
fn ask(lone: &mut Lone, tokens: std::ops::Range<u64>) -> Vec<u64> {
    let ready = tokens.map(|token| lone.step(Input::Read { token }));
    let replies = ready.flat_map(|ready| ready.replies);
    let refused = replies.map(|(token, reply)| {
        assert_eq!(reply, Reply::Overloaded, "to {token}");
        token
    });
    refused.collect()
}

fn served(tokens: std::ops::Range<u64>) -> Vec<(u64, Reply)> {
    tokens.map(|token| (token, Reply::ReadReady)).collect()
}

fn confirm(round: u64) -> Input {
    let outcome = AppendOutcome::Matched { index: 1 };
    Input::Peer { from: N2, message: Message::AppendReply { term: 1, round, outcome } }
}

/// The accident: the logs of a majority were full, so that no entry of a new leader was committed,
/// and it kept the number of each read that was asked in days.
#[test]
fn reads_over_the_limit_are_refused_while_no_entry_of_the_term_is_committed() {
    let mut lone = Lone::leader(&[], 1);
    lone.raft.config.reads_max = 10;
    assert_eq!(ask(&mut lone, 0..1_000), (10..1_000).collect::<Vec<_>>());
    lone.give(Input::Peer { from: N2, message: matched(1, 1) });
    assert_eq!(lone.give(confirm(1)).replies, served(0..10));
    assert_eq!(ask(&mut lone, 0..11), [10], "there is room again");
}

#[test]
fn reads_over_the_limit_are_refused_while_nothing_is_applied() {
    let mut lone = Lone::leader(&[], 1);
    lone.raft.config.reads_max = 10;
    let committed = lone.step(Input::Peer { from: N2, message: matched(1, 1) });
    assert_eq!(committed.apply.len(), 1);
    let mut refused = Vec::new();
    for round in 1..=4 {
        let first = 4 * round;
        refused.extend(ask(&mut lone, first..first + 4));
        assert_eq!(lone.step(confirm(round)).replies, []);
    }
    assert_eq!(refused, (14..20).collect::<Vec<_>>());
    assert_eq!(lone.step(Input::Applied { through: 1 }).replies, served(4..14));
    assert_eq!(ask(&mut lone, 0..11), [10], "there is room again");
}

#[test]
fn reads_that_wait_are_counted_until_the_leadership_ends() {
    let mut lone = Lone::leader(&[], 1);
    lone.raft.config.reads_max = 10;
    assert!(ask(&mut lone, 0..10).is_empty());
    let ready = lone.give(Input::Peer { from: N2, message: append(2, (0, 0), &[2], 0) });
    let refused = |(_, reply): &(u64, Reply)| matches!(reply, Reply::NotLeader { .. });
    assert_eq!(ready.replies.iter().filter(|reply| refused(reply)).count(), 10);
}
