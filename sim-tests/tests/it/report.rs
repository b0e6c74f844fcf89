//! The page of a run is whole: it asks for nothing, and all that it shows is in it.

use sim_tests::case::Case;
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

#[test]
fn picture_is_small_and_whole() {
    let (case, report) = failure(Mode::PrimaryBackup, "R8");
    let svg = report::last_moments(&case, &report);
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.len() < 60_000, "{} bytes", svg.len());
}
