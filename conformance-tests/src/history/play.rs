//! Runs a program on a store, and records its history.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use annals_core::{
    Append, Appended, Capabilities, Category, Error, ErrorKind, EventStream, ExpectedVersion,
    Filter, Position, Recognition, RecordedEvent, Removal, Result, Store, StreamId, StreamPrefix,
};
use fastrand::Rng;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, join, join_all},
    poll,
};
use tokio::{
    sync::{Semaphore, watch},
    task::yield_now,
};

use super::{
    follow,
    ids::{Batch, Ids},
    program::{Expect, Program, Put, Step},
    record::{Answer, Call, History, NEVER, Op, Read, ReadAll, Rules, Seen, Write},
};

/// A task waits up to so many turns of the other tasks between two calls.
const PAUSE: u8 = 4;

/// Where programs run: a namespace with several handles.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) handles: Vec<Arc<dyn Store>>,
    /// How long a subscriber waits for something that has to come.
    pub(super) patience: Duration,
}

impl Stage {
    pub(super) fn capabilities(&self) -> &Capabilities {
        self.handles[0].capabilities()
    }

    fn rules(&self) -> Rules {
        let can = self.capabilities();
        Rules {
            guaranteed: can.retry_recognition == Recognition::Guaranteed,
            tells_retries: can.tells_retries,
            at_once: can.removal == Removal::AtOnce,
            ordered: can.global_order,
        }
    }

    /// Runs a program. The pauses between the calls are those of the attempt: 0 in the first run.
    pub(super) async fn play(&self, program: &Program, attempt: u64) -> History {
        let run = Arc::new(Run::new(self, program.streams));
        let handle = |nth: usize| self.handles[nth % self.handles.len()].clone();
        // The frame is what begins and ends the history: appends of marks, and reads of everything.
        let frame = program.tasks.len();
        let mut frame = Task::new(&run, handle(frame), frame, Rng::with_seed(0));
        frame.begin().await;
        let pauses = Rng::with_seed(program.pauses.wrapping_add(attempt)).u64(..);
        let rng = |part: usize| Rng::with_seed(pauses.wrapping_add(part as u64));
        let tasks = program.tasks.iter().enumerate().map(|(n, steps)| {
            let (mut task, steps) = (Task::new(&run, handle(n), n, rng(n)), steps.clone());
            launch(program.in_parallel, async move {
                task.steps(&steps).await;
                task.ops
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let followers = program.followers.iter().enumerate().map(|(n, follower)| {
            let following = follow::follow(run.clone(), handle(n + 1), *follower);
            launch(program.in_parallel, following)
        });
        let followers: Vec<_> = followers.collect();
        let subscribed = u32::try_from(followers.len()).unwrap_or(u32::MAX);
        let calls = async {
            let ops = join_all(tasks).await;
            // A subscriber from the end has to know the end before the marks are appended.
            drop(run.subscribed.acquire_many(subscribed).await);
            frame.end(program.streams).await;
            ops
        };
        let (followed, ops) = join(join_all(followers), calls).await;
        let mut ops = ops.concat();
        ops.append(&mut frame.ops);
        ops.sort_by_key(|op| op.began);
        History { streams: program.streams + 1, ops, followed, rules: self.rules() }
    }
}

/// Starts a task of the runtime, or leaves the future to be polled with the others.
fn launch<T: Send + 'static>(
    in_parallel: bool,
    future: impl Future<Output = T> + Send + 'static,
) -> BoxFuture<'static, T> {
    if in_parallel {
        let task = tokio::spawn(future);
        async move { task.await.unwrap() }.boxed()
    } else {
        future.boxed()
    }
}

/// What the tasks of a run share.
pub(super) struct Run {
    ids: Ids,
    /// The streams; the last is that of the marks.
    names: Vec<StreamId>,
    /// Two filters that let all streams of the history through, and no others.
    filters: [Filter; 2],
    clock: AtomicU64,
    next_event: AtomicU32,
    /// All appends that were sent.
    sent: Mutex<Vec<Vec<Write>>>,
    /// The position of the first mark.
    base: AtomicU64,
    /// The greatest position that an append was answered.
    latest: AtomicU64,
    pub(super) ordered: bool,
    pub(super) patience: Duration,
    /// Has a permit for each subscriber that has subscribed.
    pub(super) subscribed: Semaphore,
    /// The position of the last mark of each stream, once these are written.
    pub(super) last_marks: watch::Sender<Option<Vec<u64>>>,
}

/// Counts the runs, so that each has other streams.
static RUNS: AtomicU64 = AtomicU64::new(0);

impl Run {
    fn new(stage: &Stage, streams: usize) -> Self {
        let name = format!("h{}", RUNS.fetch_add(1, Ordering::Relaxed));
        let names = (0..=streams).map(|n| StreamId::new(format!("{name}-{n}")).unwrap()).collect();
        let by_category = Filter::default().with_category(Category::new(&name).unwrap());
        let prefix = StreamPrefix::new(format!("{name}-")).unwrap();
        Self {
            ids: Ids::new(),
            names,
            filters: [by_category, Filter::default().with_prefix(prefix)],
            clock: AtomicU64::new(1),
            next_event: AtomicU32::new(1),
            sent: Mutex::default(),
            base: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            ordered: stage.capabilities().global_order,
            patience: stage.patience,
            subscribed: Semaphore::new(0),
            last_marks: watch::Sender::new(None),
        }
    }

    pub(super) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn name(&self, stream: usize) -> &StreamId {
        &self.names[stream]
    }

    pub(super) fn marks(&self) -> usize {
        self.names.len() - 1
    }

    pub(super) fn filter(&self, nth: usize) -> Filter {
        self.filters[nth % 2].clone()
    }

    pub(super) fn base(&self) -> u64 {
        self.base.load(Ordering::SeqCst)
    }

    pub(super) fn latest(&self) -> u64 {
        self.latest.load(Ordering::SeqCst)
    }

    pub(super) fn see(&self, event: &RecordedEvent) -> Result<Seen, String> {
        let stream = self.names.iter().position(|name| *name == event.stream);
        let stream = stream.ok_or_else(|| format!("this history has no stream of {event:?}"))?;
        let (version, position) = (event.version.get(), event.position.get());
        Ok(Seen { stream, version, event: self.ids.number(event)?, position })
    }

    fn new_events(&self, count: u32) -> Batch {
        let first = self.next_event.fetch_add(count, Ordering::SeqCst);
        first..first + count
    }

    fn append(&self, write: &Write, is_stop: bool) -> Append {
        let events = write.events.clone().map(|number| self.ids.event(number, is_stop));
        Append::new(self.names[write.stream].clone(), write.expected, events)
    }

    fn failed(&self, error: &Error) -> Answer {
        if error.outcome_unknown() {
            return Answer::Unknown(error.to_string());
        }
        let stream = |id: &StreamId| self.names.iter().position(|name| name == id);
        match (error.kind(), error.conflict()) {
            (ErrorKind::StreamClosed, _) => Answer::Closed,
            (ErrorKind::Conflict, Some(conflict)) => match stream(&conflict.stream) {
                Some(stream) => Answer::Conflict { stream, actual: conflict.actual.get() },
                None => Answer::Wrong(format!("{error:?}")),
            },
            _ => Answer::Wrong(format!("{error:?}")),
        }
    }
}

/// One task: it makes its calls one after the other.
struct Task {
    run: Arc<Run>,
    store: Arc<dyn Store>,
    number: usize,
    rng: Rng,
    /// The versions that the task was told last.
    known: Vec<u64>,
    ops: Vec<Op>,
}

impl Task {
    fn new(run: &Arc<Run>, store: Arc<dyn Store>, number: usize, rng: Rng) -> Self {
        let known = vec![0; run.names.len()];
        Self { run: run.clone(), store, number, rng, known, ops: Vec::new() }
    }

    async fn begin(&mut self) {
        let marks = Put { stream: self.run.marks(), expect: Expect::NoStream, count: 1 };
        self.send(&[marks], None, false).await;
        self.run.base.store(self.run.latest(), Ordering::SeqCst);
    }

    /// Appends a mark to each stream, the last to the marks, and reads everything.
    async fn end(&mut self, streams: usize) {
        for stream in 0..=streams {
            self.send(&[Put { stream, expect: Expect::Any, count: 1 }], None, true).await;
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

    async fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            for _ in 0..self.rng.u8(..PAUSE) {
                yield_now().await;
            }
            match step {
                Step::Append(puts) => self.send(puts, None, false).await,
                Step::Drop(puts, polls) => self.send(puts, Some(*polls), false).await,
                Step::Again(nth) => self.again(*nth).await,
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

    async fn send(&mut self, puts: &[Put], polls: Option<u8>, is_stop: bool) {
        let write = |put: &Put| Write {
            stream: put.stream,
            expected: self.expected(put.stream, put.expect),
            events: self.run.new_events(put.count),
        };
        let writes: Vec<Write> = puts.iter().map(write).collect();
        if !is_stop {
            let mut sent = self.run.sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.push(writes.clone());
        }
        self.append(writes, polls, is_stop, false).await;
    }

    async fn again(&mut self, nth: usize) {
        let writes = {
            let sent = self.run.sent.lock().unwrap_or_else(PoisonError::into_inner);
            // The first is the mark.
            let Some(count @ 1..) = sent.len().checked_sub(1) else { return };
            sent[1 + nth % count].clone()
        };
        self.append(writes, None, false, true).await;
    }

    /// Appends. If the number of polls is given, the append is dropped after so many.
    async fn append(&mut self, writes: Vec<Write>, polls: Option<u8>, is_stop: bool, again: bool) {
        let mut appends: Vec<_> = writes.iter().map(|w| self.run.append(w, is_stop)).collect();
        let streams: Vec<_> = writes.iter().map(|write| write.stream).collect();
        let began = self.run.tick();
        let store = self.store.clone();
        let mut answer = async move {
            match appends.pop() {
                Some(one) if appends.is_empty() => store.append(one).await.map(|one| vec![one]),
                last => {
                    appends.extend(last);
                    store.append_multi(appends).await
                }
            }
        }
        .boxed();
        let answer = match polls {
            None => Some(answer.await),
            Some(polls) => {
                let mut answered = None;
                for _ in 0..polls {
                    if let std::task::Poll::Ready(ready) = poll!(&mut answer) {
                        answered = Some(ready);
                        break;
                    }
                    yield_now().await;
                }
                answered
            }
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
            self.run.latest.fetch_max(appended.position.get(), Ordering::SeqCst);
        }
        Answer::Appended(all)
    }

    fn record(&mut self, began: u64, call: Call, answer: Answer) {
        let ended = if matches!(answer, Answer::Unknown(_)) { NEVER } else { self.run.tick() };
        self.ops.push(Op { task: self.number, call, began, ended, answer });
    }

    async fn truncate(&mut self, stream: usize, before: u64) {
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
