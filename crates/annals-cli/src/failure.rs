//! How a command fails: with an exit status, and one line that says why.

use std::{error::Error as StdError, fmt, process::ExitCode};

use annals::ErrorKind;

use crate::output;

/// The exit status of a command that does not succeed. `clap` exits with 2 as well, for a command
/// line that it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// A store, a file or the machine failed.
    Failed = 1,
    /// The command line, a URL or the input is wrong.
    Usage = 2,
    /// `verify`, `conformance`, `check` or `copy` has found a problem, `copy` before it wrote anything.
    Found = 3,
    /// The stream is not at the expected version, or holds other events.
    Conflict = 4,
    /// `copy` and `verify` are done, and events of the source stay behind.
    LeftBehind = 5,
    /// Ctrl-C stopped the command before its end. Shells use this status for that signal.
    Interrupted = 130,
    /// Nobody reads standard output any more. Shells use this status for SIGPIPE.
    ReaderGone = 141,
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
    may_pass: bool,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::with_code(Code::Failed, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::with_code(Code::Usage, message)
    }

    pub(crate) fn found(message: impl Into<String>) -> Self {
        Self::with_code(Code::Found, message)
    }

    pub(crate) fn interrupted() -> Self {
        Self::with_code(Code::Interrupted, "stopped")
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::with_code(Code::Conflict, message)
    }

    /// Standard output is a pipe that nobody reads any more. The command ends without a message.
    pub(crate) fn reader_gone() -> Self {
        Self::with_code(Code::ReaderGone, "nobody reads standard output any more")
    }

    fn with_code(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), may_pass: false }
    }

    /// Whether the same may succeed later: a store cannot be reached, or is too busy.
    pub(crate) fn may_pass(&self) -> bool {
        self.may_pass
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
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
        if self.code != Code::ReaderGone {
            // Drivers report errors of several lines. A failure is one line.
            let message = self.message.replace(['\n', '\r'], " ");
            output::say(format_args!("annals: {message}"));
        }
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
        let mut failure = Self::with_code(code, error.to_string());
        failure.may_pass = error.is_retryable() || error.outcome_unknown();
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
