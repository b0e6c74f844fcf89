//! Checks on the source text itself, run with every `cargo test`: no tool to install, no list to
//! keep by hand.
//!
//! Each check is a plain function from [`Source`]s to complaints, `path:line: what and why`, with
//! a test that shows it firing on a bad sample. This file walks the tree, runs every check over it
//! and demands that nothing is left to complain about. What clippy can say (bans, lengths of
//! functions, missing documentation) is in `clippy.toml` and the workspace lints, not here.
//!
//! - [`floors`]: imports run downward only; the real world is named by wiring alone.
//! - [`shape`]: lengths of files and lines, an essay and a place in the map for every folder.
//! - [`marks`]: `probe!` and `planted!` names, leftovers, references to the outside.

mod floors;
mod marks;
mod shape;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The packages whose text is checked.
const PACKAGES: &[&str] = &["node", "sim-tests", "real-tests", "benches", "fuzz"];

/// Ends of names of the files that a person wrote and may be searched as text.
const TEXT: &[&str] = &[".rs", ".md", ".toml", ".yml", ".yaml", ".sh", ".json", "/run"];

/// One file: its path from the root of the workspace, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    #[cfg(test)]
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    /// Tells whether the whole file is tests.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Returns the numbered lines that are not in a `#[cfg(test)] mod … { … }`.
    ///
    /// Relies on rustfmt: such a module stands at the left edge and ends with a `}` there.
    fn production_lines(&self) -> Vec<(usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut kept = Vec::new();
        let mut in_tests = false;
        for (index, line) in lines.iter().enumerate() {
            let next = lines.get(index + 1).copied().unwrap_or_default();
            let opens = *line == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{');
            in_tests = in_tests || opens;
            if !in_tests {
                kept.push((index + 1, *line));
            }
            in_tests = in_tests && *line != "}";
        }
        kept
    }

    /// Returns the numbered production lines without their comments.
    fn code_lines(&self) -> Vec<(usize, &str)> {
        let uncommented = |line: &'_ str| line.find("//").unwrap_or(line.len());
        let lines = self.production_lines().into_iter();
        lines.map(|(number, line)| (number, line.split_at(uncommented(line)).0)).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace")
}

/// Returns every text file of the workspace: those of the packages, of the root, and of the folders
/// that belong to no package.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for package in PACKAGES.iter().map(|name| root().join(name)).filter(|path| path.is_dir()) {
        walk(&package, &mut paths);
    }
    for folder in ["", ".cargo", ".ci", "docs"] {
        let place = root().join(folder);
        paths.extend(entries(&place).into_iter().filter(|path| path.is_file()));
    }
    let is_text = |path: &&PathBuf| TEXT.iter().any(|end| relative(path).ends_with(end));
    let read = |path: &PathBuf| Source {
        path: relative(path),
        text: fs::read_to_string(path).expect("source is readable"),
    };
    paths.iter().filter(is_text).map(read).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("corpus") {
                walk(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("folder is readable").path()).collect();
    paths.sort();
    paths
}

fn relative(path: &Path) -> String {
    let inside = path.strip_prefix(root()).expect("path is in the workspace");
    inside.to_string_lossy().replace('\\', "/")
}

#[track_caller]
fn assert_tidy(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn imports_run_downward_only() {
    assert_tidy(&floors::upward_imports(&sources()));
}

#[test]
fn every_module_has_a_floor() {
    assert_tidy(&floors::modules_without_floor(&sources()));
}

#[test]
fn real_world_is_named_by_wiring_alone() {
    assert_tidy(&floors::real_world_outside_wiring(&sources()));
}

#[test]
fn cores_are_plain_values() {
    assert_tidy(&floors::impure_cores(&sources()));
}

#[test]
fn files_and_lines_are_short() {
    let sources = sources();
    assert_tidy(&shape::long_files(&sources));
    assert_tidy(&shape::long_lines(&sources));
}

#[test]
fn every_folder_has_an_essay() {
    assert_tidy(&shape::folders_without_essay(&sources()));
}

#[test]
fn every_folder_is_on_the_map() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md"));
    let map = map.expect("ARCHITECTURE.md stands at the root");
    assert_tidy(&shape::folders_off_the_map(&sources(), &map));
}

#[test]
fn probes_have_unique_names() {
    assert_tidy(&marks::bad_probes(&sources()));
}

#[test]
fn planted_bugs_have_one_place() {
    assert_tidy(&marks::bad_planted(&sources()));
}

#[test]
fn nothing_is_left_over() {
    assert_tidy(&marks::leftovers(&sources()));
}

#[test]
fn project_stands_alone() {
    assert_tidy(&marks::references_outside(&sources()));
}

#[test]
fn node_does_not_know_the_simulator() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", "mangrove", "-e", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let listed = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
    assert!(listed.starts_with("mangrove v"), "the tree is that of the node: {listed}");
    let simulator: Vec<&str> = listed.lines().filter(|line| line.contains("madsim")).collect();
    assert!(simulator.is_empty(), "the shipped program would link {simulator:?}");
}

#[test]
fn walk_finds_this_file_and_no_build_output() {
    let sources = sources();
    let paths: Vec<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    assert!(paths.contains(&"node/tests/it/tidy/mod.rs"), "{paths:?}");
    assert!(paths.contains(&"Cargo.toml"), "{paths:?}");
    assert!(paths.contains(&"docs/performance.md"), "{paths:?}");
    assert!(!paths.iter().any(|path| path.contains("target/")), "{paths:?}");
}

#[test]
fn production_lines_leave_out_test_modules() {
    let text = "a\n#[cfg(test)]\nmod tests {\n    b\n}\nc\n#[cfg(test)]\nmod tests;\nd // e";
    let source = Source::new("node/src/raft/log.rs", text);
    let code: Vec<(usize, &str)> = source.code_lines();
    assert_eq!(code, [(1, "a"), (6, "c"), (7, "#[cfg(test)]"), (8, "mod tests;"), (9, "d ")]);
}
