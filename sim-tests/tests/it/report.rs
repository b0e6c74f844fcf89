//! The page of a run is whole: it asks for nothing, and all that it shows is in it.

use std::time::Duration;

use sim_tests::case::Case;
use sim_tests::deeds::Deed;
use sim_tests::nemesis::{Action, Fault, FaultId};
use sim_tests::options::{Mode, Options, Plan, Profile};
use sim_tests::report;
use sim_tests::run::{Keep, Report, run_case};
use sim_tests::world::Record;

/// The first failure of a planted bug.
fn failure(mode: Mode, code: &'static str) -> (Case, Report) {
    let plan = Plan { mode, profile: Profile::Standard };
    let keep = Keep { trace: Record::Nothing, log: true };
    let runs = (1..60).map(|seed| {
        let case = Case::drawn(Options { planted: Some(code), ..plan.draw(seed) });
        let report = run_case(&case, keep);
        (case, report)
    });
    let mut failed = runs.filter(|(_, report)| report.violation.is_some());
    failed.next().unwrap_or_else(|| panic!("{code} was not found"))
}

fn data(page: &str) -> serde_json::Value {
    let data = page.split_once("id=\"data\">").and_then(|(_, rest)| rest.split_once("</script>"));
    let Some((json, _)) = data else { panic!("the page has no data") };
    serde_json::from_str(json).unwrap_or_else(|error| panic!("the data is no JSON: {error}"))
}

#[test]
fn page_holds_everything_and_asks_for_nothing() {
    for (mode, code) in [(Mode::PrimaryBackup, "R8"), (Mode::Masterless, "D3")] {
        let (case, report) = failure(mode, code);
        let page = report::page(&case, &report);
        for asking in ["http:", "https:", " src=", "href=", "import ", "fetch(", "url("] {
            assert!(!page.contains(asking), "the page has {asking:?}");
        }
        let data = data(&page);
        let count = |field: &str| data[field].as_array().unwrap().len();
        assert!(count("messages") > 100, "{} messages", count("messages"));
        assert_eq!(count("operations"), report.history.ops().len());
        let taken = data["messages"].as_array().unwrap();
        let taken = taken.iter().filter(|message| message[3] != -1).count();
        assert!(taken * 2 > count("messages"), "{taken} messages were taken in");
        let node = &data["lanes"][0];
        assert!(!node["status"].as_array().unwrap().is_empty(), "no state of n1");
        assert!(!node["files"].as_array().unwrap().is_empty(), "no files of n1");
        assert_eq!(data["checker"], report.violation.as_ref().unwrap().checker);
        assert!(data["bad"].as_u64().unwrap() > 0, "no bad event");
        let end = u64::try_from(report.simulated.as_micros()).unwrap();
        let story = data["story"].as_array().unwrap();
        let is_late = |turn: &&serde_json::Value| turn[0].as_u64().is_none_or(|at| at > end);
        assert_eq!(story.iter().find(is_late), None, "the run was over at {end} us");
    }
}

/// A lie needs a calm world, and the space comes back with the healing.
#[test]
fn fault_that_did_not_happen_is_not_shown_and_none_outlasts_the_healing() {
    let s = Duration::from_secs;
    let fault = |id, at, action| Fault { id: FaultId(id), at: s(at), instead_of: None, action };
    let plan = Plan { mode: Mode::PrimaryBackup, profile: Profile::Standard };
    let mut case = Case::plain(plan, 1);
    case.faults = Some(vec![
        fault(1, 3, Action::DiskFull { node: 1, room_bytes: 1 << 20, length: s(500) }),
        fault(2, 4, Action::Lie { node: 2, length: s(1) }),
        fault(3, 5, Action::Pause { node: 3, length: s(1) }),
    ]);
    let report = run_case(&case, Keep { trace: Record::Nothing, log: true });
    assert_eq!(report.violation, None);
    let deed = |id, done_at, ended_at| Deed { id: FaultId(id), done_at, instead: None, ended_at };
    let healed = Some(case.options.fault_phase);
    let (lasting, paused) = (deed(1, Some(s(3)), healed), deed(3, Some(s(5)), None));
    assert_eq!(report.deeds, [lasting, deed(2, None, None), paused]);
    assert_eq!(report.struck.len(), 3, "all are needed to have the run again");
    let data = data(&report::page(&case, &report));
    let bands = data["bands"].as_array().unwrap();
    let till = |id: &str| {
        let band = bands.iter().find(|band| band[4].as_str().unwrap().starts_with(id))?;
        band[2].as_u64()
    };
    assert_eq!((till("f1:"), till("f2:")), (Some(10_000_000), None), "{bands:?}");
    let story = sim_tests::shrink::in_words(&case, &report);
    let told = ["(f1)", "(f2)", "(f3)"].map(|name| story.contains(name));
    assert_eq!(told, [true, false, true], "{story}");
}

/// A disk on which nothing is yet cannot rot; and nobody is on the other side of a partition.
#[test]
fn fault_that_came_to_nothing_or_to_less_is_told_so() {
    let s = Duration::from_secs;
    let fault = |id, at, action| Fault { id: FaultId(id), at: s(at), instead_of: None, action };
    let plan = Plan { mode: Mode::PrimaryBackup, profile: Profile::Standard };
    let mut case = Case::plain(plan, 1);
    let down = s(1);
    case.faults = Some(vec![
        fault(6, 0, Action::Rot { node: 3, tables: true, sector: false, down }),
        fault(1, 3, Action::Partition { links: vec![], length: s(4) }),
        fault(2, 4, Action::Clog { links: vec![], length: s(1) }),
        fault(3, 4, Action::Swizzle { clogs: vec![] }),
        fault(4, 4, Action::ClockJump { node: 1, by_ms: 0 }),
        fault(5, 4, Action::Reset { a: 1, b: 1, one_end: false }),
        fault(7, 8, Action::Reset { a: 1, b: 2, one_end: false }),
    ]);
    let report = run_case(&case, Keep { trace: Record::Nothing, log: true });
    assert_eq!(report.violation, None);
    let crash = Action::Crash { node: 3, while_busy: false, down };
    let done: Vec<_> = report.faults_done().map(|(_, fault, _)| (fault.id, fault.action)).collect();
    let reset = Action::Reset { a: 1, b: 2, one_end: false };
    assert_eq!(done, [(FaultId(6), crash), (FaultId(7), reset)]);
    assert_eq!(Some(&report.struck), case.faults.as_ref(), "the run can be had again");
    let story = sim_tests::shrink::in_words(&case, &report);
    assert!(story.contains("node 3 crashes, for 1s (f6)"), "{story}");
    assert!(!story.contains("(f1)") && story.contains("(f7)"), "{story}");
}

#[test]
fn picture_is_small_and_whole() {
    let (case, report) = failure(Mode::PrimaryBackup, "R8");
    let svg = report::last_moments(&case, &report);
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.len() < 60_000, "{} bytes", svg.len());
}
