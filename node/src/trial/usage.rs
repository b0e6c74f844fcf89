//! What processes use, as the kernel counts it. On other systems than Linux everything is zero.

use std::fs;
use std::path::Path;

/// What processes have used so far, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Processor time in milliseconds.
    pub cpu_ms: f64,
    /// Bytes that they caused to be written to disks.
    pub disk_bytes: u64,
    /// Bytes that went through the loopback interface of this machine, whoever sent them.
    pub loopback_bytes: u64,
}

impl Usage {
    /// Returns what these processes have used so far.
    pub fn of(processes: &[u32]) -> Self {
        Self {
            cpu_ms: cpu_ms(processes),
            disk_bytes: processes.iter().map(|process| disk_bytes(*process)).sum(),
            loopback_bytes: loopback_bytes(),
        }
    }

    /// Returns what was used since `before`. What a process that has ended meanwhile had used is
    /// gone, so no figure goes below zero.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_ms: (self.cpu_ms - before.cpu_ms).max(0.0),
            disk_bytes: self.disk_bytes.saturating_sub(before.disk_bytes),
            loopback_bytes: self.loopback_bytes.saturating_sub(before.loopback_bytes),
        }
    }
}

/// Returns the processor time that the given processes have used so far, in milliseconds.
pub fn cpu_ms(processes: &[u32]) -> f64 {
    // The unit of these fields is the same on every Linux: USER_HZ is 100.
    const TICK_MS: f64 = 10.0;
    let of = |process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name in parentheses may contain anything; user and system time come 11 fields later.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>()
    };
    processes.iter().map(of).sum::<f64>() * TICK_MS
}

/// Returns the resident memory of a process in bytes, and its peak.
pub fn memory_bytes(process: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib << 10)
    };
    (field("VmRSS:").unwrap_or(0), field("VmHWM:").unwrap_or(0))
}

/// Returns the bytes that a process has caused to be written to disks so far.
pub fn disk_bytes(process: u32) -> u64 {
    let counts = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
    let written = counts.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    written.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Returns the bytes in all files below a directory.
pub fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        // Removed meanwhile.
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

fn loopback_bytes() -> u64 {
    let devices = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    // Received bytes come first; on this interface, all that are sent are received.
    let received = line.and_then(|line| line.split_whitespace().next());
    received.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn own_process_has_used_something() {
        let own = std::process::id();
        let (now, peak) = memory_bytes(own);
        assert!(now > 1 << 20 && peak >= now, "{now} of {peak} bytes");
        assert_eq!(Usage::of(&[]).disk_bytes, 0);
    }

    #[test]
    fn bytes_in_a_directory_are_those_of_all_its_files() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(bytes_in(directory.path()), 0);
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("a/x"), [0; 700]).unwrap();
        fs::write(directory.path().join("a/b/y"), [0; 70]).unwrap();
        assert_eq!(bytes_in(directory.path()), 770);
        assert_eq!(bytes_in(&directory.path().join("nothing")), 0);
    }
}
