//! Cells and changes as JSON Lines: the form of `import`, `export`, `bulk` and `--output json`.
//!
//! # Layout
//! ```text
//! {"key":"person/1","column":"name","value":"Ada"}
//! {"key_base64":"/wA=","value":"text"}
//! {"action":"delete","key":"person/1","column":"name"}
//! {"action":"delete_row","key":"person/1"}
//! ```
//! Text goes into `key`, `column` and `value`; bytes that are no UTF-8 into the field with
//! `_base64` at its end (standard alphabet, padded). An absent column is the empty one. A field
//! that nobody knows is refused, so that a misspelt one is not silently an empty column.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::base::{Column, Key, TooLarge, Value};
use crate::kv::{Cell, Mutation};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// Only printed; ignored when read, so that what was printed can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

/// What a line does; setting is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Set,
    Delete,
    DeleteRow,
}

impl Record {
    /// Makes the line of a cell, with its version or without.
    pub(super) fn of_cell(key: &Key, column: &Column, cell: &Cell, with_version: bool) -> Self {
        let mut record = Self::of_place(key, column);
        (record.value, record.value_base64) = text_or_base64(cell.value.as_bytes());
        record.version = with_version.then_some(cell.version.0);
        record
    }

    /// Makes the line of a place, without what is there.
    pub(super) fn of_place(key: &Key, column: &Column) -> Self {
        let mut record = Self::of_key(key);
        if !column.is_empty() {
            (record.column, record.column_base64) = text_or_base64(column.as_bytes());
        }
        record
    }

    /// Makes the line of a key.
    pub(super) fn of_key(key: &Key) -> Self {
        let (key, key_base64) = text_or_base64(key.as_bytes());
        Self { key, key_base64, ..Self::default() }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// It is no JSON, has a field that nobody knows, or lacks one.
    pub(super) fn parse(line: &[u8]) -> Result<Mutation, String> {
        let record: Self = serde_json::from_slice(line).map_err(|error| reason(&error))?;
        record.into_mutation()
    }

    fn into_mutation(self) -> Result<Mutation, String> {
        let too_large = |error: TooLarge| error.to_string();
        let key = one_of("key", self.key, self.key_base64)?.ok_or("there is no \"key\"")?;
        let key = Key::new(key).map_err(too_large)?;
        let column = one_of("column", self.column, self.column_base64)?;
        let value = one_of("value", self.value, self.value_base64)?;
        let has_column = column.is_some();
        let column = Column::new(column.unwrap_or_default()).map_err(too_large)?;
        match (self.action.unwrap_or(Action::Set), value) {
            (Action::Set, Some(value)) => {
                Ok(Mutation::Set { key, column, value: Value::new(value).map_err(too_large)? })
            }
            (Action::Set, None) => Err("there is no \"value\"".to_owned()),
            (Action::Delete, None) => Ok(Mutation::Delete { key, column }),
            (Action::DeleteRow, None) if has_column => {
                Err("delete_row deletes all columns, it takes no \"column\"".to_owned())
            }
            (Action::DeleteRow, None) => Ok(Mutation::DeleteRow { key }),
            (Action::Delete | Action::DeleteRow, Some(_)) => {
                Err("what is deleted has no \"value\"".to_owned())
            }
        }
    }
}

/// Returns what is wrong with a line, and at which byte. What the parser counts as lines begins
/// with this one, whose number in its file the caller knows.
fn reason(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let shown = error.to_string();
    let what = shown.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&shown);
    if error.is_eof() || column == 0 {
        what.to_owned()
    } else {
        format!("{what}, at column {column}")
    }
}

/// Decodes base64 from the command line or a line.
pub(super) fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("{text:?} is not base64: {error}"))
}

fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

fn one_of(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("both \"{name}\" and \"{name}_base64\"")),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => decode_base64(&base64).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kv::Version;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![prop::collection::vec(any::<u8>(), 0..20), "\\PC*".prop_map(String::into_bytes)]
    }

    proptest! {
        #[test]
        fn any_cell_round_trips(key in bytes(), column in bytes(), value in bytes()) {
            let key = Key::new(key).unwrap();
            let column = Column::new(column).unwrap();
            let cell = Cell { value: Value::new(value).unwrap(), version: Version(7) };
            for with_version in [false, true] {
                let record = Record::of_cell(&key, &column, &cell, with_version);
                let line = serde_json::to_vec(&record).unwrap();
                prop_assert!(!line.contains(&b'\n'), "one line");
                let expected = Mutation::Set {
                    key: key.clone(),
                    column: column.clone(),
                    value: cell.value.clone(),
                };
                prop_assert_eq!(Record::parse(&line), Ok(expected));
            }
        }

        #[test]
        fn no_line_panics(line in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(Record::parse(&line).is_err());
        }
    }

    #[test]
    fn changes_are_read() {
        let key = Key::new("k").unwrap();
        let delete = Record::parse(br#"{"action":"delete","key":"k"}"#);
        assert_eq!(delete, Ok(Mutation::Delete { key: key.clone(), column: Column::default() }));
        let delete_row = Record::parse(br#"{"action":"delete_row","key":"k"}"#);
        assert_eq!(delete_row, Ok(Mutation::DeleteRow { key }));
    }

    /// The accident: a wrong line 2 was said to be wrong "at line 1", and one that broke off in the
    /// line after it.
    #[test]
    fn wrong_line_is_not_given_another_number() {
        for (line, reason) in [
            ("{\"key\":\n", "EOF while parsing a value"),
            ("{\"key\":}", "expected value, at column 8"),
            ("nothing", "expected ident, at column 2"),
        ] {
            assert_eq!(Record::parse(line.as_bytes()), Err(reason.to_owned()), "{line:?}");
        }
    }

    #[test]
    fn contradictions_are_refused_with_their_reason() {
        for (line, reason) in [
            (r#"{"value":"v"}"#, "no \"key\""),
            (r#"{"key":"k"}"#, "no \"value\""),
            (r#"{"key":"k","key_base64":"aw==","value":"v"}"#, "both"),
            (r#"{"key":"k","value_base64":"?"}"#, "not base64"),
            (r#"{"key":"k","colum":"c","value":"v"}"#, "colum"),
            (r#"{"action":"delete","key":"k","value":"v"}"#, "no \"value\""),
            (r#"{"action":"delete_row","key":"k","column":"c"}"#, "no \"column\""),
            (r#"{"action":"increment","key":"k"}"#, "increment"),
        ] {
            let error = Record::parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
