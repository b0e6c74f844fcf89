//! What one input may cost: memory that its own length justifies, and a second.
//!
//! libFuzzer's own limit of memory looks at the whole process once a second, and its limit of
//! single allocations needs a sanitizer. So the allocator of every program with this library
//! counts, and the peak of one input is held against the [bound of its target](crate::Target).

use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

use crate::Target;

/// No input of any target may have more than this allocated at once, whatever its own length.
const BYTES_MAX: usize = 64 << 20;

/// No input may take longer.
const TIME_MAX: Duration = Duration::from_secs(1);

/// Times that an input which took too long is tried again: the machine may have been busy.
const TRIES: usize = 3;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Runs one input and checks what it cost.
///
/// # Panics
/// If the target does, or if the input took more memory or time than it may.
pub fn check(target: &Target, input: &[u8]) {
    let (least, each) = target.bytes_max;
    let bytes_max = least.saturating_add(each.saturating_mul(input.len())).min(BYTES_MAX);
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        let begin = Instant::now();
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        (target.run)(input);
        let bytes = ALLOCATOR.peak_usage().saturating_sub(before);
        shortest = shortest.min(begin.elapsed());
        assert!(
            bytes <= bytes_max,
            "{}: an input of {} bytes has {bytes} bytes allocated, more than {bytes_max}",
            target.name,
            input.len()
        );
        if shortest <= TIME_MAX {
            return;
        }
    }
    panic!("{}: an input of {} bytes takes {shortest:?}", target.name, input.len());
}
