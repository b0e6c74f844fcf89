//! `mangrove export`: the cells of the store as JSON Lines, page by page.
//!
//! A file is written under the name `FILE.partial` and gets its own name when it is complete and
//! durable, so that half an export is never taken for a whole one. A pipe or a device is written
//! as it is.

use std::io::{BufWriter, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::{EncodingArgs, ExportArgs, Format};
use super::client_commands::client_at;
use super::files::NewFile;
use super::output::{Output, counted, say};
use super::records::Record;
use super::{CliError, unless_stopped};
use crate::base::{Column, Key};
use crate::client::ScanPager;
use crate::env::real::RealEnv;
use crate::kv::Cell;

/// Where the lines go.
enum Target {
    Stdout(Output),
    File(PartialFile),
}

/// Lines of a file that is not complete yet.
pub(super) struct PartialFile {
    out: BufWriter<NewFile>,
}

/// `mangrove export`
pub(super) async fn export(args: ExportArgs) -> Result<(), CliError> {
    let prefix = EncodingArgs { base64: args.base64 }.key(&args.prefix)?;
    let mut target = match &args.file {
        None => Target::Stdout(Output::new(Format::Json)),
        Some(path) => Target::File(PartialFile::new(NewFile::create_or_open(path)?)),
    };
    let pager = client_at(&args.connection, args.level).scan(prefix);
    let bar = progress(args.file.is_some());
    let unfinished = target.unfinished().map(Path::to_owned);
    let writing = target.write_all(pager, &bar);
    let written = match unfinished {
        Some(partial) => {
            unless_stopped(writing, &format!("{} is removed", partial.display())).await
        }
        // Nothing is to be removed, and a reader that does not read must not keep Ctrl-C waiting.
        None => writing.await,
    };
    bar.finish_and_clear();
    written?;
    target.finish()?;
    if let Some(path) = args.file {
        say(&format!("exported {} to {}", counted(bar.position(), "cell"), path.display()));
    }
    Ok(())
}

impl Target {
    /// Writes all pages.
    async fn write_all(
        &mut self,
        mut pager: ScanPager<RealEnv>,
        bar: &ProgressBar,
    ) -> Result<(), CliError> {
        while let Some(page) = pager.next_page().await? {
            for (key, column, cell) in &page {
                self.write(key, column, cell)?;
            }
            bar.inc(u64::try_from(page.len()).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn write(&mut self, key: &Key, column: &Column, cell: &Cell) -> Result<(), CliError> {
        let record = Record::of_cell(key, column, cell, false);
        match self {
            Self::Stdout(output) => output.json(&record),
            Self::File(file) => file.write(&record),
        }
    }

    /// Returns the file that would be left behind.
    fn unfinished(&self) -> Option<&Path> {
        match self {
            Self::Stdout(_) => None,
            Self::File(file) => file.out.get_ref().partial(),
        }
    }

    fn finish(self) -> Result<(), CliError> {
        match self {
            Self::Stdout(output) => output.finish(),
            Self::File(file) => file.finish(),
        }
    }
}

impl PartialFile {
    /// Begins with no line.
    pub(super) fn new(file: NewFile) -> Self {
        Self { out: BufWriter::new(file) }
    }

    /// Adds a line.
    pub(super) fn write(&mut self, record: &Record) -> Result<(), CliError> {
        let written = serde_json::to_writer(&mut self.out, record)
            .map_err(std::io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|error| self.out.get_ref().failed(&error))
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        self.out.flush().map_err(|error| self.out.get_ref().failed(&error))?;
        let (file, _nothing) = self.out.into_parts();
        file.finish()
    }
}

fn progress(is_shown: bool) -> ProgressBar {
    if !is_shown {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} cells, {per_sec}");
    ProgressBar::new_spinner().with_style(style.unwrap_or(ProgressStyle::default_spinner()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::Value;
    use crate::kv::Version;

    #[test]
    fn file_gets_its_name_only_when_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cells.jsonl");
        let mut target = Target::File(PartialFile::new(NewFile::create(&path).unwrap()));
        let cell = Cell { value: Value::new("v").unwrap(), version: Version(1) };
        target.write(&Key::new("k").unwrap(), &Column::default(), &cell).unwrap();
        assert!(!path.exists());
        target.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"key\":\"k\",\"value\":\"v\"}\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
