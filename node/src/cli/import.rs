//! `mangrove import`: JSON Lines into the store, in atomic batches, several at a time.
//!
//! Obstacles first. Batches that are under way together may be applied in any order, but of two
//! lines with the same cell the later one must win; so a batch waits while one that is under way
//! holds a cell of its own. An import may stop in the middle; so after each batch that the
//! cluster acknowledged, and all before it, the place in the input is written down (`progress`),
//! and `--resume` goes on from there. Batches after that place may have been applied already: to
//! apply them again, in order, changes nothing. But they may also be applied *later*, from buffers
//! of a network that was cut, or of a node that was frozen, and so undo what comes after them in
//! the input. So an import ends the session of the one before it, which is written down, too,
//! before it writes anything (`client::session`): what comes of it later has no effect. In the
//! masterless mode there are no sessions. There the connections of a client that is gone deliver
//! nothing more (`Net::discard_on_drop`); what a node had received by then, it may still write when
//! it goes on, with a stamp of that time. Of that the help warns.
//!
//! The input may be slow, and blocks; so a thread of its own reads it, and what is under way does
//! not wait for it.
//!
//! # Left out
//! Writing down another session when the cluster has pushed out that of the import: as many others
//! as it keeps would have to come while the import writes nothing.
//!
//! Rejecting a line and going on: an input with a wrong line is refused at that line. Sending what
//! there is when the input pauses: a batch waits until it is full, or the input ends.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use futures_util::StreamExt;
use futures_util::future::select_ok;
use futures_util::stream::FuturesOrdered;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::args::ImportArgs;
use super::client_commands::client_at;
use super::output::{counted, quoted, say};
use super::progress::{Progress, ProgressFile};
use super::records::Record;
use super::{CliError, stop_signal};
use crate::base::checksum::crc32_extend;
use crate::base::limits::{COLUMN_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::base::{ClusterId, Column, Key};
use crate::client::{Client, ClientError};
use crate::env::real::RealEnv;
use crate::env::{First, race};
use crate::kv::{Batch, Mutation};
use crate::planted;

/// Bytes after which a batch is closed; one more cell may exceed it. Small enough that eight of
/// them are under way without filling anybody's buffers.
const BATCH_BYTES: usize = 1 << 20;

/// Most bytes of a line for one byte of a cell: a control character is written `\u0000`. Base64 has
/// fewer.
const JSON_BYTES_MAX: usize = 6;

/// Room in a line for what is not the cell: names of fields, quotes, a version.
const FIELDS_BYTES: usize = 1 << 10;

/// Longest line: every line that `export` writes is shorter, and every other way to write the same
/// cell without needless space.
const LINE_BYTES_MAX: usize =
    JSON_BYTES_MAX * (KEY_BYTES_MAX + COLUMN_BYTES_MAX + VALUE_BYTES_MAX) + FIELDS_BYTES;

/// Bytes that are read at a time of what is imported already, to see whether it is the same.
const CHUNK_BYTES: u64 = 64 << 10;

/// Batches that are read and not asked for yet.
const READ_AHEAD: usize = 1;

/// What to do where nothing can be written beside the input.
const UNKEPT: &str = "\
how far the import is, is kept beside FILE, to go on after an interruption. Without that:
  mangrove import - < FILE";

type Cells = BTreeSet<(Key, Column)>;

/// A change and the cell that it changes.
type PlacedMutation = ((Key, Column), Mutation);

/// A batch of the input, and what was wrong after it. One without mutations ends the input.
type Piece = (Pending, Result<(), CliError>);

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
    let client = client_at(&args.connection, args.level);
    if args.file == "-" {
        if args.resume {
            let what = "standard input cannot be resumed: import from a file".to_owned();
            return Err(CliError::Usage(what));
        }
        let mut import = Import::new(&args, None, Progress::default());
        let input = BufReader::new(io::stdin());
        let pieces = read_aside(input, Progress::default(), &args);
        let imported = import.unless_stopped(pieces, |batch| client.bulk_set(batch)).await;
        return match imported {
            Ok(()) => {
                import.say_done();
                Ok(())
            }
            Err(error) => {
                let advice = import.advice(&args, &error);
                Err(error.advise(advice))
            }
        };
    }
    let path = Path::new(&args.file);
    let (mut file, total_bytes) = open(path)?;
    let failed = |error: io::Error| CliError::io(format!("cannot read {}", args.file), &error);
    let mut kept = if args.resume {
        let crc_of = |bytes| crc_of_beginning(&mut file, bytes).map_err(failed);
        ProgressFile::resume(path, total_bytes, crc_of)?
    } else {
        ProgressFile::begin(path, total_bytes)
    };
    let start = kept.progress();
    file.seek(SeekFrom::Start(start.done_bytes)).map_err(failed)?;
    kept.bind(cluster_of(&client).await?)?;
    take_over(&client, &mut kept).await?;
    let unkept = |error: CliError| error.advise(UNKEPT.to_owned());
    kept.write(start).map_err(unkept)?;
    let mut import = Import::new(&args, Some(kept), start);
    let pieces = read_aside(BufReader::new(file), start, &args);
    let imported = import.unless_stopped(pieces, |batch| client.bulk_set(batch)).await;
    import.bar.finish_and_clear();
    match imported {
        Ok(()) => {
            import.say_done();
            import.kept.map_or(Ok(()), ProgressFile::remove)
        }
        Err(error) => {
            let advice = import.advice(&args, &error);
            Err(error.advise(advice))
        }
    }
}

/// Returns what to type to go on with an import that stopped. Nothing is left to defaults, which
/// may be others in another terminal.
fn resume_command(args: &ImportArgs) -> String {
    let timeout = args.connection.timeout;
    let timeout = if timeout.subsec_millis() == 0 {
        format!("{}s", timeout.as_secs())
    } else {
        format!("{}ms", timeout.as_millis())
    };
    let flags = [
        ("--cluster", args.connection.cluster.join(",")),
        ("--level", args.level.level.name().to_owned()),
        ("--timeout", timeout),
        ("--batch-cells", args.batch_cells.to_string()),
        ("--in-flight", args.in_flight.to_string()),
    ];
    let flags = flags.map(|(flag, value)| format!(" {flag} {}", quoted(value)));
    format!("mangrove import {} --resume{}", quoted(args.file.clone()), flags.concat())
}

/// Returns which cluster the client has reached.
async fn cluster_of(client: &Client<RealEnv>) -> Result<ClusterId, CliError> {
    // Waits for a node to be there, as any request does; it can then tell its cluster.
    client.mode().await?;
    let addresses = client.addresses();
    let asked = addresses.iter().map(|address| Box::pin(client.status(address)));
    let (status, _others) = select_ok(asked).await?;
    Ok(status.cluster)
}

/// Sees to it that nothing of an earlier import of the input takes effect from now on, and takes
/// note of the session whose end does the same for this one.
async fn take_over(client: &Client<RealEnv>, kept: &mut ProgressFile) -> Result<(), CliError> {
    if let Some(former) = kept.session() {
        client.end_session(former).await?;
    }
    kept.set_session(client.session().await?);
    Ok(())
}

/// One import under way.
struct Import {
    in_flight_max: usize,
    done: Progress,
    /// Where to write down how far it is; `None` for standard input.
    kept: Option<ProgressFile>,
    bar: ProgressBar,
}

impl Import {
    fn new(args: &ImportArgs, kept: Option<ProgressFile>, start: Progress) -> Self {
        let in_flight_max = usize::try_from(args.in_flight).unwrap_or(usize::MAX);
        Self { in_flight_max, done: start, kept, bar: progress_bar(start) }
    }

    /// Sends everything, unless somebody stops it.
    async fn unless_stopped<F, T>(
        &mut self,
        input: mpsc::Receiver<Piece>,
        send: impl Fn(Batch) -> F,
    ) -> Result<(), CliError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        match race(stop_signal(), self.all(input, send)).await {
            First::A(told) => told.and(Err(CliError::Stopped("the import was stopped".to_owned()))),
            First::B(imported) => imported,
        }
    }

    /// Sends everything, at most so many batches at a time, in an order that lets the last
    /// writer of each cell win.
    async fn all<F, T>(
        &mut self,
        mut input: mpsc::Receiver<Piece>,
        send: impl Fn(Batch) -> F,
    ) -> Result<(), CliError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut under_way = FuturesOrdered::new();
        // In the order of `under_way`, which yields in the order of the input.
        let mut waiting: VecDeque<(Cells, Progress)> = VecDeque::new();
        loop {
            // A wrong line ends the input; what comes before it is still written.
            let (next, read) = self.next_piece(&mut input, &mut under_way, &mut waiting).await?;
            let is_empty = next.mutations.is_empty();
            while !may_start(&next, &waiting, self.in_flight_max) {
                self.finish_first(&mut under_way, &mut waiting).await?;
            }
            if !is_empty {
                let batch = Batch { conditions: Vec::new(), mutations: next.mutations };
                under_way.push_back(send(batch));
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

    /// Waits for the next batch of the input, while those under way go on.
    async fn next_piece<F, T>(
        &mut self,
        input: &mut mpsc::Receiver<Piece>,
        under_way: &mut FuturesOrdered<F>,
        waiting: &mut VecDeque<(Cells, Progress)>,
    ) -> Result<Piece, CliError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        while !waiting.is_empty() {
            // Asked first, so that a new batch is sent at once. Neither loses what it has when the
            // other one comes first.
            match race(under_way.next(), input.recv()).await {
                First::A(result) => self.on_finished(result, waiting)?,
                First::B(piece) => return piece.ok_or_else(unread),
            }
        }
        input.recv().await.ok_or_else(unread)
    }

    /// Waits for the first batch under way.
    async fn finish_first<F, T>(
        &mut self,
        under_way: &mut FuturesOrdered<F>,
        waiting: &mut VecDeque<(Cells, Progress)>,
    ) -> Result<(), CliError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let result = under_way.next().await;
        self.on_finished(result, waiting)
    }

    /// Writes down that the first batch under way is done, if it is.
    fn on_finished<T>(
        &mut self,
        result: Option<Result<T, ClientError>>,
        waiting: &mut VecDeque<(Cells, Progress)>,
    ) -> Result<(), CliError> {
        if let Some(result) = result {
            result?;
        }
        if let Some((_, after)) = waiting.pop_front() {
            self.done = after;
            self.bar.set_position(after.done_bytes);
            if let Some(kept) = &mut self.kept {
                kept.write(after)?;
            }
        }
        Ok(())
    }

    fn say_done(&self) {
        let lines = counted(self.done.done_lines, "line");
        say(&format!("imported {} from {lines}", self.cells()));
    }

    /// Says how far the import came before it failed, and what to do now, if anything can be done.
    fn advice(&self, args: &ImportArgs, error: &CliError) -> String {
        let done = self.so_far();
        if args.file == "-" {
            return done;
        }
        let is_taken_over = self.kept.as_ref().is_some_and(ProgressFile::is_taken_over);
        if is_taken_over || matches!(error, CliError::Client(ClientError::SessionEnded)) {
            return format!("{done}; another import of {} has begun since then", args.file);
        }
        // Of what happens to an import under way, only a wrong line is the fault of its user.
        let first = if matches!(error, CliError::Usage(_)) {
            "mend the line that is wrong, then "
        } else {
            ""
        };
        format!("{done}; {first}go on from there:\n  {}", resume_command(args))
    }

    /// Says how far an import came that is not complete.
    fn so_far(&self) -> String {
        format!("imported so far: {}, up to line {}", self.cells(), self.done.done_lines)
    }

    /// Says how many cells are imported.
    fn cells(&self) -> String {
        counted(self.done.done_cells, "cell")
    }
}

/// Tells whether a batch may be under way together with those that are.
fn may_start(next: &Pending, under_way: &VecDeque<(Cells, Progress)>, max: usize) -> bool {
    under_way.len() < max && under_way.iter().all(|(cells, _)| cells.is_disjoint(&next.cells))
}

/// The error for an input that ends without saying so.
fn unread() -> CliError {
    CliError::Failed("whoever reads the input has gone".to_owned())
}

/// Reads the input from `start` on, on a thread of its own, a little ahead of what is asked for.
fn read_aside<R: BufRead + Send + 'static>(
    input: R,
    start: Progress,
    args: &ImportArgs,
) -> mpsc::Receiver<Piece> {
    let name = if args.file == "-" { "standard input" } else { &args.file }.to_owned();
    let cells_max = usize::try_from(args.batch_cells).unwrap_or(usize::MAX);
    let mut lines = Lines { input, read: start, name };
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    #[expect(
        clippy::disallowed_methods,
        reason = "only a thread can wait for the input, and it may outlive the import"
    )]
    let _thread = std::thread::spawn(move || {
        loop {
            let (batch, read) = lines.next_batch(cells_max);
            let is_last = batch.mutations.is_empty() || read.is_err();
            // After a failure nobody wants the rest.
            let has_gone = sender.blocking_send((batch, read)).is_err();
            if is_last || has_gone {
                break;
            }
        }
    });
    receiver
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
            let bytes_max = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
            let count = self.input.by_ref().take(bytes_max).read_until(b'\n', line);
            let count = count
                .map_err(|error| CliError::io(format!("cannot read {}", self.name), &error))?;
            if count == 0 {
                return Ok(None);
            }
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            let number = self.read.done_lines + 1;
            if count == bytes_max {
                return Err(self.wrong(number, "the line is too long"));
            }
            let is_blank = line.trim_ascii().is_empty();
            let cell = if is_blank {
                None
            } else {
                Some(parse_cell(line).map_err(|error| self.wrong(number, &error))?)
            };
            self.read.done_bytes += count - u64::from(planted!("F19"));
            self.read.done_crc = crc32_extend(self.read.done_crc, line);
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

/// Opens the input; returns its length, too.
fn open(path: &Path) -> Result<(impl Read + Seek + Send + 'static + use<>, u64), CliError> {
    let usage =
        |error: io::Error| CliError::Usage(format!("cannot read {}: {error}", path.display()));
    let file = fs::OpenOptions::new().read(true).open(path).map_err(usage)?;
    let metadata = file.metadata().map_err(usage)?;
    if metadata.is_dir() {
        return Err(CliError::Usage(format!("{} is a directory, no file", path.display())));
    }
    if !metadata.is_file() {
        return Err(CliError::Usage(format!(
            "{} is no file that could be read again: import it as standard input, `mangrove \
             import -`",
            path.display()
        )));
    }
    Ok((file, metadata.len()))
}

/// Returns the checksum of so many bytes of the beginning of the input.
fn crc_of_beginning(file: &mut (impl Read + Seek), bytes: u64) -> io::Result<u32> {
    file.rewind()?;
    let (mut left, mut crc, mut chunk) = (bytes, 0, Vec::new());
    while left > 0 {
        chunk.clear();
        file.by_ref().take(left.min(CHUNK_BYTES)).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        crc = crc32_extend(crc, &chunk);
        left -= u64::try_from(chunk.len()).unwrap_or(left);
    }
    Ok(crc)
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
    use std::cell::RefCell;
    use std::io::Cursor;
    use std::path::PathBuf;
    use std::pin::pin;

    use clap::Parser;
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::super::args::{Cli, Command};
    use super::*;
    use crate::base::Value;
    use crate::kv::{Cell, Version};

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
    fn longest_line_of_an_export_is_taken() {
        let longest = |bytes: usize| "\u{1}".repeat(bytes);
        let key = Key::new(longest(KEY_BYTES_MAX)).unwrap();
        let column = Column::new(longest(COLUMN_BYTES_MAX)).unwrap();
        let value = Value::new(longest(VALUE_BYTES_MAX)).unwrap();
        let cell = Cell { value: value.clone(), version: Version(u64::MAX) };
        let line = serde_json::to_vec(&Record::of_cell(&key, &column, &cell, true)).unwrap();
        assert!(line.len() > 6 << 20, "{}", line.len());
        let input = [line.as_slice(), b"\n", line.as_slice()].concat();
        let mut lines =
            Lines { input: input.as_slice(), read: Progress::default(), name: "file".to_owned() };
        for _ in 0..2 {
            let (batch, read) = lines.next_batch(1);
            read.unwrap();
            let (key, column, value) = (key.clone(), column.clone(), value.clone());
            let wanted = Mutation::Set { key, column, value };
            assert!(batch.mutations == [wanted], "it comes back as it was");
        }
        assert!(lines.next_batch(1).0.mutations.is_empty());
    }

    #[test]
    fn endless_line_is_refused_and_not_kept() {
        let mut lines = Lines {
            input: BufReader::new(io::repeat(b'x')),
            read: Progress::default(),
            name: "file".to_owned(),
        };
        let error = lines.next_batch(1).1.unwrap_err();
        assert!(error.to_string().contains("line 1: the line is too long"), "{error}");
    }

    #[test]
    fn import_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cells.jsonl");
        fs::write(&path, [line("a"), line("b"), line("c")].concat()).unwrap();
        let resume = || {
            let (mut file, total_bytes) = open(&path).unwrap();
            let crc_of = |bytes| Ok(crc_of_beginning(&mut file, bytes).unwrap());
            let kept = ProgressFile::resume(&path, total_bytes, crc_of)?;
            Ok::<_, CliError>((file, kept.progress()))
        };
        let (file, total_bytes) = open(&path).unwrap();
        let mut kept = ProgressFile::begin(&path, total_bytes);
        let read = kept.progress();
        let mut lines = Lines { input: BufReader::new(file), read, name: String::new() };
        let first = lines.next_batch(2).0;
        kept.write(first.after).unwrap();

        let (mut file, read) = resume().unwrap();
        assert_eq!(read, first.after);
        file.seek(SeekFrom::Start(read.done_bytes)).unwrap();
        let mut lines = Lines { input: BufReader::new(file), read, name: String::new() };
        let rest = lines.next_batch(2).0;
        assert_eq!(rest.cells, [cell("c")].into());
        assert_eq!((rest.after.done_lines, rest.after.done_cells), (3, 3));

        // Whoever mends the line at which it stopped goes on; what is done must be the same.
        fs::write(&path, [line("a"), line("b"), line("longer"), line("d")].concat()).unwrap();
        assert_eq!(resume().unwrap().1.done_cells, 2);
        fs::write(&path, [line("a"), line("x"), line("c")].concat()).unwrap();
        assert!(resume().is_err(), "another file");
        let error = open(dir.path()).map(|_file| ()).unwrap_err();
        assert!(error.to_string().contains("is a directory"), "{error}");
    }

    fn args(line: &[&str]) -> ImportArgs {
        let line = ["mangrove", "import"].into_iter().chain(line.iter().copied());
        let Command::Import(args) = Cli::try_parse_from(line).unwrap().command else {
            unreachable!()
        };
        args
    }

    #[test]
    fn command_that_goes_on_has_every_flag() {
        let flags = ["--cluster", "a:1,b:2", "--level", "one", "--timeout", "1500ms"];
        let flags = [&flags[..], &["--batch-cells", "7", "--in-flight", "3"]].concat();
        let begun = args(&[&["it's.jsonl"][..], &flags].concat());
        assert_eq!(
            resume_command(&begun),
            format!("mangrove import 'it'\\''s.jsonl' --resume {}", flags.join(" "))
        );
        let begun = args(&["cells.jsonl"]);
        let words = resume_command(&begun);
        let again = args(&words.split(' ').skip(2).collect::<Vec<_>>());
        assert!(again.resume);
        assert_eq!(resume_command(&again), words);
    }

    #[test]
    fn advice_says_to_mend_a_wrong_line_and_nothing_else() {
        let mut import = Import::new(&args(&["-"]), None, Progress::default());
        import.done = Progress { done_cells: 1, done_lines: 2, ..Progress::default() };
        let wrong = CliError::Usage("cells.jsonl, line 3: no JSON".to_owned());
        let advice = import.advice(&args(&["cells.jsonl"]), &wrong);
        assert!(advice.starts_with("imported so far: 1 cell, up to line 2; mend"), "{advice}");
        assert!(advice.contains("mangrove import cells.jsonl --resume"), "{advice}");
        let stopped = CliError::Stopped("stopped".to_owned());
        assert!(!import.advice(&args(&["cells.jsonl"]), &stopped).contains("mend"));
        let unnamed = import.advice(&args(&["-"]), &stopped);
        assert_eq!(unnamed, "imported so far: 1 cell, up to line 2");
        let ended = CliError::from(ClientError::SessionEnded);
        let advice = import.advice(&args(&["cells.jsonl"]), &ended);
        assert!(!advice.contains("--resume"), "that would end the other: {advice}");
    }

    #[test]
    fn thread_hands_over_every_batch_and_ends() {
        let input = [line("a"), line("b"), line("c")].concat().into_bytes();
        let args = args(&["-", "--batch-cells", "2"]);
        let mut pieces = read_aside(Cursor::new(input), Progress::default(), &args);
        let mut sizes = Vec::new();
        while let Some((batch, read)) = pieces.blocking_recv() {
            read.unwrap();
            sizes.push(batch.mutations.len());
        }
        assert_eq!(sizes, [2, 1, 0]);
    }

    /// A cluster that takes the batches of an import, and answers each when it is told to.
    #[derive(Default)]
    struct Answering(RefCell<Vec<oneshot::Sender<Result<(), ClientError>>>>);

    impl Answering {
        fn take(&self) -> impl Future<Output = Result<(), ClientError>> + use<> {
            let (answer, answered) = oneshot::channel();
            self.0.borrow_mut().push(answer);
            answered.map(Result::unwrap)
        }

        fn count(&self) -> usize {
            self.0.borrow().len()
        }

        /// Answers the first batch that has no answer yet.
        fn answer(&self, result: Result<(), ClientError>) {
            self.0.borrow_mut().remove(0).send(result).unwrap();
        }
    }

    /// An import of a file, its pieces handed over by hand.
    struct Scene {
        _dir: tempfile::TempDir,
        path: PathBuf,
        import: Import,
        pieces: mpsc::Sender<Piece>,
    }

    impl Scene {
        fn new() -> (Self, mpsc::Receiver<Piece>) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("cells.jsonl");
            let kept = ProgressFile::begin(&path, 100);
            let import = Import::new(&args(&["-"]), Some(kept), Progress::default());
            let (pieces, input) = mpsc::channel(10);
            (Self { _dir: dir, path, import, pieces }, input)
        }
    }

    /// Returns how many cells a file says that are done.
    fn written_down(path: &Path) -> u64 {
        ProgressFile::resume(path, 100, |_| Ok(0)).map_or(0, |kept| kept.progress().done_cells)
    }

    /// Returns the piece with one cell, the first of which is number 1.
    fn piece(number: u64) -> Piece {
        let (key, column) = cell(&number.to_string());
        let after = Progress { total_bytes: 100, done_cells: number, ..Progress::default() };
        let mutation = Mutation::Delete { key: key.clone(), column: column.clone() };
        let cells = [(key, column)].into();
        (Pending { mutations: vec![mutation], cells, after }, Ok(()))
    }

    /// Returns the end of an input of so many cells.
    fn end(number: u64) -> Piece {
        let after = piece(number).0.after;
        (Pending { after, ..Pending::default() }, Ok(()))
    }

    #[test]
    fn batches_under_way_end_and_are_written_down_while_the_input_waits() {
        let ((mut scene, input), cluster) = (Scene::new(), Answering::default());
        let mut all = pin!(scene.import.all(input, |_| cluster.take()));
        scene.pieces.try_send(piece(1)).unwrap();
        scene.pieces.try_send(piece(2)).unwrap();
        assert!(all.as_mut().now_or_never().is_none());
        assert_eq!(cluster.count(), 2);
        cluster.answer(Ok(()));
        assert!(all.as_mut().now_or_never().is_none());
        assert_eq!(written_down(&scene.path), 1);
        cluster.answer(Err(ClientError::DiskFull));
        let error = all.now_or_never().unwrap().unwrap_err();
        assert_eq!(error.to_string(), CliError::from(ClientError::DiskFull).to_string());
        assert_eq!(written_down(&scene.path), 1, "the second is not done");
    }

    #[test]
    fn import_is_over_when_its_input_has_ended_and_every_batch_is_done() {
        for ends_first in [true, false] {
            let ((mut scene, input), cluster) = (Scene::new(), Answering::default());
            let mut all = pin!(scene.import.all(input, |_| cluster.take()));
            scene.pieces.try_send(piece(1)).unwrap();
            scene.pieces.try_send(piece(2)).unwrap();
            if ends_first {
                scene.pieces.try_send(end(2)).unwrap();
            }
            assert!(all.as_mut().now_or_never().is_none());
            assert_eq!((cluster.count(), written_down(&scene.path)), (2, 0));
            // The first batch and the input end between two looks.
            cluster.answer(Ok(()));
            if !ends_first {
                scene.pieces.try_send(end(2)).unwrap();
            }
            assert!(all.as_mut().now_or_never().is_none(), "the second is under way");
            assert_eq!(written_down(&scene.path), 1);
            cluster.answer(Ok(()));
            all.now_or_never().unwrap().unwrap();
            assert_eq!(written_down(&scene.path), 2);
        }
    }

    #[test]
    fn batch_that_fails_as_the_input_ends_fails_the_import() {
        let ((mut scene, input), cluster) = (Scene::new(), Answering::default());
        let mut all = pin!(scene.import.all(input, |_| cluster.take()));
        scene.pieces.try_send(piece(1)).unwrap();
        assert!(all.as_mut().now_or_never().is_none());
        scene.pieces.try_send(end(1)).unwrap();
        cluster.answer(Err(ClientError::DiskFull));
        assert!(all.now_or_never().unwrap().is_err());
        assert_eq!(written_down(&scene.path), 0);
    }

    #[test]
    fn input_that_breaks_off_is_an_error_also_with_a_batch_under_way() {
        let ((mut scene, input), cluster) = (Scene::new(), Answering::default());
        let mut all = pin!(scene.import.all(input, |_| cluster.take()));
        scene.pieces.try_send(piece(1)).unwrap();
        drop(scene.pieces);
        let error = all.as_mut().now_or_never().unwrap().unwrap_err();
        assert_eq!(error.to_string(), unread().to_string());
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
