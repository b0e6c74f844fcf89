//! A hundred thousand real records in and out again, while a node dies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use real_tests::{RealCluster, block_on, eventually, program, run_program};

/// How many cells are imported.
const RECORD_COUNT: usize = 100_000;

/// Cells that are there when the node dies: the import is well under way, and far from its end.
const KILL_AT: u64 = 20_000;

/// Longest time for the import to get there, or to its end.
const LIMIT: Duration = Duration::from_mins(3);

/// Longest paragraph that is taken, in bytes.
const PARAGRAPH_BYTES_MAX: usize = 4_096;

#[test]
fn records_imported_while_a_node_dies_are_exported_as_they_were() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let leader = cluster.wait_for_leader().await;
        let addresses = cluster.addresses().join(",");
        let (input, output) =
            (cluster.scratch().join("in.jsonl"), cluster.scratch().join("out.jsonl"));
        let mut lines = records();
        fs::write(&input, lines.concat()).unwrap();

        let mut import = Command::new(program())
            .args(["import", &path_text(&input), "--cluster", &addresses, "--timeout", "60s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually(LIMIT, "the import is under way", async || {
            let status = cluster.status(leader).await?;
            (status.cell_count >= KILL_AT).then_some(())
        })
        .await;
        assert!(import.try_wait().unwrap().is_none(), "the import is not over yet");
        cluster.restart(leader);
        let ended = async || import.try_wait().unwrap();
        let status = eventually(LIMIT, "the import ends", ended).await;
        assert!(status.success(), "the import ended with {status}");

        let file = path_text(&output);
        let export = run_program(&["export", "--file", &file, "--cluster", &addresses], b"");
        assert!(export.status.success(), "{export:?}");
        let exported = fs::read_to_string(&output).unwrap();
        let mut exported: Vec<&str> = exported.split_inclusive('\n').collect();
        lines.sort();
        exported.sort_unstable();
        assert_eq!(exported.len(), lines.len(), "as many lines out as in");
        let differing = lines.iter().zip(&exported).find(|(line, out)| line != *out);
        assert_eq!(differing, None, "line in, line out");
        cluster.wait_until_caught_up().await;
    });
}

fn path_text(path: &Path) -> String {
    path.to_str().expect("a path that is text").to_owned()
}

/// Returns the records to import, one line each, all of different cells: paragraphs of the
/// documentation that is on this machine, over and over, with a value now and then that is no
/// text.
fn records() -> Vec<String> {
    let paragraphs = paragraphs();
    let mut lines = Vec::with_capacity(RECORD_COUNT);
    for (number, paragraph) in paragraphs.iter().cycle().take(RECORD_COUNT).enumerate() {
        let (document, place) = (number / 50, number % 50);
        let (key, column) = (format!("doc/{document:05}"), format!("{place:02}"));
        let value = if number % 100 == 99 {
            "\"value_base64\":\"/wA=\"".to_owned()
        } else {
            format!("\"value\":{}", serde_json::Value::from(paragraph.as_str()))
        };
        lines.push(format!("{{\"key\":\"{key}\",\"column\":\"{column}\",{value}}}\n"));
    }
    lines
}

/// Returns paragraphs of text: those of the documentation that came with the dependencies, and
/// made-up ones if there is none.
fn paragraphs() -> Vec<String> {
    let home = std::env::var("CARGO_HOME").map(PathBuf::from).ok();
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let mut found = Vec::new();
    if let Some(home) = home {
        collect(&home.join("registry/src"), &mut found);
    }
    let made_up = (0..1_000_u32).map(|number| format!("Paragraph {number}, with \"é\" and \t."));
    found.extend(made_up);
    found
}

/// Adds the paragraphs of every Markdown file and licence below `folder`.
fn collect(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let is_document = path.extension().is_some_and(|extension| extension == "md")
            || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("LICENSE"));
        if found.len() >= RECORD_COUNT {
            return;
        } else if path.is_dir() {
            collect(&path, found);
        } else if is_document {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let paragraphs = text.split("\n\n").map(str::trim).filter(|text| !text.is_empty());
            found.extend(
                paragraphs.filter(|text| text.len() <= PARAGRAPH_BYTES_MAX).map(str::to_owned),
            );
        }
    }
}
