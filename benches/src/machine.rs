//! What the machine itself can do, and what a process uses.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mangrove::trial::usage::disk_bytes;
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

pub use mangrove::trial::usage::{cpu_ms, memory_bytes};

/// Returns the median time of an fdatasync after a small overwrite, in the given directory.
pub fn fdatasync_median(directory: &Path) -> Duration {
    const ROUNDS: u64 = 500;
    const BYTES: usize = 4096;
    let path = directory.join("fdatasync.probe");
    let file = File::create(&path).expect("a file");
    let zeros = vec![0; BYTES];
    for round in 0..ROUNDS {
        file.write_all_at(&zeros, round * 4096).expect("space");
    }
    file.sync_all().expect("a disk that works");
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let begin = Instant::now();
        file.write_all_at(&zeros, round * 4096).expect("space");
        file.sync_data().expect("a disk that works");
        times.push(begin.elapsed());
    }
    std::fs::remove_file(&path).expect("it is there");
    median(&mut times).unwrap_or_default()
}

/// Gives each process a processor of its own, in turn; returns who got which.
///
/// Nodes that share a machine wake one another all the time, and each time the kernel likes to put
/// the one that is woken beside the one that wakes it, though another processor is idle. Pinned,
/// a cluster runs alike in every run; the kernel's way has become the faster one
/// (`docs/performance.md`).
pub fn spread(processes: &[u32]) -> std::io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let mut given = Vec::new();
    for (process, cpu) in processes.iter().zip(usable.iter().copied().cycle()) {
        let mut set = CpuSet::new();
        set.set(cpu);
        for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let number = thread?.file_name().to_str().and_then(|name| name.parse().ok());
            sched_setaffinity(number.and_then(Pid::from_raw), &set)?;
        }
        given.push(cpu);
    }
    Ok(given)
}

/// Returns the bytes that this process has caused to be written to disks so far.
pub fn written_bytes() -> u64 {
    disk_bytes(std::process::id())
}

/// Returns the median; the upper one of two.
pub fn median<T: PartialOrd + Copy>(values: &mut [T]) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}
