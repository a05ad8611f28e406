//! Removals beside appends, beside reads, and beside each other.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use annals_core::{
    Append, Error, ErrorKind, EventStoreExt, ExpectedVersion, Filter, ReadAll, ReadStream,
    RecordedEvent, Removal, Result, Source, Store, StreamId, StreamState, Subscribe, Version,
};
use futures::{TryStreamExt, future::try_join_all, poll};
use tokio::{
    sync::watch,
    task::{spawn, yield_now},
};
use uuid::Uuid;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_conflict, assert_holds, assert_kind, assert_versions, catch_up, done, event, events,
        everything, exact, extend, fill, id, show, size, take, take_until,
    },
};

cases! { "races":
    truncations_beside_appends_lose_nothing [3, 4, 21] Truncate;
    deletions_beside_appends_lose_no_version [3, 4, 21] Delete;
    removals_disturb_no_writer_that_expects_a_version [2, 21] Truncate Delete;
    removals_beside_multi_stream_appends_lose_no_version [3, 9, 21] MultiStreamAppend Truncate Delete;
    a_tombstone_ends_the_appends_beside_it [4, 21] Tombstone;
    one_of_many_deletions_succeeds [2, 21] Delete;
    one_of_many_tombstones_succeeds [2, 21] Tombstone;
    truncations_beside_each_other_leave_the_greatest [21] Truncate;
    removals_beside_each_other_leave_a_deleted_stream [21] Truncate Delete;
    an_open_read_goes_on_beside_a_truncation [11, 14, 21] Truncate;
    an_open_read_of_all_goes_on_beside_removals [12, 14, 21] Truncate Delete GlobalOrder;
    a_late_subscriber_goes_on_beside_a_truncation [15, 18, 21] Truncate GlobalOrder;
    open_reads_block_no_removal [14, 21] Truncate Delete;
    a_dropped_removal_is_whole_or_not_at_all [8, 21] Truncate Delete;
}

const WRITERS: usize = 4;
const ROUNDS: u64 = 30;

/// Where a writer says that it has appended.
type Appends = watch::Sender<u64>;

/// Runs writers, and beside them two tasks that remove after each append until the writers are done.
async fn beside<W, R, T>(
    handles: &[Arc<dyn Store>],
    write: impl Fn(Arc<dyn Store>, u64, Appends) -> W,
    remove: impl Fn(Arc<dyn Store>, u64) -> R + Clone + Send + 'static,
) -> Result<Vec<T>>
where
    W: Future<Output = Result<T>> + Send + 'static,
    R: Future<Output = Result<()>> + Send + 'static,
    T: Send + 'static,
{
    // The number of appends that have ended. A removal begins after each, or at the last.
    let appended = watch::Sender::new(0_u64);
    let removers: Vec<_> = (0..2)
        .map(|n| {
            let (store, remove) = (handles[n + 1].clone(), remove.clone());
            let mut appends = appended.subscribe();
            spawn(async move {
                let mut round = 0;
                // It ends when the writers have dropped their ends.
                while appends.changed().await.is_ok() {
                    remove(store.clone(), round).await?;
                    round += 1;
                }
                done()
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| spawn(write(handles[n % handles.len()].clone(), n as u64, appended.clone())))
        .collect();
    drop(appended);
    let writers = try_join_all(writers);
    let written: Result<Vec<T>> = writers.await.unwrap().into_iter().collect();
    for remover in removers {
        remover.await.unwrap()?;
    }
    written
}

/// Appends with `Any` in some rounds. Returns the version that each event got by its answer.
async fn append_rounds(
    store: Arc<dyn Store>,
    stream: StreamId,
    writer: u64,
    appends: Appends,
) -> Result<Vec<(u64, Uuid)>> {
    let mut written = Vec::new();
    for round in 0..ROUNDS {
        let batch = events((0..=(writer + round) % 3).map(|_| writer * 1_000 + round));
        let sent: Vec<_> = batch.iter().map(annals_core::NewEvent::id).collect();
        let appended = store.append_to(&stream, ExpectedVersion::Any, batch).await?;
        written.extend((appended.first_version.get()..).zip(sent));
        next(&appends).await;
    }
    Ok(written)
}

/// Says that an append has ended, and lets the others run: a store in memory never waits.
async fn next(appends: &Appends) {
    appends.send_modify(|count| *count += 1);
    yield_now().await;
}

/// Checks that each version was answered once, that the stream has counted each, and that what is
/// left of it holds the events that were answered.
async fn assert_counted(
    store: &Arc<dyn Store>,
    stream: &StreamId,
    written: impl IntoIterator<Item = (u64, Uuid)>,
) -> Result<()> {
    let (mut places, mut count) = (BTreeMap::new(), 0);
    for (version, event) in written {
        count += 1;
        if let Some(other) = places.insert(version, event) {
            panic!("version {version} of {stream} was answered to two events: {other} and {event}");
        }
    }
    let info = store.stream_info(stream).await?;
    assert!(
        info.version.get() == count,
        "{count} events were answered as appended to {stream}, but its version is {}",
        info.version
    );
    let left = store.load_stream(stream).await?;
    let first = info.first_version.map_or(count + 1, Version::get);
    assert_versions(format_args!("the rest of {stream}"), &left, first..=count);
    for event in &left {
        let due = places.get(&event.version.get());
        assert!(
            due == Some(&event.id),
            "version {} of {stream} was answered to the event {due:?}, but holds {}",
            event.version,
            event.id
        );
    }
    Ok(())
}

async fn truncations_beside_appends_lose_nothing(cx: Context) -> CaseResult {
    let (handles, stream) = (cx.open_many(4).await, id("order-1"));
    let write = |store, n, appends| append_rounds(store, id("order-1"), n, appends);
    let greatest = Arc::new(AtomicU64::new(1));
    let befores = greatest.clone();
    let remove = move |store: Arc<dyn Store>, _| {
        let befores = befores.clone();
        async move {
            let before = store.stream_info(&id("order-1")).await?.version.minus(3);
            befores.fetch_max(before.get(), Ordering::SeqCst);
            store.truncate(&id("order-1"), before).await
        }
    };
    let written = beside(&handles, write, remove).await?.concat();
    assert_counted(&handles[0], &stream, written).await?;
    let first = handles[1].stream_info(&stream).await?.first_version.map_or(0, Version::get);
    let greatest = greatest.load(Ordering::SeqCst);
    assert!(
        first == greatest,
        "the greatest truncation was that before {greatest}, and the first version left is {first}"
    );
    Ok(())
}

async fn deletions_beside_appends_lose_no_version(cx: Context) -> CaseResult {
    let (handles, stream) = (cx.open_many(4).await, id("order-1"));
    let write = |store, n, appends| append_rounds(store, id("order-1"), n, appends);
    let remove = |store: Arc<dyn Store>, round| async move {
        if round % 4 == 3 {
            store.delete(&id("order-1"), ExpectedVersion::Any).await?;
        }
        Ok(())
    };
    let written = beside(&handles, write, remove).await?.concat();
    assert_counted(&handles[0], &stream, written).await?;
    Ok(())
}

/// A removal changes no version, and so it takes no expectation from a writer.
async fn removals_disturb_no_writer_that_expects_a_version(cx: Context) -> CaseResult {
    let handles = cx.open_many(4).await;
    let write = |store: Arc<dyn Store>, n, appends: Appends| async move {
        let stream = id(format!("order-{n}"));
        for base in 0..ROUNDS {
            let appended = extend(&store, &stream, base, 1).await;
            assert!(appended.is_ok(), "only removals ran beside the append: {appended:?}");
            next(&appends).await;
        }
        Ok(n)
    };
    let remove = |store: Arc<dyn Store>, round: u64| async move {
        let stream = id(format!("order-{}", round % WRITERS as u64));
        match round % 3 {
            0 => store.delete(&stream, ExpectedVersion::Any).await,
            _ => store.truncate(&stream, Version::new(round)).await,
        }
    };
    for n in beside(&handles, write, remove).await? {
        let version = handles[1].stream_info(&id(format!("order-{n}"))).await?.version;
        assert!(
            version.get() == ROUNDS,
            "order-{n} took {ROUNDS} events, its version is {version}"
        );
    }
    Ok(())
}

async fn removals_beside_multi_stream_appends_lose_no_version(cx: Context) -> CaseResult {
    let handles = cx.open_many(4).await;
    let write = |store: Arc<dyn Store>, n, progress: Appends| async move {
        let mut written = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            let mut order = [(0, "a-1", 2), (1, "b-1", 1)];
            if (n + round) % 2 == 0 {
                order.reverse();
            }
            let append = |(_, stream, count): (usize, &str, u64)| {
                Append::new(id(stream), ExpectedVersion::Any, events(1..=count))
            };
            let appends = order.map(append);
            let answers = store.append_multi(appends.to_vec()).await?;
            for (((to, ..), append), answer) in order.iter().zip(&appends).zip(answers) {
                let ids = append.events.iter().map(annals_core::NewEvent::id);
                written[*to].extend((answer.first_version.get()..).zip(ids));
            }
            next(&progress).await;
        }
        Ok(written)
    };
    let remove = |store: Arc<dyn Store>, round| async move {
        let version = store.stream_info(&id("a-1")).await?.version;
        store.truncate(&id("a-1"), version).await?;
        if round % 4 == 1 {
            store.delete(&id("b-1"), ExpectedVersion::Any).await?;
        }
        Ok(())
    };
    let mut all = [Vec::new(), Vec::new()];
    for written in beside(&handles, write, remove).await? {
        all.iter_mut().zip(written).for_each(|(all, written)| all.extend(written));
    }
    for (stream, written) in ["a-1", "b-1"].into_iter().zip(all) {
        assert_counted(&handles[0], &id(stream), written).await?;
    }
    Ok(())
}

async fn a_tombstone_ends_the_appends_beside_it(cx: Context) -> CaseResult {
    let (handles, stream) = (cx.open_many(3).await, id("order-1"));
    let answered = watch::Sender::new(0_u64);
    let closed = Arc::new(AtomicBool::new(false));
    let lost = Arc::new(AtomicU64::new(0));
    let writers = (0..WRITERS).map(|n| {
        let (store, answered, closed) = (handles[n % 2].clone(), answered.clone(), closed.clone());
        let unknown = lost.clone();
        spawn(async move {
            loop {
                let was_closed = closed.load(Ordering::SeqCst);
                match store.append_to("order-1", ExpectedVersion::Any, [event(0)]).await {
                    Ok(appended) if was_closed => {
                        panic!("after the tombstone had returned, an append got {appended:?}")
                    }
                    Ok(_) => next(&answered).await,
                    // A lost connection: the append may have been carried out.
                    Err(error) if error.is_retryable() => {
                        unknown.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(error) => {
                        assert_kind(Err::<(), _>(error), ErrorKind::StreamClosed);
                        return done();
                    }
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut appends = answered.subscribe();
    let closing = async {
        // The sender is still here, so that this waits for the count alone.
        let _ = appends.wait_for(|count| *count >= 20).await;
        handles[2].tombstone(&stream, ExpectedVersion::Any).await?;
        closed.store(true, Ordering::SeqCst);
        done()
    };
    cx.within("20 appends and a tombstone", closing).await?;
    for writer in writers {
        cx.within("a writer to be told of the tombstone", writer).await.unwrap()?;
    }
    let (info, answered) = (handles[1].stream_info(&stream).await?, *answered.borrow());
    let due = answered..=answered + lost.load(Ordering::SeqCst);
    assert!(
        info.state == StreamState::Tombstoned && due.contains(&info.version.get()),
        "{answered} events were answered as appended before the tombstone; the stream is {info:?}"
    );
    assert_holds("after the tombstone", &handles[0], &stream, []).await?;
    Ok(())
}

async fn one_of_many_deletions_succeeds(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    let exists = ExpectedVersion::StreamExists;
    for round in 0..8 {
        let stream = id(format!("order-{round}"));
        extend(&handles[0], &stream, 0, 3).await?;
        let deleting = (0..9).map(|n| {
            let (store, stream) = (handles[n % 3].clone(), stream.clone());
            spawn(async move { store.delete(&stream, exists).await })
        });
        let answers = try_join_all(deleting).await.unwrap();
        let done = answers.iter().filter(|answer| answer.is_ok()).count();
        // A server that removes events later only marks the stream, and may mark it twice.
        let marks = handles[0].capabilities().removal != Removal::AtOnce;
        assert!(
            done == 1 || (marks && done > 1),
            "{done} of 9 deletions of one live stream succeeded: {answers:?}"
        );
        for refused in answers.into_iter().filter(Result::is_err) {
            assert_conflict(refused, &stream, exists, 3);
        }
    }
    Ok(())
}

async fn one_of_many_tombstones_succeeds(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    for round in 0..8 {
        let stream = id(format!("order-{round}"));
        extend(&handles[0], &stream, 0, 3).await?;
        let closing = (0..9).map(|n| {
            let (store, stream) = (handles[n % 3].clone(), stream.clone());
            spawn(async move { store.tombstone(&stream, ExpectedVersion::Any).await })
        });
        let answers = try_join_all(closing).await.unwrap();
        let done = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(done == 1, "{done} of 9 tombstones of one stream succeeded: {answers:?}");
        for refused in answers.into_iter().filter(Result::is_err) {
            assert_kind(refused, ErrorKind::StreamClosed);
        }
    }
    Ok(())
}

async fn truncations_beside_each_other_leave_the_greatest(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    let mut befores: Vec<u64> = (2..=13).collect();
    for round in 0..8 {
        let stream = id(format!("order-{round}"));
        extend(&handles[0], &stream, 0, 15).await?;
        cx.rng(round).shuffle(&mut befores);
        let truncating = befores.iter().enumerate().map(|(n, before)| {
            let (store, stream, before) = (handles[n % 3].clone(), stream.clone(), *before);
            spawn(async move { store.truncate(&stream, before.into()).await })
        });
        for truncated in try_join_all(truncating).await.unwrap() {
            truncated?;
        }
        let what = format!("after truncations before {befores:?}");
        assert_holds(what, &handles[1], &stream, 13..=15).await?;
    }
    Ok(())
}

async fn removals_beside_each_other_leave_a_deleted_stream(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    for round in 0..8 {
        let stream = id(format!("order-{round}"));
        extend(&handles[0], &stream, 0, 10).await?;
        let removing = (0..6).map(|n| {
            let (store, stream) = (handles[n % 3].clone(), stream.clone());
            spawn(async move {
                match n % 3 {
                    0 => store.truncate(&stream, 5.into()).await,
                    1 => store.delete(&stream, ExpectedVersion::Any).await,
                    _ => store.truncate(&stream, u64::MAX.into()).await,
                }
            })
        });
        for removed in try_join_all(removing).await.unwrap() {
            removed?;
        }
        let info = handles[1].stream_info(&stream).await?;
        let found = (info.state, info.version.get(), info.deleted_at.get());
        assert!(
            found == (StreamState::Deleted, 10, 10),
            "after 10 events, and truncations and deletions at once, the stream is {info:?}"
        );
        let appended = handles[2].append_to(&stream, exact(10), [event(11)]).await?;
        assert!(appended.first_version.get() == 11, "after version 10 came {appended:?}");
        assert_holds("after the next append", &handles[0], &stream, [11]).await?;
    }
    Ok(())
}

/// More events than any store reads in one page.
const LONG: u64 = 1_500;

/// Takes the first ten events of a read, removes events, and checks that all the others come.
async fn goes_on(
    mut open: annals_core::EventStream,
    removing: impl Future<Output = Result<()>>,
    due: impl Fn(&RecordedEvent) -> bool,
    all: &[RecordedEvent],
) -> Result<()> {
    let mut got = Vec::new();
    while got.len() < 10 {
        got.extend(open.try_next().await?);
    }
    removing.await?;
    got.extend(open.try_collect::<Vec<_>>().await?);
    let missing: Vec<_> = all
        .iter()
        .filter(|event| due(event) && !got.iter().any(|other| other.id == event.id))
        .cloned()
        .collect();
    assert!(
        missing.is_empty(),
        "a read was open when other events were removed; it gave {}, and left out {}",
        show(&got),
        show(&missing)
    );
    Ok(())
}

async fn an_open_read_goes_on_beside_a_truncation(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for (name, options) in
        [("a-1", ReadStream::default()), ("a-2", ReadStream::default().backwards())]
    {
        let stream = id(name);
        fill(&store, &stream, 1..=LONG).await?;
        let all = store.load_stream(&stream).await?;
        let due = |event: &RecordedEvent| event.version.get() > 900;
        let open = store.read_stream(&stream, options);
        goes_on(open, other.truncate(&stream, 901.into()), due, &all).await?;
    }
    Ok(())
}

async fn an_open_read_of_all_goes_on_beside_removals(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let of_category = Filter::default().with_category("a".try_into()?);
    for (n, options) in [
        ReadAll::default(),
        ReadAll::default().backwards(),
        ReadAll::default().with_filter(of_category),
    ]
    .into_iter()
    .enumerate()
    {
        let [kept, cut, gone] = ["a", "b", "c"].map(|name| id(format!("{name}-{n}")));
        for stream in [&kept, &cut, &gone, &kept] {
            let base = store.stream_info(stream).await?.version.get();
            fill(&store, stream, base + 1..=base + LONG / 3).await?;
        }
        let all = everything(&store).await?;
        let removing = async {
            other.truncate(&cut, 300.into()).await?;
            other.delete(&gone, ExpectedVersion::Any).await
        };
        let due = |event: &RecordedEvent| event.stream == kept;
        goes_on(store.read_all(options), removing, due, &all).await?;
    }
    Ok(())
}

async fn a_late_subscriber_goes_on_beside_a_truncation(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let sources = |stream: &StreamId| {
        let category = Source::category(stream.category().unwrap());
        [stream.clone().into(), category, Source::default()]
    };
    for n in 0..3 {
        let stream = id(format!("order{n}-1"));
        fill(&store, &stream, 1..=LONG).await?;
        let source = sources(&stream)[n].clone();
        let mut late = store.subscribe(Subscribe::to(source.clone())).await?;
        let first = take(&cx, &mut late, 10).await;
        other.truncate(&stream, 901.into()).await?;
        let last = event(0);
        other.append_to(&stream, exact(LONG), [last.clone()]).await?;
        let rest = take_until(&cx, &mut late, last.id()).await;
        let kept: Vec<_> = rest
            .iter()
            .filter(|event| event.stream == stream && event.version.get() > 900)
            .cloned()
            .collect();
        let what = format!("a subscription to {source:?} that had {}", show(&first));
        assert_versions(what, &kept, 901..=LONG + 1);
    }
    Ok(())
}

async fn open_reads_block_no_removal(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let streams = ["a-1", "a-2", "a-3"].map(id);
    for stream in &streams {
        fill(&store, stream, 1..=LONG / 3).await?;
    }
    let (mut reads, mut lives) = (Vec::new(), Vec::new());
    for stream in streams.iter().cycle().take(20) {
        let mut open = store.read_stream(stream, ReadStream::default());
        open.try_next().await?;
        reads.push(open);
        let mut live = store.subscribe(Subscribe::to(stream.clone())).await?;
        take(&cx, &mut live, 1).await;
        lives.push(live);
    }
    let removing = async {
        other.truncate(&streams[0], 400.into()).await?;
        store.delete(&streams[1], ExpectedVersion::Any).await?;
        if store.capabilities().tombstone {
            other.tombstone(&streams[2], ExpectedVersion::Any).await?;
        }
        done()
    };
    cx.within("removals beside 20 open reads and 20 subscriptions", removing).await?;
    assert_holds("after its truncation", &store, &streams[0], 400..=LONG / 3).await?;
    assert_holds("after its deletion", &store, &streams[1], []).await?;
    drop((reads, lives));
    Ok(())
}

/// Polls a removal a number of times, and drops it at whatever await point it has reached. It may
/// still be carried out, at any later moment, but not in part.
async fn a_dropped_removal_is_whole_or_not_at_all(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for (n, polls) in (0..2).flat_map(|n| (0..10).map(move |polls| (n, polls))) {
        let stream = id(format!("order-{n}-{polls}"));
        fill(&store, &stream, 1..=20).await?;
        {
            let mut removal = Box::pin(async {
                match n {
                    0 => store.truncate(&stream, 12.into()).await,
                    _ => store.delete(&stream, exact(20)).await,
                }
            });
            for _ in 0..polls {
                if poll!(&mut removal).is_ready() {
                    break;
                }
                yield_now().await;
            }
        }
        for base in 20..23 {
            extend(&other, &stream, base, 1).await?;
        }
        let left = other.load_stream(&stream).await?;
        let first = left.first().map_or(0, |event| event.version.get());
        let whole: &[u64] = if n == 0 { &[1, 12] } else { &[1, 21] };
        assert!(
            whole.contains(&first) && left.len() as u64 == 24 - first,
            "a removal of the versions up to {} was dropped; then the stream gave {}",
            whole[1] - 1,
            show(&left)
        );
    }
    if store.capabilities().global_order && store.capabilities().removal == Removal::AtOnce {
        // A removal that goes on without its caller may still be under way.
        let agree = async {
            loop {
                let mut due = 0;
                for (n, polls) in (0..2).flat_map(|n| (0..10).map(move |polls| (n, polls))) {
                    due += store.load_stream(&id(format!("order-{n}-{polls}"))).await?.len();
                }
                let mut live = store.subscribe(Subscribe::default()).await?;
                let all = catch_up(&cx, &mut live).await.0;
                if all.len() == due {
                    return Ok::<_, Error>(all);
                }
                yield_now().await;
            }
        };
        let all = cx.within("all events to be those that the streams hold", agree).await?;
        assert!(all.len() >= size(2 * 10 * 3), "all events are {}", show(&all));
    }
    Ok(())
}
