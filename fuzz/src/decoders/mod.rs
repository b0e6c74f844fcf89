//! Decoders and recoveries: what bytes from a connection, a disk or a person go through.
//!
//! Each target does with its input what the node does, through the node's own functions, and then
//! asks more than the node can: whether what was read survives writing it, whether two ways to
//! read come to the same, whether anything was believed that no checksum vouches for, whether a
//! second start finds what the first one found. `wire` has what comes over a connection, `wal`,
//! `table` and `snapshot` what lies on a disk, `notes` and `session` what lies within those,
//! `keycode` the places of cells, `text` what people write.
//!
//! A format with checksums has two targets. The bare one reads [blind](crate::blind), because a
//! fuzzer never guesses a checksum; the [altered](crate::edits) one reads with open eyes, because
//! a blind one cannot tell whether checksums are looked at.
//!
//! # Left out
//! Sockets, files and tasks: a target is a function, and every file lies in memory. What depends
//! on when something happens is the simulation's business.

mod keycode;
mod notes;
mod session;
mod snapshot;
pub(crate) mod table;
mod text;
mod wal;
pub(crate) mod wire;

use crate::{Kind, Target};

/// The decoders, then the recoveries.
pub const TARGETS: &[Target] = &[
    FRAME,
    HANDSHAKE,
    REQUEST,
    RESPONSE,
    PEER_MESSAGE,
    COMMAND,
    LOG_RECORD,
    PLACE,
    NOTE,
    SESSION_TABLE,
    NAME_PLATE,
    MANIFEST,
    VERDICT,
    TABLE,
    SNAPSHOT,
    WAL_SEGMENT,
    CONFIGURATION,
    HISTORY,
    IMPORT,
    PROGRESS,
    NOTE_START,
    TABLE_ALTERED,
    SNAPSHOT_ALTERED,
    BACKUP,
    WAL,
    WAL_ALTERED,
    STORE_ALTERED,
];

/// Frames in arbitrary pieces.
pub const FRAME: Target = Target {
    name: "frame",
    kind: Kind::Decoder,
    what: "frames in arbitrary pieces",
    run: wire::frame,
    seeds: wire::frame_seeds,
    bytes_max: (8 << 10, 16),
};

/// The first frame of a client or a peer, and its answer.
pub const HANDSHAKE: Target = Target {
    name: "handshake",
    kind: Kind::Decoder,
    what: "the first frame of a client or a peer, and its answer",
    run: wire::handshake,
    seeds: wire::handshake_seeds,
    bytes_max: (8 << 10, 8),
};

/// What a client asks.
pub const REQUEST: Target = Target {
    name: "request",
    kind: Kind::Decoder,
    what: "what a client asks",
    run: wire::request,
    seeds: wire::request_seeds,
    bytes_max: DECODED,
};

/// What a client is answered.
pub const RESPONSE: Target = Target {
    name: "response",
    kind: Kind::Decoder,
    what: "what a client is answered",
    run: wire::response,
    seeds: wire::response_seeds,
    bytes_max: DECODED,
};

/// What peers of both modes say.
pub const PEER_MESSAGE: Target = Target {
    name: "peer_message",
    kind: Kind::Decoder,
    what: "what peers of both modes say",
    run: wire::peer_message,
    seeds: wire::peer_message_seeds,
    bytes_max: DECODED,
};

/// An entry of the replicated log, as the state machine reads it.
pub const COMMAND: Target = Target {
    name: "command",
    kind: Kind::Decoder,
    what: "an entry of the replicated log, as the state machine reads it",
    run: wire::command,
    seeds: wire::command_seeds,
    bytes_max: DECODED,
};

/// The payloads of log records of both modes.
pub const LOG_RECORD: Target = Target {
    name: "log_record",
    kind: Kind::Decoder,
    what: "the payloads of log records of both modes",
    run: wire::log_record,
    seeds: wire::log_record_seeds,
    bytes_max: DECODED,
};

/// Keycode: cell places.
pub const PLACE: Target = Target {
    name: "place",
    kind: Kind::Decoder,
    what: "keycode: cell places",
    run: keycode::place,
    seeds: keycode::place_seeds,
    bytes_max: (4 << 10, 8),
};

/// The notes of a masterless node.
pub const NOTE: Target = Target {
    name: "note",
    kind: Kind::Decoder,
    what: "the notes of a masterless node",
    run: notes::note,
    seeds: notes::note_seeds,
    bytes_max: DECODED,
};

/// The start of a masterless node that finds such notes.
pub const NOTE_START: Target = Target {
    name: "note_start",
    kind: Kind::Recovery,
    what: "the start of a masterless node that finds such notes",
    run: notes::start,
    seeds: notes::note_seeds,
    bytes_max: DECODED,
};

/// The sessions of clients in a snapshot.
pub const SESSION_TABLE: Target = Target {
    name: "session_table",
    kind: Kind::Decoder,
    what: "the sessions of clients in a snapshot",
    run: session::table,
    seeds: session::table_seeds,
    bytes_max: DECODED,
};

/// NODE: whose data directory it is.
pub const NAME_PLATE: Target = Target {
    name: "name_plate",
    kind: Kind::Decoder,
    what: "NODE: whose data directory it is",
    run: snapshot::name_plate,
    seeds: snapshot::name_plate_seeds,
    // Two copies of 4 KiB, written, read and written again, once with one of them damaged.
    bytes_max: (64 << 10, 8),
};

/// MANIFEST, blind.
pub const MANIFEST: Target = Target {
    name: "manifest",
    kind: Kind::Decoder,
    what: "MANIFEST, blind",
    run: table::manifest,
    seeds: table::manifest_seeds,
    bytes_max: (64 << 10, 128),
};

/// DAMAGED: why a state is not to be believed.
pub const VERDICT: Target = Target {
    name: "verdict",
    kind: Kind::Decoder,
    what: "DAMAGED: why a state is not to be believed",
    run: table::verdict,
    seeds: table::verdict_seeds,
    bytes_max: (8 << 10, 64),
};

/// A table, blind: open, read, walk, verify.
pub const TABLE: Target = Target {
    name: "table",
    kind: Kind::Decoder,
    what: "a table, blind: open, read, walk, verify",
    run: table::table,
    seeds: table::table_seeds,
    bytes_max: (256 << 10, 512),
};

/// A whole table, altered: never another cell than was written.
pub const TABLE_ALTERED: Target = Target {
    name: "table_altered",
    kind: Kind::Recovery,
    what: "a whole table, altered: never another cell than was written",
    run: table::altered,
    seeds: table::altered_seeds,
    bytes_max: (512 << 10, 256),
};

/// A snapshot, blind: verify, read.
pub const SNAPSHOT: Target = Target {
    name: "snapshot",
    kind: Kind::Decoder,
    what: "a snapshot, blind: verify, read",
    run: snapshot::snapshot,
    seeds: snapshot::snapshot_seeds,
    bytes_max: (64 << 10, 64),
};

/// A whole snapshot, altered and received in pieces: refused.
pub const SNAPSHOT_ALTERED: Target = Target {
    name: "snapshot_altered",
    kind: Kind::Recovery,
    what: "a whole snapshot, altered and received in pieces: refused",
    run: snapshot::altered,
    seeds: snapshot::altered_seeds,
    bytes_max: (256 << 10, 256),
};

/// Restoring any snapshot to a new node.
pub const BACKUP: Target = Target {
    name: "backup",
    kind: Kind::Recovery,
    what: "restoring any snapshot to a new node",
    run: snapshot::backup,
    seeds: snapshot::backup_seeds,
    bytes_max: (24 << 20, 64),
};

/// A segment of a log, blind.
pub const WAL_SEGMENT: Target = Target {
    name: "wal_segment",
    kind: Kind::Decoder,
    what: "a segment of a log, blind",
    run: wal::segment,
    seeds: wal::segment_seeds,
    bytes_max: (64 << 10, 64),
};

/// Segments of any content under any name, blind, and the replay of both modes.
pub const WAL: Target = Target {
    name: "wal",
    kind: Kind::Recovery,
    what: "segments of any content under any name, blind, and the replay of both modes",
    run: wal::blind,
    seeds: wal::blind_seeds,
    bytes_max: (512 << 10, 256),
};

/// A whole log, altered: no record but those that were written.
pub const WAL_ALTERED: Target = Target {
    name: "wal_altered",
    kind: Kind::Recovery,
    what: "a whole log, altered: no record but those that were written",
    run: wal::altered,
    seeds: wal::altered_seeds,
    bytes_max: (1 << 20, 256),
};

/// A whole table store, altered: open, read, scrub, verify, salvage.
pub const STORE_ALTERED: Target = Target {
    name: "store_altered",
    kind: Kind::Recovery,
    what: "a whole table store, altered: open, read, scrub, verify, salvage",
    run: table::store_altered,
    seeds: table::store_altered_seeds,
    bytes_max: (24 << 20, 256),
};

/// TOML: of a node, and of a cluster on this machine.
pub const CONFIGURATION: Target = Target {
    name: "configuration",
    kind: Kind::Decoder,
    what: "TOML: of a node, and of a cluster on this machine",
    run: text::configuration,
    seeds: text::configuration_seeds,
    bytes_max: (256 << 10, 4 << 10),
};

/// JSON Lines: what clients asked and were told.
pub const HISTORY: Target = Target {
    name: "history",
    kind: Kind::Decoder,
    what: "JSON Lines: what clients asked and were told",
    run: text::history,
    seeds: text::history_seeds,
    bytes_max: (64 << 10, 4 << 10),
};

/// JSON Lines: cells and changes.
pub const IMPORT: Target = Target {
    name: "import",
    kind: Kind::Decoder,
    what: "JSON Lines: cells and changes",
    run: text::import,
    seeds: text::import_seeds,
    bytes_max: (64 << 10, 256),
};

/// JSON: how far an import is.
pub const PROGRESS: Target = Target {
    name: "progress",
    kind: Kind::Decoder,
    what: "JSON: how far an import is",
    run: text::progress,
    seeds: text::progress_seeds,
    bytes_max: (64 << 10, 256),
};

/// What a message may allocate: its own length many times over, for a vector of small values is
/// larger in memory than on the wire.
const DECODED: (usize, usize) = (80 << 10, 1100);
