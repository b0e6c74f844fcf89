//! A case as a test in Rust, ready to be put into `sim-tests/tests/it/regress/`.
//!
//! The `Debug` text of an action or a request is nearly the Rust that makes it; what is missing is
//! mended token by token: durations, lists, cells and rows.

use std::fmt::Write as _;

use super::{Failure, in_words};
use crate::case::{Case, ms, settings};
use crate::options::Mode;
use crate::run::Report;
use crate::world::{Decided, Moment};

/// Longest line of the header.
const COLUMNS: usize = 96;

/// Returns the name of the test.
pub(super) fn name_of(case: &Case, failure: &Failure) -> String {
    let planted = case.options.planted.map_or(String::new(), |code| code.to_lowercase() + "_");
    format!("{planted}breaks_{}", failure.checker)
}

/// Returns a case as the source of a test that runs it.
pub fn to_rust(case: &Case, report: &Report) -> Option<String> {
    let failure = Failure::of(report.violation.as_ref()?);
    let mut text = String::new();
    let about = if case.about.is_empty() { "A case that was shrunk." } else { &case.about };
    for line in about.lines().chain([""]).chain(in_words(case, report).lines()) {
        for line in wrapped(line) {
            // Writing to a string cannot fail.
            writeln!(text, "{}", format!("//! {line}").trim_end()).ok();
        }
    }
    let body = body(case, &failure);
    text.push_str(&imports(&body));
    text.push_str(&body);
    Some(text)
}

/// Returns the imports that a body needs.
fn imports(body: &str) -> String {
    let used = |names: &[(&'static str, &str)]| -> Vec<&'static str> {
        names.iter().filter(|(_, call)| body.contains(*call)).map(|(name, _)| *name).collect()
    };
    let mut text = String::from("\n");
    let nemesis = [("Action", "Action::"), ("Held", "Held {"), ("Weather", "Weather {")];
    let world = [("Decided", "Decided::"), ("Moment", "Moment {"), ("SyncEnd", "SyncEnd::")];
    let helpers = [("Scenario", "Scenario::"), ("at", "at("), ("cell", "cell("), ("ms", " ms(")];
    for (path, names) in [
        ("mangrove::dynamo", used(&[("Level", "Level::")])),
        ("sim_tests::case::directed", used(&helpers)),
        ("sim_tests::nemesis", used(&nemesis)),
        ("sim_tests::operation", used(&[("Demand", "Demand::"), ("Request", "Request::")])),
        ("sim_tests::options", vec!["Mode"]),
        ("sim_tests::world", used(&world)),
    ] {
        match names.as_slice() {
            [] => None,
            [one] => writeln!(text, "use {path}::{one};").ok(),
            many => writeln!(text, "use {path}::{{{}}};", many.join(", ")).ok(),
        };
    }
    text
}

fn body(case: &Case, failure: &Failure) -> String {
    let options = &case.options;
    let mode = match options.mode() {
        Mode::PrimaryBackup => "PrimaryBackup",
        Mode::Masterless => "Masterless",
    };
    let mut text = format!("\n#[test]\nfn {}() {{\n", name_of(case, failure));
    let seed = grouped(&options.seed.to_string());
    writeln!(text, "    let mut case = Scenario::new(Mode::{mode}, {seed});").ok();
    for (name, value) in settings::unlike_plain(options) {
        writeln!(text, "    case.set({name:?}, {});", grouped(&value.to_string())).ok();
    }
    for operation in case.operations.iter().flatten() {
        let level = operation.level.map_or("None".to_owned(), |level| format!("Some({level:?})"));
        let level = level.replace("Some(", "Some(Level::");
        let (id, time) = (operation.id, grouped(&format!("{:?}", ms::number(operation.at))));
        let request = mended(&format!("{:?}", operation.request));
        writeln!(text, "    case.ask(\"{id}\", at({time}), {level}, Request::{request});").ok();
    }
    for fault in case.faults.iter().flatten() {
        let (id, time) = (fault.id, grouped(&format!("{:?}", ms::number(fault.at))));
        let action = mended(&format!("{:?}", fault.action));
        writeln!(text, "    case.strike(\"{id}\", at({time}), Action::{action});").ok();
    }
    text.push_str(&of_world(case));
    let checker = failure.checker;
    match options.planted {
        Some(code) => writeln!(text, "    case.breaks_only_with({code:?}, {checker:?});"),
        None => writeln!(text, "    case.holds();"),
    }
    .ok();
    text.push_str("}\n");
    text
}

/// Returns what a case decides that is neither an option nor a fault nor an operation.
fn of_world(case: &Case) -> String {
    let time = |time| grouped(&format!("{:?}", ms::number(time)));
    let named = |moment: &Moment| {
        let (span, number) = (grouped(&moment.span.to_string()), moment.number);
        format!("Moment {{ span: {span}, number: {number} }}")
    };
    let mut text = String::new();
    for fate in &case.decided {
        let fate = match fate {
            Decided::Segment { from, to, moment, delay } => format!(
                "Segment {{ from: {from:?}.to_owned(), to: {to:?}.to_owned(), moment: {}, \
                 delay: ms({}) }}",
                named(moment),
                time(*delay)
            ),
            Decided::Sync { host, path, moment, end } => format!(
                "Sync {{ host: {host:?}.to_owned(), path: {path:?}.to_owned(), moment: {}, \
                 end: SyncEnd::{end:?} }}",
                named(moment)
            ),
        };
        // Writing to a string cannot fail.
        writeln!(text, "    case.decide(Decided::{fate});").ok();
    }
    if let Some(reseed) = case.reseed {
        let number = grouped(&reseed.number.to_string());
        writeln!(text, "    case.reseed(at({}), {number});", time(reseed.at)).ok();
    }
    if case.is_timed {
        text.push_str("    case.timed();\n");
    }
    text
}

/// Makes Rust of a `Debug` text.
fn mended(debug: &str) -> String {
    let mut text = owned(&debug.replace('[', "vec![").replace("Cell(", "cell("));
    if text.starts_with("BulkIf") {
        for demand in ["Unchanged", "SameVersion", "Present", "Absent"] {
            text = text.replace(&format!(", {demand})"), &format!(", Demand::{demand})"));
        }
    }
    let mut mended = String::new();
    let mut word = String::new();
    for letter in text.chars().chain([' ']) {
        if letter.is_alphanumeric() || letter == '.' || letter == 'µ' {
            word.push(letter);
            continue;
        }
        mended.push_str(&millis(&word).unwrap_or_else(|| grouped(&word)));
        word.clear();
        mended.push(letter);
    }
    mended.trim_end().to_owned()
}

/// Makes each string an owned one, but where it names a cell.
fn owned(text: &str) -> String {
    let mut parts = text.split('"');
    let mut before = parts.next().unwrap_or_default();
    let mut owned = before.to_owned();
    while let Some(quoted) = parts.next() {
        let end = if before.ends_with("cell(") { "" } else { ".to_owned()" };
        before = parts.next().unwrap_or_default();
        write!(owned, "\"{quoted}\"{end}{before}").ok();
    }
    owned
}

/// Makes a call of a duration such as `1.5s`; `None` for any other word.
fn millis(word: &str) -> Option<String> {
    let (number, factor) = [("ns", 1e-6), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)]
        .into_iter()
        .find_map(|(unit, factor)| Some((word.strip_suffix(unit)?, factor)))?;
    let number: f64 = number.parse().ok()?;
    // To the nanosecond, and no longer than it must be.
    let text = format!("{:.6}", number * factor);
    let text = text.trim_end_matches('0');
    let zero = if text.ends_with('.') { "0" } else { "" };
    Some(format!("ms({})", grouped(&format!("{text}{zero}"))))
}

/// Sets the digits of a long number in groups of three; anything else stays as it is.
fn grouped(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, part) =
        digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole)
        || !part.is_none_or(is_number)
        || whole.len() < 5 && part.is_none_or(|p| p.len() < 5)
    {
        return text.to_owned();
    }
    let mut groups: Vec<&str> = Vec::new();
    let mut rest = whole;
    while rest.len() > 3 {
        let (front, group) = rest.split_at(rest.len() - 3);
        groups.push(group);
        rest = front;
    }
    groups.push(rest);
    groups.reverse();
    let part = part.map_or(String::new(), |part| {
        let groups: Vec<&str> = (0..part.len().div_ceil(3))
            .filter_map(|at| part.get(at * 3..part.len().min(at * 3 + 3)))
            .collect();
        format!(".{}", groups.join("_"))
    });
    format!("{sign}{}{part}", groups.join("_"))
}

fn wrapped(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.last().map_or(0, |last| last.chars().count());
        if last > 0 && last + 1 + word.chars().count() > COLUMNS {
            lines.push(String::from("    "));
        }
        if let Some(last) = lines.last_mut() {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Violation;
    use crate::options::Plan;
    use crate::world::{Reseed, SyncEnd};

    /// Without these it would be another run, and with no planted bug the test would hold.
    #[test]
    fn everything_that_a_case_decides_is_in_its_test_and_in_its_story() {
        let second = std::time::Duration::from_secs(1);
        let moment = Moment { span: 12_345, number: 2 };
        let segment = Decided::Segment {
            from: "n1".to_owned(),
            to: "n2".to_owned(),
            moment,
            delay: second * 3 / 2,
        };
        let (host, path) = ("n3".to_owned(), "log/000001".to_owned());
        let sync = Decided::Sync { host, path, moment, end: SyncEnd::Lies };
        let case = Case {
            decided: vec![segment, sync],
            reseed: Some(Reseed { at: second * 20, number: 7 }),
            is_timed: true,
            ..Case::plain(Plan::default(), 1)
        };
        let violation = Violation { checker: "durability", what: "gone".to_owned(), at: 0 };
        let report = Report { violation: Some(violation), ..Report::empty(1) };
        let test = to_rust(&case, &report).unwrap();
        for line in [
            "use sim_tests::case::directed::{Scenario, at, ms};",
            "use sim_tests::world::{Decided, Moment, SyncEnd};",
            "case.decide(Decided::Segment { from: \"n1\".to_owned(), to: \"n2\".to_owned(), \
             moment: Moment { span: 12_345, number: 2 }, delay: ms(1500.0) });",
            "case.decide(Decided::Sync { host: \"n3\".to_owned(), \
             path: \"log/000001\".to_owned(), moment: Moment { span: 12_345, number: 2 }, \
             end: SyncEnd::Lies });",
            "case.reseed(at(20_000.0), 7);",
            "case.timed();",
        ] {
            assert!(test.contains(line), "{line} is not in {test}");
        }
        let story = in_words(&case, &report);
        for words in [
            "and a client writes from then on",
            "12.945 s  segment 2 from n1 to n2 takes 1.5s",
            "12.945 s  fsync 2 of log/000001 on n3 lies",
            "20.000 s  what is drawn is drawn anew from here on (7)",
        ] {
            assert!(story.contains(words), "{words} is not in {story}");
        }
    }

    #[test]
    fn debug_text_becomes_rust() {
        let debug = "PowerLoss { nodes: [1, 2], strict: true, while_busy: false, down: 1.5s }";
        let rust =
            "PowerLoss { nodes: vec![1, 2], strict: true, while_busy: false, down: ms(1500.0) }";
        assert_eq!(mended(debug), rust);
        assert_eq!(
            mended("Pause { node: 2, length: 50.25ms }"),
            "Pause { node: 2, length: ms(50.25) }"
        );
        assert_eq!(
            mended("Set { cell: Cell(\"k0-1/a\"), bytes: 8 }"),
            "Set { cell: cell(\"k0-1/a\"), bytes: 8 }"
        );
        let jump = "ClockJump { node: 1, by_ms: -1234567 }";
        assert_eq!(mended(jump), "ClockJump { node: 1, by_ms: -1_234_567 }");
        assert_eq!(grouped("12345.123456"), "12_345.123_456");
        assert_eq!(mended("Row(\"k0-1\")"), "Row(\"k0-1\".to_owned())");
        assert_eq!(
            mended("BulkIf { conditions: [(Cell(\"k\"), Absent)], cells: [(Cell(\"l\"), None)] }"),
            "BulkIf { conditions: vec![(cell(\"k\"), Demand::Absent)], \
             cells: vec![(cell(\"l\"), None)] }"
        );
        assert_eq!(
            mended(
                "BulkRows { before: [(Cell(\"k\"), Some(8))], rows: [\"k\", \"l\"], after: [] }"
            ),
            "BulkRows { before: vec![(cell(\"k\"), Some(8))], \
             rows: vec![\"k\".to_owned(), \"l\".to_owned()], after: vec![] }"
        );
        assert_eq!(
            mended("Keys { prefix: \"k0-\", start: None, stop: Some(\"k0-3\"), limit: 4 }"),
            "Keys { prefix: \"k0-\".to_owned(), start: None, stop: Some(\"k0-3\".to_owned()), \
             limit: 4 }"
        );
        assert_eq!(
            mended("Slice { key: \"k\", start: Some(\"\"), stop: Some(\"b\"), limit: 2 }"),
            "Slice { key: \"k\".to_owned(), start: Some(\"\".to_owned()), \
             stop: Some(\"b\".to_owned()), limit: 2 }"
        );
        assert_eq!(
            mended("Scan { prefix: \"k0-\", start: Some(Cell(\"k0-1/a\")), limit: 4 }"),
            "Scan { prefix: \"k0-\".to_owned(), start: Some(cell(\"k0-1/a\")), limit: 4 }"
        );
    }
}
