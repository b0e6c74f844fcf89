//! What one input may cost: memory that its own length justifies, and a second.
//!
//! libFuzzer's own limit of memory looks at the whole process once a second, and its limit of
//! single allocations needs a sanitizer. So the allocator of every program with this library
//! counts, and the peak of one input is held against the [bound of its target](crate::Target).

use std::fs;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

use crate::Target;

/// No input of any target may have more than this allocated at once, whatever its own length.
const BYTES_MAX: usize = 64 << 20;

/// No input may take longer, of processor time.
const TIME_MAX: Duration = Duration::from_secs(1);

/// Times that an input which took too long is tried again.
const TRIES: usize = 3;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Runs one input and checks what it cost.
///
/// # Panics
/// If the target does, or if the input took more memory or time than it may.
pub fn check(target: &Target, input: &[u8]) {
    let begin = Instant::now();
    check_memory(target, input);
    if begin.elapsed() <= TIME_MAX {
        return;
    }
    // The machine may have been busy with other things: its processor time decides.
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        let (begin, worked) = (Instant::now(), processor_time());
        check_memory(target, input);
        let took = match (worked, processor_time()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => begin.elapsed(),
        };
        shortest = shortest.min(took);
        if shortest <= TIME_MAX {
            return;
        }
    }
    panic!("{}: an input of {} bytes takes {shortest:?}", target.name, input.len());
}

fn check_memory(target: &Target, input: &[u8]) {
    let (least, each) = target.bytes_max;
    let bytes_max = least.saturating_add(each.saturating_mul(input.len())).min(BYTES_MAX);
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    (target.run)(input);
    let bytes = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(
        bytes <= bytes_max,
        "{}: an input of {} bytes has {bytes} bytes allocated, more than {bytes_max}",
        target.name,
        input.len()
    );
}

/// Returns how long this thread has had a processor, where the system tells (Linux).
fn processor_time() -> Option<Duration> {
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = told.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}
