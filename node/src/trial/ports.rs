//! Addresses on this machine that nobody else uses, and that stay ours while a node is down.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports to pick from: below those that the system hands out to outgoing connections (from 32768
/// on Linux), or a killed node might not get its port back.
const FIRST: u32 = 16_000;
const COUNT: u32 = 16_000;

/// Returns an address on the loopback interface that is free now and given out once per process.
///
/// # Panics
/// If all of them are in use.
pub fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time start far from one another.
    let start = std::process::id().wrapping_mul(997);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
    unreachable!("{COUNT} ports are in use")
}
