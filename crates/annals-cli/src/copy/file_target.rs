//! A file that a copy writes to.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
};

use annals::{RecordedEvent, StreamId, Version};

use crate::{
    deletions::Deletions,
    failure::Failure,
    file::{EventFile, LONGEST_LINE},
    lines::Entry,
};

type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug)]
pub(crate) struct FileTarget {
    file: EventFile,
    /// The open file, or `None` for standard output.
    open: Option<File>,
    /// Whether the file is a pipe or a device, which has no end to continue from.
    is_special: bool,
    /// Deletions for which the file has no later event yet.
    deletions: HashMap<StreamId, Version>,
    lines: Vec<u8>,
}

impl FileTarget {
    pub(crate) fn new(file: EventFile) -> Self {
        Self { file, open: None, is_special: false, deletions: HashMap::new(), lines: Vec::new() }
    }

    /// The file as messages name it.
    pub(crate) fn shown(&self) -> String {
        self.file.shown()
    }

    /// The last event of a file that exists. An incomplete last line, which a killed copy has left, is
    /// cut off; one that lacks only the line break gets it. A file that is no export is refused and not
    /// changed.
    pub(crate) fn resume(&mut self) -> Result<Option<RecordedEvent>> {
        if self.file.is_stdio() {
            return Ok(None);
        }
        let path = self.file.path.clone();
        let failure = |e: io::Error| self.file.failure(&e);
        self.is_special =
            std::fs::metadata(&path).is_ok_and(|found| !found.is_file() && !found.is_dir());
        let mut options = OpenOptions::new();
        if self.is_special {
            self.open = Some(options.write(true).open(&path).map_err(failure)?);
            return Ok(None);
        }
        let options = options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(&path).map_err(failure)?;
        let (mut whole, mut rest) = split_last_line(&mut file).map_err(failure)?;
        let is_event = |line: &[u8]| {
            let line = std::str::from_utf8(line).ok().map(|line| self.file.format.parse(line));
            line.is_some_and(|line| line.is_ok_and(|entry| entry.into_recorded().is_ok()))
        };
        let unended = last_line(&mut file, whole).map_err(failure)?.filter(|line| is_event(line));
        if let Some(line) = &unended {
            (whole, rest) = (whole + line.len() as u64, Vec::new());
        }
        let mut last = None;
        let format = self.file.format;
        self.file.for_each_line(Some(whole), |text, number| {
            match format.parse(text).map(Entry::into_recorded) {
                Ok(Ok(event)) => last = Some(event),
                _ => {
                    return Err(self
                        .file
                        .bad_line(number, "this is no event that annals exported"));
                }
            }
            Ok(true)
        })?;
        let begin = format.begin().as_bytes();
        if !rest.starts_with(begin) && !begin.starts_with(&rest) {
            return Err(self.file.bad_end("this is no event that annals exported"));
        }
        file.set_len(whole).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failure)?;
        if unended.is_some() {
            file.write_all(b"\n").map_err(failure)?;
        }
        self.open = Some(file);
        Ok(last)
    }

    pub(crate) fn write(&mut self, events: &[RecordedEvent], deletions: Deletions) -> Result<()> {
        self.deletions.extend(deletions);
        self.lines.clear();
        for event in events {
            let deleted_at = match self.deletions.get(&event.stream) {
                // The event was deleted after it was read.
                Some(at) if event.version <= *at => continue,
                Some(_) => self.deletions.remove(&event.stream),
                None => None,
            };
            self.file.format.write(event, deleted_at, &mut self.lines)?;
        }
        let written = match &mut self.open {
            Some(file) => file.write_all(&self.lines),
            None => io::stdout().write_all(&self.lines),
        };
        written.map_err(|e| self.file.failure(&e))
    }

    pub(crate) fn sync(&mut self) -> Result<()> {
        match &self.open {
            Some(_) if self.is_special => Ok(()),
            Some(file) => file.sync_data().map_err(|e| self.file.failure(&e)),
            None => io::stdout().flush().map_err(|e| self.file.failure(&e)),
        }
    }
}

/// The length of all complete lines, and the beginning of the last line if it is incomplete.
fn split_last_line(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    /// Longer than [`Format::begin`](crate::file::Format::begin) of any format.
    const REST: u64 = 64;
    const BLOCK: u64 = 64 * 1024;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = Vec::new();
    let whole = loop {
        let begin = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(begin))?;
        block.clear();
        Read::by_ref(file).take(end - begin).read_to_end(&mut block)?;
        match block.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => break begin + at as u64 + 1,
            None if begin == 0 => break 0,
            None => end = begin,
        }
    };
    file.seek(SeekFrom::Start(whole))?;
    let mut rest = Vec::new();
    Read::by_ref(file).take(REST).read_to_end(&mut rest)?;
    Ok((whole, rest))
}

/// The last line of a file, if it does not end and is no longer than a line may be. The file is left
/// at its end.
fn last_line(file: &mut File, begin: u64) -> io::Result<Option<Vec<u8>>> {
    if file.seek(SeekFrom::End(0))?.saturating_sub(begin) >= LONGEST_LINE {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(begin))?;
    let mut line = Vec::new();
    file.read_to_end(&mut line)?;
    Ok(Some(line))
}
