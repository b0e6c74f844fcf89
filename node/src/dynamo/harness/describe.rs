//! Lines of a trace.

use super::super::notes::{self, Kind};
use super::super::placement::without_prefix;
use super::super::{
    Chunk, Message, Outlined, Persist, ReadReply, Record, Reply, SyncMessage, WriteOutcome,
};
use crate::base::{Entry, Payload, Written};
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
        Message::Read { id, ranges, digest_only } => {
            let what = if *digest_only { " digest" } else { "" };
            let keys: Vec<String> = ranges.iter().map(|range| key(&range.start)).collect();
            format!("Read {}.{} [{}]{what}", id.generation, id.number, keys.join(" "))
        }
        Message::ReadReply { id, reply } => {
            let told = match reply {
                ReadReply::Data(chunks) => chunks.iter().map(chunk).collect::<Vec<_>>().join(" "),
                ReadReply::Digest(digest) => format!("digest {digest:016x}"),
                ReadReply::NotReady => "NotReady".to_owned(),
            };
            format!("ReadReply {}.{} {told}", id.generation, id.number)
        }
        Message::BatchStore { batch, entries: of } => format!("BatchStore {batch} {}", entries(of)),
        Message::BatchStored { batch } => format!("BatchStored {batch}"),
        Message::BatchLate { batch } => format!("BatchLate {batch}"),
        Message::BatchDone { batch } => format!("BatchDone {batch}"),
        Message::Sync(message) => return sync(message),
    };
    Some(described)
}

fn sync(message: &SyncMessage) -> Option<String> {
    let described = match message {
        // Most sessions find nothing.
        SyncMessage::Roots { .. } => return None,
        SyncMessage::Leaves { differing, unknown, .. }
            if differing.is_empty() && unknown.is_empty() =>
        {
            return None;
        }
        SyncMessage::Leaves { differing, unknown, .. } => {
            let differing: Vec<String> =
                differing.iter().map(|(of, _, floor)| format!("{of} floor={floor}")).collect();
            format!("Leaves [{}] unknown={unknown:?}", differing.join(" "))
        }
        SyncMessage::Outline { partition, outline, floor, .. } => {
            let told: Vec<String> = outline.iter().map(outlined).collect();
            format!("Outline of {partition} [{}] floor={floor}", told.join(" "))
        }
        SyncMessage::Difference { entries: of, wanted, floor, .. } => {
            let wanted: Vec<String> = wanted.iter().map(|(place, _)| key(place)).collect();
            format!("Difference {} wanted=[{}] floor={floor}", entries(of), wanted.join(" "))
        }
        SyncMessage::Fence { stamp, .. } => format!("Fence {stamp}"),
        SyncMessage::Fenced { low_water, .. } => format!("Fenced low={low_water}"),
        SyncMessage::Floor { partitions, floor, .. } => format!("Floor {floor} of {partitions:?}"),
    };
    Some(described)
}

fn outlined(told: &Outlined) -> String {
    let kind = if told.is_row {
        " row deleted"
    } else if told.is_tombstone {
        " deleted"
    } else {
        ""
    };
    format!("{}{kind} {}", key(&told.place), told.stamp)
}

fn chunk(chunk: &Chunk) -> String {
    let covered = chunk.covered.as_ref().map(|end| format!(" before {}", key(end)));
    format!("{}{}", entries(&chunk.entries), covered.unwrap_or_default())
}

fn key(place: &Payload) -> String {
    let (key, column) = keycode::decode_cell(without_prefix(place.as_bytes())).unwrap_or_default();
    let (key, column) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(column));
    if column.is_empty() { key.into_owned() } else { format!("{key}:{column}") }
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
                Some(Kind::Floor(partition)) => format!("floor of {partition}"),
                Some(kind) => format!("{kind:?}").to_lowercase(),
                None => "?".to_owned(),
            };
            Some(if content.is_some() { format!("+{name}") } else { format!("-{name}") })
        }
    }
}

/// Returns an answer to a client.
pub(super) fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Written { stamp } => format!("Written {stamp}"),
        Reply::Read { chunks, seen } => {
            let chunks: Vec<String> = chunks.iter().map(chunk).collect();
            format!("{} seen={seen}", chunks.join(" "))
        }
        Reply::Unavailable { .. }
        | Reply::Timeout
        | Reply::Overloaded
        | Reply::DiskFull
        | Reply::Invalid(_)
        | Reply::ClockSkew { .. }
        | Reply::NotReady => format!("{reply:?}"),
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
