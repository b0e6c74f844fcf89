//! The linearizability checker against a plain exhaustive search, on random small histories.
//!
//! Pruning rules look plausible and are easily wrong, so each is compared in three ways: all rules
//! against the exhaustive search, no rules against it, and each mutant of a rule, of which the very
//! same comparison must find the mistake.

use mangrove::base::Rng;
use sim_tests::check::client;
use sim_tests::check::linearizable::{self, Mutant, Options, Rule, Rules, Verdict};
use sim_tests::history::History;

use crate::check_hand::{self, ONCE_REJECTED};
use crate::check_naive::is_linearizable;
use crate::check_random::{self, Reach, Shape};

/// Histories that the checker must judge like the exhaustive search.
const HISTORIES: u64 = 120_000;
/// Histories among which every mutant must be found; a mutant is let go at its first mistake.
const HISTORIES_FOR_MUTANTS: u64 = 120_000;

/// Draws the kind of history, with few and hot cells and values.
fn shape(rng: &mut Rng) -> Shape {
    let reaches = [Reach::Cell, Reach::Cell, Reach::Row, Reach::Map, Reach::Listings, Reach::Cross];
    let reach = reaches[rng.index(reaches.len())];
    let (rows, columns) = match reach {
        Reach::Cell => (1, 1),
        Reach::Cross => (1, rng.index(2) + 2),
        Reach::Row | Reach::Map | Reach::Listings => (rng.index(2) + 1, rng.index(3) + 1),
    };
    Shape {
        rows,
        columns,
        values: if rng.chance(0.5) { 0 } else { rng.index(3) + 1 },
        processes: rng.index(4) + 2,
        ops: rng.index(7) + 3,
        info: [0.1, 0.3, 0.5][rng.index(3)],
        reach,
    }
}

fn draw(rng: &mut Rng) -> History {
    let shape = shape(rng);
    let history = check_random::history(rng, shape);
    if rng.chance(0.75) { check_random::spoil(rng, &history) } else { history }
}

/// Returns what the checker says; undecided is never right on a small history.
fn judge(history: &History, options: &Options) -> bool {
    match linearizable::check(history, options).verdict {
        Verdict::Valid => true,
        Verdict::Invalid(_) => false,
        Verdict::Undecided(undecided) => panic!("undecided on a small history: {undecided}"),
    }
}

fn show(history: &History) -> String {
    let mut bytes = Vec::new();
    sim_tests::history::jsonl::write(history, &mut bytes).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn checker_random_histories_agrees_with_exhaustive_search() {
    let mut rng = Rng::new(1);
    let (mut bad, mut plain) = (0_u64, 0_u64);
    for number in 0..HISTORIES {
        let history = draw(&mut rng);
        let right = is_linearizable(&history);
        bad += u64::from(!right);
        let all = judge(&history, &Options::default());
        assert_eq!(all, right, "all rules, history {number}:\n{}", show(&history));
        if let Err(violation) = client::check(&history) {
            assert!(!right, "{violation}, history {number}:\n{}", show(&history));
            plain += 1;
        }
    }
    assert!(bad > HISTORIES / 5, "only {bad} of {HISTORIES} histories were bad");
    assert!(plain > bad / 4, "the plain checks found only {plain} of {bad} bad histories");
}

#[test]
fn checker_each_rule_switched_off_agrees_with_exhaustive_search() {
    let rules = [
        Rules::NONE,
        Rules::ALL.without(Rule::FutureReads),
        Rules::ALL.without(Rule::Symmetry),
        Rules::ALL.without(Rule::Unobserved),
        Rules::ALL.without(Rule::EagerReads),
        Rules::ALL.without(Rule::Antichain),
        Rules::ALL.without(Rule::UsefulPending),
        Rules::ALL.without(Rule::UnseenWrites),
        Rules::ALL.without(Rule::Locality),
    ];
    let mut rng = Rng::new(2);
    for number in 0..HISTORIES / 8 {
        let history = draw(&mut rng);
        let right = is_linearizable(&history);
        for rules in rules {
            let options = Options { rules, ..Options::default() };
            let said = judge(&history, &options);
            assert_eq!(said, right, "{rules:?}, history {number}:\n{}", show(&history));
        }
    }
}

#[test]
fn checker_bad_history_names_the_first_impossible_answer() {
    let mut rng = Rng::new(3);
    for number in 0..HISTORIES / 8 {
        let history = draw(&mut rng);
        let report = linearizable::check(&history, &Options::default());
        let Verdict::Invalid(counterexample) = report.verdict else { continue };
        let event = counterexample.event as usize;
        let until = is_linearizable(&history.prefix(event));
        let with = is_linearizable(&history.prefix(event + 1));
        assert!(until && !with, "event {event} of history {number}:\n{}", show(&history));
    }
}

/// By the corpus of histories that were once judged wrongly, or by random ones.
#[test]
fn checker_every_mutant_is_found_by_the_comparison() {
    let mut rng = Rng::new(4);
    let mut alive = Mutant::ALL.to_vec();
    let corpus = ONCE_REJECTED.map(check_hand::history);
    assert!(corpus.iter().all(is_linearizable), "the corpus is of right histories");
    alive.retain(|mutant| {
        let options = Options { mutant: Some(*mutant), ..Options::default() };
        corpus.iter().all(|history| judge(history, &options))
    });
    for _ in 0..HISTORIES_FOR_MUTANTS {
        let history = draw(&mut rng);
        let right = is_linearizable(&history);
        alive.retain(|mutant| {
            judge(&history, &Options { mutant: Some(*mutant), ..Options::default() }) == right
        });
        if alive.is_empty() {
            return;
        }
    }
    panic!("the comparison does not find {alive:?}");
}
