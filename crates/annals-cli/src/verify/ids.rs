//! Finds event ids that occur twice, by sorting in files if there are too many for memory.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
};

use annals::RecordedEvent;
use uuid::Uuid;

use super::findings::Findings;
use crate::failure::Failure;

/// How many ids are sorted in memory (24 MiB) before they are written to a file.
const IN_MEMORY: usize = 1 << 20;

/// An event's id and position.
type IdAt = (Uuid, u64);

#[derive(Default)]
pub(crate) struct Ids {
    ids: Vec<IdAt>,
    /// Files of sorted ids. They have no names, so that the system removes them when they are closed.
    runs: Vec<File>,
}

impl Ids {
    pub(crate) fn add(&mut self, event: &RecordedEvent) -> Result<(), Failure> {
        self.ids.push((event.id, event.position.get()));
        if self.ids.len() < IN_MEMORY {
            return Ok(());
        }
        self.write_run().map_err(|e| Failure::from(e).at("a temporary file"))
    }

    fn write_run(&mut self) -> io::Result<()> {
        self.ids.sort_unstable();
        let mut file = BufWriter::new(tempfile::tempfile()?);
        for (id, position) in self.ids.drain(..) {
            file.write_all(id.as_bytes())?;
            file.write_all(&position.to_le_bytes())?;
        }
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        self.runs.push(file);
        Ok(())
    }

    /// Adds a note for each id that occurs twice. The contract allows that, since an id is no key, but
    /// it is rarely intended.
    pub(crate) fn report(mut self, findings: &Findings) -> Result<(), Failure> {
        self.ids.sort_unstable();
        let mut runs: Vec<Run> =
            self.runs.into_iter().map(|file| Run::File(BufReader::new(file))).collect();
        runs.push(Run::Memory(self.ids.into_iter()));
        merge(runs, |first, second| {
            findings.note(|| {
                format!("id {} stands at position {} and at {}", first.0, first.1, second.1)
            });
        })
        .map_err(|e| Failure::from(e).at("a temporary file"))
    }
}

enum Run {
    Memory(std::vec::IntoIter<IdAt>),
    File(BufReader<File>),
}

impl Run {
    fn next(&mut self) -> io::Result<Option<IdAt>> {
        let file = match self {
            Self::Memory(ids) => return Ok(ids.next()),
            Self::File(file) => file,
        };
        let (mut id, mut position) = ([0; 16], [0; 8]);
        match file.read_exact(&mut id) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        file.read_exact(&mut position)?;
        Ok(Some((Uuid::from_bytes(id), u64::from_le_bytes(position))))
    }
}

/// Merges sorted runs, and calls `twice` with each pair of neighbours that have the same id.
fn merge(mut runs: Vec<Run>, mut twice: impl FnMut(IdAt, IdAt)) -> io::Result<()> {
    let mut heads = BinaryHeap::new();
    for (number, run) in runs.iter_mut().enumerate() {
        if let Some(head) = run.next()? {
            heads.push(Reverse((head, number)));
        }
    }
    let mut before: Option<IdAt> = None;
    while let Some(Reverse((head, number))) = heads.pop() {
        if let Some(before) = before.filter(|before| before.0 == head.0) {
            twice(before, head);
        }
        before = Some(head);
        if let Some(run) = runs.get_mut(number)
            && let Some(next) = run.next()?
        {
            heads.push(Reverse((next, number)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_doubles_across_files_and_memory() {
        let mut ids = Ids::default();
        let mut twice = Vec::new();
        for n in 0..100_u128 {
            ids.ids.push((Uuid::from_u128(n * 7 % 90), n as u64));
            if n % 30 == 29 {
                ids.write_run().unwrap();
            }
        }
        ids.ids.sort_unstable();
        let mut runs: Vec<Run> =
            ids.runs.into_iter().map(|file| Run::File(BufReader::new(file))).collect();
        assert_eq!(runs.len(), 3);
        runs.push(Run::Memory(ids.ids.into_iter()));
        merge(runs, |one, other| twice.push((one.1, other.1))).unwrap();
        twice.sort_unstable();
        assert_eq!(twice, (0..10).map(|n| (n, n + 90)).collect::<Vec<_>>());
    }
}
