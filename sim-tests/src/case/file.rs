//! Replay files: a case as JSON that people can read and edit, one decision a line.

use std::fmt::Write as _;

use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{Case, Expected, settings};
use crate::bugs;
use crate::nemesis::{Fault, FaultId};
use crate::operation::{Operation, OperationId};
use crate::options::{Mode, Options, Plan, Profile};
use crate::world::{Decided, Reseed};

/// The version of the format that is written.
const VERSION: u32 = 1;

/// A file is no case.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is no JSON, or lacks something.
    #[error("not a replay file: {0}")]
    Shape(#[from] serde_json::Error),
    /// Another program wrote it.
    #[error("a replay file of version {0}; this program reads version {VERSION}")]
    Version(u32),
    /// A value makes no sense.
    #[error("in the replay file: {0}")]
    Value(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    about: String,
    mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    seed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    planted: Option<String>,
    #[serde(default)]
    options: Map<String, Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    faults: Option<Vec<Fault>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operations: Option<Vec<Operation>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    without: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    timed: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fates: Vec<Decided>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reseed: Option<Reseed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected: Option<Expected>,
}

impl Case {
    /// Reads a replay file.
    pub fn from_json(text: &str) -> Result<Self, FileError> {
        let file: File = serde_json::from_str(text)?;
        if file.version != VERSION {
            return Err(FileError::Version(file.version));
        }
        let mode = Mode::from_str(&file.mode, false).map_err(FileError::Value)?;
        let mut options = match &file.profile {
            Some(profile) => {
                let profile = Profile::from_str(profile, false).map_err(FileError::Value)?;
                Plan { mode, profile }.draw(file.seed)
            }
            None => settings::plain(mode, file.seed),
        };
        let ignored = settings::put(&mut options, &file.options).map_err(FileError::Value)?;
        options.planted = match &file.planted {
            Some(code) => {
                let unknown = || FileError::Value(format!("there is no planted bug {code}"));
                Some(bugs::find(code).ok_or_else(unknown)?)
            }
            None => None,
        };
        let mut case = Self {
            about: file.about,
            faults: file.faults,
            operations: file.operations,
            decided: file.fates,
            reseed: file.reseed,
            is_timed: file.timed,
            expected: file.expected,
            ignored,
            ..Self::drawn(options)
        };
        case.leave_out(&file.without)?;
        Ok(case)
    }

    /// Leaves out decisions by their names.
    pub fn leave_out(&mut self, names: &[String]) -> Result<(), FileError> {
        for name in names {
            if let Ok(fault) = name.parse::<FaultId>() {
                self.without_faults.insert(fault);
                self.faults.iter_mut().for_each(|all| all.retain(|listed| listed.id != fault));
            } else {
                let operation = name.parse::<OperationId>().map_err(FileError::Value)?;
                self.without_operations.insert(operation);
                let all = self.operations.iter_mut();
                all.for_each(|all| all.retain(|listed| listed.id != operation));
            }
        }
        Ok(())
    }

    /// Writes a replay file.
    pub fn to_json(&self) -> String {
        let is_drawn = self.faults.is_none() || self.operations.is_none();
        let base = self.base(is_drawn);
        let without = self.without_faults.iter().map(ToString::to_string);
        let without = without.chain(self.without_operations.iter().map(ToString::to_string));
        let file = File {
            version: VERSION,
            about: self.about.clone(),
            mode: named(self.options.mode()),
            profile: is_drawn.then(|| self.options.profile.name().to_owned()),
            seed: self.options.seed,
            planted: self.options.planted.map(str::to_owned),
            options: settings::unlike(&self.options, &base),
            faults: self.faults.clone(),
            operations: self.operations.clone(),
            without: without.collect(),
            timed: self.is_timed,
            fates: self.decided.clone(),
            reseed: self.reseed,
            expected: self.expected.clone(),
        };
        match serde_json::to_value(&file) {
            Ok(json) => lines(&json),
            Err(error) => panic!("a case cannot be written: {error}"),
        }
    }

    /// Returns the options that those of the file are told apart from.
    fn base(&self, is_drawn: bool) -> Options {
        let (mode, seed) = (self.options.mode(), self.options.seed);
        if is_drawn {
            Plan { mode, profile: self.options.profile }.draw(seed)
        } else {
            settings::plain(mode, seed)
        }
    }
}

/// Returns the name of a mode on the command line.
fn named(mode: Mode) -> String {
    mode.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

/// The order in which the fields stand in a file.
const ORDER: [&str; 14] = [
    "version",
    "about",
    "mode",
    "profile",
    "seed",
    "planted",
    "options",
    "faults",
    "operations",
    "without",
    "timed",
    "fates",
    "reseed",
    "expected",
];

/// Lays JSON out: one decision a line.
fn lines(file: &Json) -> String {
    let mut text = String::from("{\n");
    let present: Vec<_> = ORDER.iter().filter_map(|key| Some((*key, file.get(key)?))).collect();
    for (position, (key, value)) in present.iter().enumerate() {
        let comma = if position + 1 < present.len() { "," } else { "" };
        // Writing to a string cannot fail.
        writeln!(text, "  \"{key}\": {}{comma}", laid_out(value, 2)).ok();
    }
    text.push_str("}\n");
    text
}

fn laid_out(value: &Json, depth: usize) -> String {
    let (open, close, inner): (_, _, Vec<String>) = match value {
        Json::Array(all) if !all.is_empty() => {
            ("[", "]", all.iter().map(ToString::to_string).collect())
        }
        Json::Object(all) if !all.is_empty() => {
            let field = |(key, value): (&String, &Json)| {
                format!("\"{key}\": {}", laid_out(value, depth + 2))
            };
            ("{", "}", all.iter().map(field).collect())
        }
        Json::Null
        | Json::Bool(_)
        | Json::Number(_)
        | Json::String(_)
        | Json::Array(_)
        | Json::Object(_) => return value.to_string(),
    };
    let (indent, outer) = (" ".repeat(depth + 2), " ".repeat(depth));
    format!("{open}\n{indent}{}\n{outer}{close}", inner.join(&format!(",\n{indent}")))
}
