//! Replay files: a case as JSON that people can read and edit, one decision a line.

use std::collections::BTreeSet;
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
    /// What is to be left out is not there.
    #[error("there is no {0} in the run")]
    Absent(String),
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
        for name in &file.without {
            // A list that is written down does not have what was left out of it.
            let is_listed = match name.parse::<FaultId>() {
                Ok(_) => case.faults.is_some(),
                Err(_) => case.operations.is_some(),
            };
            if !is_listed {
                case.leave_out(std::slice::from_ref(name))?;
            }
        }
        Ok(case)
    }

    /// Leaves out decisions by their names.
    ///
    /// # Errors
    /// A name is none, or nothing in the run has it.
    pub fn leave_out(&mut self, names: &[String]) -> Result<(), FileError> {
        let names: BTreeSet<&String> = names.iter().collect();
        for name in names {
            if !self.leave_out_one(name)? {
                return Err(FileError::Absent(name.clone()));
            }
        }
        Ok(())
    }

    /// Leaves out one decision; tells whether it was there.
    fn leave_out_one(&mut self, name: &str) -> Result<bool, FileError> {
        if let Ok(id) = name.parse::<FaultId>() {
            let is_there = self.faults().iter().any(|fault| fault.id == id);
            match &mut self.faults {
                Some(listed) => listed.retain(|fault| fault.id != id),
                None => _ = self.without_faults.insert(id),
            }
            return Ok(is_there);
        }
        let id = name.parse::<OperationId>().map_err(FileError::Value)?;
        let is_client = (1..=self.options.client_count).contains(&u64::from(id.client));
        let all = self.operations_of(id.client);
        let is_there = is_client && all.iter().any(|operation| operation.id == id);
        match &mut self.operations {
            Some(listed) => listed.retain(|operation| operation.id != id),
            None => _ = self.without_operations.insert(id),
        }
        Ok(is_there)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_run_can_be_left_out() {
        let mut case = Case::drawn(Options::draw(3));
        let (faults, operations) = (case.faults(), case.operations_of(1));
        let (fault, operation) = (faults[0].id.to_string(), operations[0].id.to_string());
        let said = |case: &mut Case, name: &str| {
            case.leave_out(&[name.to_owned()]).map_err(|error| error.to_string())
        };
        for wrong in ["f999", "c1.99999", "c99.1"] {
            let wanted = format!("there is no {wrong} in the run");
            assert_eq!(said(&mut case, wrong), Err(wanted));
        }
        let mut case = Case::drawn(Options::draw(3));
        assert!(said(&mut case, "what").is_err());
        assert_eq!(said(&mut case, &fault), Ok(()));
        assert_eq!(said(&mut case, &operation), Ok(()));
        assert_eq!(case.faults().len(), faults.len() - 1);
        // It is so again from its file, and so is one that lists everything.
        let again = Case::from_json(&case.to_json()).unwrap();
        assert_eq!(again.faults(), case.faults());
        let mut listed = Case { faults: Some(faults.clone()), ..case };
        assert_eq!(said(&mut listed, &fault), Ok(()));
        assert!(said(&mut listed, &fault).is_err(), "it is gone");
        listed.without_faults.insert(faults[0].id);
        assert!(Case::from_json(&listed.to_json()).is_ok(), "as files were once written");
    }
}
