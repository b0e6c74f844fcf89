//! How long files and lines are, and whether every folder explains itself.

use std::collections::BTreeSet;

use super::Source;

/// Most lines of a file outside its test modules: what still can be read in one sitting.
const FILE_LINES_MAX: usize = 800;

/// Most characters of a line.
const COLUMNS_MAX: usize = 100;

/// Fewest `//!` lines of the essay that opens a folder.
const ESSAY_LINES_MIN: usize = 3;

/// Complains about files with too many production lines.
pub(super) fn long_files(sources: &[Source]) -> Vec<String> {
    let rust = sources.iter().filter(|source| source.is_rust() && !source.is_test());
    rust.map(|source| (source, source.production_lines().len()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(source, lines)| format!("{}: {lines} lines, split it", source.path))
        .collect()
}

/// Complains about lines that are too wide.
pub(super) fn long_lines(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for (index, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                complaints.push(format!("{}:{}: {columns} columns", source.path, index + 1));
            }
        }
    }
    complaints
}

/// Complains about source folders whose `mod.rs` or `lib.rs` does not say what they are for.
pub(super) fn folders_without_essay(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for folder in folders(sources) {
        let opens = |source: &&Source| {
            let names = ["mod.rs", "lib.rs", "main.rs"];
            names.iter().any(|name| source.path == format!("{folder}/{name}"))
        };
        match sources.iter().find(opens) {
            None => complaints.push(format!("{folder}: no mod.rs")),
            Some(source) => {
                let essay = source.text.lines().take_while(|line| line.starts_with("//!")).count();
                if essay < ESSAY_LINES_MIN {
                    complaints.push(format!("{}: an essay of {essay} lines", source.path));
                }
            }
        }
    }
    complaints
}

/// Complains about source folders that the map of the project does not name: `node/src/raft`, or
/// the name of the package for its `src`.
pub(super) fn folders_off_the_map(sources: &[Source], map: &str) -> Vec<String> {
    let is_named = |path: &str| ['`', '/'].iter().any(|end| map.contains(&format!("`{path}{end}")));
    folders(sources)
        .iter()
        .filter(|folder| !is_named(folder) && !folder.strip_suffix("/src").is_some_and(is_named))
        .map(|folder| format!("ARCHITECTURE.md: says nothing about `{folder}`"))
        .collect()
}

/// Returns the folders at and below `src` that hold source files; `src/bin` holds programs.
fn folders(sources: &[Source]) -> BTreeSet<String> {
    let rust = sources.iter().filter(|source| source.is_rust() && !source.is_test());
    rust.filter_map(|source| source.path.rsplit_once('/'))
        .map(|(folder, _)| folder.to_owned())
        .filter(|folder| folder.contains("/src/") || folder.ends_with("/src"))
        .filter(|folder| !folder.ends_with("/bin"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_file_is_found_unless_its_length_is_tests() {
        let long = "x\n".repeat(FILE_LINES_MAX + 1);
        let found = |path, text: &str| long_files(&[Source::new(path, text)]).len();
        assert_eq!(found("node/src/raft/core.rs", &long), 1);
        assert_eq!(found("node/src/raft/tests.rs", &long), 0);
        let tested = format!("x\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert_eq!(found("node/src/raft/core.rs", &tested), 0);
    }

    #[test]
    fn wide_line_is_found_by_characters() {
        let found = |line: String| long_lines(&[Source::new("node/src/a.rs", &line)]);
        assert_eq!(found("é".repeat(COLUMNS_MAX)), Vec::<String>::new());
        assert_eq!(found("é".repeat(COLUMNS_MAX + 1)), ["node/src/a.rs:1: 101 columns"]);
    }

    #[test]
    fn folder_without_essay_is_found() {
        let found = |sources: &[Source]| folders_without_essay(sources);
        let file = || Source::new("node/src/raft/log.rs", "");
        assert_eq!(found(&[file()]), ["node/src/raft: no mod.rs"]);
        let brief = Source::new("node/src/raft/mod.rs", "//! Raft.\n\nmod log;");
        let expected = "node/src/raft/mod.rs: an essay of 1 lines";
        assert_eq!(found(&[file(), brief]), [expected]);
        let essay = Source::new("node/src/raft/mod.rs", "//! Raft.\n//!\n//! It elects.\n");
        assert_eq!(found(&[file(), essay]), Vec::<String>::new());
    }

    #[test]
    fn folder_off_the_map_is_found() {
        let sources = [Source::new("node/src/lib.rs", ""), Source::new("node/src/raft/mod.rs", "")];
        let off = |map| folders_off_the_map(&sources, map).len();
        assert_eq!(off("`node` and `node/src/raft`"), 0);
        assert_eq!(off("`node/src/raft/log.rs`"), 0);
        assert_eq!(off("`node` and `node/src/raftery`, node/src/raft"), 1);
        assert_eq!(off(""), 2);
    }
}
