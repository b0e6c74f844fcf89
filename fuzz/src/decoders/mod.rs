//! Decoders and recoveries: what bytes from a connection, a disk or a person go through.

mod keycode;
mod notes;
mod session;
mod snapshot;
mod table;
mod text;
mod wal;
mod wire;

use crate::Target;

/// The decoders, the quickest first.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "frame",
        what: "frames in arbitrary pieces",
        run: wire::frame,
        seeds: wire::frame_seeds,
        bytes_max: (8 << 10, 8),
    },
    Target {
        name: "handshake",
        what: "the first frame of a client or a peer, and its answer",
        run: wire::handshake,
        seeds: wire::handshake_seeds,
        bytes_max: (8 << 10, 8),
    },
    Target {
        name: "request",
        what: "what a client asks",
        run: wire::request,
        seeds: wire::request_seeds,
        bytes_max: DECODED,
    },
    Target {
        name: "response",
        what: "what a client is answered",
        run: wire::response,
        seeds: wire::response_seeds,
        bytes_max: DECODED,
    },
    Target {
        name: "peer_message",
        what: "what peers of both modes say",
        run: wire::peer_message,
        seeds: wire::peer_message_seeds,
        bytes_max: DECODED,
    },
    Target {
        name: "command",
        what: "an entry of the replicated log, as the state machine reads it",
        run: wire::command,
        seeds: wire::command_seeds,
        bytes_max: DECODED,
    },
    Target {
        name: "log_record",
        what: "the payloads of log records of both modes",
        run: wire::log_record,
        seeds: wire::log_record_seeds,
        bytes_max: DECODED,
    },
    Target {
        name: "place",
        what: "keycode: cell places",
        run: keycode::place,
        seeds: keycode::place_seeds,
        bytes_max: (4 << 10, 8),
    },
    Target {
        name: "note",
        what: "the notes of a masterless node",
        run: notes::note,
        seeds: notes::note_seeds,
        bytes_max: DECODED,
    },
    Target {
        name: "session_table",
        what: "the sessions of clients in a snapshot",
        run: session::table,
        seeds: session::table_seeds,
        bytes_max: DECODED,
    },
    Target {
        name: "session_token",
        what: "what a client's session makes of any answers",
        run: session::token,
        seeds: session::token_seeds,
        bytes_max: (256 << 10, 256),
    },
    Target {
        name: "name_plate",
        what: "NODE: whose data directory it is",
        run: snapshot::name_plate,
        seeds: snapshot::name_plate_seeds,
        bytes_max: (32 << 10, 8),
    },
    Target {
        name: "manifest",
        what: "MANIFEST, blind",
        run: table::manifest,
        seeds: table::manifest_seeds,
        bytes_max: (64 << 10, 128),
    },
    Target {
        name: "table",
        what: "a table, blind: open, read, walk, verify",
        run: table::table,
        seeds: table::table_seeds,
        bytes_max: (256 << 10, 512),
    },
    Target {
        name: "table_altered",
        what: "a whole table, altered: never another cell than was written",
        run: table::altered,
        seeds: table::altered_seeds,
        bytes_max: (512 << 10, 256),
    },
    Target {
        name: "snapshot",
        what: "a snapshot, blind: verify, read",
        run: snapshot::snapshot,
        seeds: snapshot::snapshot_seeds,
        bytes_max: (64 << 10, 64),
    },
    Target {
        name: "snapshot_altered",
        what: "a whole snapshot, altered and received in pieces: refused",
        run: snapshot::altered,
        seeds: snapshot::altered_seeds,
        bytes_max: (256 << 10, 256),
    },
    Target {
        name: "backup",
        what: "restoring any snapshot to a new node",
        run: snapshot::backup,
        seeds: snapshot::backup_seeds,
        bytes_max: (24 << 20, 64),
    },
    Target {
        name: "wal",
        what: "segments of any content under any name, blind, and the replay of both modes",
        run: wal::blind,
        seeds: wal::blind_seeds,
        bytes_max: (512 << 10, 256),
    },
    Target {
        name: "wal_altered",
        what: "a whole log, altered: no record but those that were written",
        run: wal::altered,
        seeds: wal::altered_seeds,
        bytes_max: (1 << 20, 256),
    },
    Target {
        name: "store_altered",
        what: "a whole table store, altered: open, read, scrub, verify, salvage",
        run: table::store_altered,
        seeds: table::store_altered_seeds,
        bytes_max: (24 << 20, 256),
    },
    Target {
        name: "configuration",
        what: "TOML: of a node, and of a cluster on this machine",
        run: text::configuration,
        seeds: text::configuration_seeds,
        bytes_max: (256 << 10, 4 << 10),
    },
    Target {
        name: "history",
        what: "JSON Lines: what clients asked and were told",
        run: text::history,
        seeds: text::history_seeds,
        bytes_max: (64 << 10, 4 << 10),
    },
    Target {
        name: "import",
        what: "JSON Lines: cells and changes",
        run: text::import,
        seeds: text::import_seeds,
        bytes_max: (64 << 10, 256),
    },
];

/// What a message may allocate: its own length many times over, for a vector of small values is
/// larger in memory than on the wire.
const DECODED: (usize, usize) = (80 << 10, 1100);
