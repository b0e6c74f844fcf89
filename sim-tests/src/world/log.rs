//! What happened in a world as typed entries, for those who show it to people.
//!
//! A log is kept only if somebody asks for it. It has no part in the hash of the trace: a run with
//! a log is the same run, and one without a log makes no entry and formats nothing.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Where entries go.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<LogEntry>>>);

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When, in nanoseconds of the world.
    pub at: u64,
    /// On which machine; `None` if it is about the world.
    pub host: Option<String>,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// An event of the trace.
    Event {
        /// Its kind.
        kind: &'static str,
        /// What the trace hashes of it.
        numbers: (u64, u64),
        /// The same for people.
        text: String,
    },
    /// A node gives a message to another one to its network.
    Sent {
        /// The other node.
        to: u64,
        /// The message.
        message: String,
    },
    /// How a node is, when that has changed.
    Status(Vec<(&'static str, u64)>),
    /// How much of a file is in the page cache, and how much of that is durable.
    File {
        /// The file.
        path: String,
        /// Bytes that a read sees.
        cached: u64,
        /// Bytes of writes that a power loss would take now.
        pending: u64,
        /// Whether its name is durable.
        is_name_durable: bool,
    },
    /// The names in a directory have changed, or were synced.
    Directory {
        /// The directory.
        path: String,
        /// Changes of names in it that are not durable.
        pending: u64,
    },
    /// A rare path of the nodes was taken for the first time.
    Probe(&'static str),
    /// A file has lost its name.
    Gone {
        /// The file.
        path: String,
    },
}

impl Log {
    /// Notes something.
    pub(super) fn note(&self, at: u64, host: Option<String>, what: Happening) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(LogEntry { at, host, what });
    }

    /// Takes out everything that was noted.
    pub fn take(&self) -> Vec<LogEntry> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LogEntry {
    /// Returns the kind of an event of the trace.
    pub fn kind(&self) -> Option<&'static str> {
        match &self.what {
            Happening::Event { kind, .. } => Some(kind),
            Happening::Sent { .. }
            | Happening::Status(_)
            | Happening::File { .. }
            | Happening::Directory { .. }
            | Happening::Probe(_)
            | Happening::Gone { .. } => None,
        }
    }

    /// Returns four hexadecimal digits that stand for an event of the trace.
    pub fn digest(&self) -> Option<String> {
        let Happening::Event { kind, numbers, .. } = &self.what else { return None };
        let mut hash = self.at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let host = self.host.as_deref().unwrap_or_default();
        let words = [
            super::trace::fold_bytes(host.as_bytes()),
            super::trace::fold_bytes(kind.as_bytes()),
            numbers.0,
            numbers.1,
        ];
        for word in words {
            hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        Some(format!("{:04x}", hash >> 48))
    }

    /// Returns the line of the trace for an event; something shorter for the rest.
    pub fn line(&self) -> String {
        let (seconds, micros) = (self.at / 1_000_000_000, self.at / 1_000 % 1_000_000);
        let host = self.host.as_deref().unwrap_or("world");
        let mut line = format!("{seconds:>5}.{micros:06}  {host:<5}  ");
        // Writing to a string cannot fail.
        match &self.what {
            Happening::Event { kind, text, .. } => write!(line, "{kind:<14}  {text}"),
            Happening::Sent { to, message } => write!(line, "sends to {to}: {message}"),
            Happening::Status(numbers) => write!(line, "{numbers:?}"),
            Happening::File { path, cached, pending, is_name_durable } => {
                let name = if *is_name_durable { "" } else { ", nor is the name" };
                write!(line, "{path}: {cached} bytes, {pending} of them not durable{name}")
            }
            Happening::Directory { path, pending } => {
                write!(line, "names in {path:?}: {pending} changes are not durable")
            }
            Happening::Probe(name) => write!(line, "takes the rare path {name}"),
            Happening::Gone { path } => write!(line, "{path} is gone"),
        }
        .ok();
        line
    }
}
