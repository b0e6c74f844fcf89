//! Lines of a trace.

use super::super::notes::{self, Kind};
use super::super::placement::without_prefix;
use super::super::{Message, Persist, Record, Reply, SyncMessage, WriteOutcome};
use crate::base::{Entry, Written};
use crate::codec::keycode;

/// Returns the message as a trace shows it; `None` for a heartbeat, which would fill it.
pub(super) fn message(message: &Message) -> Option<String> {
    let described = match message {
        Message::Heartbeat(_) => return None,
        Message::Write { id, entries: of } => {
            format!("Write {}.{} {}", id.generation, id.number, entries(of))
        }
        Message::Repair { id, entries: of } => {
            format!("Repair {}.{} {}", id.generation, id.number, entries(of))
        }
        Message::WriteReply { id, outcome } => {
            let outcome = match outcome {
                WriteOutcome::Stored => "Stored",
                WriteOutcome::DiskFull => "DiskFull",
                WriteOutcome::Refused => "Refused",
            };
            format!("{outcome} {}.{}", id.generation, id.number)
        }
        Message::Read { id, .. } => format!("Read {}.{}", id.generation, id.number),
        Message::ReadReply { id, .. } => format!("ReadReply {}.{}", id.generation, id.number),
        Message::BatchStore { batch, entries: of } => format!("BatchStore {batch} {}", entries(of)),
        Message::BatchStored { batch } => format!("BatchStored {batch}"),
        Message::BatchDone { batch } => format!("BatchDone {batch}"),
        Message::Sync(SyncMessage::Roots { .. }) => return None,
        Message::Sync(message) => format!("{message:?}"),
    };
    Some(described)
}

/// Returns what a disk was asked to write; the clock's ceiling is left out.
pub(super) fn persist(persist: &Persist) -> Option<String> {
    let records: Vec<String> = persist.records.iter().filter_map(record).collect();
    (!records.is_empty()).then(|| format!("persists {}", records.join(" ")))
}

fn record(record: &Record) -> Option<String> {
    match record {
        Record::Entries(of) => Some(entries(of)),
        Record::Note { place, content } => {
            let kind = Kind::of(place.as_bytes());
            let name = match kind {
                Some(Kind::Ceiling) => return None,
                Some(Kind::Hint { target, number }) => format!("hint {number} for {target}"),
                Some(Kind::Batch(batch)) => format!("batch {batch}"),
                Some(Kind::Generation) => {
                    let number = content.as_ref().and_then(|c| notes::number(c.as_bytes()));
                    format!("generation {}", number.unwrap_or_default())
                }
                kind => format!("{kind:?}"),
            };
            Some(if content.is_some() { format!("+{name}") } else { format!("-{name}") })
        }
    }
}

/// Returns an answer to a client.
pub(super) fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Written { stamp } => format!("Written {stamp}"),
        reply => format!("{reply:?}"),
    }
}

fn entries(entries: &[Entry]) -> String {
    let entries: Vec<String> = entries.iter().map(entry).collect();
    format!("[{}]", entries.join(" "))
}

/// Returns one entry: its key, its value, its stamp.
pub(super) fn entry(entry: &Entry) -> String {
    let (key, column) =
        keycode::decode_cell(without_prefix(entry.place.as_bytes())).unwrap_or_default();
    let (key, column) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(column));
    let written = match &entry.written {
        Written::Value(value) => format!("={}", String::from_utf8_lossy(value.as_bytes())),
        Written::Deleted => " deleted".to_owned(),
        Written::RowDeleted => " row deleted".to_owned(),
    };
    let column = if column.is_empty() { String::new() } else { format!(":{column}") };
    format!("{key}{column}{written} {}", entry.stamp)
}
