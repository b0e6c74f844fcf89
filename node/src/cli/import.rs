//! `mangrove import`: JSON Lines into the store, in atomic batches, several at a time.
//!
//! Obstacles first. Batches that are under way together may be applied in any order, but of two
//! lines with the same cell the later one must win; so a batch waits while one that is under way
//! holds a cell of its own. An import may stop in the middle; so after each batch that the
//! cluster acknowledged, and all before it, the place in the input is written down, and
//! `--resume` goes on from there. Batches after that place may have been applied already: to
//! apply them again, in order, changes nothing.
//!
//! # Left out
//! Rejecting a line and going on: an input with a wrong line is refused at that line.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::CliError;
use super::args::ImportArgs;
use super::client_commands::client_at;
use super::output::say;
use super::records::Record;
use crate::base::{Column, Key};
use crate::client::Client;
use crate::env::Env;
use crate::kv::{Batch, Mutation};
use crate::planted;

/// Bytes after which a batch is closed; one more cell may exceed it. Small enough that eight of
/// them are under way without filling anybody's buffers.
const BATCH_BYTES: usize = 1 << 20;

/// Longest line; a cell of the largest size in base64 with its names fits well.
const LINE_BYTES_MAX: u64 = 4 << 20;

type Cells = BTreeSet<(Key, Column)>;

/// A change and the cell that it changes.
type PlacedMutation = ((Key, Column), Mutation);

/// How far an import is; the content of `FILE.progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Length of the whole input, to recognise another file.
    total_bytes: u64,
    /// Everything before here is in the store.
    done_bytes: u64,
    /// Lines before here, for messages.
    done_lines: u64,
    /// Cells written so far.
    done_cells: u64,
}

/// A batch and what is known about it.
#[derive(Debug, Default)]
struct Pending {
    mutations: Vec<Mutation>,
    cells: Cells,
    /// How far the import is when this batch is done too.
    after: Progress,
}

/// `mangrove import`
pub(super) async fn import(args: ImportArgs) -> Result<(), CliError> {
    let path = (args.file != "-").then(|| PathBuf::from(&args.file));
    let Some(path) = path else {
        if args.resume {
            let what = "standard input cannot be resumed: import from a file".to_owned();
            return Err(CliError::Usage(what));
        }
        let mut import = Import::new(&args, BufReader::new(std::io::stdin()), Progress::default());
        import.all(&client_at(&args.connection, args.level)).await?;
        import.say_done();
        return Ok(());
    };
    let progress_path = progress_path(&path);
    let (file, start) = open(&path, &progress_path, args.resume)?;
    write_progress(&progress_path, start)?;
    let mut import = Import::new(&args, BufReader::new(file), start);
    import.progress_path = Some(progress_path.clone());
    let imported = import.all(&client_at(&args.connection, args.level)).await;
    import.bar.finish_and_clear();
    match imported {
        Ok(()) => {
            import.say_done();
            remove_progress(&progress_path)
        }
        Err(error) => {
            let done = import.done;
            Err(error.advise(format!(
                "{} cells are imported, up to line {}; to go on from there:\n  \
                 mangrove import {} --resume",
                done.done_cells, done.done_lines, args.file
            )))
        }
    }
}

/// One import under way.
struct Import<R> {
    lines: Lines<R>,
    batch_cells: usize,
    in_flight_max: usize,
    done: Progress,
    /// Where to write down how far it is; `None` for standard input.
    progress_path: Option<PathBuf>,
    bar: ProgressBar,
}

impl<R: BufRead> Import<R> {
    fn new(args: &ImportArgs, input: R, start: Progress) -> Self {
        let name = if args.file == "-" { "standard input" } else { &args.file }.to_owned();
        Self {
            lines: Lines { input, read: start, name },
            batch_cells: usize::try_from(args.batch_cells).unwrap_or(usize::MAX),
            in_flight_max: usize::try_from(args.in_flight).unwrap_or(usize::MAX),
            done: start,
            progress_path: None,
            bar: progress_bar(start),
        }
    }

    /// Sends everything, at most so many batches at a time, in an order that lets the last
    /// writer of each cell win.
    async fn all<E: Env>(&mut self, client: &Client<E>) -> Result<(), CliError> {
        let mut under_way = FuturesOrdered::new();
        // In the order of `under_way`, which yields in the order of the input.
        let mut waiting: VecDeque<(Cells, Progress)> = VecDeque::new();
        loop {
            // A wrong line ends the input; what comes before it is still written.
            let (next, read) = self.lines.next_batch(self.batch_cells);
            let is_empty = next.mutations.is_empty();
            while !may_start(&next, &waiting, self.in_flight_max) {
                self.finish_first(&mut under_way, &mut waiting).await?;
            }
            if !is_empty {
                let batch = Batch { conditions: Vec::new(), mutations: next.mutations };
                under_way.push_back(client.bulk_set(batch));
                waiting.push_back((next.cells, next.after));
            }
            if is_empty || read.is_err() {
                while !waiting.is_empty() {
                    self.finish_first(&mut under_way, &mut waiting).await?;
                }
                // Empty lines at the end belong to no batch.
                self.done = next.after;
                return read;
            }
        }
    }

    /// Waits for the first batch under way and writes down that it is done.
    async fn finish_first<F, T>(
        &mut self,
        under_way: &mut FuturesOrdered<F>,
        waiting: &mut VecDeque<(Cells, Progress)>,
    ) -> Result<(), CliError>
    where
        F: Future<Output = Result<T, crate::client::ClientError>>,
    {
        if let Some(result) = under_way.next().await {
            result?;
        }
        if let Some((_, after)) = waiting.pop_front() {
            self.done = after;
            self.bar.set_position(after.done_bytes);
            if let Some(path) = &self.progress_path {
                write_progress(path, after)?;
            }
        }
        Ok(())
    }

    fn say_done(&self) {
        let Progress { done_cells, done_lines, .. } = self.done;
        say(&format!("imported {done_cells} cells from {done_lines} lines"));
    }
}

/// Tells whether a batch may be under way together with those that are.
fn may_start(next: &Pending, under_way: &VecDeque<(Cells, Progress)>, max: usize) -> bool {
    under_way.len() < max && under_way.iter().all(|(cells, _)| cells.is_disjoint(&next.cells))
}

/// The input, cut into batches.
struct Lines<R> {
    input: R,
    /// How far it is read.
    read: Progress,
    /// For messages.
    name: String,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next batch; one without mutations ends the input. With an error, the batch has
    /// what came before it.
    fn next_batch(&mut self, cells_max: usize) -> (Pending, Result<(), CliError>) {
        let mut batch = Pending { after: self.read, ..Pending::default() };
        let (mut bytes, mut line) = (0, Vec::new());
        while batch.mutations.len() < cells_max && bytes < BATCH_BYTES {
            match self.next_cell(&mut line) {
                Ok(Some((cell, mutation))) => {
                    bytes += mutation.bytes();
                    batch.cells.insert(cell);
                    batch.mutations.push(mutation);
                    batch.after = self.read;
                }
                Ok(None) => {
                    batch.after = self.read;
                    break;
                }
                Err(error) => return (batch, Err(error)),
            }
        }
        (batch, Ok(()))
    }

    /// Reads on to the next cell, over empty lines; `None` at the end.
    fn next_cell(&mut self, line: &mut Vec<u8>) -> Result<Option<PlacedMutation>, CliError> {
        loop {
            line.clear();
            let count = self.input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line);
            let count = count
                .map_err(|error| CliError::io(format!("cannot read {}", self.name), &error))?;
            if count == 0 {
                return Ok(None);
            }
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            let number = self.read.done_lines + 1;
            if count == LINE_BYTES_MAX {
                return Err(self.wrong(number, "the line is too long"));
            }
            let is_blank = line.trim_ascii().is_empty();
            let cell = if is_blank {
                None
            } else {
                Some(parse_cell(line).map_err(|error| self.wrong(number, &error))?)
            };
            self.read.done_bytes += count - u64::from(planted!("F19"));
            self.read.done_lines = number;
            self.read.done_cells += u64::from(!is_blank);
            if cell.is_some() {
                return Ok(cell);
            }
        }
    }

    fn wrong(&self, number: u64, what: &str) -> CliError {
        CliError::Usage(format!("{}, line {number}: {what}", self.name))
    }
}

/// Reads all batches of an input; returns how many lines, bytes and cells that were, and what the
/// first wrong line was answered with.
#[cfg(feature = "testing")]
pub(super) fn read_all(input: &[u8]) -> (u64, u64, u64, Result<(), String>) {
    const BATCH_CELLS: usize = 3;
    let mut lines = Lines { input, read: Progress::default(), name: "the input".to_owned() };
    loop {
        let (batch, result) = lines.next_batch(BATCH_CELLS);
        if batch.mutations.is_empty() || result.is_err() {
            let Progress { done_lines, done_bytes, done_cells, .. } = lines.read;
            return (done_lines, done_bytes, done_cells, result.map_err(|error| error.to_string()));
        }
    }
}

fn parse_cell(line: &[u8]) -> Result<PlacedMutation, String> {
    match Record::parse(line)? {
        Mutation::Set { key, column, value } => {
            Ok(((key.clone(), column.clone()), Mutation::Set { key, column, value }))
        }
        Mutation::Delete { .. } | Mutation::DeleteRow { .. } => {
            Err("an import only sets cells: use `mangrove bulk` to delete".to_owned())
        }
    }
}

/// Opens the input, at the place where an earlier import stopped if that is wanted.
fn open(
    path: &Path,
    progress_path: &Path,
    resume: bool,
) -> Result<(impl Read + use<>, Progress), CliError> {
    let usage =
        |error: std::io::Error| CliError::Usage(format!("cannot read {}: {error}", path.display()));
    let mut file = fs::OpenOptions::new().read(true).open(path).map_err(usage)?;
    let total_bytes = file.metadata().map_err(usage)?.len();
    let start = Progress { total_bytes, ..Progress::default() };
    if !resume {
        return Ok((file, start));
    }
    let start = read_progress(progress_path)?;
    if start.total_bytes != total_bytes || start.done_bytes > total_bytes {
        return Err(CliError::Usage(format!(
            "{} had {} bytes when its import was interrupted, now it has {total_bytes}: import it \
             from its start, without --resume",
            path.display(),
            start.total_bytes
        )));
    }
    file.seek(SeekFrom::Start(start.done_bytes)).map_err(usage)?;
    Ok((file, start))
}

fn progress_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".progress");
    PathBuf::from(name)
}

fn read_progress(path: &Path) -> Result<Progress, CliError> {
    let shown = path.display();
    let bytes = fs::read(path).map_err(|error| {
        CliError::Usage(format!(
            "cannot read {shown}, which would say where to go on: {error}; import without --resume"
        ))
    })?;
    serde_json::from_slice(&bytes).map_err(|error| CliError::Usage(format!("{shown}: {error}")))
}

/// Replaces the file as a whole, so that it is never half written.
fn write_progress(path: &Path, progress: Progress) -> Result<(), CliError> {
    let temporary = path.with_extension("progress.new");
    let written = serde_json::to_vec(&progress)
        .map_err(std::io::Error::from)
        .and_then(|bytes| fs::write(&temporary, bytes))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| CliError::io(format!("cannot write {}", path.display()), &error))
}

fn remove_progress(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::io(format!("cannot remove {}", path.display()), &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn progress_bar(start: Progress) -> ProgressBar {
    if start.total_bytes == 0 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    );
    let bar = ProgressBar::new(start.total_bytes);
    bar.with_style(style.unwrap_or(ProgressStyle::default_bar())).with_position(start.done_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(input: &str) -> Lines<&[u8]> {
        Lines { input: input.as_bytes(), read: Progress::default(), name: "file".to_owned() }
    }

    fn cell(key: &str) -> (Key, Column) {
        (Key::new(key.to_owned()).unwrap(), Column::default())
    }

    fn line(key: &str) -> String {
        format!("{{\"key\":\"{key}\",\"value\":\"v\"}}\n")
    }

    #[test]
    fn wrong_line_is_named_and_what_came_before_is_kept() {
        let input = format!("{}\n{}{{\"key\":1}}\n", line("a"), line("b"));
        let (batch, read) = lines(&input).next_batch(500);
        let error = read.unwrap_err();
        assert_eq!(batch.mutations.len(), 2);
        assert_eq!(batch.after.done_lines, 3);
        assert!(error.to_string().starts_with("file, line 4: "), "{error}");
        assert_eq!(error.exit_code(), 2);
        let (_, read) = lines("{\"action\":\"delete\",\"key\":\"k\"}").next_batch(5);
        let error = read.unwrap_err();
        assert!(error.to_string().contains("mangrove bulk"), "{error}");
    }

    #[test]
    fn batch_is_closed_by_its_bytes() {
        let value = "x".repeat(600 << 10);
        let line = format!("{{\"key\":\"k\",\"value\":\"{value}\"}}\n");
        let input = line.repeat(5);
        let mut lines = lines(&input);
        let sizes: Vec<_> = (0..4).map(|_| lines.next_batch(500).0.mutations.len()).collect();
        assert_eq!(sizes, [2, 2, 1, 0]);
    }

    #[test]
    fn batch_waits_for_an_earlier_one_with_the_same_cell() {
        let pending = |keys: &[&str]| Pending {
            cells: keys.iter().map(|key| cell(key)).collect(),
            ..Pending::default()
        };
        let under_way: VecDeque<_> = [&["a", "b"], &["c", "d"]]
            .map(|keys| (pending(keys).cells, Progress::default()))
            .into();
        assert!(may_start(&pending(&["e", "f"]), &under_way, 8));
        assert!(!may_start(&pending(&["e", "d"]), &under_way, 8));
        assert!(!may_start(&pending(&["e", "f"]), &under_way, 2));
    }

    #[test]
    fn progress_survives_and_another_file_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cells.jsonl");
        let input = [line("a"), line("b"), line("c")].concat();
        fs::write(&path, &input).unwrap();
        let progress_path = progress_path(&path);
        assert!(open(&path, &progress_path, true).is_err(), "there is nothing to resume");
        let (file, start) = open(&path, &progress_path, false).unwrap();
        let mut lines = Lines { input: BufReader::new(file), read: start, name: String::new() };
        let first = lines.next_batch(2).0;
        write_progress(&progress_path, first.after).unwrap();

        let (file, start) = open(&path, &progress_path, true).unwrap();
        assert_eq!(start, first.after);
        let mut lines = Lines { input: BufReader::new(file), read: start, name: String::new() };
        let rest = lines.next_batch(2).0;
        assert_eq!(rest.cells, [cell("c")].into());
        assert_eq!((rest.after.done_lines, rest.after.done_cells), (3, 3));

        fs::write(&path, line("d")).unwrap();
        assert!(open(&path, &progress_path, true).is_err(), "another file");
        remove_progress(&progress_path).unwrap();
        remove_progress(&progress_path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn resuming_anywhere_reads_what_is_left(
            keys in prop::collection::vec("[a-c]{1,3}", 1..20),
            cells_max in 1_usize..5,
            stop in 0_usize..20,
        ) {
            let input: String = keys.iter().map(|key| line(key)).collect();
            let mut whole = lines(&input);
            let mut seen = Vec::new();
            for position in 0.. {
                let batch = whole.next_batch(cells_max).0;
                if batch.mutations.is_empty() {
                    break;
                }
                seen.extend(batch.mutations);
                if position == stop {
                    let done = usize::try_from(batch.after.done_bytes).unwrap();
                    whole = lines(&input[done..]);
                    whole.read = batch.after;
                }
            }
            prop_assert_eq!(seen.len(), keys.len());
            prop_assert_eq!(whole.read.done_cells, keys.len() as u64);
        }
    }
}
