//! Files of events: `jsonl:FILE` and `cloudevents:FILE`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
};

use annals::RecordedEvent;

use crate::{
    cloudevents,
    failure::Failure,
    lines::{self, Entry},
};

/// How a file represents events. Each format has one event on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Lines,
    CloudEvents,
}

impl Format {
    pub(crate) fn write(self, event: &RecordedEvent, out: &mut Vec<u8>) -> Result<(), Failure> {
        let written = match self {
            Self::Lines => lines::write(event, out),
            Self::CloudEvents => cloudevents::write(event, out),
        };
        written
            .map_err(|e| Failure::new(format!("event {} of {}: {e}", event.version, event.stream)))
    }

    /// The beginning of every line that annals writes in this format.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::Lines => "{\"stream\":\"",
            Self::CloudEvents => "{\"specversion\":\"1.0\"",
        }
    }

    /// Reads a line. The error says what is wrong with the line.
    pub(crate) fn parse(self, line: &str) -> Result<Entry, String> {
        match self {
            Self::Lines => lines::parse(line),
            Self::CloudEvents => cloudevents::parse(line),
        }
    }
}

/// A file of events. The path `-` stands for standard input or output.
#[derive(Clone, Debug)]
pub(crate) struct EventFile {
    pub(crate) format: Format,
    pub(crate) path: PathBuf,
}

impl EventFile {
    /// The file that a URL names, or `None` if the URL is that of a store.
    pub(crate) fn of(url: &str) -> Option<Self> {
        let (scheme, path) = url.split_once(':')?;
        let format = match scheme {
            "jsonl" => Format::Lines,
            "cloudevents" => Format::CloudEvents,
            _ => return None,
        };
        let path = path.strip_prefix("//").unwrap_or(path);
        Some(Self { format, path: path.into() })
    }

    pub(crate) fn is_stdio(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    pub(crate) fn failure(&self, error: &io::Error) -> Failure {
        Failure::new(format!("{}: {error}", self.path.display()))
    }

    fn open(&self) -> Result<Box<dyn BufRead + Send>, Failure> {
        if self.is_stdio() {
            return Ok(Box::new(BufReader::new(io::stdin())));
        }
        let file = File::open(&self.path).map_err(|e| self.failure(&e))?;
        Ok(Box::new(BufReader::with_capacity(1 << 18, file)))
    }

    /// Calls `each` with every line in the first `length` bytes (in the whole file if `None`), and
    /// the line's number, until `each` returns `false`. Blank lines are skipped.
    pub(crate) fn for_each_line(
        &self,
        length: Option<u64>,
        mut each: impl FnMut(&str, u64) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let mut file = self.open()?.take(length.unwrap_or(u64::MAX));
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = file.read_until(b'\n', &mut line).map_err(|e| self.failure(&e))?;
            if read == 0 {
                return Ok(());
            }
            number += 1;
            let text = std::str::from_utf8(&line)
                .map_err(|e| self.bad_line(number, &format!("the line is not UTF-8: {e}")))?;
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.trim().is_empty() && !each(text, number)? {
                return Ok(());
            }
        }
    }

    pub(crate) fn bad_line(&self, number: u64, error: &str) -> Failure {
        Failure::usage(format!("{}, line {number}: {error}", self.path.display()))
    }

    /// The failure for a last line that does not end, and is not the beginning of an event.
    pub(crate) fn bad_end(&self, error: &str) -> Failure {
        Failure::usage(format!("{}, at its end: {error}", self.path.display()))
    }

    /// Calls `each` with every event, until it returns `false`.
    pub(crate) fn for_each_event(
        &self,
        mut each: impl FnMut(RecordedEvent) -> bool,
    ) -> Result<(), Failure> {
        self.for_each_line(None, |text, number| {
            let entry = self.format.parse(text).map_err(|e| self.bad_line(number, &e))?;
            let event = entry.into_recorded().map_err(|missing| {
                let what = format!(
                    "the {missing} is missing, so the file was not exported by annals; \
                     `annals append` reads such files"
                );
                self.bad_line(number, &what)
            })?;
            Ok(each(event))
        })
    }
}
