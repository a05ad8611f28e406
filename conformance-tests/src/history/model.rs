//! What a sequential store would answer: the rules of the contract for streams, in words of their own.
//! The adapters share code that decides on appends; this file does not use it.

use annals_core::{ExpectedVersion, StreamInfo, StreamState, Version};

use super::record::{Answer, Call, Read, Rules, Write};

/// The streams of a history at one moment.
pub(super) type State = Vec<Stream>;

/// One stream at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stream {
    pub(super) state: StreamState,
    pub(super) version: u64,
    deleted_at: u64,
    /// The events that are left. The last has the version of the stream.
    kept: Vec<u32>,
}

/// What a call may be answered at one moment.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) due: Due,
    /// The streams afterwards; `None` if a call with this answer never changes anything. A removal
    /// that finds nothing has the same answer as one that removes something.
    pub(super) next: Option<State>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// First and last version of each part, and whether this is said to be a retry.
    Appended(Vec<(u64, u64)>, bool),
    Done,
    Conflict {
        stream: usize,
        actual: u64,
    },
    Closed,
    Events(Vec<(u64, u32)>),
    Info(StreamInfo),
}

impl Stream {
    pub(super) const MISSING: Self =
        Self { state: StreamState::Missing, version: 0, deleted_at: 0, kept: Vec::new() };

    fn first(&self) -> u64 {
        self.version + 1 - self.kept.len() as u64
    }

    /// The events that are left, with their versions.
    pub(super) fn events(&self) -> impl DoubleEndedIterator<Item = (u64, u32)> {
        let first = self.first();
        self.kept.iter().enumerate().map(move |(n, event)| (first + n as u64, *event))
    }

    fn info(&self) -> StreamInfo {
        let first = (!self.kept.is_empty()).then(|| Version::new(self.first()));
        let info = StreamInfo::new(self.state, self.version.into(), first);
        info.with_deleted_at(self.deleted_at.into())
    }

    /// Whether the stream does what the writer expects. A tombstoned stream is for the caller.
    fn holds(&self, expected: ExpectedVersion) -> bool {
        let exists = self.state == StreamState::Live;
        match expected {
            ExpectedVersion::Any => true,
            ExpectedVersion::StreamExists => exists,
            ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE) => !exists,
            ExpectedVersion::Exact(version) => version.get() == self.version,
        }
    }

    /// The versions after which exactly these events stand.
    fn stand_after<'a>(&'a self, write: &'a Write) -> impl Iterator<Item = u64> + 'a {
        let (first, count) = (self.first(), write.events.len());
        let here = move |(_, found): &(usize, &[u32])| {
            found.iter().zip(write.events.clone()).all(|(found, sent)| *found == sent)
        };
        let found = self.kept.windows(count).enumerate().filter(here);
        found.map(move |(n, _)| first + n as u64 - 1)
    }

    /// Whether these events are to be written (`None`), or stand after a version already; all that
    /// the rules allow. Else what the writer is told.
    fn judge(&self, write: &Write, rules: &Rules) -> Result<Vec<Option<u64>>, Due> {
        if self.state == StreamState::Tombstoned {
            return Err(Due::Closed);
        }
        let conflict = Due::Conflict { stream: write.stream, actual: self.version };
        let due_after = match write.expected {
            ExpectedVersion::Any | ExpectedVersion::StreamExists => {
                if !self.holds(write.expected) {
                    return Err(conflict);
                }
                let found: Vec<_> = self.stand_after(write).collect();
                let at_end = self.version.checked_sub(write.events.len() as u64);
                let is_known = rules.guaranteed || found.last().copied() == at_end;
                let is_new = found.is_empty() || !is_known;
                return Ok(found.into_iter().map(Some).chain(is_new.then_some(None)).collect());
            }
            ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE) => self.deleted_at,
            ExpectedVersion::Exact(version) => version.get(),
        };
        if self.holds(write.expected) {
            Ok(vec![None])
        } else if self.stand_after(write).any(|base| base == due_after) {
            Ok(vec![Some(due_after)])
        } else {
            Err(conflict)
        }
    }

    fn read(&self, read: &Read) -> Vec<(u64, u32)> {
        let limit = read.limit.map_or(usize::MAX, |limit| limit as usize);
        if read.backwards {
            let from = read.from.unwrap_or(u64::MAX);
            self.events().rev().filter(|(version, _)| *version <= from).take(limit).collect()
        } else {
            let from = read.from.unwrap_or(0);
            self.events().filter(|(version, _)| *version >= from).take(limit).collect()
        }
    }
}

/// Everything that a call may be answered in this state.
pub(super) fn outcomes(state: &State, call: &Call, rules: &Rules) -> Vec<Outcome> {
    let told = |due| vec![Outcome { due, next: None }];
    match call {
        Call::Append { writes, .. } => append(state, writes, rules),
        Call::Truncate { stream, before } => change(state, *stream, ExpectedVersion::Any, |s| {
            let gone = s.events().filter(|(version, _)| version < before).count();
            s.kept.drain(..gone);
        }),
        Call::Delete { stream, expected } => change(state, *stream, *expected, |s| {
            if s.state != StreamState::Missing {
                remove(s, StreamState::Deleted);
            }
        }),
        Call::Tombstone { stream, expected } => {
            change(state, *stream, *expected, |s| remove(s, StreamState::Tombstoned))
        }
        Call::Read(read) => told(Due::Events(state[read.stream].read(read))),
        Call::Info(stream) => told(Due::Info(state[*stream].info())),
        Call::ReadAll(_) => Vec::new(),
    }
}

fn remove(stream: &mut Stream, state: StreamState) {
    stream.kept.clear();
    (stream.state, stream.deleted_at) = (state, stream.version);
}

/// A removal.
fn change(
    state: &State,
    stream: usize,
    expected: ExpectedVersion,
    change: impl FnOnce(&mut Stream),
) -> Vec<Outcome> {
    let found = &state[stream];
    let refused = if found.state == StreamState::Tombstoned {
        Some(Due::Closed)
    } else if !found.holds(expected) {
        Some(Due::Conflict { stream, actual: found.version })
    } else {
        None
    };
    if let Some(due) = refused {
        return vec![Outcome { due, next: None }];
    }
    let mut next = state.clone();
    change(&mut next[stream]);
    vec![Outcome { due: Due::Done, next: Some(next) }]
}

fn append(state: &State, writes: &[Write], rules: &Rules) -> Vec<Outcome> {
    // A store may look at the streams one after the other, so any part that is refused may be named. Which
    // one is named if nothing else happens is for the cases about several streams.
    let judged = writes.iter().map(|write| state[write.stream].judge(write, rules));
    let (allowed, refused): (Vec<_>, Vec<_>) = judged.partition(Result::is_ok);
    if !refused.is_empty() {
        let refused = refused.into_iter().filter_map(Result::err);
        return refused.map(|due| Outcome { due, next: None }).collect();
    }
    // Each combination of what the parts may be.
    let mut all = vec![Vec::new()];
    for each in allowed.into_iter().flatten() {
        let longer = |before: &Vec<Option<u64>>| {
            let before = before.clone();
            let with = move |last: &Option<u64>| [&before[..], &[*last]].concat();
            each.iter().map(with).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all.into_iter().map(|parts| appended(state, writes, &parts, rules)).collect()
}

fn appended(state: &State, writes: &[Write], parts: &[Option<u64>], rules: &Rules) -> Outcome {
    let versions = |base: u64, write: &Write| (base + 1, base + write.events.len() as u64);
    if let Some(bases) = parts.iter().copied().collect::<Option<Vec<_>>>() {
        let all = bases.iter().zip(writes).map(|(base, write)| versions(*base, write)).collect();
        return Outcome { due: Due::Appended(all, rules.tells_retries), next: None };
    }
    // Of an append that happened before, every part stands.
    if let Some((write, _)) = writes.iter().zip(parts).find(|(_, part)| part.is_some()) {
        let actual = state[write.stream].version;
        return Outcome { due: Due::Conflict { stream: write.stream, actual }, next: None };
    }
    let mut next = state.clone();
    let mut all = Vec::with_capacity(writes.len());
    for write in writes {
        let stream = &mut next[write.stream];
        let got = versions(stream.version, write);
        all.push(got);
        stream.kept.extend(write.events.clone());
        (stream.version, stream.state) = (got.1, StreamState::Live);
    }
    Outcome { due: Due::Appended(all, false), next: Some(next) }
}

impl Due {
    /// Whether a call was answered this. Positions are judged elsewhere.
    pub(super) fn is(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Appended(due, replayed), Answer::Appended(got)) => {
                due.len() == got.len()
                    && due.iter().zip(got).all(|(due, got)| {
                        *due == (got.first_version.get(), got.last_version.get())
                            && *replayed == got.replayed
                    })
            }
            (Self::Done, Answer::Done) | (Self::Closed, Answer::Closed) => true,
            (
                Self::Conflict { stream, actual },
                Answer::Conflict { stream: of, actual: version },
            ) => (stream, actual) == (of, version),
            (Self::Events(due), Answer::Events(got)) => {
                due.len() == got.len()
                    && due.iter().zip(got).all(|(due, got)| *due == (got.version, got.event))
            }
            (Self::Info(due), Answer::Info(got)) => due == got,
            _ => false,
        }
    }
}
