//! The tasks of a history: each makes its calls one after the other, and records them.

use std::{sync::Arc, task::Poll};

use annals_core::{Appended, EventStream, ExpectedVersion, Position, Result, Store};
use fastrand::Rng;
use futures::{FutureExt, StreamExt, poll};
use tokio::task::yield_now;

use super::{
    program::{Expect, Put, Step},
    record::{Answer, Call, NEVER, Op, Read, ReadAll, Write},
    run::Run,
};

/// A task waits up to so many turns of the other tasks between two calls.
const PAUSE: u8 = 4;

pub(super) struct Task {
    run: Arc<Run>,
    store: Arc<dyn Store>,
    number: usize,
    rng: Rng,
    /// The versions that the task was told last.
    known: Vec<u64>,
    pub(super) ops: Vec<Op>,
}

impl Task {
    pub(super) fn new(run: Arc<Run>, store: Arc<dyn Store>, number: usize, rng: Rng) -> Self {
        let known = run.no_versions();
        Self { run, store, number, rng, known, ops: Vec::new() }
    }

    /// Begins the history with a mark.
    pub(super) async fn begin(&mut self) {
        let mark = Put { stream: self.run.marks(), expect: Expect::NoStream, count: 1 };
        let writes = self.writes(&[mark]);
        self.append(writes, Sending::Mark).await;
        self.run.begin_here();
    }

    /// Appends a mark to each stream, the last to the marks, and reads everything.
    pub(super) async fn end(&mut self, streams: usize) {
        for stream in 0..=streams {
            let writes = self.writes(&[Put { stream, expect: Expect::Any, count: 1 }]);
            self.append(writes, Sending::Stop).await;
        }
        let position = |op: &Op| op.writes().next()?.1.map(|answer| answer.position.get());
        let marks = self.ops.iter().skip(1).map(|op| position(op).unwrap_or(0));
        self.run.last_marks.send_replace(Some(marks.collect()));
        for stream in 0..streams {
            self.read(Read { stream, from: None, backwards: false, limit: None }).await;
            self.info(stream).await;
        }
        if self.run.ordered {
            self.read_all(false, false, None).await;
        }
    }

    pub(super) async fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            for _ in 0..self.rng.u8(..PAUSE) {
                yield_now().await;
            }
            match step {
                Step::Append(puts) => self.append(self.writes(puts), Sending::First).await,
                Step::Drop(puts, polls) => {
                    self.append(self.writes(puts), Sending::Dropped(*polls)).await;
                }
                Step::Again(nth) => {
                    if let Some(writes) = self.run.sent(*nth) {
                        self.append(writes, Sending::Again).await;
                    }
                }
                Step::Truncate(stream, before) => self.truncate(*stream, *before).await,
                Step::Delete(stream, expect) => self.delete(*stream, *expect).await,
                Step::Tombstone(stream, expect) => self.tombstone(*stream, *expect).await,
                Step::Read { stream, from, backwards, limit } => {
                    let (stream, from, backwards, limit) = (*stream, *from, *backwards, *limit);
                    self.read(Read { stream, from, backwards, limit }).await;
                }
                Step::Info(stream) => self.info(*stream).await,
                Step::ReadAll { from_latest, backwards, limit } => {
                    self.read_all(*from_latest, *backwards, *limit).await;
                }
            }
        }
    }

    fn expected(&self, stream: usize, expect: Expect) -> ExpectedVersion {
        match expect {
            Expect::Any => ExpectedVersion::Any,
            Expect::NoStream => ExpectedVersion::NoStream,
            Expect::StreamExists => ExpectedVersion::StreamExists,
            Expect::Known => ExpectedVersion::Exact(self.known[stream].into()),
            Expect::Exact(version) => ExpectedVersion::Exact(version.into()),
        }
    }

    fn writes(&self, puts: &[Put]) -> Vec<Write> {
        let write = |put: &Put| Write {
            stream: put.stream,
            expected: self.expected(put.stream, put.expect),
            events: self.run.new_events(put.count),
        };
        puts.iter().map(write).collect()
    }

    async fn append(&mut self, writes: Vec<Write>, sending: Sending) {
        if let Sending::First | Sending::Dropped(_) = sending {
            self.run.sends(&writes);
        }
        let (is_stop, again) = (sending == Sending::Stop, sending == Sending::Again);
        let mut appends: Vec<_> = writes.iter().map(|w| self.run.append(w, is_stop)).collect();
        let streams: Vec<_> = writes.iter().map(|write| write.stream).collect();
        let began = self.run.tick();
        let store = self.store.clone();
        let answer = async move {
            match appends.pop() {
                Some(one) if appends.is_empty() => store.append(one).await.map(|one| vec![one]),
                last => {
                    appends.extend(last);
                    store.append_multi(appends).await
                }
            }
        };
        let answer = match sending {
            Sending::Dropped(polls) => polled(answer, polls).await,
            _ => Some(answer.await),
        };
        let answer = match answer {
            None => Answer::Unknown("dropped".to_owned()),
            Some(Err(error)) => self.run.failed(&error),
            Some(Ok(all)) => self.appended(&streams, all),
        };
        if let Answer::Conflict { stream, actual } = answer {
            self.known[stream] = actual;
        }
        self.record(began, Call::Append { writes, again }, answer);
    }

    fn appended(&mut self, streams: &[usize], all: Vec<Appended>) -> Answer {
        if all.len() != streams.len() {
            return Answer::Wrong(format!("{} appends got {} answers", streams.len(), all.len()));
        }
        for (stream, appended) in streams.iter().zip(&all) {
            self.known[*stream] = appended.last_version.get();
            self.run.answered(appended.position.get());
        }
        Answer::Appended(all)
    }

    fn record(&mut self, began: u64, call: Call, answer: Answer) {
        let ended = if matches!(answer, Answer::Unknown(_)) { NEVER } else { self.run.tick() };
        self.ops.push(Op { task: self.number, call, began, ended, answer });
    }

    async fn truncate(&mut self, stream: usize, kept: u64) {
        let before = (self.known[stream] + 1).saturating_sub(kept);
        let began = self.run.tick();
        let done = self.store.truncate(self.run.name(stream), before.into()).await;
        self.removed(began, Call::Truncate { stream, before }, done);
    }

    async fn delete(&mut self, stream: usize, expect: Expect) {
        let expected = self.expected(stream, expect);
        let began = self.run.tick();
        let done = self.store.delete(self.run.name(stream), expected).await;
        self.removed(began, Call::Delete { stream, expected }, done);
    }

    async fn tombstone(&mut self, stream: usize, expect: Expect) {
        let expected = self.expected(stream, expect);
        let began = self.run.tick();
        let done = self.store.tombstone(self.run.name(stream), expected).await;
        self.removed(began, Call::Tombstone { stream, expected }, done);
    }

    fn removed(&mut self, began: u64, call: Call, done: Result<()>) {
        let answer = match done {
            Ok(()) => Answer::Done,
            Err(error) => self.run.failed(&error),
        };
        self.record(began, call, answer);
    }

    async fn read(&mut self, read: Read) {
        let mut options = annals_core::ReadStream::default();
        (options.from, options.limit) = (read.from.map(Into::into), read.limit);
        if read.backwards {
            options = options.backwards();
        }
        let began = self.run.tick();
        let events = self.store.read_stream(self.run.name(read.stream), options);
        let answer = self.collect(events, 0).await;
        if let Answer::Events(events) = &answer {
            let last = events.iter().map(|seen| seen.version).max();
            self.known[read.stream] = last.unwrap_or(self.known[read.stream]);
        }
        self.record(began, Call::Read(read), answer);
    }

    async fn info(&mut self, stream: usize) {
        let began = self.run.tick();
        let answer = match self.store.stream_info(self.run.name(stream)).await {
            Ok(info) => {
                self.known[stream] = info.version.get();
                Answer::Info(info)
            }
            Err(error) => self.run.failed(&error),
        };
        self.record(began, Call::Info(stream), answer);
    }

    async fn read_all(&mut self, from_latest: bool, backwards: bool, limit: Option<u64>) {
        let (base, latest) = (self.run.base(), self.run.latest());
        let mut options = annals_core::ReadAll::default();
        (options.filter, options.limit) = (self.run.filter(self.number), limit);
        let after = if from_latest && !backwards { latest } else { base };
        let before = Some(latest).filter(|_| from_latest && backwards);
        options = match before {
            _ if !backwards => options.after(after),
            Some(before) => options.before(before),
            None => options.backwards(),
        };
        let began = self.run.tick();
        let events = self.store.read_all(options);
        let answer = self.collect(events, base).await;
        self.record(began, Call::ReadAll(ReadAll { after, before, backwards, limit }), answer);
    }

    /// The events of a read, up to the mark at which the history begins.
    async fn collect(&self, mut events: EventStream, base: u64) -> Answer {
        let mut all = Vec::new();
        while let Some(event) = events.next().await {
            let seen = match event {
                Ok(event) if event.position <= Position::new(base) && base > 0 => break,
                Ok(event) => self.run.see(&event),
                Err(error) => return self.run.failed(&error),
            };
            match seen {
                Ok(seen) => all.push(seen),
                Err(why) => return Answer::Wrong(why),
            }
        }
        Answer::Events(all)
    }
}

/// How an append is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    First,
    Again,
    /// It is dropped after so many polls.
    Dropped(u8),
    /// As a mark of the suite, which no task sends again: at the beginning, or where subscribers stop.
    Mark,
    Stop,
}

/// Polls a future so many times, and drops it if it is not ready then.
async fn polled<T>(future: impl Future<Output = T> + Send, polls: u8) -> Option<T> {
    let mut future = future.boxed();
    for _ in 0..polls {
        if let Poll::Ready(ready) = poll!(&mut future) {
            return Some(ready);
        }
        yield_now().await;
    }
    None
}
