//! Both modes through the same accidents.

use sim_tests::compare::{Plan, SCENARIOS, Scenario, Subject, compare, page, to_json};

/// Runs scenarios with few seeds.
fn compared(names: &[&str]) -> Vec<sim_tests::compare::Row> {
    let scenarios = names.iter().filter_map(|name| Scenario::named(name)).collect();
    let plan = Plan { scenarios, first_seed: 1, seeds: 2, jobs: 2 };
    let (rows, broken) = compare(&plan, || {});
    assert_eq!(broken, Vec::<String>::new(), "promises are broken");
    assert_eq!(rows.len(), names.len(), "a row for each of {names:?}");
    rows
}

/// What each mode may do under the worst clocks, and what it may not.
#[test]
fn clocks_that_differ_behind_a_cut_cost_writes_at_one_alone() {
    let rows = compared(&["clock-skew-cut"]);
    let [primary_backup, _, one] = &rows[0].figures;
    assert_eq!((primary_backup.stale, primary_backup.lost), (0, 0));
    assert!(one.lost > 0 && one.stale > 0, "{} lost, {} stale", one.lost, one.stale);
}

#[test]
fn leader_that_dies_costs_an_election_and_only_where_somebody_leads() {
    let rows = compared(&["calm", "leader-dies"]);
    let longest = |row: usize, at: usize| rows[row].figures[at].gaps_ms.iter().max().copied();
    let [calm, primary_backup, quorum] = [longest(0, 0), longest(1, 0), longest(1, 1)];
    // Its followers wait for an election time-out before they do anything.
    assert!(primary_backup > Some(300) && calm < Some(300), "{calm:?}, {primary_backup:?} ms");
    assert!(quorum < primary_backup, "{quorum:?} and {primary_backup:?} ms");
}

#[test]
fn page_asks_nothing_of_a_network() {
    let rows = compared(&["calm"]);
    let page = page(&rows);
    assert_eq!(page.matches("<svg").count(), 2);
    let addresses = page.matches("http").count();
    assert_eq!(addresses, page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    for subject in Subject::ALL {
        assert!(page.contains(subject.name()), "{}", subject.name());
    }
    let json: serde_json::Value = serde_json::from_str(&to_json(&rows)).unwrap();
    assert_eq!(json["scenarios"][0]["subjects"][2]["lost_writes"], 0.0);
}

/// Runs are the same whoever else runs at the same time.
#[test]
fn figures_do_not_depend_on_the_threads() {
    let plan = |jobs| Plan {
        scenarios: SCENARIOS.iter().take(1).collect(),
        first_seed: 5,
        seeds: 2,
        jobs,
    };
    let one = compare(&plan(1), || {}).0.swap_remove(0).figures;
    assert_eq!(one, compare(&plan(3), || {}).0.swap_remove(0).figures);
}
