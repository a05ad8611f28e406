//! What a stream is after each call that follows another: its state, its versions, its events, its
//! snapshot, and which expectations hold.

use std::{collections::BTreeMap, sync::Arc};

use annals_core::{
    Append, Error, ErrorKind, EventStoreExt, ExpectedVersion, Payload, Position, ReadStream,
    Removal, Result, Snapshot, Store, StreamId, StreamInfo, StreamState, Version,
};
use chrono::DateTime;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_conflict, assert_kind, assert_versions, event, events, everything, exact, id, read,
    },
};

cases! { "pairs":
    each_call_on_a_missing_stream [2, 21] Truncate Delete;
    each_call_after_an_append [2, 21] Truncate Delete;
    each_call_after_a_truncation [2, 21] Truncate Delete;
    each_call_after_a_truncation_of_all [2, 21] Truncate Delete;
    each_call_after_a_deletion [2, 21] Truncate Delete;
    each_call_after_a_revival [2, 21] Truncate Delete;
    each_call_after_a_tombstone [2, 21] Truncate Delete Tombstone;
    each_call_after_an_import [21, 25] Truncate Delete;
    each_call_after_a_snapshot [21, 22] Truncate Delete Snapshots;
    three_calls_in_any_order [2, 21] Truncate Delete;
    each_two_calls_with_a_reopen_between_them [2, 21, 23] Truncate Delete Durable;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Appends two events with `Any`.
    Append,
    /// Appends an event at the version of the stream.
    AppendAtVersion,
    /// Appends an event where there is no stream.
    AppendNew,
    /// Truncates before the last version.
    TruncateToLast,
    /// Truncates before the version after the next one.
    TruncateBeyond,
    /// Truncates before version 2.
    TruncateFirst,
    Delete,
    /// Deletes the stream if it exists.
    DeleteExisting,
    Tombstone,
    /// Saves a snapshot of the version of the stream.
    Save,
    /// Saves a snapshot of the version before it.
    SaveOlder,
    DeleteSnapshot,
    /// Imports the event of the next version.
    Import,
}

const CALLS: [Call; 13] = [
    Call::Append,
    Call::AppendAtVersion,
    Call::AppendNew,
    Call::TruncateToLast,
    Call::TruncateBeyond,
    Call::TruncateFirst,
    Call::Delete,
    Call::DeleteExisting,
    Call::Tombstone,
    Call::Save,
    Call::SaveOlder,
    Call::DeleteSnapshot,
    Call::Import,
];

/// What a stream must be.
#[derive(Clone, Debug)]
struct Model {
    state: StreamState,
    version: u64,
    deleted_at: u64,
    first: u64,
    snapshot: Option<u64>,
}

impl Model {
    const MISSING: Self =
        Self { state: StreamState::Missing, version: 0, deleted_at: 0, first: 1, snapshot: None };

    fn exists(&self) -> bool {
        self.state == StreamState::Live
    }

    fn append(&mut self, count: u64) {
        if !self.exists() {
            self.first = self.version + 1;
        }
        self.state = StreamState::Live;
        self.version += count;
    }

    fn truncate(&mut self, before: u64) {
        if self.state != StreamState::Missing {
            self.first = self.first.max(before.min(self.version + 1));
        }
    }

    fn remove(&mut self, state: StreamState) {
        if (self.state, state) == (StreamState::Missing, StreamState::Deleted) {
            return;
        }
        self.state = state;
        self.first = self.version + 1;
        self.deleted_at = self.version;
        self.snapshot = None;
    }

    fn save(&mut self, version: u64) {
        let closed = self.state == StreamState::Tombstoned;
        let deleted = self.deleted_at > 0 && version <= self.deleted_at;
        if !closed && !deleted && self.snapshot.is_none_or(|kept| kept <= version) {
            self.snapshot = Some(version);
        }
    }

    /// Whether an expectation holds of a stream that is not tombstoned.
    fn holds(&self, expected: ExpectedVersion) -> bool {
        match expected {
            ExpectedVersion::Any => true,
            ExpectedVersion::StreamExists => self.exists(),
            ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE) => !self.exists(),
            ExpectedVersion::Exact(version) => version.get() == self.version,
        }
    }

    fn info(&self) -> StreamInfo {
        let first = (self.exists() && self.first <= self.version).then(|| self.first.into());
        StreamInfo::new(self.state, self.version.into(), first)
            .with_deleted_at(self.deleted_at.into())
    }

    fn left(&self) -> std::ops::RangeInclusive<u64> {
        let last = if self.exists() { self.version } else { 0 };
        self.first.max(1)..=last
    }
}

fn is_possible(store: &Arc<dyn Store>, call: Call) -> bool {
    let capabilities = store.capabilities();
    match call {
        Call::Tombstone => capabilities.tombstone,
        Call::Save | Call::SaveOlder | Call::DeleteSnapshot => capabilities.snapshots,
        _ => true,
    }
}

/// A stream, and what was done to it.
#[derive(Clone, Debug)]
struct Subject {
    stream: StreamId,
    model: Model,
    told: String,
}

impl Subject {
    fn new(stream: impl AsRef<str>) -> Self {
        Self { stream: id(stream), model: Model::MISSING, told: "after".to_owned() }
    }

    #[track_caller]
    fn compare<T: std::fmt::Debug>(&self, answer: Result<T>, expected: ExpectedVersion) -> bool {
        let Self { stream, model, told } = self;
        if model.state == StreamState::Tombstoned {
            assert_kind(answer, ErrorKind::StreamClosed);
            return false;
        }
        if !model.holds(expected) {
            assert_conflict(answer, stream, expected, model.version);
            return false;
        }
        if let Err(error) = answer {
            panic!("{told} the call must succeed: {error:?}");
        }
        true
    }

    async fn append(&mut self, store: &Arc<dyn Store>, expected: ExpectedVersion, count: u64) {
        let append = Append::new(self.stream.clone(), expected, events(1..=count));
        let answer = store.append(append).await;
        if let Ok(appended) = &answer {
            let found = (appended.first_version.get(), appended.replayed);
            let due = (self.model.version + 1, false);
            assert!(found == due, "{} {count} new events got {appended:?}", self.told);
        }
        if self.compare(answer, expected) {
            self.model.append(count);
        }
    }

    async fn make(&mut self, store: &Arc<dyn Store>, call: Call) -> Result<()> {
        self.told = format!("{} {call:?},", self.told);
        let (stream, version) = (self.stream.clone(), self.model.version);
        let snapshot = |version: u64| Snapshot::new(version, Payload::json(&version).unwrap());
        match call {
            Call::Append => self.append(store, ExpectedVersion::Any, 2).await,
            Call::AppendAtVersion => self.append(store, exact(version), 1).await,
            Call::AppendNew => self.append(store, ExpectedVersion::NoStream, 1).await,
            Call::TruncateToLast | Call::TruncateBeyond | Call::TruncateFirst => {
                let before = match call {
                    Call::TruncateToLast => version,
                    Call::TruncateBeyond => version + 2,
                    _ => 2,
                };
                let answer = store.truncate(&stream, before.into()).await;
                if self.compare(answer, ExpectedVersion::Any) {
                    self.model.truncate(before);
                }
            }
            Call::Delete => {
                let answer = store.delete(&stream, ExpectedVersion::Any).await;
                if self.compare(answer, ExpectedVersion::Any) {
                    self.model.remove(StreamState::Deleted);
                }
            }
            Call::DeleteExisting => {
                let answer = store.delete(&stream, ExpectedVersion::StreamExists).await;
                if self.compare(answer, ExpectedVersion::StreamExists) {
                    self.model.remove(StreamState::Deleted);
                }
            }
            Call::Tombstone => {
                let answer = store.tombstone(&stream, exact(version)).await;
                if self.compare(answer, exact(version)) {
                    self.model.remove(StreamState::Tombstoned);
                }
            }
            Call::Save => {
                store.save_snapshot(&stream, snapshot(version)).await?;
                self.model.save(version);
            }
            Call::SaveOlder => {
                let version = version.saturating_sub(1);
                store.save_snapshot(&stream, snapshot(version)).await?;
                self.model.save(version);
            }
            Call::DeleteSnapshot => {
                store.delete_snapshot(&stream).await?;
                self.model.snapshot = None;
            }
            Call::Import => {
                let (next, time) =
                    (version + 1, DateTime::from_timestamp(1_600_000_000, 0).unwrap());
                let event = event(next).recorded(stream, next.into(), Position::new(next), time);
                let answer = store.import(vec![event]).await;
                if self.compare(answer, ExpectedVersion::Any) {
                    self.model.append(1);
                }
            }
        }
        Ok(())
    }

    /// Checks everything that can be asked of the stream.
    async fn check(&self, store: &Arc<dyn Store>) -> Result<()> {
        let Self { stream, model, told } = self;
        let info = store.stream_info(stream).await?;
        assert!(
            info == model.info(),
            "{told} the stream should be {:?}; it is {info:?}",
            model.info()
        );
        let got = store.load_stream(stream).await?;
        assert_versions(format!("{told} reading the stream"), &got, model.left());
        let got = read(store, stream, ReadStream::default().backwards()).await?;
        assert_versions(format!("{told} reading it backwards"), &got, model.left().rev());
        if store.capabilities().snapshots {
            let kept = store.load_snapshot(stream).await?.map(|kept| kept.version.get());
            let due = model.snapshot;
            assert!(kept == due, "{told} the snapshot kept should be {due:?}; it is {kept:?}");
        }
        // Expectations that do not hold, of calls that change nothing.
        for expected in [
            ExpectedVersion::NoStream,
            ExpectedVersion::StreamExists,
            exact(0),
            exact(model.version),
            exact(model.version + 1),
        ] {
            if model.state == StreamState::Tombstoned || !model.holds(expected) {
                self.compare(store.append_to(stream, expected, [event(0)]).await, expected);
                self.compare(store.delete(stream, expected).await, expected);
            }
        }
        Ok(())
    }

    /// Appends under an expectation that holds, and checks that it does.
    async fn revive(&mut self, store: &Arc<dyn Store>, nth: usize) -> Result<()> {
        let expectations = [
            ExpectedVersion::Any,
            ExpectedVersion::NoStream,
            exact(self.model.version),
            ExpectedVersion::StreamExists,
            exact(0),
        ];
        let holding = expectations.into_iter().cycle().skip(nth);
        let expected = holding.take(5).find(|expected| self.model.holds(*expected)).unwrap();
        self.append(store, expected, 1).await;
        self.told = format!("{} and an append under {expected},", self.told);
        self.check(store).await
    }
}

/// Makes these calls on a stream each, each by another handle. Checks everything in between.
async fn run(cx: Context, programs: Vec<Vec<Call>>) -> CaseResult {
    let handles = cx.open_many(2).await;
    let possible =
        |program: &&Vec<Call>| program.iter().all(|call| is_possible(&handles[0], *call));
    let programs: Vec<_> = programs.iter().filter(possible).cloned().collect();
    let running = programs.into_iter().enumerate().map(|(n, program)| {
        let handles = handles.clone();
        async move {
            let mut subject = Subject::new(format!("order-{n}"));
            for (step, call) in program.iter().enumerate() {
                subject.make(&handles[(n + step) % 2], *call).await?;
            }
            subject.check(&handles[n % 2]).await?;
            subject.revive(&handles[(n + 1) % 2], n).await?;
            Ok::<_, Error>(subject)
        }
    });
    let subjects: Vec<_> = stream::iter(running).buffer_unordered(AT_ONCE).try_collect().await?;
    check_all(&handles[0], &subjects).await
}

/// Checks that all events are those of the streams.
async fn check_all(store: &Arc<dyn Store>, subjects: &[Subject]) -> CaseResult {
    if !store.capabilities().global_order || store.capabilities().removal != Removal::AtOnce {
        return Ok(());
    }
    let mut found: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
    for event in everything(store).await? {
        found.entry(event.stream).or_default().push(event.version.get());
    }
    for Subject { stream, model, told } in subjects {
        let found = found.remove(stream).unwrap_or_default();
        let due: Vec<_> = model.left().collect();
        assert!(found == due, "{told} a read of all should give {due:?} of it; it gave {found:?}");
    }
    assert!(found.is_empty(), "a read of all gave events of streams that are not there: {found:?}");
    Ok(())
}

/// Each call, and each call twice, after these.
fn after(first: &[Call]) -> Vec<Vec<Call>> {
    let one = CALLS.iter().map(|call| [first, &[*call]].concat());
    let two = CALLS.iter().map(|call| [first, &[*call, *call]].concat());
    one.chain(two).chain([first.to_vec()]).collect()
}

async fn each_call_on_a_missing_stream(cx: Context) -> CaseResult {
    run(cx, after(&[])).await
}

async fn each_call_after_an_append(cx: Context) -> CaseResult {
    run(cx, after(&[Call::Append, Call::AppendAtVersion])).await
}

async fn each_call_after_a_truncation(cx: Context) -> CaseResult {
    run(cx, after(&[Call::Append, Call::AppendAtVersion, Call::TruncateFirst])).await
}

async fn each_call_after_a_truncation_of_all(cx: Context) -> CaseResult {
    run(cx, after(&[Call::Append, Call::Save, Call::TruncateBeyond])).await
}

async fn each_call_after_a_deletion(cx: Context) -> CaseResult {
    run(cx, after(&[Call::Append, Call::AppendAtVersion, Call::Delete])).await
}

async fn each_call_after_a_revival(cx: Context) -> CaseResult {
    run(cx, after(&[Call::Append, Call::Delete, Call::AppendNew, Call::Append])).await
}

async fn each_call_after_a_tombstone(cx: Context) -> CaseResult {
    run(cx, after(&[Call::Append, Call::Tombstone])).await
}

async fn each_call_after_an_import(cx: Context) -> CaseResult {
    let programs =
        [after(&[Call::Import, Call::Import]), after(&[Call::Append, Call::Delete, Call::Import])];
    run(cx, programs.concat()).await
}

async fn each_call_after_a_snapshot(cx: Context) -> CaseResult {
    let programs = [
        after(&[Call::Append, Call::Save]),
        after(&[Call::Append, Call::Save, Call::Delete, Call::Append, Call::Save]),
    ];
    run(cx, programs.concat()).await
}

/// Three calls that change the stream, in each order, after an append.
async fn three_calls_in_any_order(cx: Context) -> CaseResult {
    let calls =
        [Call::Append, Call::TruncateToLast, Call::TruncateBeyond, Call::Delete, Call::SaveOlder];
    let mut programs = Vec::new();
    for one in calls {
        for two in calls {
            programs.extend(calls.map(|three| vec![Call::Append, one, two, three]));
        }
    }
    run(cx, programs).await
}

/// How many streams a case works on at once: a slow store waits for most of each call.
const AT_ONCE: usize = 8;

/// Between any two calls no handle is open.
async fn each_two_calls_with_a_reopen_between_them(cx: Context) -> CaseResult {
    let mut subjects = Vec::new();
    {
        let store = cx.open().await;
        let possible: Vec<_> =
            CALLS.into_iter().filter(|call| is_possible(&store, *call)).collect();
        for one in &possible {
            for two in &possible {
                let subject = Subject::new(format!("order-{one:?}-{two:?}"));
                subjects.push(([Call::Append, *one, *two], subject));
            }
        }
    }
    for step in 0..3 {
        let store = cx.open().await;
        let making = subjects.into_iter().map(|(calls, mut subject): ([Call; 3], Subject)| {
            let store = store.clone();
            async move {
                subject.make(&store, calls[step]).await?;
                Ok::<_, Error>((calls, subject))
            }
        });
        subjects = stream::iter(making).buffered(AT_ONCE).try_collect().await?;
    }
    let store = cx.open().await;
    let checking = subjects.into_iter().enumerate().map(|(n, (_, mut subject))| {
        let store = store.clone();
        async move {
            subject.check(&store).await?;
            if n % 3 == 0 {
                subject.revive(&store, n).await?;
            }
            Ok::<_, Error>(subject)
        }
    });
    let subjects: Vec<_> = stream::iter(checking).buffered(AT_ONCE).try_collect().await?;
    check_all(&store, &subjects).await
}
