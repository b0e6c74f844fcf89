//! Every maximum of the store in one place, with the reason for its size.

/// Longest key in bytes. Keys are compared, indexed and kept in memory, so they stay small.
pub const KEY_BYTES_MAX: usize = 4 << 10;

/// Longest column name in bytes; the empty column holds plain key-value data.
pub const COLUMN_BYTES_MAX: usize = 4 << 10;

/// Longest value in bytes. A value travels in one frame and one log entry.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Most mutations and conditions that one atomic batch may carry together.
pub const BATCH_COUNT_MAX: usize = 10_000;

/// Most bytes (keys, columns, values and overhead) of one atomic batch.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Most cells that one `multi_get` may ask for.
pub const MULTI_GET_COUNT_MAX: usize = 10_000;

/// Most cells or keys that one page of an answer carries.
pub const PAGE_COUNT_MAX: usize = 10_000;

/// Bytes after which a page of an answer is closed; one cell more may exceed it.
pub const PAGE_BYTES_MAX: usize = 2 << 20;

/// Longest frame on the wire and longest record in the log: a full batch and its envelope.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// Answers remembered per client session, hence the most writes a client may have in flight.
pub const SESSION_INFLIGHT_MAX: usize = 1024;

const _: () = {
    assert!(
        KEY_BYTES_MAX + COLUMN_BYTES_MAX + VALUE_BYTES_MAX < BATCH_BYTES_MAX,
        "a cell fits a batch"
    );
    assert!(BATCH_BYTES_MAX + (64 << 10) < FRAME_BYTES_MAX, "a batch fits a frame");
    assert!(PAGE_BYTES_MAX + VALUE_BYTES_MAX + (16 << 10) < FRAME_BYTES_MAX, "a page fits a frame");
};
