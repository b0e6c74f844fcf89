//! The proof that a seed is one run: everything that happens in it, said by several processes and
//! compared line by line.
//!
//! `cargo sim determinism` starts *witnesses*: child processes that run the same seeds and write
//! down each event that the trace covers (every delivery of bytes with a hash of them, every write
//! and sync, every step of a node, every fault) and, at each tick, a hash of all that is durable on
//! each disk ([`Record::Everything`]). They differ in whatever could leak into a run:
//!
//! | witness | differs in |
//! |---|---|
//! | alone | a process of its own for each seed, memory laid out at random |
//! | in a row | all seeds in one process one after the other, memory not laid out at random |
//! | another build | another program, such as the one without optimisation |
//!
//! The comparison goes on while they run and ends at the first line that is not the same; that is
//! the event at which something came in that no seed decides. A hash at the end would only say
//! that there is one.
//!
//! # Left out
//! Other machines, and other versions of the compiler or the C library.

use std::io::{BufRead as _, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::{fmt, io};

use crate::options::{Leak, Options, Plan};
use crate::run::run;
use crate::world::Record;

/// Equal lines that are shown before the first difference.
const CONTEXT_LINES: usize = 6;

/// What to prove.
#[derive(Debug, Clone)]
pub struct Proof {
    /// What the runs are.
    pub plan: Plan,
    /// The seeds.
    pub seeds: std::ops::Range<u64>,
    /// This program.
    pub program: PathBuf,
    /// The same program from another build.
    pub other_build: Option<PathBuf>,
    /// Something that no seed decides, to prove that the proof works.
    pub leak: Option<Leak>,
}

/// What the witnesses agree on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Seeds that were run.
    pub seeds: u64,
    /// Events of one witness.
    pub events: u64,
    /// Looks at the disks of one witness.
    pub disks: u64,
    /// Witnesses of each seed.
    pub witnesses: u64,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, events, disks, witnesses } = self;
        write!(
            f,
            "{seeds} seeds, each told by {witnesses} witnesses: all agree on {events} events and \
             {disks} states of disks"
        )
    }
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum Disagreement {
    /// Two witnesses say different things.
    #[error("{0}")]
    Difference(Difference),
    /// A witness could not be heard.
    #[error("cannot hear the witness {what}: {error}")]
    Witness {
        /// Which.
        what: String,
        /// Why.
        error: io::Error,
    },
}

/// The first event at which two runs of a seed part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The seed.
    pub seed: u64,
    /// The number of the line.
    pub line: u64,
    /// The last lines on which all agree.
    pub before: Vec<String>,
    /// What each witness says next; nothing if it has ended.
    pub said: Vec<(String, Option<String>)>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: the runs part at line {}", self.seed, self.line)?;
        for line in &self.before {
            writeln!(f, "  all    {line}")?;
        }
        for (what, line) in &self.said {
            writeln!(f, "  {what}: {}", line.as_deref().unwrap_or("(has ended)"))?;
        }
        Ok(())
    }
}

/// A child process that tells what happens in its runs.
struct Witness {
    what: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Has the seeds run by all witnesses, and compares what they say.
///
/// # Errors
/// They differ, or one cannot be heard.
pub fn prove(proof: &Proof, mut progress: impl FnMut(u64)) -> Result<Agreement, Disagreement> {
    let all: Vec<u64> = proof.seeds.clone().collect();
    let mut in_a_row = vec![Witness::call("in a row", &proof.program, true, proof, &all)?];
    if let Some(other) = &proof.other_build {
        in_a_row.push(Witness::call("another build", other, false, proof, &all)?);
    }
    let mut agreement = Agreement::default();
    for seed in all {
        let mut witnesses = vec![Witness::call("alone", &proof.program, false, proof, &[seed])?];
        witnesses.append(&mut in_a_row);
        compare(seed, &mut witnesses, &mut agreement)?;
        agreement.witnesses = u64::try_from(witnesses.len()).unwrap_or(u64::MAX);
        agreement.seeds += 1;
        in_a_row = witnesses.split_off(1);
        progress(seed);
    }
    Ok(agreement)
}

/// Compares what the witnesses say of one seed.
fn compare(
    seed: u64,
    witnesses: &mut [Witness],
    agreement: &mut Agreement,
) -> Result<(), Disagreement> {
    let mut before: Vec<String> = Vec::new();
    for number in 0.. {
        let mut said = Vec::new();
        for witness in witnesses.iter_mut() {
            said.push(witness.next()?);
        }
        let Some((first, others)) = said.split_first() else { return Ok(()) };
        if first.is_none() || others.iter().any(|other| other != first) {
            let names = witnesses.iter().map(|witness| witness.what.to_owned());
            let said = names.zip(said).collect();
            let difference = Difference { seed, line: number, before, said };
            return Err(Disagreement::Difference(difference));
        }
        let line = said.swap_remove(0).unwrap_or_default();
        if line == end_of(seed) {
            return Ok(());
        }
        match line.split_whitespace().nth(2) {
            Some("disk") => agreement.disks += 1,
            _ => agreement.events += 1,
        }
        if before.len() == CONTEXT_LINES {
            before.remove(0);
        }
        before.push(line);
    }
    Ok(())
}

fn end_of(seed: u64) -> String {
    format!("end of seed {seed}")
}

impl Witness {
    fn call(
        what: &'static str,
        program: &Path,
        fixed_layout: bool,
        proof: &Proof,
        seeds: &[u64],
    ) -> Result<Self, Disagreement> {
        let mut command = if fixed_layout && can_fix_layout() {
            let mut command = Command::new("setarch");
            command.arg("-R").arg(program);
            command
        } else {
            Command::new(program)
        };
        command.arg("witness").args(proof.plan.flags().split_whitespace());
        match proof.leak {
            Some(Leak::Event) => command.args(["--leak", "event"]),
            Some(Leak::Disk) => command.args(["--leak", "disk"]),
            None => &mut command,
        };
        command.args(seeds.iter().map(ToString::to_string)).stdin(Stdio::null());
        let failed = |error| Disagreement::Witness { what: what.to_owned(), error };
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
        let Some(output) = child.stdout.take() else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Self { what, child, lines: BufReader::with_capacity(1 << 16, output).lines() })
    }

    fn next(&mut self) -> Result<Option<String>, Disagreement> {
        let line = self.lines.next().transpose();
        line.map_err(|error| Disagreement::Witness { what: self.what.to_owned(), error })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // It has ended, or nobody wants to hear the rest.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Tells whether the system can start a program whose memory is not laid out at random.
pub fn can_fix_layout() -> bool {
    let tried = Command::new("setarch").args(["-R", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Runs seeds and writes down everything that happens: what a witness does.
///
/// # Errors
/// Nobody listens any more.
pub fn testify(
    plan: Plan,
    seeds: &[u64],
    leak: Option<Leak>,
    out: &mut impl Write,
) -> io::Result<()> {
    for seed in seeds {
        let options = Options { leak, ..plan.draw(*seed) };
        let report = run(&options, Record::Everything);
        for line in &report.trace {
            writeln!(out, "{line}")?;
        }
        let violation = report.violation.as_ref().map_or("none", |violation| violation.checker);
        writeln!(
            out,
            "events {} hash {:016x} violation {violation}",
            report.event_count, report.hash
        )?;
        writeln!(out, "{}", end_of(*seed))?;
        out.flush()?;
    }
    Ok(())
}

/// Returns how the proof is repeated.
pub fn command(proof: &Proof) -> String {
    let Proof { plan, seeds, other_build, .. } = proof;
    let against = other_build
        .as_ref()
        .map_or(String::new(), |other| format!(" --against {}", other.display()));
    let range = format!("{}..{}", seeds.start, seeds.end);
    format!("cargo sim determinism --seed-range {range}{}{against}", plan.flags())
}
