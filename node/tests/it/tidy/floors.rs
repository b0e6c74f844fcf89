//! Which module may import which: the floors of `node/src` as a table.
//!
//! A module may name the modules of its row and itself, in production code; the tests inside a
//! file are free. Both `crate::x` and a chain of `super` that ends at the root count as imports of
//! `x`, alone or in a braced list.

use super::Source;

/// Modules of `node/src` from the ground floor up, each with the modules it may import.
const FLOORS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("codec", &["base"]),
    ("env", &["base"]),
    ("storage", &["base", "codec", "env"]),
    ("raft", &["base", "codec"]),
    ("dynamo", &["base", "codec"]),
    ("kv", &["base", "codec", "env", "storage", "dynamo"]),
    ("wire", &["base", "codec", "raft", "dynamo", "kv"]),
    ("replica", &["base", "codec", "env", "storage", "raft", "dynamo", "kv", "wire"]),
    ("client", &["base", "codec", "env", "kv", "wire"]),
    ("server", &["base", "codec", "env", "kv", "wire", "replica"]),
    ("trial", &["base", "env", "kv", "wire", "client"]),
    ("cli", &["base", "codec", "env", "kv", "wire", "replica", "client", "server", "trial"]),
];

/// Macros of `base` that are imported; they stand at the root of the crate.
const MACROS: &[&str] = &["probe", "planted"];

/// The files that wire a node or a client to the real world, besides that world itself.
const WIRING: &[&str] = &[
    "node/src/env/",
    "node/src/trial/",
    "node/src/cli/",
    "node/src/main.rs",
    "node/src/client/connect.rs",
];

/// The floors without I/O, clock, tasks or log lines, and what would bring those in.
const PURE: &[&str] = &["base", "codec", "raft", "dynamo"];
const IMPURE: &[&str] = &["tokio::", "tracing::", "async ", ".await", "std::fs", "std::net"];

/// Complains about every import of a module that is not on a lower floor.
pub(super) fn upward_imports(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let Some(module) = module_of(&source.path) else { continue };
        let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == module) else { continue };
        for (line, imported) in imports(source) {
            let is_macro = MACROS.contains(&imported.as_str());
            if imported != module && !is_macro && !allowed.contains(&imported.as_str()) {
                complaints.push(format!(
                    "{}:{line}: {module} must not import {imported}, which is not below it",
                    source.path
                ));
            }
        }
    }
    complaints
}

/// Complains about every module of the node that the table does not name.
pub(super) fn modules_without_floor(sources: &[Source]) -> Vec<String> {
    let unknown = |module: &&str| !FLOORS.iter().any(|(name, _)| name == module);
    let mut modules: Vec<&str> =
        sources.iter().filter_map(|source| module_of(&source.path)).filter(unknown).collect();
    modules.dedup();
    modules.iter().map(|name| format!("node/src/{name}: give it a row in FLOORS")).collect()
}

/// Complains about code that names the real world without being wiring.
pub(super) fn real_world_outside_wiring(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    let bound = ["node/", "sim-tests/"];
    for source in sources.iter().filter(|source| source.is_rust() && !source.is_test()) {
        let is_bound = bound.iter().any(|start| source.path.starts_with(start));
        if !is_bound || WIRING.iter().any(|start| source.path.starts_with(start)) {
            continue;
        }
        for (line, code) in source.code_lines() {
            if code.contains("env::real") || code.contains("RealEnv") {
                complaints.push(format!(
                    "{}:{line}: only wiring names the real world; be generic over Env",
                    source.path
                ));
            }
        }
    }
    complaints
}

/// Complains about I/O, tasks and log lines in what must be a plain value.
pub(super) fn impure_cores(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        if !module_of(&source.path).is_some_and(|module| PURE.contains(&module)) {
            continue;
        }
        for (line, code) in source.code_lines() {
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                complaints.push(format!("{}:{line}: {word} in a pure module", source.path));
            }
        }
    }
    complaints
}

/// Returns the top module of a file of the node; none for `lib.rs` and `main.rs`, which wire.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("node/src/")?;
    let module = match inside.split_once('/') {
        Some((folder, _)) => folder,
        None => inside.strip_suffix(".rs")?,
    };
    (module != "lib" && module != "main").then_some(module)
}

/// Returns how many `super` lead from the file's own module to the root of the crate.
fn depth_of(path: &str) -> usize {
    let inside = path.strip_prefix("node/src/").unwrap_or(path);
    let folders = inside.matches('/').count();
    if inside.ends_with("/mod.rs") { folders } else { folders + 1 }
}

/// Returns the top modules that the file's production code names, each with its line.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if source.is_test() {
        return found;
    }
    let lines = source.code_lines();
    let to_root = "super::".repeat(depth_of(&source.path));
    for (position, (line, code)) in lines.iter().enumerate() {
        for root in ["crate::", to_root.as_str()] {
            for (start, _) in code.match_indices(root) {
                let rest = code.get(start + root.len()..).unwrap_or_default();
                if let Some(list) = rest.strip_prefix('{') {
                    let following = lines.iter().skip(position + 1).map(|(_, code)| *code);
                    let list: String = std::iter::once(list).chain(following).collect();
                    found.extend(heads_of_list(&list).map(|name| (*line, name)));
                } else if is_macro_call(rest) {
                    // Macros stand at the root, wherever they are defined.
                } else if root == "crate::" || is_module(&head(rest)) {
                    found.push((*line, head(rest)));
                }
            }
        }
    }
    found
}

fn is_macro_call(text: &str) -> bool {
    text.get(head(text).len()..).is_some_and(|rest| rest.starts_with('!'))
}

fn is_module(name: &str) -> bool {
    FLOORS.iter().any(|(module, _)| *module == name)
}

/// Returns the first identifier of each element of a braced list, given what follows its `{`.
fn heads_of_list(text: &str) -> impl Iterator<Item = String> + use<> {
    let mut heads = vec![String::new()];
    let mut depth = 1_usize;
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(String::new()),
            _ if depth == 1 => heads.last_mut().expect("starts with one").push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads.into_iter().map(|element| head(element.trim())).filter(|name| !name.is_empty())
}

fn head(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        upward_imports(&[Source::new(path, text)])
    }

    #[test]
    fn import_of_a_higher_floor_is_found_however_it_is_written() {
        for text in [
            "use crate::env::Disk;",
            "use super::super::env::Disk;",
            "use crate::{base::Key, env::{Disk, File}};",
            "use crate::{\n    base::Key,\n    env::Disk,\n};",
            "fn f(disk: &impl crate::env::Disk) {}",
        ] {
            let found = complaints("node/src/raft/log.rs", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains("raft must not import env"), "{found:?}");
        }
        assert_eq!(complaints("node/src/raft/mod.rs", "use super::kv::Command;").len(), 1);
        assert_eq!(complaints("node/src/storage/wal/mod.rs", "use crate::raft::Entry;").len(), 1);
    }

    #[test]
    fn lower_floors_comments_macros_and_tests_are_fine() {
        for text in [
            "use crate::base::Key;",
            "use crate::codec::{Decode, Encode};",
            "use super::message::Message;",
            "//! See [`crate::env`].",
            "use crate::probe;",
            "crate::some_macro!(\"raft.x\");",
            "#[cfg(test)]\nmod tests {\n    use crate::env::Disk;\n}",
        ] {
            assert_eq!(complaints("node/src/raft/log.rs", text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn table_is_in_order() {
        for (position, (module, allowed)) in FLOORS.iter().enumerate() {
            for below in *allowed {
                let lower = FLOORS.iter().position(|(name, _)| name == below);
                assert!(lower.is_some_and(|lower| lower < position), "{module} over {below}");
            }
        }
    }

    #[test]
    fn module_without_a_row_is_found() {
        let sources = [Source::new("node/src/util/mod.rs", ""), Source::new("node/src/lib.rs", "")];
        assert_eq!(modules_without_floor(&sources), ["node/src/util: give it a row in FLOORS"]);
    }

    #[test]
    fn real_world_is_found_outside_wiring_only() {
        let text = "use crate::env::real::RealEnv;";
        let found = |path| real_world_outside_wiring(&[Source::new(path, text)]).len();
        assert_eq!(found("node/src/replica/mod.rs"), 1);
        assert_eq!(found("sim-tests/src/cluster.rs"), 1);
        assert_eq!(found("node/src/cli/serve.rs"), 0);
        assert_eq!(found("node/src/client/tests/fake.rs"), 0);
        assert_eq!(found("real-tests/src/lib.rs"), 0);
    }

    #[test]
    fn io_in_a_core_is_found() {
        let found = |path, text| impure_cores(&[Source::new(path, text)]).len();
        assert_eq!(found("node/src/raft/core.rs", "async fn step() {}"), 1);
        assert_eq!(found("node/src/raft/core.rs", "// no tokio::time here"), 0);
        assert_eq!(found("node/src/storage/wal/mod.rs", "async fn sync() {}"), 0);
    }
}
