//! Words in the source that mean something to a person or to a tool.

use std::collections::BTreeMap;

use super::Source;

/// What must not stay behind on the main branch. Split, so that this file passes its own check.
const LEFTOVERS: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "finish it, or write down what is left out and why"),
    (concat!("XX", "X"), "finish it, or write down what is left out and why"),
    (concat!("TO", "DO"), "finish it, or write down what is left out and why"),
    (concat!("todo", "!"), "finish it"),
    (concat!("unimplemented", "!"), "finish it"),
    (concat!("#[ign", "ore"), "a test that does not run proves nothing"),
    (concat!("#[should_", "panic"), "say which panic: catch it and look at its message"),
];

/// Places outside the project, which a reader does not have.
const OUTSIDE: &[&str] =
    &[concat!("../", "shared"), concat!(".lib", "rary"), concat!("/wo", "rk/")];

/// Most places of one planted bug: it is one slip, and a line at each check that would catch it.
const PLANTED_PLACES_MAX: usize = 3;

/// Complains about probes that share a name or whose name is not `area.what_happens`.
pub(super) fn bad_probes(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, places) in marked(sources, "probe!(\"") {
        if places.len() > 1 {
            complaints.push(format!("{}: the probe {name} is the same", places.join(", ")));
        }
        if !is_probe_name(&name) {
            complaints
                .push(format!("{}: probe {name:?}: say area.what_happens", places.join(", ")));
        }
    }
    complaints
}

/// Complains about planted bugs that are spread over too many places, or whose code is none.
pub(super) fn bad_planted(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (code, places) in marked(sources, "planted!(\"") {
        if places.len() > PLANTED_PLACES_MAX {
            complaints.push(format!("{}: {code} is one slip, in one place", places.join(", ")));
        }
        if !is_planted_code(&code) {
            complaints.push(format!("{}: {code:?} is no code of the catalogue", places.join(", ")));
        }
    }
    complaints
}

/// Complains about marks of unfinished work, and about tests that cannot run or cannot fail.
pub(super) fn leftovers(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for (index, line) in source.text.lines().enumerate() {
            for (word, advice) in LEFTOVERS.iter().filter(|(word, _)| has_word(line, word)) {
                complaints.push(format!("{}:{}: {word}: {advice}", source.path, index + 1));
            }
        }
    }
    complaints
}

/// Complains about references to what a reader of the project does not have.
pub(super) fn references_outside(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        for (index, line) in source.text.lines().enumerate() {
            for place in OUTSIDE.iter().filter(|place| line.contains(**place)) {
                complaints.push(format!("{}:{}: refers to {place}", source.path, index + 1));
            }
        }
    }
    complaints
}

/// Returns the names that follow `opening` in the node's production code, and where they stand.
fn marked(sources: &[Source], opening: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path.starts_with("node/src/")) {
        for (line, code) in source.code_lines() {
            for named in code.split(opening).skip(1) {
                let name = named.split('"').next().unwrap_or_default().to_owned();
                found.entry(name).or_default().push(format!("{}:{line}", source.path));
            }
        }
    }
    found
}

fn is_probe_name(name: &str) -> bool {
    let is_word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    name.split_once('.').is_some_and(|(area, words)| is_word(area) && is_word(words))
}

/// Tells whether `code` is like `R46`, or `R46b` where one bug has two ways to be planted.
fn is_planted_code(code: &str) -> bool {
    let rest = code.strip_prefix(|c: char| c.is_ascii_uppercase()).unwrap_or_default();
    let number = rest.strip_suffix(|c: char| c.is_ascii_lowercase()).unwrap_or(rest);
    !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
}

/// Tells whether `line` has `word` where no letter goes on before it or, for a name, after it.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line.get(..start).and_then(|text| text.chars().next_back());
        let after = line.get(start + word.len()..).and_then(|text| text.chars().next());
        let is_name = word.chars().all(char::is_alphanumeric);
        let goes_on = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let is_part = goes_on(before) || (is_name && goes_on(after));
        !is_part
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: &str = "node/src/raft/core.rs";

    #[test]
    fn probe_named_twice_or_badly_is_found() {
        let found = |text: &str| bad_probes(&[Source::new(CORE, text)]).len();
        assert_eq!(found("probe!(\"raft.votes\");\nprobe!(\"raft.steps_down\");"), 0);
        assert_eq!(found("probe!(\"raft.votes\");\nprobe!(\"raft.votes\");"), 1);
        for name in ["votes", "raft.Votes", "raft.", ".votes", "raft.votes.twice", "raft.a b"] {
            assert_eq!(found(&format!("probe!(\"{name}\");")), 1, "{name}");
        }
    }

    #[test]
    fn planted_bug_in_many_places_or_without_code_is_found() {
        let found = |text: &str| bad_planted(&[Source::new(CORE, text)]).len();
        assert_eq!(found("if planted!(\"R3\") {}\nif planted!(\"R46b\") {}"), 0);
        assert_eq!(found(&"if planted!(\"R3\") {}\n".repeat(PLANTED_PLACES_MAX)), 0);
        assert_eq!(found(&"if planted!(\"R3\") {}\n".repeat(PLANTED_PLACES_MAX + 1)), 1);
        assert_eq!(found("if planted!(\"no fsync\") {}"), 1);
    }

    #[test]
    fn leftovers_are_found_as_words() {
        let found = |text: &str| leftovers(&[Source::new(CORE, text)]).len();
        for (word, _) in LEFTOVERS {
            assert_eq!(found(&format!("x(); // {word}")), 1, "{word}");
        }
        assert_eq!(found("let mastodon = TODOS;"), 0);
    }

    #[test]
    fn reference_outside_is_found_in_any_text() {
        for place in OUTSIDE {
            let source = Source::new("README.md", &format!("see {place}design.md"));
            assert_eq!(references_outside(&[source]).len(), 1, "{place}");
        }
    }
}
