//! From a command to the changes that the masterless mode writes.
//!
//! A batch is brought into the form in which its order does not matter any more: of each cell only
//! the last change is left, and a row that is deleted is deleted before its cells are set. All
//! changes get one stamp later, and a row's tombstone does not hide cells of its own stamp.

use super::command::{Batch, Command};
use super::machine::Overlay;
use super::validate::{InvalidRequest, validate_batch};
use crate::base::{Payload, Written};
use crate::codec::{self, DecodeError, keycode};
use crate::dynamo::placement::{self, Placement};
use crate::dynamo::{Change, Partition};

/// A command is refused: it did not and will not take effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedCommand {
    /// The bytes are no command.
    #[error("no command: {0}")]
    Malformed(#[from] DecodeError),
    /// The command is over a limit.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// The masterless mode cannot do that.
    #[error("{0} need primary-backup replication")]
    Unsupported(&'static str),
}

/// Decodes a command; returns its changes, each place once, rows before cells.
///
/// Session and number of the write are not looked at: a write that is repeated writes the same
/// cells once more, with a later stamp.
///
/// # Errors
/// The command is refused.
pub fn changes(command: &[u8], placement: &Placement) -> Result<Vec<Change>, RefusedCommand> {
    match codec::decode::<Command>(command)? {
        Command::Write { batch, .. } => changes_of(&batch, placement),
        Command::Register { .. } | Command::RegisterByIndex { .. } => {
            Err(RefusedCommand::Unsupported("sessions"))
        }
    }
}

/// Returns the changes of a batch; see [`changes`].
///
/// # Errors
/// The batch is refused.
pub fn changes_of(batch: &Batch, placement: &Placement) -> Result<Vec<Change>, RefusedCommand> {
    validate_batch(batch)?;
    if !batch.conditions.is_empty() {
        return Err(RefusedCommand::Unsupported("conditions"));
    }
    let overlay = Overlay::of(&batch.mutations);
    let change = |place: &[u8], written| {
        let partition = partition_of(place, placement)?;
        Ok(Change { place: placement::place_in(partition, place), written })
    };
    let rows = overlay.deleted_rows.iter().map(|row| change(row, Written::RowDeleted));
    let cells = overlay.cells.iter().map(|(place, value)| {
        let value = value.map(|value| Payload::new(value.to_vec()).unwrap_or_default());
        change(place, value.map_or(Written::Deleted, Written::Value))
    });
    rows.chain(cells).collect()
}

fn partition_of(place: &[u8], placement: &Placement) -> Result<Partition, DecodeError> {
    let (key, _) = keycode::decode_cell(place)?;
    Ok(placement.partition_of(&key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Column, Key, NodeId, RequestSeq, SessionId, Value};
    use crate::kv::command::Expectation;

    fn placement() -> Placement {
        Placement::new(&[NodeId(1)], 1, 8)
    }

    fn key(name: &str) -> Key {
        Key::new(name.to_owned()).unwrap()
    }

    fn column(name: &str) -> Column {
        Column::new(name.to_owned()).unwrap()
    }

    fn value(text: &str) -> Value {
        Value::new(text.to_owned()).unwrap()
    }

    fn encoded(batch: Batch) -> Vec<u8> {
        let (session, seq) = (SessionId(1), RequestSeq(1));
        codec::encode(&Command::Write { session, seq, acked_below: seq, batch })
    }

    #[test]
    fn last_change_of_a_place_counts_and_a_row_comes_first() {
        let batch = Batch::new()
            .set(key("a"), column("x"), value("lost"))
            .set(key("b"), column("x"), value("over"))
            .delete_row(key("a"))
            .set(key("a"), column(""), value("kept"))
            .delete(key("b"), column("x"));
        let changes = changes(&encoded(batch), &placement()).unwrap();
        let place =
            |k: &str, c: &str| Payload::new(placement().cell(k.as_bytes(), c.as_bytes())).unwrap();
        let kept = Written::Value(Payload::new("kept").unwrap());
        let expected = [
            Change { place: place("a", ""), written: Written::RowDeleted },
            Change { place: place("a", ""), written: kept },
            Change { place: place("b", "x"), written: Written::Deleted },
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn what_needs_an_order_of_commands_is_refused() {
        let conditional = Batch::new().require(key("a"), column(""), Expectation::Absent);
        let refused = changes(&encoded(conditional), &placement()).unwrap_err();
        assert_eq!(refused.to_string(), "conditions need primary-backup replication");
        let register = codec::encode(&Command::Register { nonce: 1 });
        let refused = changes(&register, &placement());
        assert_eq!(refused, Err(RefusedCommand::Unsupported("sessions")));
        assert!(matches!(changes(b"", &placement()), Err(RefusedCommand::Malformed(_))));
        let large = (0..4).fold(Batch::new(), |batch, _| {
            batch.set(key("a"), column(""), Value::new(vec![0; Value::BYTES_MAX]).unwrap())
        });
        assert!(matches!(changes(&encoded(large), &placement()), Err(RefusedCommand::Invalid(_))));
    }
}
