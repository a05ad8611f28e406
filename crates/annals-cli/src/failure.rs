//! How a command ends without success: an exit code, and one readable line.

use std::{error::Error as StdError, fmt, process::ExitCode};

use annals::ErrorKind;

/// What the shell is told. 2 is for a command line that cannot be understood, by `clap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// A store, a file or the machine failed.
    Failed = 1,
    /// What was asked for cannot work as it was asked.
    Usage = 2,
    /// Something was found to be wrong: by `verify`, `conformance`, `check` and `copy --dry-run`.
    Found = 3,
    /// The stream was not at the version expected, or holds something else.
    Conflict = 4,
    /// Stopped by Ctrl-C before the end, as shells say it.
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: Code::Failed, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: Code::Usage, message: message.into() }
    }

    pub(crate) fn interrupted() -> Self {
        Self { code: Code::Interrupted, message: "stopped".to_owned() }
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self { code: Code::Conflict, message: message.into() }
    }

    /// What the failure was met with, put before it.
    pub(crate) fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Adds a cause, with its own causes, unless what is there says so already.
    pub(crate) fn because(mut self, error: &(dyn StdError + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !self.message.contains(&text) {
                self.message = format!("{}: {text}", self.message);
            }
            cause = error.source();
        }
        self
    }

    pub(crate) fn into_message(self) -> String {
        self.message
    }

    pub(crate) fn report(self) -> ExitCode {
        // A line each, whatever a driver says.
        let message = self.message.replace(['\n', '\r'], " ");
        anstream::eprintln!("annals: {message}");
        self.code.into()
    }
}

impl From<annals::Error> for Failure {
    fn from(error: annals::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Conflict | ErrorKind::StreamClosed => Code::Conflict,
            ErrorKind::InvalidInput | ErrorKind::LimitExceeded | ErrorKind::Unsupported => {
                Code::Usage
            }
            _ => Code::Failed,
        };
        let mut failure = Self { code, message: error.to_string() };
        if let Some(source) = error.source() {
            failure = failure.because(source);
        }
        failure
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}
