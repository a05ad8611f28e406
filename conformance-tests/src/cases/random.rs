//! Random programs, run on the store and on the reference in memory: both must answer the same. A
//! program that fails is shrunk to a short one.

use std::sync::Arc;

use annals_core::{
    Append, Appended, Category, Direction, Error, EventStoreExt, EventType, ExpectedVersion,
    Filter, NewEvent, Payload, Position, ReadAll, ReadStream, RecordedEvent, Removal, Snapshot,
    Source, Store, StreamId, StreamPrefix, Subscribe, SubscriberId, Version,
};
use annals_memory::MemoryStore;
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

use crate::{
    case::{CaseResult, Context, Stop, cases},
    tools::{assert_in_order, catch_up, id, read, read_all},
};

cases! { "random":
    known_programs_run_as_on_the_reference [1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 15, 21, 22] GlobalOrder;
    programs_run_as_on_the_reference [1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 15, 21, 22] GlobalOrder;
}

/// How many new programs are run, unless `ANNALS_RANDOM_PROGRAMS` gives another number.
const PROGRAMS: u32 = 32;
const LONGEST_PROGRAM: usize = 40;

const STREAMS: [&str; 4] = ["order-1", "order-2", "Order-1", "stock"];
const TYPES: [&str; 3] = ["Placed", "placed", "Paid"];

#[derive(Clone, Debug)]
enum Step {
    Append(Write),
    Multi(Vec<Write>),
    /// Sends the nth append of the program once more.
    Again(usize),
    Truncate(usize, u64),
    Delete(usize, Expect),
    Tombstone(usize, Expect),
    SaveSnapshot(usize, u64),
    DeleteSnapshot(usize),
    SaveCheckpoint(usize, usize),
    ResetCheckpoint(usize, Option<usize>),
    ReadStream {
        stream: usize,
        from: Option<u64>,
        backwards: bool,
        limit: Option<u64>,
    },
    ReadAll {
        from: Option<usize>,
        backwards: bool,
        limit: Option<u64>,
        filter: usize,
    },
    Subscribe {
        stream: Option<usize>,
        from: Option<usize>,
        filter: usize,
    },
    OpenAnotherHandle,
    /// Drops the only handle before the next one is opened.
    Reopen,
}

#[derive(Clone, Debug)]
struct Write {
    stream: usize,
    expect: Expect,
    types: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Expect {
    Any,
    NoStream,
    StreamExists,
    /// The current version of the stream.
    Current,
    Exact(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stream = 0..STREAMS.len();
    let expect = prop_oneof![
        3 => Just(Expect::Current),
        2 => Just(Expect::Any),
        1 => Just(Expect::NoStream),
        1 => Just(Expect::StreamExists),
        1 => (0..8u64).prop_map(Expect::Exact),
    ];
    let write = (stream.clone(), expect.clone(), prop::collection::vec(0..TYPES.len(), 1..4))
        .prop_map(|(stream, expect, types)| Write { stream, expect, types });
    let limit = prop::option::of(0..6u64);
    let rank = prop::option::of(0..30usize);
    let step = prop_oneof![
        8 => write.clone().prop_map(Step::Append),
        2 => prop::collection::vec(write, 1..3).prop_map(Step::Multi),
        2 => (0..20usize).prop_map(Step::Again),
        1 => (stream.clone(), 0..12u64).prop_map(|(s, v)| Step::Truncate(s, v)),
        1 => (stream.clone(), expect.clone()).prop_map(|(s, e)| Step::Delete(s, e)),
        1 => (3..STREAMS.len(), expect).prop_map(|(s, e)| Step::Tombstone(s, e)),
        1 => (stream.clone(), 0..9u64).prop_map(|(s, v)| Step::SaveSnapshot(s, v)),
        1 => stream.clone().prop_map(Step::DeleteSnapshot),
        1 => (0..2usize, 0..20usize).prop_map(|(s, p)| Step::SaveCheckpoint(s, p)),
        1 => (0..2usize, rank.clone()).prop_map(|(s, p)| Step::ResetCheckpoint(s, p)),
        3 => (stream.clone(), prop::option::of(0..12u64), any::<bool>(), limit.clone())
            .prop_map(|(stream, from, backwards, limit)| Step::ReadStream {
                stream, from, backwards, limit
            }),
        3 => (rank.clone(), any::<bool>(), limit, 0..5usize)
            .prop_map(|(from, backwards, limit, filter)| Step::ReadAll {
                from, backwards, limit, filter
            }),
        2 => (prop::option::of(stream), rank, 0..5usize)
            .prop_map(|(stream, from, filter)| Step::Subscribe { stream, from, filter }),
        1 => Just(Step::OpenAnotherHandle),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..LONGEST_PROGRAM)
}

/// Programs that are the same in every run.
async fn known_programs_run_as_on_the_reference(cx: Context) -> CaseResult {
    let programs = cx.random_programs();
    run_programs(cx, programs, [17; 32]).await
}

/// Programs that differ from run to run.
async fn programs_run_as_on_the_reference(cx: Context) -> CaseResult {
    let programs = std::env::var("ANNALS_RANDOM_PROGRAMS").ok().and_then(|n| n.parse().ok());
    let mut seed = [0; 32];
    cx.rng(0).fill(&mut seed);
    run_programs(cx, programs.unwrap_or(PROGRAMS), seed).await
}

async fn run_programs(cx: Context, programs: u32, seed: [u8; 32]) -> CaseResult {
    let config = Config {
        cases: programs,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let runtime = tokio::runtime::Handle::current();
    let running = tokio::task::spawn_blocking(move || {
        runner.run(&steps(), |program| {
            let cx = cx.another();
            let ran = runtime.block_on(async {
                let ran = Machine::new(&cx).await.run(program).await;
                cx.clean_up().await.map_err(|e| e.to_string()).and(ran)
            });
            ran.map_err(TestCaseError::fail)
        })
    });
    running.await.unwrap().map_err(|e| Stop::Failed(e.to_string()))
}

/// Runs a program on the store and on the reference.
struct Machine<'a> {
    cx: &'a Context,
    subject: Arc<dyn Store>,
    reference: Arc<dyn Store>,
    sent: Vec<Vec<Append>>,
    /// Pairs of positions that the two stores gave for the same event. Both must have the same
    /// order.
    answered: Vec<(Position, Position)>,
    removed: bool,
}

impl<'a> Machine<'a> {
    async fn new(cx: &'a Context) -> Self {
        let (subject, reference) = (cx.open().await, Arc::new(MemoryStore::new()));
        Self { cx, subject, reference, sent: Vec::new(), answered: Vec::new(), removed: false }
    }

    async fn run(mut self, program: Vec<Step>) -> Result<(), String> {
        for (number, step) in program.iter().enumerate() {
            let what = format!("step {number}, {step:?}");
            self.step(step).await.map_err(|difference| format!("{what}: {difference}"))?;
        }
        self.compare_everything().await.map_err(|difference| format!("at the end: {difference}"))
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        let (subject, reference) = (self.subject.clone(), self.reference.clone());
        let capabilities = subject.capabilities();
        let removes = matches!(step, Step::Truncate(..) | Step::Delete(..) | Step::Tombstone(..));
        self.removed |= removes;
        match step {
            Step::Append(write) => {
                let append = self.append_of(write).await;
                self.send(vec![append]).await
            }
            Step::Multi(_) if !capabilities.multi_stream_append => Ok(()),
            Step::Multi(writes) => {
                let mut appends = Vec::new();
                for write in writes {
                    appends.push(self.append_of(write).await);
                }
                self.send(appends).await
            }
            Step::Again(nth) => {
                let loose = |append: &Append| {
                    matches!(append.expected, ExpectedVersion::Any | ExpectedVersion::StreamExists)
                };
                // Only a retry under `Exact` or `NoStream` is recognised by every store.
                match self.sent.get(*nth).filter(|sent| !sent.iter().any(loose)).cloned() {
                    Some(appends) => self.send(appends).await,
                    None => Ok(()),
                }
            }
            Step::Truncate(..) if !capabilities.truncate => Ok(()),
            Step::Truncate(stream, before) => {
                let (stream, before) = (id(STREAMS[*stream]), Version::new(*before));
                let truncated = subject.truncate(&stream, before).await;
                same(seen(truncated), seen(reference.truncate(&stream, before).await))
            }
            Step::Delete(..) if !capabilities.delete => Ok(()),
            Step::Delete(stream, expect) => {
                let (stream, expected) =
                    (id(STREAMS[*stream]), self.expected(*stream, *expect).await);
                let deleted = subject.delete(&stream, expected).await;
                same(seen(deleted), seen(reference.delete(&stream, expected).await))
            }
            Step::Tombstone(..) if !capabilities.tombstone => Ok(()),
            Step::Tombstone(stream, expect) => {
                let (stream, expected) =
                    (id(STREAMS[*stream]), self.expected(*stream, *expect).await);
                let closed = subject.tombstone(&stream, expected).await;
                same(seen(closed), seen(reference.tombstone(&stream, expected).await))
            }
            Step::SaveSnapshot(..) | Step::DeleteSnapshot(..) if !capabilities.snapshots => Ok(()),
            Step::SaveSnapshot(stream, version) => {
                let stream = id(STREAMS[*stream]);
                let snapshot = Snapshot::new(*version, Payload::json(version).map_err(text)?);
                let saved = subject.save_snapshot(&stream, snapshot.clone()).await;
                same(seen(saved), seen(reference.save_snapshot(&stream, snapshot).await))
            }
            Step::DeleteSnapshot(stream) => {
                let stream = id(STREAMS[*stream]);
                let deleted = subject.delete_snapshot(&stream).await;
                same(seen(deleted), seen(reference.delete_snapshot(&stream).await))
            }
            Step::SaveCheckpoint(..) | Step::ResetCheckpoint(..) if !capabilities.checkpoints => {
                Ok(())
            }
            Step::SaveCheckpoint(subscriber, position) => {
                let (name, position) =
                    (subscriber_id(*subscriber), Position::new(*position as u64));
                let saved = subject.save_checkpoint(&name, position).await;
                same(seen(saved), seen(reference.save_checkpoint(&name, position).await))
            }
            Step::ResetCheckpoint(subscriber, position) => {
                let name = subscriber_id(*subscriber);
                let position = position.map(|position| Position::new(position as u64));
                let reset = subject.reset_checkpoint(&name, position).await;
                same(seen(reset), seen(reference.reset_checkpoint(&name, position).await))
            }
            Step::ReadStream { stream, from, backwards, limit } => {
                let stream = id(STREAMS[*stream]);
                let mut options = ReadStream::default();
                options.from = from.map(Version::new);
                options.direction = direction(*backwards);
                options.limit = *limit;
                let got = read(&subject, &stream, options.clone()).await.map_err(text)?;
                same(
                    contents(&got),
                    contents(&read(&reference, &stream, options).await.map_err(text)?),
                )
            }
            Step::ReadAll { .. } | Step::Subscribe { .. } if self.all_may_differ() => Ok(()),
            Step::ReadAll { from, backwards, limit, filter } => {
                let mut got = Vec::new();
                for store in [&subject, &reference] {
                    let mut options = ReadAll::default().with_filter(filters(*filter));
                    options.from = position_of(store, *from).await?;
                    options.direction = direction(*backwards);
                    options.limit = *limit;
                    got.push(contents(&read_all(store, options).await.map_err(text)?));
                }
                same(got.remove(0), got.remove(0))
            }
            Step::Subscribe { stream, from, filter } => {
                let mut got = Vec::new();
                for store in [&subject, &reference] {
                    let source = match stream {
                        Some(stream) => Source::Stream(id(STREAMS[*stream])),
                        None => Source::All(filters(*filter)),
                    };
                    let from = position_of(store, *from).await?.unwrap_or(Position::START);
                    let subscribe = Subscribe::to(source).after(from);
                    let mut live = store.subscribe(subscribe).await.map_err(text)?;
                    got.push(contents(&catch_up(self.cx, &mut live).await.0));
                }
                same(got.remove(0), got.remove(0))
            }
            Step::OpenAnotherHandle => {
                self.subject = self.cx.open().await;
                Ok(())
            }
            Step::Reopen if !capabilities.durable => Ok(()),
            Step::Reopen => {
                drop(subject);
                // Something has to stand here while no handle is open.
                self.subject = self.reference.clone();
                self.subject = self.cx.open().await;
                Ok(())
            }
        }
    }

    fn all_may_differ(&self) -> bool {
        self.removed && self.subject.capabilities().removal != Removal::AtOnce
    }

    async fn expected(&self, stream: usize, expect: Expect) -> ExpectedVersion {
        match expect {
            Expect::Any => ExpectedVersion::Any,
            Expect::NoStream => ExpectedVersion::NoStream,
            Expect::StreamExists => ExpectedVersion::StreamExists,
            Expect::Exact(version) => ExpectedVersion::Exact(version.into()),
            Expect::Current => {
                let info = self.reference.stream_info(&id(STREAMS[stream])).await;
                ExpectedVersion::Exact(info.map_or(Version::NONE, |info| info.version))
            }
        }
    }

    async fn append_of(&self, write: &Write) -> Append {
        let expected = self.expected(write.stream, write.expect).await;
        let events = write.types.iter().map(|&n| NewEvent::json(TYPES[n], &n).unwrap());
        Append::new(id(STREAMS[write.stream]), expected, events)
    }

    async fn send(&mut self, appends: Vec<Append>) -> Result<(), String> {
        let (got, due) = match &appends[..] {
            [append] => (
                self.subject.append(append.clone()).await.map(|appended| vec![appended]),
                self.reference.append(append.clone()).await.map(|appended| vec![appended]),
            ),
            _ => (
                self.subject.append_multi(appends.clone()).await,
                self.reference.append_multi(appends.clone()).await,
            ),
        };
        self.sent.push(appends);
        if let (Ok(got), Ok(due)) = (&got, &due) {
            self.answered
                .extend(got.iter().zip(due).map(|(got, due)| (got.position, due.position)));
        }
        let told = self.subject.capabilities().tells_retries;
        let versions = |a: Appended| (a.first_version, a.last_version, a.replayed && told);
        let versions = |all: Vec<Appended>| all.into_iter().map(versions).collect::<Vec<_>>();
        same(seen(got.map(versions)), seen(due.map(versions)))
    }

    async fn compare_everything(&mut self) -> Result<(), String> {
        let (subject, reference) = (&self.subject, &self.reference);
        if !self.all_may_differ() {
            let all = read_all(subject, ReadAll::default()).await.map_err(text)?;
            assert_in_order(&all);
            let due = read_all(reference, ReadAll::default()).await.map_err(text)?;
            same(contents(&all), contents(&due))?;
            self.answered
                .extend(all.iter().zip(due).map(|(got, due)| (got.position, due.position)));
        }
        for name in STREAMS {
            let stream = id(name);
            let got = subject.load_stream(&stream).await.map_err(text)?;
            let due = reference.load_stream(&stream).await.map_err(text)?;
            same(contents(&got), contents(&due))?;
            let info = subject.stream_info(&stream).await;
            same(seen(info), seen(reference.stream_info(&stream).await))?;
            if subject.capabilities().snapshots {
                let snapshot = subject.load_snapshot(&stream).await;
                same(seen(snapshot), seen(reference.load_snapshot(&stream).await))?;
            }
        }
        if subject.capabilities().checkpoints {
            for name in [0, 1].map(subscriber_id) {
                let kept = subject.load_checkpoint(&name).await;
                same(seen(kept), seen(reference.load_checkpoint(&name).await))?;
            }
        }
        self.answered.sort_by_key(|(_, due)| *due);
        let in_order =
            |pair: &[(Position, Position)]| pair[0].0.cmp(&pair[1].0) == pair[0].1.cmp(&pair[1].1);
        match self.answered.windows(2).find(|pair| !in_order(pair)) {
            Some(pair) => Err(format!("positions are in another order: {pair:?}")),
            None => Ok(()),
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(got: T, due: T) -> Result<(), String> {
    if got == due { Ok(()) } else { Err(format!("got {got:?}, but the reference has {due:?}")) }
}

/// What is compared of a result: the value, or the kind of the error and the versions of a
/// conflict.
fn seen<T: std::fmt::Debug>(result: annals_core::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?} {:?}", error.kind(), error.conflict()),
    }
}

type Contents = (StreamId, Version, uuid::Uuid, EventType, Payload, Payload);

fn contents(events: &[RecordedEvent]) -> Vec<Contents> {
    let content = |e: RecordedEvent| (e.stream, e.version, e.id, e.event_type, e.data, e.metadata);
    events.iter().cloned().map(content).collect()
}

fn text(error: Error) -> String {
    format!("{error:?}")
}

fn direction(backwards: bool) -> Direction {
    if backwards { Direction::Backwards } else { Direction::Forwards }
}

fn subscriber_id(number: usize) -> SubscriberId {
    SubscriberId::new(["report", "Report"][number]).unwrap()
}

/// The position of the nth event in this store: each store has positions of its own.
async fn position_of(
    store: &Arc<dyn Store>,
    rank: Option<usize>,
) -> Result<Option<Position>, String> {
    let Some(rank) = rank else { return Ok(None) };
    let all =
        read_all(store, ReadAll::default().with_limit(rank as u64 + 1)).await.map_err(text)?;
    Ok(Some(all.last().map_or(Position::START, |event| event.position)))
}

fn filters(number: usize) -> Filter {
    let category = |name| Filter::default().with_category(Category::new(name).unwrap());
    let types = TYPES.map(|name| EventType::new(name).unwrap());
    match number {
        0 => Filter::default(),
        1 => category("order"),
        2 => Filter::default().with_prefix(StreamPrefix::new("order-").unwrap()),
        3 => Filter::default().with_event_types(types[..1].to_vec()),
        _ => category("Order").with_event_types(types[1..].to_vec()),
    }
}
