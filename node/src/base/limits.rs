//! Every maximum of the store in one place, with the reason for its size.

/// Greatest index of a log, and greatest term, that is believed of whoever names one: no cluster
/// lives long enough to get there, and nothing that is reckoned with them overflows.
pub const POSITION_MAX: u64 = 1 << 62;

/// Longest key in bytes. Keys are compared, indexed and kept in memory, so they stay small.
pub const KEY_BYTES_MAX: usize = 4 << 10;

/// Longest column name in bytes; the empty column holds plain key-value data.
pub const COLUMN_BYTES_MAX: usize = 4 << 10;

/// Longest value in bytes. A value travels in one frame and one log entry.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Most mutations and conditions that one atomic batch may carry together.
pub const BATCH_COUNT_MAX: usize = 10_000;

/// Most conditions among them. Each may have every replica read a block from its disk, up to 1 MiB
/// for large values, in one step at the same entry of the log: that many take less than an election
/// timeout. Whoever depends on more cells has all their writers change one, and names that.
pub const CONDITION_COUNT_MAX: usize = 256;

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

/// Most bytes that one `multi_get` is answered with: what one batch wrote can be read back in one.
pub const MULTI_GET_BYTES_MAX: usize = BATCH_BYTES_MAX;

/// Bytes of the requests of all connections that a node may owe an answer to; it refuses more as
/// overloaded. They wait while the tables do not keep up, or no quorum answers. Too small: large
/// writes are refused that could have waited. Too large: memory.
pub const REQUESTS_BYTES_MAX: usize = 128 << 20;

/// Bytes of answers that wait for the clients of all connections to fetch them, beyond which a
/// connection that holds a page of them already gets errors instead of long ones. So all of them
/// take at most this and, for each connection, a page, the longest answer, and short ones (errors,
/// statuses) to the [`SESSION_INFLIGHT_MAX`] requests that it may have in flight: about 7 MiB, and
/// a few more if those are statuses. Too small: clients that read much at a time are refused
/// because of others. Too large: memory, which any number of clients that ask and never read can
/// take.
pub const ANSWERS_BYTES_MAX: usize = 256 << 20;

/// Bytes that may be missing, over all connections, of long requests that have begun to arrive;
/// further ones wait for their turn before they are read on, see [`PARTIAL_BYTES_FREE`]. Too small:
/// large batches of many clients wait for those on slow links, each up to half a minute. Too large:
/// memory, which any number of clients that send half a request can take. (A buffer that grows may
/// take twice as much for a moment.)
pub const PARTIAL_REQUESTS_BYTES_MAX: usize = 128 << 20;

/// Bytes that may be missing of a request which is read on without waiting for others, hence what
/// half a request takes for each connection besides [`PARTIAL_REQUESTS_BYTES_MAX`].
pub const PARTIAL_BYTES_FREE: usize = 64 << 10;

/// Answers remembered per client session, hence the most writes a client may have in flight.
pub const SESSION_INFLIGHT_MAX: usize = 1024;

/// Bytes of answers after which a session gets no more writes done until it acknowledges some.
/// Only answers to failed conditions are large: they carry the cell as it was.
pub const SESSION_BYTES_MAX: usize = 2 << 20;

/// Bytes of answers over all sessions after which the least recently used ones are pushed out.
/// All answers are copied when a memtable is frozen, so they stay far below the cells in size.
pub const SESSIONS_BYTES_MAX: usize = 32 << 20;

/// Longest block of a snapshot: no single cell and no page of cells is longer.
pub const SNAPSHOT_BLOCK_BYTES_MAX: usize = 4 << 20;

/// Longest piece of a saved snapshot that a client is sent at once.
pub const SNAPSHOT_PIECE_BYTES_MAX: usize = 1 << 20;

const _: () = {
    assert!(SNAPSHOT_PIECE_BYTES_MAX + (1 << 10) < FRAME_BYTES_MAX, "a piece fits a frame");
    assert!(
        KEY_BYTES_MAX + COLUMN_BYTES_MAX + VALUE_BYTES_MAX < BATCH_BYTES_MAX,
        "a cell fits a batch"
    );
    assert!(BATCH_BYTES_MAX + (64 << 10) < FRAME_BYTES_MAX, "a batch fits a frame");
    assert!(CONDITION_COUNT_MAX < BATCH_COUNT_MAX, "a batch of conditions has room for mutations");
    assert!(FRAME_BYTES_MAX < REQUESTS_BYTES_MAX, "a node that owes nothing takes any request");
    assert!(FRAME_BYTES_MAX < PARTIAL_REQUESTS_BYTES_MAX, "there is room for any request");
    assert!(PAGE_BYTES_MAX < ANSWERS_BYTES_MAX, "a page is allowed beside the sum of all answers");
    assert!(MULTI_GET_BYTES_MAX + (512 << 10) < FRAME_BYTES_MAX, "a multi_get fits a frame");
    assert!(
        SESSION_BYTES_MAX + VALUE_BYTES_MAX + (64 << 10) < FRAME_BYTES_MAX,
        "a session is decoded in one piece"
    );
    // An encoded place has two bytes for each zero byte of its key.
    assert!(
        2 * KEY_BYTES_MAX + COLUMN_BYTES_MAX + VALUE_BYTES_MAX + (1 << 10)
            < SNAPSHOT_BLOCK_BYTES_MAX,
        "a cell fits a block of a snapshot"
    );
    assert!(PAGE_BYTES_MAX + VALUE_BYTES_MAX + (16 << 10) < FRAME_BYTES_MAX, "a page fits a frame");
};
