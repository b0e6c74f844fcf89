//! What a command ends with, and the exit code that says it.

use std::process::ExitCode;

use crate::client::ClientError;
use crate::wire::Outcome;

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// There is no such cell or row.
    #[error("not found")]
    NotFound,
    /// The command line, the configuration or an input file is not valid.
    #[error("{0}")]
    Usage(String),
    /// The cluster did not carry the request out, or may have.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// A condition did not hold.
    #[error("{0}")]
    Conflict(String),
    /// Somebody stopped it before it was done.
    #[error("{0}")]
    Stopped(String),
    /// Whoever read our output has gone: nothing to complain about.
    #[error("the reader of the output has gone")]
    NobodyListens,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
    /// A failure after which something can still be done.
    #[error("{source}\n{advice}")]
    Advised {
        /// What failed; decides the exit code.
        source: Box<CliError>,
        /// What to do now.
        advice: String,
    },
}

impl CliError {
    /// Returns the exit code; `mangrove --help` documents them.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::NobodyListens => 0,
            Self::NotFound => 1,
            Self::Usage(_) => 2,
            Self::Client(error) => match (error, error.outcome()) {
                (
                    ClientError::TooLarge(_)
                    | ClientError::Invalid(_)
                    | ClientError::Unsupported(_),
                    Outcome::NotApplied,
                ) => 2,
                (_, Outcome::NotApplied) => 3,
                (_, Outcome::Unknown) => 4,
            },
            Self::Conflict(_) => 5,
            Self::Failed(_) => 6,
            // What a shell says of a command that Ctrl-C has killed.
            Self::Stopped(_) => 130,
            Self::Advised { source, .. } => source.exit_code(),
        }
    }

    /// Adds what can be done now.
    pub(super) fn advise(self, advice: String) -> Self {
        Self::Advised { source: Box::new(self), advice }
    }

    /// Lets a verdict stand, whatever became of printing what led to it.
    pub(super) fn despite(self, printed: Result<(), Self>) -> Self {
        match printed {
            Ok(()) | Err(Self::NobodyListens) => self,
            Err(error) => self.advise(error.to_string()),
        }
    }

    /// A failure of reading or writing `what`.
    pub(super) fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }
}

impl From<&CliError> for ExitCode {
    fn from(error: &CliError) -> Self {
        Self::from(error.exit_code())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::TooLarge;

    #[test]
    fn exit_codes_are_those_of_the_help() {
        let waited = Duration::from_secs(10);
        let too_large = TooLarge { what: "key", bytes: 9, bytes_max: 1 };
        let advised = CliError::from(ClientError::Unknown { waited, last: None });
        for (error, code) in [
            (CliError::NobodyListens, 0),
            (CliError::NotFound, 1),
            (CliError::Usage(String::new()), 2),
            (ClientError::TooLarge(too_large).into(), 2),
            (ClientError::Invalid(String::new()).into(), 2),
            (ClientError::Unsupported(String::new()).into(), 2),
            (ClientError::Misbehaved(String::new()).into(), 3),
            (ClientError::DiskFull.into(), 3),
            (ClientError::Overloaded.into(), 3),
            (ClientError::SessionEnded.into(), 3),
            (ClientError::Timeout { waited, last: None }.into(), 3),
            (ClientError::Unknown { waited, last: None }.into(), 4),
            (CliError::Conflict(String::new()), 5),
            (CliError::Failed(String::new()), 6),
            (CliError::Stopped(String::new()), 130),
            (advised.advise("again".to_owned()), 4),
        ] {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }

    #[test]
    fn verdict_stands_whoever_reads_it() {
        let full = || Err(CliError::Failed("no space for the output".to_owned()));
        for printed in [Ok(()), Err(CliError::NobodyListens), full()] {
            let verdict = CliError::Conflict("it is taken".to_owned()).despite(printed);
            assert_eq!(verdict.exit_code(), 5, "{verdict}");
        }
        let said = CliError::Conflict("it is taken".to_owned()).despite(full()).to_string();
        assert_eq!(said, "it is taken\nno space for the output");
    }
}
