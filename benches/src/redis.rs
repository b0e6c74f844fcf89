//! A single Redis with `appendfsync always`, measured by its own `redis-benchmark`.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One result of `redis-benchmark`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Requests per second.
    pub per_second: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the latency in milliseconds.
    pub p99_ms: f64,
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    /// Starts a server in `directory`; `None` if it is not installed.
    pub fn start(directory: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .args(["--daemonize", "no", "--dir", &directory.display().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let redis = Self { child, port };
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(redis);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Runs `redis-benchmark` for SET and GET; `None` if it is not installed.
    pub fn measure(&self, connection_count: usize, requests: u64) -> Option<(Figures, Figures)> {
        let output = Command::new("redis-benchmark")
            .args(["-p", &self.port.to_string(), "-c", &connection_count.to_string()])
            .args(["-n", &requests.to_string(), "-d", "100", "-r", "1000000"])
            .args(["-t", "set,get", "--csv"])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some((figures(&text, "SET")?, figures(&text, "GET")?))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left behind.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Finds the row of one test: name, rps, average, minimum, p50, p95, p99, maximum.
fn figures(csv: &str, test: &str) -> Option<Figures> {
    let row = csv.lines().find(|line| line.starts_with(&format!("\"{test}\"")))?;
    let fields: Vec<f64> =
        row.split(',').skip(1).filter_map(|field| field.trim_matches('"').parse().ok()).collect();
    match fields.as_slice() {
        [per_second, _, _, p50_ms, _, p99_ms, ..] => {
            Some(Figures { per_second: *per_second, p50_ms: *p50_ms, p99_ms: *p99_ms })
        }
        _ => None,
    }
}
