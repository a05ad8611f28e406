//! Files of events: `jsonl:FILE` and `cloudevents:FILE`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use annals::{RecordedEvent, Version, adapter::url::has_credentials};

use crate::{
    cloudevents,
    failure::Failure,
    lines::{self, Entry},
};

/// The longest line that is read. The largest event that a store takes has less than a tenth of it.
pub(crate) const LONGEST_LINE: u64 = 256 << 20;

/// How a file represents events. Each format has one event on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Lines,
    CloudEvents,
}

impl Format {
    /// Writes an event as a line. `deleted_at` is the version up to which its stream was deleted before
    /// it.
    pub(crate) fn write(
        self,
        event: &RecordedEvent,
        deleted_at: Option<Version>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let written = match self {
            Self::Lines => lines::write(event, deleted_at, out),
            Self::CloudEvents => cloudevents::write(event, deleted_at, out),
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

    /// The path as messages name it. A path that looks like a URL with a password is not shown.
    pub(crate) fn shown(&self) -> String {
        let path = self.path.display().to_string();
        if has_credentials(&path) { "the file".to_owned() } else { path }
    }

    pub(crate) fn failure(&self, error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::reader_gone();
        }
        Failure::new(format!("{}: {error}", self.shown()))
    }

    fn open(&self) -> Result<Box<dyn BufRead + Send>, Failure> {
        if self.is_stdio() {
            return Ok(Box::new(BufReader::new(io::stdin())));
        }
        let file = File::open(&self.path).map_err(|e| self.failure(&e))?;
        Ok(Box::new(BufReader::with_capacity(1 << 18, file)))
    }

    /// Calls `each` with every line in the first `length` bytes (in the whole file if `None`), and
    /// the line's number, until `each` returns `false`. Blank lines, a byte order mark and the `\r` of
    /// Windows are skipped.
    pub(crate) fn for_each_line(
        &self,
        length: Option<u64>,
        mut each: impl FnMut(&str, u64) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let mut file = self.open()?.take(length.unwrap_or(u64::MAX));
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = Read::by_ref(&mut file).take(LONGEST_LINE).read_until(b'\n', &mut line);
            if read.map_err(|e| self.failure(&e))? == 0 {
                return Ok(());
            }
            number += 1;
            if line.len() as u64 == LONGEST_LINE && !line.ends_with(b"\n") {
                let what = format!("the line is longer than {LONGEST_LINE} bytes");
                return Err(self.bad_line(number, &what));
            }
            if number == 1 {
                line = self.without_mark(line)?;
            }
            let text = std::str::from_utf8(&line)
                .map_err(|e| self.bad_line(number, &format!("the line is not UTF-8: {e}")))?;
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.trim().is_empty() && !each(text, number)? {
                return Ok(());
            }
        }
    }

    /// The first line without the mark that some editors put before UTF-8. Refuses what other
    /// programs write by its name, since the error of the JSON parser would not help.
    fn without_mark(&self, mut line: Vec<u8>) -> Result<Vec<u8>, Failure> {
        if line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        let what = match line.trim_ascii() {
            [0x1f, 0x8b, ..] => "the file is compressed by gzip; decompress it first",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "the file is compressed by zstd; decompress it first",
            [b'P', b'K', 3, 4, ..] => "the file is a ZIP archive; unpack it first",
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the file is UTF-16; convert it to UTF-8",
            [b'[', ..] => "the file is a JSON array; write each event on a line of its own",
            _ => return Ok(line),
        };
        Err(self.bad_line(1, what))
    }

    pub(crate) fn bad_line(&self, number: u64, error: &str) -> Failure {
        // The parser counts within the line, which it takes for the first one.
        let error = error.replace(" at line 1 column ", " at column ");
        Failure::usage(format!("{}, line {number}: {error}", self.shown()))
    }

    /// The failure for a last line that does not end, and is not the beginning of an event.
    pub(crate) fn bad_end(&self, error: &str) -> Failure {
        Failure::usage(format!("{}, at its end: {error}", self.shown()))
    }

    /// Fails if a copy could not write to the file. Creates and changes nothing.
    pub(crate) fn check_writable(&self) -> Result<(), Failure> {
        if self.is_stdio() {
            return Ok(());
        }
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let checked = match std::fs::metadata(&self.path) {
            Ok(found) if found.is_file() || found.is_dir() => {
                File::options().append(true).open(&self.path).map(drop)
            }
            // Nobody sees this file: it has no name, and is gone when it is closed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tempfile::tempfile_in(parent.unwrap_or(Path::new("."))).map(drop)
            }
            found => found.map(drop),
        };
        checked.map_err(|e| self.failure(&e))
    }

    /// Calls `each` with every event, and with the version up to which its stream was deleted before it,
    /// until `each` returns `false`.
    pub(crate) fn for_each_event(
        &self,
        mut each: impl FnMut(RecordedEvent, Option<Version>) -> bool,
    ) -> Result<(), Failure> {
        self.for_each_line(None, |text, number| {
            let entry = self.format.parse(text).map_err(|e| self.bad_line(number, &e))?;
            let deleted_at = entry.deleted_at;
            let event = entry.into_recorded().map_err(|missing| {
                let what = format!(
                    "the {missing} is missing, so the file was not exported by annals; \
                     `annals append` reads such files"
                );
                self.bad_line(number, &what)
            })?;
            Ok(each(event, deleted_at))
        })
    }
}
