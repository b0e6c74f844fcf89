//! The one place that prints: answers to standard output, complaints to standard error.
//!
//! Everything that is printed for another program is exact: JSON loses no byte, `raw` adds none.
//! What is printed for people shows bytes that are no text in an escaped form.

use std::io::{BufWriter, ErrorKind, IsTerminal, Write};

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};

use super::CliError;
use super::records::Record;
use crate::base::{Column, Key};
use crate::kv::Cell;

use super::args::Format;

/// Columns below which nobody reads a table: a terminal that has fewer most likely does not know.
const WIDTH_MIN: usize = 40;

/// Columns that a cell of a table takes besides its text.
const AROUND_CELL: usize = 3;

/// Standard output, in the form that was asked for.
pub(super) struct Output {
    format: Format,
    out: Box<dyn Write>,
}

impl Output {
    /// Prints to standard output.
    pub(super) fn new(format: Format) -> Self {
        Self::to(format, Box::new(std::io::stdout().lock()))
    }

    fn to(format: Format, out: Box<dyn Write>) -> Self {
        Self { format, out: Box::new(BufWriter::new(out)) }
    }

    /// Prints a line.
    pub(super) fn line(&mut self, line: &str) -> Result<(), CliError> {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Prints bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).map_err(|error| failed(&error))
    }

    /// Makes sure that everything is printed.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        self.out.flush().map_err(|error| failed(&error))
    }

    /// Prints the value of one cell.
    pub(super) fn cell(&mut self, key: &Key, column: &Column, cell: &Cell) -> Result<(), CliError> {
        match self.format {
            Format::Table => self.line(&text(cell.value.as_bytes())),
            Format::Json => self.record(key, column, cell),
            Format::Raw => self.bytes(cell.value.as_bytes()),
        }
    }

    /// Prints that there is no such cell, where a program reads it: its place, and no value.
    pub(super) fn absent(&mut self, key: &Key, column: &Column) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.json(&Record::of_place(key, column)),
            Format::Table | Format::Raw => Ok(()),
        }
    }

    /// Prints the columns of one key.
    pub(super) fn columns(&mut self, key: &Key, cells: &[(Column, Cell)]) -> Result<(), CliError> {
        match self.format {
            Format::Table => {
                let mut table = new_table(&["column", "value", "version"]);
                for (column, cell) in cells {
                    let version = cell.version.0.to_string();
                    let (column, value) = (column.as_bytes(), cell.value.as_bytes());
                    table.add_row(vec![text(column), text(value), version]);
                }
                self.table(&table)
            }
            Format::Json => {
                cells.iter().try_for_each(|(column, cell)| self.record(key, column, cell))
            }
            Format::Raw => cells.iter().try_for_each(|(column, cell)| {
                let parts = [column.as_bytes(), b"\t", cell.value.as_bytes(), b"\n"];
                self.bytes(&parts.concat())
            }),
        }
    }

    /// Prints one of many keys.
    pub(super) fn key(&mut self, key: &Key) -> Result<(), CliError> {
        match self.format {
            Format::Table => self.line(&text(key.as_bytes())),
            Format::Json => self.json(&Record::of_key(key)),
            Format::Raw => self.bytes(&[key.as_bytes(), b"\n"].concat()),
        }
    }

    /// Prints one value as a JSON line.
    pub(super) fn json(&mut self, value: &impl serde::Serialize) -> Result<(), CliError> {
        let line = serde_json::to_string(value)
            .map_err(|error| CliError::Failed(format!("cannot write JSON: {error}")))?;
        self.line(&line)
    }

    /// Prints a table of short cells, none of which is broken. Columns for which a terminal has no
    /// room come below, as a table that begins with the same column.
    pub(super) fn grid(&mut self, heads: &[&str], rows: &[Vec<String>]) -> Result<(), CliError> {
        let mut whole = new_table(heads);
        whole.add_rows(rows.to_vec());
        let widths = whole.column_max_content_widths();
        for (number, columns) in parts(&widths, terminal_width(&whole)).iter().enumerate() {
            if number > 0 {
                self.line("")?;
            }
            let shown = |cell: &usize| heads.get(*cell).copied().unwrap_or_default();
            let mut part = new_table(&columns.iter().map(shown).collect::<Vec<_>>());
            part.set_content_arrangement(ContentArrangement::Disabled);
            // A row may end early, and have nothing but its name in further parts.
            let from = columns.get(1).copied().unwrap_or_default();
            for row in rows.iter().filter(|row| row.len() > from || number == 0) {
                part.add_row(columns.iter().filter_map(|cell| row.get(*cell)).cloned());
            }
            self.table(&part)?;
        }
        Ok(())
    }

    /// Prints a table.
    pub(super) fn table(&mut self, table: &Table) -> Result<(), CliError> {
        self.line(&table.trim_fmt())
    }

    fn record(&mut self, key: &Key, column: &Column, cell: &Cell) -> Result<(), CliError> {
        self.json(&Record::of_cell(key, column, cell, true))
    }
}

/// Starts a table with these heads.
pub(super) fn new_table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    let under_heads = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().header_separator(under_heads));
    if terminal_width(&table).is_some() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>());
    table
}

/// Returns how wide the terminal is to which a table is printed, if it is one that tells. Some
/// programs that take the place of one say that it has no columns at all.
fn terminal_width(table: &Table) -> Option<usize> {
    table.width().map(usize::from).filter(|width| *width >= WIDTH_MIN)
}

/// Divides columns of these widths into tables that have room, each of which begins with the first
/// column. Returns which columns each has.
fn parts(widths: &[u16], room: Option<usize>) -> Vec<Vec<usize>> {
    let room = room.unwrap_or(usize::MAX);
    let mut widths = widths.iter().map(|width| usize::from(*width) + AROUND_CELL);
    let first = widths.next().unwrap_or_default();
    let (mut parts, mut part, mut used) = (Vec::new(), vec![0], first);
    for (column, width) in (1..).zip(widths) {
        if used + width > room && part.len() > 1 {
            parts.push(std::mem::replace(&mut part, vec![0]));
            used = first;
        }
        part.push(column);
        used += width;
    }
    parts.push(part);
    parts
}

/// Shows bytes to people: text as it is, other bytes and control characters escaped.
pub(super) fn text(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && c != '\n' && c != '\t' {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            shown.extend(byte.escape_ascii().map(char::from));
        }
    }
    shown
}

/// Returns how many things there are, in words.
pub(super) fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// Returns a word as a shell takes it.
pub(super) fn quoted(word: String) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if word.chars().all(is_plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Says something on standard error, whatever becomes of it.
pub(super) fn say(line: &str) {
    say_to(&mut std::io::stderr().lock(), line);
}

/// Says something to people. What is said may be of a node, or of a file that somebody else wrote,
/// and a terminal obeys control characters.
fn say_to(out: &mut impl Write, line: &str) {
    // There is nobody left to tell when this fails.
    drop(writeln!(out, "{}", text(line.as_bytes())));
}

/// Tells whether people watch standard error.
pub(super) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

fn failed(error: &std::io::Error) -> CliError {
    if error.kind() == ErrorKind::BrokenPipe {
        return CliError::NobodyListens;
    }
    CliError::io("cannot write to standard output", error)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::base::Value;
    use crate::kv::Version;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn printed(format: Format, value: &'static [u8]) -> Vec<u8> {
        let page = Page::default();
        let mut output = Output::to(format, Box::new(page.clone()));
        let cell = Cell { value: Value::new(value).unwrap(), version: Version(4) };
        output.cell(&Key::new("k").unwrap(), &Column::default(), &cell).unwrap();
        output.finish().unwrap();
        let printed = page.0.lock().unwrap();
        printed.clone()
    }

    #[test]
    fn raw_cell_is_exact_and_table_is_readable() {
        assert_eq!(printed(Format::Raw, b"a\xFF"), b"a\xFF");
        assert_eq!(printed(Format::Table, b"a\xFF\x1b"), b"a\\xff\\u{1b}\n");
    }

    #[test]
    fn columns_without_room_go_below_and_no_cell_is_broken() {
        let widths = [4, 14, 8, 11];
        assert_eq!(parts(&widths, None), [[0, 1, 2, 3]]);
        assert_eq!(parts(&widths, Some(49)), [[0, 1, 2, 3]]);
        assert_eq!(parts(&widths, Some(48)), [vec![0, 1, 2], vec![0, 3]]);
        assert_eq!(parts(&widths, Some(1)), [[0, 1], [0, 2], [0, 3]], "two at least");
        assert_eq!(parts(&[4], Some(1)), [[0]]);
    }

    #[test]
    fn grid_shows_every_cell_of_rows_that_end_early_too() {
        let page = Page::default();
        let mut output = Output::to(Format::Table, Box::new(page.clone()));
        let rows =
            [vec!["1".to_owned(), "a:7101".to_owned(), "9".to_owned()], vec!["?".to_owned()]];
        output.grid(&["node", "address", "log on disk"], &rows).unwrap();
        output.finish().unwrap();
        let printed = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Vec<&str>> =
            printed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["node", "address", "log", "on", "disk"]);
        assert_eq!(lines[2..], [vec!["1", "a:7101", "9"], vec!["?"]], "{printed}");
    }

    #[test]
    fn what_is_said_moves_no_terminal() {
        let mut said = Vec::new();
        say_to(&mut said, "unknown field `\u{1b}[2J`\n\tand more, é");
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said, "unknown field `\\u{1b}[2J`\n\tand more, é\n");
    }

    #[test]
    fn absent_cell_is_a_place_without_value_for_programs_alone() {
        for (format, wanted) in
            [(Format::Json, "{\"key\":\"k\"}\n"), (Format::Table, ""), (Format::Raw, "")]
        {
            let page = Page::default();
            let mut output = Output::to(format, Box::new(page.clone()));
            output.absent(&Key::new("k").unwrap(), &Column::default()).unwrap();
            output.finish().unwrap();
            assert_eq!(page.0.lock().unwrap().as_slice(), wanted.as_bytes());
        }
    }

    #[test]
    fn json_cell_keeps_every_byte() {
        let line = printed(Format::Json, b"\xFF\x00");
        assert_eq!(line, b"{\"key\":\"k\",\"value_base64\":\"/wA=\",\"version\":4}\n");
    }
}
