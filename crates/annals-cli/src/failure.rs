//! How a command fails: with an exit status, and one line that says why.

use std::{error::Error as StdError, fmt, process::ExitCode};

use annals::ErrorKind;

/// The exit status of a command that does not succeed. `clap` exits with 2 as well, for a command
/// line that it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// A store, a file or the machine failed.
    Failed = 1,
    /// The command line, a URL or the input is wrong.
    Usage = 2,
    /// `verify`, `conformance`, `check` or `copy --dry-run` has found a problem.
    Found = 3,
    /// The stream is not at the expected version, or holds other events.
    Conflict = 4,
    /// Ctrl-C stopped the command before its end. Shells use this status for that signal.
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

    /// Puts the place of the failure before its message.
    pub(crate) fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Adds an error and its sources to the message, except texts that the message already has.
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
        // Drivers report errors of several lines. A failure is one line.
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
