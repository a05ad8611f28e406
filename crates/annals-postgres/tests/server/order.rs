//! Appends that commit out of order, are rolled back, or stay open: readers skip no event, and wait
//! for no transaction that does not append to the store.

use std::collections::{BTreeSet, HashSet};

use annals_core::{
    Append, Category, Error, ErrorKind, EventStore, EventStoreExt, EventType, ExpectedVersion,
    Filter, NewEvent, Position, ReadAll, RecordedEvent, Start, StreamPrefix, StreamState,
    Subscribe, TransferStore, TryStreamExt, Version,
};
use annals_postgres::{
    PostgresStore,
    sqlx::{AssertSqlSafe, PgConnection, Row, query, query_scalar, raw_sql},
};
use annals_test_servers::{BoxError, until};
use fastrand::Rng;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    beside::{Listener, Raw},
    common::{PATIENCE, Place, Tested, event, everything, id, seed, tests},
};

tests! { "order":
    Any nothing_is_skipped_beside_hesitant_writers;
    Any others_hold_nobody_up;
    Any an_open_append_holds_up_only_what_is_behind_it;
    Any reads_wait_for_the_appends_under_way_and_for_no_later_ones;
    Any a_read_of_all_ends_within_no_append;
    Any a_killed_writer_holds_nobody_up;
    Any positions_go_on_after_the_newest_events_were_removed;
    Any a_sequence_behind_its_events_is_refused;
    Any readers_end_if_positions_they_have_passed_are_lost;
    Any a_filter_without_an_index_passes_over_a_gap;
}

const HESITANT: u64 = 8;
const TRANSACTIONS: u64 = 80;
const ORDINARY: u64 = 4;
const APPENDS: u64 = 200;
/// The longest time between a position and its commit, in milliseconds.
const HESITATION: f64 = 6.0;
const TYPES: [&str; 2] = ["Even", "Odd"];

async fn nothing_is_skipped_beside_hesitant_writers() -> Tested {
    let seed = seed("order::nothing_is_skipped_beside_hesitant_writers");
    let place = Place::shared().await?;
    let stores = [place.open().await?, place.open().await?];
    // The stream of the last event, which every filter lets through.
    let last = id("a-last");
    let type_filter = Filter::default().with_event_types([EventType::new("Even")?]);
    let category_filter = Filter::default().with_category(Category::new("a")?);
    let filters = [Filter::default(), category_filter.clone(), type_filter, category_filter];

    let mut tailing = JoinSet::new();
    for (number, filter) in filters.into_iter().enumerate() {
        let mut subscription = stores[number % 2].subscribe(Subscribe::to(filter.clone())).await?;
        let last = last.clone();
        tailing.spawn(async move {
            let mut seen = Vec::new();
            while seen.last().is_none_or(|event: &RecordedEvent| event.stream != last) {
                seen.push(subscription.next_event().await?);
            }
            Ok::<_, BoxError>((filter, seen))
        });
    }
    let (store, end) = (stores[1].clone(), last.clone());
    tailing.spawn(async move {
        let mut seen: Vec<RecordedEvent> = Vec::new();
        while seen.last().is_none_or(|event| event.stream != end) {
            let after = seen.last().map(|event| event.position).unwrap_or_default();
            let new = store.read_all(ReadAll::default().after(after));
            seen.extend(new.try_collect::<Vec<_>>().await?);
        }
        Ok((Filter::default(), seen))
    });
    let mut plain = JoinSet::new();
    plain.spawn(plain_reader(place.connect().await?, place.schema.clone()));

    let mut writers = JoinSet::new();
    for number in 0..HESITANT {
        let writer = Raw::new(&place).await?;
        writers.spawn(hesitant(writer, number, Rng::with_seed(seed ^ number)));
    }
    for number in 0..ORDINARY {
        let store = stores[usize::try_from(number)? % 2].clone();
        writers.spawn(ordinary(store, number, Rng::with_seed(seed ^ (HESITANT + number))));
    }
    let mut acknowledged = 1;
    while let Some(written) = writers.join_next().await {
        acknowledged += written??;
    }
    let end = NewEvent::json("Even", &0)?;
    stores[0].append(Append::new(last, ExpectedVersion::NoStream, [end])).await?;

    let committed = everything(&stores[0]).await?;
    assert_eq!(committed.len(), acknowledged);
    while let Some(seen) = tailing.join_next().await {
        let (filter, seen) = seen??;
        let wanted = |event: &&RecordedEvent| filter.matches(&event.stream, &event.event_type);
        let missed = committed.iter().filter(wanted).filter(|event| !seen.contains(event)).count();
        assert_eq!(missed, 0, "skipped with {filter:?}");
        assert!(committed.iter().filter(wanted).eq(&seen), "twice or out of order: {filter:?}");
    }
    let plain = plain.join_next().await.ok_or("no plain reader")???;
    // Otherwise no append committed out of order, and the test has shown nothing.
    assert!(
        plain < committed.len(),
        "a reader that remembers the greatest position missed nothing"
    );
    place.remove().await
}

/// Takes positions, and some time later commits or rolls back. Returns how many events it has
/// written.
async fn hesitant(mut writer: Raw, number: u64, mut rng: Rng) -> Result<usize, BoxError> {
    let mut written = 0;
    for transaction in 0..TRANSACTIONS {
        let event_type = TYPES[rng.usize(..TYPES.len())];
        let category = if rng.bool() { "a" } else { "b" };
        // Writes to a stream of its own, to one that others write to as well, or to both.
        let own = format!("{category}-{number}-{}", rng.u64(..3));
        let common = format!("{category}-common-{}", rng.u64(..5));
        writer.run("BEGIN").await?;
        let count = match transaction % 3 {
            0 => writer.append_one(&own, event_type).await.map(|_| 1)?,
            1 => writer.append_one(&common, event_type).await.map(|_| 1)?,
            _ => writer.append(&[&own, &common], event_type).await?.len(),
        };
        writer.hesitate(rng.f64() * HESITATION).await?;
        if rng.u64(..10) == 0 {
            writer.run("ROLLBACK").await?;
        } else {
            writer.run("COMMIT").await?;
            written += count;
        }
    }
    Ok(written)
}

async fn ordinary(store: PostgresStore, number: u64, mut rng: Rng) -> Result<usize, BoxError> {
    let mut written = 0;
    for _ in 0..APPENDS {
        let category = if rng.bool() { "a" } else { "b" };
        let stream = id(&format!("{category}-ordinary-{number}-{}", rng.u64(..20)));
        let event_type = TYPES[rng.usize(..TYPES.len())];
        let events = (0..rng.u64(1..3)).map(|n| NewEvent::json(event_type, &n));
        let events: Vec<_> = events.collect::<Result<_, _>>()?;
        written += events.len();
        store.append(Append::new(stream, ExpectedVersion::Any, events)).await?;
    }
    Ok(written)
}

/// A reader that remembers the greatest position it saw. Returns how many events it saw.
async fn plain_reader(mut connection: PgConnection, schema: String) -> Result<usize, BoxError> {
    let sql = format!(
        "SELECT e.position, s.name FROM {schema}.events AS e \
         JOIN {schema}.streams AS s ON s.id = e.stream WHERE e.position > $1 ORDER BY e.position"
    );
    let (mut seen, mut greatest) = (0, 0_i64);
    loop {
        let read = query(AssertSqlSafe(sql.clone())).bind(greatest);
        for row in read.fetch_all(&mut connection).await? {
            seen += 1;
            greatest = row.try_get(0)?;
            if row.try_get::<&str, _>(1)? == "a-last" {
                return Ok(seen);
            }
        }
    }
}

/// A store whose sessions have an application name of their own.
pub(crate) async fn named_store(place: &Place) -> Result<PostgresStore, BoxError> {
    let mut config = place.config();
    config.connect = config.connect.application_name(&place.schema);
    Ok(PostgresStore::open(config).await?)
}

/// Waits until such a store has called `horizon` several times. By then its readers have had an
/// answer, and have acted on it.
pub(crate) async fn asked(place: &Place) -> Tested {
    let mut connection = place.connect().await?;
    for _ in 0..3 {
        let now = query_scalar("SELECT clock_timestamp()::text");
        let now: String = now.fetch_one(&mut connection).await?;
        let asked = format!(
            "SELECT FROM pg_stat_activity WHERE application_name = '{{schema}}' \
             AND query LIKE '%.horizon(%' AND query_start > '{now}'"
        );
        until("`horizon` is called", PATIENCE, || async {
            place.execute(&asked).await.is_ok_and(|sessions| sessions > 0)
        })
        .await?;
    }
    Ok(())
}

async fn append(store: &PostgresStore, stream: &str) -> Result<u64, BoxError> {
    let append = Append::new(id(stream), ExpectedVersion::Any, [event(1)]);
    Ok(timeout(PATIENCE, store.append(append)).await??.position.get())
}

async fn positions(store: &PostgresStore) -> Result<Vec<u64>, BoxError> {
    let events = store.read_all(ReadAll::default()).map_ok(|event| event.position.get());
    Ok(timeout(PATIENCE, events.try_collect()).await??)
}

/// What a backward read gives, turned round.
async fn positions_backwards(store: &PostgresStore) -> Result<Vec<u64>, BoxError> {
    let events = store.read_all(ReadAll::default().backwards());
    let positions = events.map_ok(|event| event.position.get());
    let mut positions: Vec<_> = timeout(PATIENCE, positions.try_collect()).await??;
    positions.reverse();
    Ok(positions)
}

/// Leaves a gap, so that a reader that goes beyond it has to look for appends under way.
async fn leave_gap(writer: &mut Raw) -> Tested {
    writer.run("BEGIN").await?;
    writer.append_one("gap-1", "Counted").await?;
    writer.run("ROLLBACK").await
}

async fn others_hold_nobody_up() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut writer = Raw::new(&place).await?;
    let lock_key = writer.lock_key;
    append(&store, "a-1").await?;

    // A second store in the same database, with an append under way.
    let other = Place::on(place.server.clone());
    let _other_store = other.open().await?;
    let mut other_append = Raw::new(&other).await?;
    other_append.run("BEGIN").await?;
    other_append.append_one("a-1", "Counted").await?;
    // A transaction that has written to another table, and holds another advisory lock.
    let mut idle = Raw::new(&place).await?;
    idle.run("CREATE TABLE public.{schema}_unrelated (number integer)").await?;
    idle.run(&format!(
        "BEGIN; INSERT INTO public.{{schema}}_unrelated VALUES (1); \
         SELECT pg_advisory_xact_lock({})",
        i64::from(lock_key) << 32
    ))
    .await?;
    // A transaction with an old snapshot.
    let mut old = Raw::new(&place).await?;
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM {schema}.events").await?;
    // A transaction in another database with an advisory lock of the same key.
    let elsewhere = Place::in_database("").await?;
    let mut far = elsewhere.connect().await?;
    let far_sql = format!(
        "CREATE TABLE unrelated (number integer); BEGIN; INSERT INTO unrelated VALUES (1); \
         SELECT pg_advisory_xact_lock({lock_key}, 1)"
    );
    raw_sql(AssertSqlSafe(far_sql)).execute(&mut far).await?;

    let mut live = Listener::on(&store, Subscribe::default()).await?;
    let mut all = vec![live.next().await?];
    for _ in 0..5 {
        leave_gap(&mut writer).await?;
        all.push(append(&store, "a-1").await?);
        assert_eq!(live.next().await?, all[all.len() - 1]);
        assert_eq!(positions(&store).await?, all);
    }
    drop((other_append, idle, old, far));
    place.execute("DROP TABLE public.{schema}_unrelated").await?;
    elsewhere.remove().await?;
    other.remove().await?;
    place.remove().await
}

async fn an_open_append_holds_up_only_what_is_behind_it() -> Tested {
    for end in ["COMMIT", "ROLLBACK"] {
        let place = Place::shared().await?;
        let store = named_store(&place).await?;
        let mut live = Listener::on(&store, Subscribe::default()).await?;
        let mut writer = Raw::new(&place).await?;
        let below = append(&store, "a-1").await?;
        writer.run("BEGIN").await?;
        let open = writer.append_one("a-2", "Counted").await?;
        let behind = append(&store, "a-3").await?;
        assert!(below < open && open < behind);

        assert_eq!(live.next().await?, below);
        let mut late = Listener::on(&store, Subscribe::default()).await?;
        assert_eq!(late.next().await?, below);
        asked(&place).await?;
        assert_eq!((live.waiting(), late.waiting()), (0, 0), "did not wait for an open append");

        writer.run(end).await?;
        for listener in [&mut live, &mut late] {
            if end == "COMMIT" {
                assert_eq!(listener.next().await?, open);
            }
            assert_eq!(listener.next().await?, behind);
        }
        place.remove().await?;
    }
    Ok(())
}

type Reading = JoinHandle<Result<Vec<u64>, BoxError>>;

/// Begins to read all, forwards and backwards.
fn read_both_ways(store: &PostgresStore) -> (Reading, Reading) {
    let (forwards, backwards) = (store.clone(), store.clone());
    (
        tokio::spawn(async move { positions(&forwards).await }),
        tokio::spawn(async move { positions_backwards(&backwards).await }),
    )
}

async fn reads_wait_for_the_appends_under_way_and_for_no_later_ones() -> Tested {
    for end in ["COMMIT", "ROLLBACK"] {
        let place = Place::shared().await?;
        let store = named_store(&place).await?;
        let (mut writer, mut later) = (Raw::new(&place).await?, Raw::new(&place).await?);
        writer.run("BEGIN").await?;
        let open = writer.append_one("a-1", "Counted").await?;
        let behind = append(&store, "a-2").await?;
        let (reading, backwards) = read_both_ways(&store);
        let from_end = tokio::spawn({
            let store = store.clone();
            async move { store.subscribe(Subscribe::default().with_start(Start::End)).await }
        });
        asked(&place).await?;
        let is_finished =
            || reading.is_finished() || backwards.is_finished() || from_end.is_finished();
        assert!(!is_finished(), "did not wait for an open append");

        later.run("BEGIN").await?;
        let later_open = later.append_one("a-3", "Counted").await?;
        let last = append(&store, "a-4").await?;
        assert!(behind < later_open && later_open < last);
        asked(&place).await?;
        assert!(!is_finished(), "did not wait for an open append");
        writer.run(end).await?;
        let wanted = if end == "COMMIT" { vec![open, behind] } else { vec![behind] };
        assert_eq!(reading.await??, wanted);
        assert_eq!(backwards.await??, wanted);
        let mut live = from_end.await??;

        later.run("COMMIT").await?;
        assert_eq!(live.next_event().await?.position.get(), later_open);
        assert_eq!(live.next_event().await?.position.get(), last);
        let wanted = [&wanted[..], &[later_open, last]].concat();
        assert_eq!(positions(&store).await?, wanted);
        place.remove().await?;
    }
    Ok(())
}

/// Appends that run at the same time take their positions in turn: a read that ends at a gap must not
/// end within an append.
async fn a_read_of_all_ends_within_no_append() -> Tested {
    let place = Place::shared().await?;
    let store = named_store(&place).await?;
    let (mut whole, mut other) = (Raw::new(&place).await?, Raw::new(&place).await?);
    whole.run("BEGIN").await?;
    let first = whole.append_one("a-1", "Counted").await?;
    let between = append(&store, "a-2").await?;
    other.run("BEGIN").await?;
    let gap = other.append_one("a-3", "Counted").await?;
    let second = whole.append_one("a-1", "Counted").await?;
    let (reading, backwards) = read_both_ways(&store);
    asked(&place).await?;
    // Now everything up to the gap is settled, and the first half of the append is before it.
    whole.run("COMMIT").await?;
    asked(&place).await?;
    assert!(!reading.is_finished(), "the append is torn: {:?}", reading.await);
    assert!(!backwards.is_finished(), "the append is torn: {:?}", backwards.await);
    other.run("COMMIT").await?;
    let wanted = vec![first, between, gap, second];
    assert_eq!(reading.await??, wanted);
    assert_eq!(backwards.await??, wanted);
    place.remove().await
}

async fn a_killed_writer_holds_nobody_up() -> Tested {
    let place = Place::shared().await?;
    let store = named_store(&place).await?;
    let mut live = Listener::on(&store, Subscribe::default()).await?;
    let mut writer = Raw::new(&place).await?;
    writer.run("BEGIN").await?;
    let dead = writer.append(&["a-1", "a-2"], "Counted").await?;
    let behind = append(&store, "a-3").await?;
    assert!(dead.iter().all(|position| *position < behind));
    asked(&place).await?;
    assert_eq!(live.waiting(), 0, "did not wait for an open append");

    place.execute(&format!("SELECT pg_terminate_backend({})", writer.pid)).await?;
    assert_eq!(live.next().await?, behind);
    assert_eq!(positions(&store).await?, [behind]);
    let error = writer.run("COMMIT").await.expect_err("the session is dead");
    assert!(!error.to_string().is_empty());
    let next = append(&store, "a-1").await?;
    assert_eq!(live.next().await?, next);
    place.remove().await
}

async fn positions_go_on_after_the_newest_events_were_removed() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut live = Listener::on(&store, Subscribe::default()).await?;
    let mut given = BTreeSet::new();
    let mut add = |position: u64, from: &str| {
        assert!(given.last().is_none_or(|last| *last < position), "{position} again, {from}");
        given.insert(position);
        position
    };
    for _ in 0..3 {
        let position = add(append(&store, "a-1").await?, "before");
        assert_eq!(live.next().await?, position);
    }
    store.delete(&id("a-1"), ExpectedVersion::StreamExists).await?;
    assert_eq!(store.stream_info(&id("a-1")).await?.state, StreamState::Deleted);
    assert_eq!((positions(&store).await?, store.last_position().await?), (vec![], Position::START));

    // The same for a new handle, whose subscribers begin at the end or at a checkpoint.
    let fresh = place.open().await?;
    let mut from_end = Listener::on(&fresh, Subscribe::default().with_start(Start::End)).await?;
    let mut from_checkpoint = Listener::on(&fresh, Subscribe::default().after(3)).await?;
    for (store, stream) in [(&store, "a-1"), (&fresh, "a-2"), (&store, "a-2")] {
        let position = add(append(store, stream).await?, "after a deletion");
        for listener in [&mut live, &mut from_end, &mut from_checkpoint] {
            assert_eq!(listener.next().await?, position);
        }
    }
    store.truncate(&id("a-2"), Version::new(3)).await?;
    assert_eq!(positions(&store).await?, positions(&fresh).await?);
    for (store, stream) in [(&fresh, "a-2"), (&store, "a-3")] {
        let position = add(append(store, stream).await?, "after a truncation");
        for listener in [&mut live, &mut from_end, &mut from_checkpoint] {
            assert_eq!(listener.next().await?, position);
        }
    }
    let left: HashSet<u64> = positions(&fresh).await?.into_iter().collect();
    assert_eq!(left.len(), 3);
    assert!(left.iter().all(|position| given.contains(position)));
    place.remove().await
}

/// The statement in the error with which a store whose sequence is behind refuses to open.
async fn mending(place: &Place) -> Result<String, BoxError> {
    let error = place.open().await.expect_err("the sequence is behind");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    let text = error.to_string();
    let statement = text.split('`').find(|part| part.starts_with("SELECT setval"));
    Ok(statement.ok_or(text.clone())?.to_owned())
}

async fn a_sequence_behind_its_events_is_refused() -> Tested {
    const BEHIND: &str = "ALTER SEQUENCE {schema}.positions RESTART";
    // The removed events leave places for the positions that are given again.
    let place = Place::shared().await?;
    let store = place.open().await?;
    for stream in ["a-1", "b-1"] {
        store.append_to(stream, ExpectedVersion::NoStream, (0..6).map(event)).await?;
    }
    store.delete(&id("a-1"), ExpectedVersion::Any).await?;
    place.execute(BEHIND).await?;
    let statement = mending(&place).await?;
    place.execute(&statement).await?;
    let mended = place.open().await?;
    assert_eq!(append(&mended, "c-1").await?, 13);
    place.remove().await?;

    // A store that is open finds out when a position is taken, and does not look for a free one.
    let place = Place::shared().await?;
    let store = place.open().await?;
    store.append_to("a-1", ExpectedVersion::NoStream, (0..6).map(event)).await?;
    place.execute(BEHIND).await?;
    for _ in 0..2 {
        let error = store.append_to("b-1", ExpectedVersion::Any, [event(1)]).await;
        let error = error.expect_err("the position is taken");
        assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Incompatible, false));
        let error = store.import(imported("c-1")).await.expect_err("the position is taken");
        assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Incompatible, false));
    }
    assert_eq!(positions(&store).await?.len(), 6);
    place.execute(&mending(&place).await?).await?;
    assert_eq!(append(&store, "b-1").await?, 7);
    place.remove().await
}

fn imported(stream: &str) -> Vec<RecordedEvent> {
    let at = event(1).recorded(id(stream), Version::FIRST, Position::START, Default::default());
    vec![at]
}

/// After a fail-over to an asynchronous replica, positions are given again that readers have passed.
/// A filter that has to look at every event looks at windows of positions. Between two servers there are
/// more windows without events than anybody can wait for, and none of them is a place to go on from.
async fn a_filter_without_an_index_passes_over_a_gap() -> Tested {
    let place = Place::shared().await?;
    let mut store = place.open().await?;
    let mut last = append(&store, "b-1").await?;
    for _ in 0..2 {
        place.execute("UPDATE {schema}.store SET history = 'another'").await?;
        store = place.open().await?;
        last = append(&store, "a-1").await?;
    }
    let prefix = || Filter::default().with_prefix(StreamPrefix::new("b").unwrap());
    let mut live = store.subscribe(Subscribe::to(prefix())).await?;
    loop {
        let message = timeout(PATIENCE, live.next()).await??;
        if message.position().get() == last {
            break;
        }
        let again = Subscribe::to(prefix()).after(message.position());
        timeout(PATIENCE, store.subscribe(again).await?.next()).await??;
    }
    let backwards = ReadAll::default().with_filter(prefix()).backwards();
    let found = store.read_all(backwards).try_collect::<Vec<_>>();
    assert_eq!(timeout(PATIENCE, found).await??.len(), 1);
    place.remove().await
}

async fn readers_end_if_positions_they_have_passed_are_lost() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut live = [
        Listener::on(&store, Subscribe::default()).await?,
        Listener::on(&store, Subscribe::to(id("a-1"))).await?,
    ];
    for position in 1..=9 {
        assert_eq!(append(&store, "a-1").await?, position);
        for live in &mut live {
            assert_eq!(live.next().await?, position);
        }
    }
    // A replica that lacks the last commits.
    place.execute("DELETE FROM {schema}.events WHERE position > 4").await?;
    place.execute("SELECT setval('{schema}.positions', 4)").await?;
    let other = place.open().await?;
    assert_eq!(append(&other, "a-1").await?, 5);
    for live in &mut live {
        let error = live.next().await.expect_err("the subscription goes on");
        let error = error.downcast_ref::<Error>().ok_or("another error")?;
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
        let text = error.to_string();
        assert!(text.contains("position 9") && text.contains("above 5"), "{text}");
    }
    let read = store.read_all(ReadAll::default()).try_collect::<Vec<_>>().await;
    assert_eq!(read.expect_err("the read goes on").kind(), ErrorKind::Incompatible);
    assert_eq!(positions(&other).await?, [1, 2, 3, 4, 5]);
    place.remove().await
}
