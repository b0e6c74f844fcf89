//! The measurements: each runs in a process of its own, on one processor, and prints its figures.
//!
//! A fresh process has no memory of what others did, and its peak memory is that of the one store.
//! Figures go to standard output as `name value`, one a line, for the process that started it.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use benches::float;
use benches::machine::{cpu_ms, memory_bytes, spread, written_bytes};
use rustix::fs::{Advice, fadvise};

use super::store::{Candidate, KEY_BYTES, Key, Put, VALUE_BYTES};

/// Changes of a batch.
const BATCH: u64 = 64;

/// Memory for blocks of tables, as the node has it.
const CACHE_BYTES: u64 = 64 << 20;

/// The same where all that is read shall fit into it.
const CACHE_ALL_BYTES: u64 = 512 << 20;

/// Bytes from which values are cut, so that they cost nothing to make and cannot be packed.
const NOISE_BYTES: usize = 1 << 20;

/// Numbers of keys that are not there begin here.
const ABSENT: u64 = 1 << 40;

/// Steps of a growing store once it has its size: until it has doubled. Merges of all runs come
/// that seldom, and a single step has none of one, or all.
pub(crate) const LATER_STEPS: u64 = 10;

/// What is to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) key_count: u64,
    pub(crate) directory: PathBuf,
}

impl Task {
    /// Runs it on one processor.
    pub(crate) fn run<C: Candidate>(&self) {
        // Threads that start later inherit it.
        spread(&[std::process::id()]).expect("a processor");
        match self.name.as_str() {
            "puts" => self.puts::<C>(),
            "reads" => self.reads::<C>(),
            "growth" => self.growth::<C>(),
            "fill" => self.fill::<C>(),
            "rewrite" => self.rewrite::<C>(),
            "restart" => self.restart::<C>(),
            other => unreachable!("no measurement {other}"),
        }
    }

    fn puts<C: Candidate>(&self) {
        let mut store = C::open(&self.directory, CACHE_BYTES);
        let mut load = Load::new();
        let begin = Stopwatch::start();
        load.put(&mut store, 0..self.key_count);
        let accepted = begin.read();
        store.settle();
        report_puts(self.key_count, accepted, begin.read());
        figure("longest_ms", load.longest.as_secs_f64() * 1000.0);
        assert_eq!(store.scan().0, self.key_count, "all keys are there");
    }

    fn reads<C: Candidate>(&self) {
        let mut store = C::open(&self.directory, CACHE_ALL_BYTES);
        Load::new().put(&mut store, 0..self.key_count);
        store.settle();
        let count = self.key_count;
        let cells = store.scan().0;
        assert_eq!(cells, count, "all keys are there");
        let begin = Stopwatch::start();
        store.scan();
        figure("scan_per_s", float(cells) / begin.read().wall_s);
        let some = || (0..count).map(|number| key(mix(number) % count));
        // The first pass brings it all into the cache.
        assert_eq!(store.count_found((0..count).map(key)), count, "all keys are there");
        let begin = Stopwatch::start();
        assert_eq!(store.count_found(some()), count, "all keys are there");
        figure("get_per_s", float(count) / begin.read().wall_s);
        let begin = Stopwatch::start();
        assert_eq!(store.count_found((ABSENT..ABSENT + count).map(key)), 0, "none is there");
        figure("absent_per_s", float(count) / begin.read().wall_s);
    }

    /// Puts again and again a tenth of all keys, and goes on with new ones until there are twice
    /// as many.
    fn growth<C: Candidate>(&self) {
        let mut store = C::open(&self.directory, CACHE_BYTES);
        let mut load = Load::new();
        let step = self.key_count / 10;
        for number in 0..10 + LATER_STEPS {
            let size = number * step;
            let begin = Stopwatch::start();
            load.put(&mut store, size..size + step);
            let accepted = begin.read();
            store.settle();
            let settled = begin.read();
            println!("size {size}");
            report_puts(step, accepted, settled);
        }
    }

    fn fill<C: Candidate>(&self) {
        let mut store = C::open(&self.directory, CACHE_BYTES);
        let mut load = Load::new();
        load.put(&mut store, 0..self.key_count);
        store.settle();
        assert_eq!(store.scan().0, self.key_count, "all keys are there");
        let reads = self.key_count.min(1_000_000);
        let some = (0..reads).map(|number| key(mix(number) % self.key_count));
        let begin = Stopwatch::start();
        assert_eq!(store.count_found(some), reads, "all keys are there");
        figure("get_per_s", float(reads) / begin.read().wall_s);
        figure("peak_bytes", float(memory_bytes(std::process::id()).1));
        figure("longest_ms", load.longest.as_secs_f64() * 1000.0);
    }

    /// Puts all keys, and then twice as many times any of them.
    fn rewrite<C: Candidate>(&self) {
        let mut store = C::open(&self.directory, CACHE_BYTES);
        let mut load = Load::new();
        let before = written_bytes();
        load.put(&mut store, 0..self.key_count);
        let any = (0..2 * self.key_count).map(|number| mix(number) % self.key_count);
        load.put(&mut store, any);
        store.settle();
        let entry = u64::try_from(KEY_BYTES + VALUE_BYTES).unwrap_or(u64::MAX);
        let live = float(self.key_count * entry);
        figure("write_amplification", float(written_bytes() - before) / (3.0 * live));
        figure("space_amplification", float(bytes_below(&self.directory)) / live);
        assert_eq!(store.scan().0, self.key_count, "each key is there once");
        if std::io::stderr().is_terminal() {
            eprintln!("{}", store.describe());
        }
    }

    /// Opens what was filled before, and applies a segment of the log, as after a crash.
    fn restart<C: Candidate>(&self) {
        forget_pages(&self.directory);
        let entry = u64::try_from(KEY_BYTES + VALUE_BYTES).unwrap_or(u64::MAX);
        let count = (64 << 20) / entry;
        let begin = Stopwatch::start();
        let mut store = C::open(&self.directory, CACHE_BYTES);
        figure("open_s", begin.read().wall_s);
        Load::new().put(&mut store, (0..count).map(|number| mix(number) % self.key_count));
        let found = store.count_found([key(0), key(self.key_count - 1)].into_iter());
        figure("serves_s", begin.read().wall_s);
        figure("entries", float(count));
        assert_eq!(found, 2, "all keys are there");
    }
}

/// Time since a moment.
struct Stopwatch {
    begin: Instant,
    begin_cpu_ms: f64,
}

/// Time that passed, and how much of it the process had the processor.
#[derive(Debug, Clone, Copy)]
struct Elapsed {
    wall_s: f64,
    cpu_s: f64,
}

impl Stopwatch {
    fn start() -> Self {
        Self { begin: Instant::now(), begin_cpu_ms: cpu_ms(&[std::process::id()]) }
    }

    fn read(&self) -> Elapsed {
        let cpu_s = (cpu_ms(&[std::process::id()]) - self.begin_cpu_ms) / 1000.0;
        Elapsed { wall_s: self.begin.elapsed().as_secs_f64(), cpu_s }
    }
}

fn report_puts(count: u64, accepted: Elapsed, settled: Elapsed) {
    figure("accepted_per_s", float(count) / accepted.wall_s);
    figure("settled_per_s", float(count) / settled.wall_s);
    figure("per_cpu_s", float(count) / settled.cpu_s);
}

fn figure(name: &str, value: f64) {
    println!("{name} {value}");
}

/// Puts keys in batches, and watches how long they take.
struct Load {
    noise: Vec<u8>,
    put_count: u64,
    longest: Duration,
    is_shown: bool,
}

impl Load {
    fn new() -> Self {
        let words = (0..).map(|number: u64| mix(number).to_le_bytes());
        let noise = words.flatten().take(NOISE_BYTES + VALUE_BYTES).collect();
        let is_shown = std::io::stderr().is_terminal();
        Self { noise, put_count: 0, longest: Duration::ZERO, is_shown }
    }

    fn put<C: Candidate>(&mut self, store: &mut C, numbers: impl Iterator<Item = u64>) {
        let size = usize::try_from(BATCH).unwrap_or(usize::MAX);
        let mut numbers = numbers.peekable();
        let mut before = Instant::now();
        while numbers.peek().is_some() {
            let from = self.put_count;
            let values = (from..).map(|number| value(&self.noise, number));
            let puts: Vec<Put<'_>> = numbers.by_ref().take(size).map(key).zip(values).collect();
            store.write(&puts);
            let now = Instant::now();
            self.longest = self.longest.max(now - before);
            before = now;
            self.put_count += BATCH;
            if self.is_shown && (self.put_count / BATCH).is_multiple_of(2048) {
                eprint!("\r{:>12} puts\r", self.put_count);
                std::io::stderr().flush().expect("a terminal");
            }
        }
    }
}

/// Returns the key with a number; ascending numbers give keys in random order.
fn key(number: u64) -> Key {
    let mut bytes = [0; KEY_BYTES];
    let (head, tail) = bytes.split_at_mut(8);
    head.copy_from_slice(&mix(number).to_be_bytes());
    tail.copy_from_slice(&mix(!number).to_be_bytes());
    bytes
}

fn value(noise: &[u8], number: u64) -> &[u8] {
    let offset = usize::try_from(mix(number)).unwrap_or_default() % NOISE_BYTES;
    noise.get(offset..offset + VALUE_BYTES).unwrap_or_default()
}

/// Scatters numbers, no two to the same: the last steps of a `SplitMix64` generator.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Returns the files below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the directory") {
        let path = entry.expect("the directory").path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// Returns the bytes that the files below a directory take on the disk.
fn bytes_below(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let taken = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.blocks() * 512);
    files_below(directory).iter().map(taken).sum()
}

/// Makes the kernel forget what it holds of the files below a directory, as far as it is durable.
fn forget_pages(directory: &Path) {
    for path in files_below(directory) {
        let file = std::fs::File::open(path).expect("the file");
        file.sync_all().expect("a disk that works");
        fadvise(&file, 0, None, Advice::DontNeed).expect("advice is taken");
    }
}
