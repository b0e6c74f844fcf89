//! Continuations of a run: what a failure hung on, and what lies behind rare paths.

use sim_tests::branch::{Effort, Exploration, explore, odds};
use sim_tests::bugs;
use sim_tests::case::Case;
use sim_tests::options::{Mode, Options, Plan};
use sim_tests::run::{Keep, run_case};

/// The planted bug is a node that acknowledges before its fsync, and the seed shows it: one of few
/// that do, so it was decided by something.
#[test]
fn failure_was_decided_by_few_events() {
    let options = Plan::default().draw(13);
    // Who compares each disk with what its own node has acknowledged would speak at once.
    let mute = Some("acknowledged_is_durable");
    let case = Case::drawn(Options { planted: bugs::find("W1"), mute, ..options });
    let effort = Effort { branches: 10, points: 4, jobs: 2 };
    let odds = odds(&case, effort, &indicatif::ProgressBar::hidden()).unwrap();
    assert_eq!(odds.failure.to_string(), "durability");
    assert!(odds.points.windows(2).all(|pair| pair[0].at < pair[1].at), "{odds:?}");
    let (first, last) = (odds.points[0], *odds.points.last().unwrap());
    assert!(first.percent() <= 30, "{}", odds.to_text());
    assert_eq!((last.percent(), last.at), (100, odds.report.simulated), "{}", odds.to_text());
    assert!(odds.points.iter().any(|point| point.at == odds.failed_at), "{}", odds.to_text());
    let decisive = &odds.decisive;
    assert!(decisive.till.failed >= decisive.from.failed + 3, "{}", odds.to_text());
    assert!((1..=40).contains(&decisive.events.len()), "{}", odds.to_text());
    // The page shows them.
    let page = sim_tests::report::page_with_odds(&case, &odds);
    assert!(page.contains("\"odds\":[[0,") && page.contains("\"decisive\":["), "no odds");
}

#[test]
fn rare_paths_are_continued_from_where_they_begin() {
    for mode in [Mode::PrimaryBackup, Mode::Masterless] {
        let exploration = Exploration {
            plan: Plan { mode, ..Plan::default() },
            planted: None,
            first: 1,
            end: 41,
            rare: 1,
            branches: 2,
            jobs: 2,
        };
        let (explored, found) = explore(&exploration, |_| ());
        assert!(found.is_empty(), "{mode:?}: {:?}", found.first().map(|found| &found.what));
        assert!(explored.len() >= 2, "{mode:?}: {explored:?}");
        for row in &explored {
            let case = Case::drawn(exploration.plan.draw(row.seed));
            let report = run_case(&case, Keep::default());
            assert!(report.probes.contains_key(row.probe), "{mode:?}: {row:?}");
            assert!(row.at < report.simulated && row.seeds == 1, "{mode:?}: {row:?}");
        }
    }
}
