//! The programs of histories: what each task calls. A seed determines a program.

use std::ops::RangeInclusive;

use annals_core::Capabilities;
use fastrand::Rng;

/// What the programs of a case are made of: for each kind of call how often it comes, beside the
/// plain appends, reads and `stream_info` that every program has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mix {
    /// Appends to several streams.
    pub(crate) several: u32,
    /// Appends that are sent again, also while the first try is under way.
    pub(crate) again: u32,
    /// Appends that are dropped before they are answered.
    pub(crate) dropped: u32,
    pub(crate) removals: u32,
    pub(crate) reads_of_all: u32,
    /// The most subscriptions.
    pub(crate) followers: usize,
}

impl Mix {
    /// Whether nothing but the removals tells these programs from the plainest ones.
    pub(super) fn only_removes(&self) -> bool {
        *self == Self { removals: self.removals, ..Self::default() }
    }
}

const WRITERS: RangeInclusive<usize> = 2..=4;
const READERS: RangeInclusive<usize> = 1..=2;
const CALLS: RangeInclusive<usize> = 3..=8;
const STREAMS: RangeInclusive<usize> = 1..=3;
/// Versions that a stream of a history has.
const VERSIONS: RangeInclusive<u64> = 0..=9;
/// A truncation keeps fewer of the events that its task knows of.
const KEPT: u64 = 4;
/// How often an append is polled at most before it is dropped.
const POLLS: u8 = 4;

#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) streams: usize,
    /// The calls of each task, one after the other.
    pub(super) tasks: Vec<Vec<Step>>,
    pub(super) followers: Vec<Follower>,
    /// Whether the tasks run on several threads. If not, one thread polls them in turn: on a store
    /// that never waits, the order of the calls is then the same in every run.
    pub(super) in_parallel: bool,
    /// The seed of the pauses between the calls.
    pub(super) pauses: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Append(Vec<Put>),
    /// Polls an append so often, and drops it if it is not answered then.
    Drop(Vec<Put>, u8),
    /// Sends an append of any task once more: the nth of those that were sent so far.
    Again(usize),
    /// Truncates before the version behind the last one that the task was told, less this number. A
    /// truncation beyond the end is not atomic on every store: it removes what is there when it begins.
    Truncate(usize, u64),
    Delete(usize, Expect),
    Tombstone(usize, Expect),
    Read {
        stream: usize,
        from: Option<u64>,
        backwards: bool,
        limit: Option<u64>,
    },
    Info(usize),
    ReadAll {
        /// From the greatest position that an append was answered, not from the beginning or end.
        from_latest: bool,
        backwards: bool,
        limit: Option<u64>,
    },
}

/// The part of an append that goes to one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Put {
    pub(super) stream: usize,
    pub(super) expect: Expect,
    pub(super) count: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    Any,
    NoStream,
    StreamExists,
    /// The version that the task was told last.
    Known,
    Exact(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Follower {
    /// `None`: all streams.
    pub(super) stream: Option<usize>,
    pub(super) from: From,
    /// How long it waits before it subscribes.
    pub(super) pause: u8,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Beginning,
    Latest,
    End,
}

impl Program {
    /// The program of a seed, with what the store can do.
    pub(super) fn new(seed: u64, mix: &Mix, can: &Capabilities) -> Self {
        let mut rng = Rng::with_seed(seed);
        let streams = rng.usize(STREAMS);
        let mut maker = Maker { rng, streams, mix, can };
        let writers = maker.rng.usize(WRITERS);
        let readers = maker.rng.usize(READERS);
        let mut tasks: Vec<Vec<Step>> = (0..writers).map(|_| maker.task(true)).collect();
        tasks.extend((0..readers).map(|_| maker.task(false)));
        let closed: Vec<usize> = tasks.iter().flatten().filter_map(Step::closes).collect();
        let followers = (0..maker.rng.usize(0..=mix.followers)).map(|_| maker.follower(&closed));
        let followers = followers.flatten().collect();
        let (in_parallel, pauses) = (maker.rng.bool(), maker.rng.u64(..));
        Self { streams, tasks, followers, in_parallel, pauses }
    }

    /// The programs that are a little simpler than this one.
    pub(super) fn simpler(&self) -> Vec<Self> {
        let mut simpler = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut program = self.clone();
            change(&mut program);
            simpler.push(program);
        };
        for task in 0..self.tasks.len() {
            add(&|program| {
                program.tasks.remove(task);
            });
        }
        for follower in 0..self.followers.len() {
            add(&|program| {
                program.followers.remove(follower);
            });
        }
        for (task, steps) in self.tasks.iter().enumerate() {
            // The second half of the calls at once, then one by one.
            if steps.len() > 2 {
                add(&|program| program.tasks[task].truncate(steps.len() / 2));
            }
            for step in (0..steps.len()).rev() {
                add(&|program| {
                    program.tasks[task].remove(step);
                });
            }
        }
        simpler.retain(|program| program.tasks.iter().any(|task| !task.is_empty()));
        simpler
    }

    /// The number of calls and subscriptions.
    pub(super) fn size(&self) -> usize {
        self.tasks.iter().map(Vec::len).sum::<usize>() + self.followers.len()
    }
}

impl Step {
    fn closes(&self) -> Option<usize> {
        match self {
            Self::Tombstone(stream, _) => Some(*stream),
            _ => None,
        }
    }
}

struct Maker<'a> {
    rng: Rng,
    streams: usize,
    mix: &'a Mix,
    can: &'a Capabilities,
}

impl Maker<'_> {
    fn task(&mut self, writes: bool) -> Vec<Step> {
        (0..self.rng.usize(CALLS)).map(|_| self.step(writes)).collect()
    }

    fn step(&mut self, writes: bool) -> Step {
        let Mix { several, again, dropped, removals, reads_of_all, .. } = *self.mix;
        let several = if self.can.multi_stream_append && self.streams > 1 { several } else { 0 };
        let reads_of_all = if self.can.global_order { reads_of_all } else { 0 };
        let kinds = if writes {
            [8, several, again, dropped, removals, 2, 1, reads_of_all / 2]
        } else {
            [0, 0, 0, 0, 0, 4, 2, reads_of_all * 4]
        };
        let mut nth = self.rng.u32(..kinds.iter().sum::<u32>());
        let is_below = |weight: &u32| {
            let below = nth < *weight;
            nth = nth.wrapping_sub(*weight);
            below
        };
        match kinds.iter().position(is_below) {
            Some(0) => Step::Append(vec![self.put()]),
            Some(1) => Step::Append(self.puts()),
            Some(2) => Step::Again(self.rng.usize(..)),
            Some(3) => {
                let puts = if several > 0 { self.puts() } else { vec![self.put()] };
                Step::Drop(puts, self.rng.u8(0..=POLLS))
            }
            Some(4) => self.removal(),
            Some(5) => Step::Read {
                stream: self.stream(),
                from: self.rng.bool().then(|| self.rng.u64(VERSIONS)),
                backwards: self.rng.bool(),
                limit: self.limit(),
            },
            Some(6) => Step::Info(self.stream()),
            _ => Step::ReadAll {
                from_latest: self.rng.u8(..3) == 0,
                backwards: self.rng.bool(),
                limit: self.limit(),
            },
        }
    }

    fn removal(&mut self) -> Step {
        let (stream, expect) = (self.stream(), self.expect());
        match self.rng.u8(..8) {
            0 if self.can.tombstone => Step::Tombstone(stream, expect),
            1..4 if self.can.delete => Step::Delete(stream, expect),
            _ if self.can.truncate => Step::Truncate(stream, self.rng.u64(..KEPT)),
            _ => Step::Info(stream),
        }
    }

    fn stream(&mut self) -> usize {
        self.rng.usize(..self.streams)
    }

    fn limit(&mut self) -> Option<u64> {
        (self.rng.u8(..3) == 0).then(|| self.rng.u64(1..6))
    }

    fn put(&mut self) -> Put {
        Put { stream: self.stream(), expect: self.expect(), count: self.rng.u32(1..=3) }
    }

    /// Parts of an append that go to two or three streams.
    fn puts(&mut self) -> Vec<Put> {
        let mut streams: Vec<usize> = (0..self.streams).collect();
        self.rng.shuffle(&mut streams);
        streams.truncate(self.rng.usize(2..=3));
        streams.into_iter().map(|stream| Put { stream, ..self.put() }).collect()
    }

    fn expect(&mut self) -> Expect {
        match self.rng.u8(..10) {
            0..4 => Expect::Known,
            4..7 => Expect::Any,
            7 => Expect::NoStream,
            8 => Expect::StreamExists,
            _ => Expect::Exact(self.rng.u64(VERSIONS)),
        }
    }

    /// A subscription. To one stream only if the stream cannot be closed: its subscribers stop at an
    /// event that is appended to it at the end.
    fn follower(&mut self, closed: &[usize]) -> Option<Follower> {
        let stream = Some(self.stream()).filter(|_| !self.can.global_order || self.rng.bool());
        let from = match self.rng.u8(..4) {
            0 => From::End,
            1 if self.can.global_order => From::Latest,
            _ => From::Beginning,
        };
        let follower = Follower { stream, from, pause: self.rng.u8(..16) };
        Some(follower).filter(|_| stream.is_none_or(|stream| !closed.contains(&stream)))
    }
}
