//! Imports: events of another store are written as they are, whatever else goes on, and never
//! twice.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use annals_core::{
    Category, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Filter, NewEvent, Position,
    ReadAll, RecordedEvent, Result, StreamId, StreamInfo, StreamState, Subscribe, TransferStore,
    TryStreamExt, Version,
};
use annals_postgres::{PostgresStore, sqlx::query_scalar};
use annals_test_servers::{
    BoxError, Proxy,
    postgres::{Marked, Options, Source},
};
use chrono::DateTime;
use fastrand::Rng;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    beside::{Listener, Raw},
    common::{PATIENCE, Place, Tested, event, everything, id, seed, tests, until_listening},
    contention::{RACES, fail_commits, fail_inserts},
    load::{LAST, follow, within},
    lock::{Lock, any, one_writer, spawn},
    order::{asked, named_store},
};

tests! { "import":
    Any thousands_of_streams_at_once;
    Any times_are_kept;
    Any streams_of_which_events_were_removed;
    Any beside_appends_to_the_same_streams;
    Any an_open_import_holds_up_what_is_behind_it;
    Any locks_are_taken_in_the_order_of_appends;
    Any lost_races_are_tried_again;
    Any answers_are_lost;
    Any a_killed_import_is_repeated;
    Any a_dropped_import_wakes_subscribers;
    Ours a_server_is_killed_in_the_middle;
}

/// An event as another store recorded it.
fn recorded(stream: &str, version: u64) -> RecordedEvent {
    let micros = 1_500_000_000_000_000 + i64::try_from(version).unwrap();
    let recorded_at = DateTime::from_timestamp_micros(micros).unwrap();
    event(version).recorded(id(stream), version.into(), Position::START, recorded_at)
}

fn several(stream: &str, versions: impl IntoIterator<Item = u64>) -> Vec<RecordedEvent> {
    versions.into_iter().map(|version| recorded(stream, version)).collect()
}

/// An event without its position, which an import does not keep.
fn kept(event: &RecordedEvent) -> RecordedEvent {
    let mut event = event.clone();
    event.position = Position::START;
    event
}

fn kind(done: Result<()>) -> Option<ErrorKind> {
    done.err().map(|error| error.kind())
}

/// All streams. Checks some of them against `stream_info`.
async fn all_streams(
    store: &PostgresStore,
    page: usize,
) -> std::result::Result<Vec<(StreamId, StreamInfo)>, BoxError> {
    let mut all: Vec<(StreamId, StreamInfo)> = Vec::new();
    loop {
        let after = all.last().map(|(stream, _)| stream.clone());
        let found = store.list_streams(after.as_ref(), page).await?;
        assert!(found.len() <= page);
        if found.is_empty() {
            break;
        }
        all.extend(found);
    }
    assert!(all.is_sorted_by(|(one, _), (next, _)| one.as_str() < next.as_str()));
    for (stream, info) in all.iter().step_by(1 + all.len() / 50) {
        assert_eq!(store.stream_info(stream).await?, *info);
    }
    Ok(all)
}

async fn thousands_of_streams_at_once() -> Tested {
    const STREAMS: usize = 3_000;
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut live = Listener::on(&store, Subscribe::default()).await?;
    // One event of each stream in turn, so that every transaction has the most streams.
    let names: Vec<_> = (0..STREAMS).map(|n| format!("s-{}", n * 7 % STREAMS)).collect();
    let events: Vec<_> =
        (1..=3).flat_map(|version| names.iter().map(move |name| recorded(name, version))).collect();
    store.import(events.clone()).await?;
    let found = everything(&store).await?;
    assert!(
        found.iter().map(kept).eq(events.iter().cloned()),
        "the events are not as they were imported"
    );
    for event in &found {
        assert_eq!(live.next().await?, event.position.get());
    }
    let of_category = Filter::default().with_category(Category::new("s")?);
    let of_category = store.read_all(ReadAll::default().with_filter(of_category));
    assert_eq!(of_category.try_collect::<Vec<_>>().await?, found);
    assert_eq!(all_streams(&store, 700).await?.len(), STREAMS);

    // The import is repeated, also with the events cut differently and with some new ones.
    store.import(events.clone()).await?;
    store
        .import(events[1_234..5_432].iter().chain(&several("new-1", 1..=2)).cloned().collect())
        .await?;
    let more: Vec<_> =
        (4..=5).flat_map(|v| names[..500].iter().map(move |name| recorded(name, v))).collect();
    store
        .import(
            events[..400]
                .iter()
                .chain(&events[3_000..3_400])
                .chain(&events[6_000..6_400])
                .chain(&more[..400])
                .cloned()
                .collect(),
        )
        .await?;
    store.import(more.clone()).await?;
    let found = everything(&store).await?;
    let expected = events.iter().chain(&several("new-1", 1..=2)).chain(&more).count();
    assert_eq!(found.len(), expected);
    let ids: HashSet<_> = found.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), expected);
    place.remove().await
}

async fn times_are_kept() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    // Around the epochs of Unix and of PostgreSQL, long ago, far in the future, and now.
    let micros = [
        0,
        -1,
        1,
        946_684_800_000_000,
        946_684_799_999_999,
        -62_135_596_800_000_000,
        253_402_300_799_999_999,
        1_700_000_000_123_456,
    ];
    let events = micros.iter().zip(1_u64..).map(|(micros, version)| {
        let at = DateTime::from_timestamp_micros(*micros).unwrap();
        event(version).recorded(id("a-1"), version.into(), Position::START, at)
    });
    let events: Vec<_> = events.collect();
    store.import(events.clone()).await?;
    assert!(store.load_stream(&id("a-1")).await?.iter().map(kept).eq(events));
    place.remove().await
}

async fn streams_of_which_events_were_removed() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let info = async |stream: &str| {
        let info = store.stream_info(&id(stream)).await?;
        let first = info.first_version.map(Version::get);
        Ok::<_, BoxError>((info.state, info.version.get(), first))
    };
    let (live, deleted) = (StreamState::Live, StreamState::Deleted);

    // A stream that begins at a later version and goes on.
    store.import(several("a-new", 5..=6)).await?;
    assert_eq!(info("a-new").await?, (live, 6, Some(5)));
    let conflict = store.append_to("a-new", ExpectedVersion::NoStream, [event(1)]).await;
    assert_eq!(kind(conflict.map(drop)), Some(ErrorKind::Conflict));
    store.append_to("a-new", Version::new(6), [event(1)]).await?;

    // A stream that was truncated, first in part and then as a whole.
    let whole = several("a-cut", 1..=6);
    store.import(whole[..5].to_vec()).await?;
    store.truncate(&id("a-cut"), Version::new(3)).await?;
    assert_eq!(
        kind(store.import(several("a-cut", 7..=8)).await),
        Some(ErrorKind::Conflict),
        "a gap"
    );
    assert_eq!(kind(store.import(whole.clone()).await), Some(ErrorKind::Conflict), "1 is gone");
    assert_eq!(
        kind(store.import(several("a-cut", 5..=6)).await),
        Some(ErrorKind::Conflict),
        "other ids"
    );
    store.import(whole[2..].to_vec()).await?;
    assert_eq!(info("a-cut").await?, (live, 6, Some(3)));
    store.truncate(&id("a-cut"), Version::new(100)).await?;
    assert_eq!(info("a-cut").await?, (live, 6, None));
    assert_eq!(kind(store.import(whole.clone()).await), Some(ErrorKind::Conflict), "all are gone");
    store.import(several("a-cut", 10..=11)).await?;
    assert_eq!(info("a-cut").await?, (live, 11, Some(10)));
    assert_eq!(store.load_stream(&id("a-cut")).await?.len(), 2);

    // A stream whose removed events still have their rows.
    let hidden = several("a-hidden", 1..=5);
    store.import(hidden.clone()).await?;
    let hide = "UPDATE {schema}.streams SET removed_to = {to} WHERE name = 'a-hidden'";
    place.execute(&hide.replace("{to}", "2")).await?;
    assert_eq!(kind(store.import(hidden.clone()).await), Some(ErrorKind::Conflict), "1 is gone");
    store.import(hidden[2..].to_vec()).await?;
    assert_eq!(info("a-hidden").await?, (live, 5, Some(3)));
    place.execute(&hide.replace("{to}", "5")).await?;
    assert_eq!(
        kind(store.import(hidden[4..].to_vec()).await),
        Some(ErrorKind::Conflict),
        "all are"
    );
    store.import(several("a-hidden", 8..=8)).await?;
    assert_eq!(info("a-hidden").await?, (live, 8, Some(8)));

    // Deleted streams go on, with a gap in their versions and without.
    for (stream, next) in [("a-old", 4), ("a-older", 9)] {
        store.import(several(stream, 1..=3)).await?;
        store.delete(&id(stream), ExpectedVersion::Any).await?;
        assert_eq!(kind(store.import(several(stream, 3..=4)).await), Some(ErrorKind::Conflict));
        assert_eq!(info(stream).await?, (deleted, 3, None));
        store.import(several(stream, next..=next)).await?;
        assert_eq!(info(stream).await?, (live, next, Some(next)));
    }
    // If one stream is closed, no event of the import is written.
    store.tombstone(&id("a-closed"), ExpectedVersion::Any).await?;
    let events = [several("a-other", 1..=2), several("a-closed", 1..=1)].concat();
    assert_eq!(kind(store.import(events).await), Some(ErrorKind::StreamClosed));
    assert_eq!(info("a-other").await?, (StreamState::Missing, 0, None));

    let streams = all_streams(&store, 2).await?;
    let names: Vec<_> = streams.iter().map(|(stream, _)| stream.as_str()).collect();
    assert_eq!(names, ["a-closed", "a-cut", "a-hidden", "a-new", "a-old", "a-older"]);
    place.remove().await
}

const STREAMS: u64 = 8;
const IMPORTERS: u64 = 3;
const WRITERS: u64 = 4;
const TURNS: u64 = 60;

fn shared_stream(number: u64) -> String {
    format!("shared-{number}")
}

async fn beside_appends_to_the_same_streams() -> Tested {
    let seed = seed("import::beside_appends_to_the_same_streams");
    let place = Place::shared().await?;
    let stores = [place.open().await?, place.open().await?];
    let mut followers = JoinSet::new();
    for store in &stores {
        followers.spawn(follow(store.subscribe(Subscribe::default()).await?));
    }
    let mut tasks = JoinSet::new();
    for number in 0..IMPORTERS {
        let rng = Rng::with_seed(seed ^ number);
        tasks.spawn(import_ahead(stores[usize::try_from(number)? % 2].clone(), rng));
    }
    for number in 0..WRITERS {
        let store = stores[usize::try_from(number)? % 2].clone();
        let mut rng = Rng::with_seed(seed ^ (IMPORTERS + number));
        tasks.spawn(async move {
            for turn in 0..TURNS {
                let mut streams: Vec<u64> = (0..STREAMS).collect();
                rng.shuffle(&mut streams);
                let appends = streams[..rng.usize(1..4)].iter();
                let appends = appends.map(|n| any(&shared_stream(*n), turn)).collect();
                store.append_multi(appends).await?;
            }
            Ok(HashMap::new())
        });
    }
    let mut imported = HashMap::new();
    while let Some(done) = within("every task ends", tasks.join_next()).await? {
        imported.extend(done??);
    }
    let last = NewEvent::json(LAST, &0)?;
    stores[0].append_to("last", ExpectedVersion::NoStream, [last]).await?;
    let events = everything(&stores[0]).await?;
    for event in &events {
        if let Some(acknowledged) = imported.remove(&event.id) {
            assert_eq!(acknowledged.as_ref(), Some(&kept(event)), "refused, or another event");
        }
    }
    let lost = imported.into_values().flatten().count();
    assert_eq!(lost, 0, "acknowledged, but not written");
    while let Some(seen) = within("the subscribers end", followers.join_next()).await? {
        let seen = seen??;
        let missed = events.iter().filter(|event| !seen.contains(event)).count();
        assert_eq!(missed, 0, "skipped");
        assert_eq!(seen, events);
    }
    place.remove().await
}

/// Imports the next events of several streams. Returns the ids of all events that it tried to
/// write, and the event itself if it was written.
async fn import_ahead(
    store: PostgresStore,
    mut rng: Rng,
) -> std::result::Result<HashMap<uuid::Uuid, Option<RecordedEvent>>, BoxError> {
    let (mut tried, mut written) = (HashMap::new(), 0);
    for turn in 0..TURNS {
        let mut events = several(&format!("own-{}-{turn}", rng.u64(..)), 1..=rng.u64(1..20));
        for number in 0..STREAMS {
            if rng.u64(..STREAMS) < 2 {
                let stream = shared_stream(number);
                let next = store.stream_info(&id(&stream)).await?.version.get() + 1;
                events.extend(several(&stream, next..=next + rng.u64(..3)));
            }
        }
        let done = match store.import(events.clone()).await {
            Ok(()) => true,
            Err(error) if error.conflict().is_some() => false,
            Err(error) => return Err(error.into()),
        };
        written += usize::from(done);
        tried.extend(events.into_iter().map(|event| (event.id, done.then_some(event))));
    }
    assert!(written > 0, "nothing was imported");
    Ok(tried)
}

/// An import whose transaction stays open.
const OPEN: &str = "BEGIN; SELECT written FROM {schema}.import({key}, '{a-2}', '{a}', '{1}', \
    '{1,1}', '{1,2}', ARRAY[now(), now()], ARRAY[gen_random_uuid(), gen_random_uuid()], '{T,T}', \
    '{0,0}', ARRAY[''::bytea, ''], ARRAY[''::bytea, ''])";

async fn an_open_import_holds_up_what_is_behind_it() -> Tested {
    for end in ["COMMIT", "ROLLBACK"] {
        let place = Place::shared().await?;
        let store = named_store(&place).await?;
        let mut live = Listener::on(&store, Subscribe::default()).await?;
        let below = store.append(any("a-1", 1)).await?.position.get();
        let mut writer = Raw::new(&place).await?;
        writer.run(&OPEN.replace("{key}", &writer.lock_key.to_string())).await?;
        let behind = store.append(any("a-3", 1)).await?.position.get();
        assert_eq!(behind, below + 3);
        assert_eq!(live.next().await?, below);
        asked(&place).await?;
        assert_eq!(live.waiting(), 0, "went past an open import");

        // Writers to the same stream wait, and are judged by the stream as the import leaves it.
        let appending = spawn(&store, any("a-2", 1));
        let importing = tokio::spawn({
            let store = store.clone();
            async move { store.import(several("a-2", 1..=1)).await }
        });
        Lock::on(&place, "unrelated").await?.wait_for(2).await?;
        writer.run(end).await?;
        let appended = appending.await??;
        let mut expected: Vec<_> = match end {
            "COMMIT" => vec![below + 1, below + 2, behind],
            _ => vec![behind],
        };
        let imported = importing.await?;
        assert!(imported.is_ok() || imported.as_ref().is_err_and(|e| e.conflict().is_some()));
        expected.extend((imported.is_ok()).then_some(behind + 1));
        expected.push(appended.position.get());
        for position in expected {
            assert_eq!(live.next().await?, position);
        }
        everything(&store).await?;
        place.remove().await?;
    }
    Ok(())
}

/// Otherwise an append to several streams and an import could wait for each other.
async fn locks_are_taken_in_the_order_of_appends() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut administrator = place.connect().await?;
    let text =
        "SELECT name FROM unnest(ARRAY['a-1', 'a-2', 'a-3']) AS name ORDER BY hashtext(name)";
    let streams: Vec<String> = query_scalar(text).fetch_all(&mut administrator).await?;
    let mut lock = Lock::on(&place, &streams[1]).await?;
    let importing = tokio::spawn({
        let events = ["a-1", "a-2", "a-3"].map(|stream| recorded(stream, 1));
        async move { store.import(events.into()).await }
    });
    lock.wait_for(1).await?;
    for (stream, is_free) in [(&streams[0], false), (&streams[2], true)] {
        let text = "SELECT pg_try_advisory_lock($1, hashtext($2))";
        let got = query_scalar(text).bind(lock.key).bind(stream);
        let got: bool = got.fetch_one(&mut administrator).await?;
        assert_eq!(got, is_free, "{stream}");
    }
    drop(administrator);
    lock.release().await?;
    importing.await??;
    place.remove().await
}

async fn lost_races_are_tried_again() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    for (version, code) in (1..).zip(RACES) {
        fail_inserts(&place, "nextval('{schema}.attempts') <= 3", code).await?;
        store.import(several("a-1", version..=version)).await?;
    }
    fail_inserts(&place, "true", RACES[0]).await?;
    assert_eq!(kind(store.import(several("a-1", 4..=4)).await), Some(ErrorKind::Busy));
    // By then the server has sent the whole answer, except for its end.
    fail_commits(&place, "true", "53100").await?;
    assert_eq!(kind(store.import(several("a-1", 4..=4)).await), Some(ErrorKind::Unavailable));
    assert_eq!(everything(&store).await?.len(), RACES.len());
    place.remove().await
}

async fn answers_are_lost() -> Tested {
    let place = Place::shared().await?;
    let proxy = Proxy::between(place.server.addr(), Marked::new(".import")).await?;
    let store = PostgresStore::open(place.config_at(&place.server.url_at(proxy.addr()))).await?;
    let first = several("a-1", 1..=10);
    proxy.lose_next_answer();
    store.import(first.clone()).await?;
    assert_eq!(proxy.lost(), 1);
    // The answer to the statement that is sent again is lost too.
    let second = [several("a-1", 11..=20), several("a-2", 4..=5)].concat();
    (0..2).for_each(|_| proxy.lose_next_answer());
    let error = store.import(second.clone()).await.expect_err("the outcome is unknown");
    assert!(error.outcome_unknown() && error.is_retryable(), "{error:?}");
    store.import(second.clone()).await?;
    proxy.cut().await;
    let again = [first.clone(), second[..10].to_vec()].concat();
    // The connection of the second attempt may have died as well.
    while let Err(error) = store.import(again.clone()).await {
        assert!(error.outcome_unknown() && error.is_retryable(), "{error:?}");
    }
    let found = store.load_stream(&id("a-1")).await?;
    assert!(found.iter().map(kept).eq(first.into_iter().chain(second[..10].to_vec())));
    assert_eq!(store.load_stream(&id("a-2")).await?.len(), 2);
    place.remove().await
}

async fn a_killed_import_is_repeated() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut live = Listener::on(&store, Subscribe::default()).await?;
    // The lock holds up the second transaction.
    let events = [several("a-1", 1..=5_000), several("a-2", 1..=1_000)].concat();
    let mut lock = Lock::on(&place, "a-2").await?;
    let importing = tokio::spawn({
        let (store, events) = (store.clone(), events.clone());
        async move { store.import(events).await }
    });
    let mut administrator = place.connect().await?;
    for _ in 0..2 {
        let waiting = lock.wait_for(1).await?;
        let terminate = "SELECT pg_terminate_backend($1, 10000)";
        let gone: bool =
            query_scalar(terminate).bind(waiting[0]).fetch_one(&mut administrator).await?;
        assert!(gone, "the session is still there");
    }
    let error = within("the import ends", importing).await??.expect_err("it was killed twice");
    assert!(error.outcome_unknown() && error.is_retryable(), "{error:?}");
    // A session that holds a lock may hold positions, so readers would wait for it.
    lock.release().await?;
    assert_eq!(everything(&store).await?.len(), 5_000, "the first transaction stays");
    store.import(events.clone()).await?;
    let found = everything(&store).await?;
    assert!(found.iter().map(kept).eq(events));
    for event in found {
        assert_eq!(live.next().await?, event.position.get());
    }
    place.remove().await
}

async fn a_dropped_import_wakes_subscribers() -> Tested {
    let place = Place::shared().await?;
    let mut config = place.config();
    // Longer than the test takes, so that only a wake-up can bring an event.
    config.options.poll_interval = PATIENCE * 100;
    let (store, other) = (
        PostgresStore::open(one_writer(config.clone())).await?,
        PostgresStore::open(config).await?,
    );
    let mut live = [
        Listener::on(&store, Subscribe::default()).await?,
        Listener::on(&other, Subscribe::default()).await?,
    ];
    until_listening(&place, 2).await?;
    for version in 1..=3 {
        // After this event the subscribers have caught up, and wait.
        let first = store.append(any("b-1", version)).await?.position.get();
        for live in &mut live {
            assert_eq!(live.next().await?, first);
        }
        let mut lock = Lock::on(&place, "a-1").await?;
        let mut importing = Box::pin(store.import(several("a-1", version..=version)));
        let waiting = timeout(PATIENCE, async {
            tokio::select! {
                done = &mut importing => done.map(|()| vec![]).map_err(BoxError::from),
                waiting = lock.wait_for(1) => waiting,
            }
        });
        assert_eq!(waiting.await??.len(), 1);
        if version < 3 {
            drop(importing);
            lock.release().await?;
        } else {
            lock.release().await?;
            importing.await?;
        }
        for live in &mut live {
            assert_eq!(live.next().await?, first + 1);
        }
    }
    place.remove().await
}

async fn a_server_is_killed_in_the_middle() -> Tested {
    let server = Arc::new(Source::find()?.start(Options::default()).await?);
    let place = Place::on(server.clone());
    let soon = Duration::from_millis(300);
    let store = PostgresStore::open(place.config().with_acquire_timeout(soon)).await?;
    let events: Vec<_> = (0..40).flat_map(|n| several(&format!("s-{n}"), 1..=250)).collect();
    // The server is killed in the first transaction, in the second, and once more in the first,
    // whose events are there already.
    for (stream, written) in [("s-0", 0), ("s-39", 5_000), ("s-1", 5_000)] {
        let mut lock = Lock::on(&place, stream).await?;
        let importing = tokio::spawn({
            let (store, events) = (store.clone(), events.clone());
            async move { store.import(events).await }
        });
        lock.wait_for(1).await?;
        server.kill().await?;
        let error = within("the import ends", importing).await??.expect_err("the server is down");
        assert!(error.outcome_unknown() && error.is_retryable(), "{error:?}");
        server.start_again().await?;
        assert_eq!(everything(&place.open().await?).await?.len(), written);
    }
    store.import(events.clone()).await?;
    assert!(everything(&store).await?.iter().map(kept).eq(events));
    drop((store, place));
    // Dropping the server blocks until it has ended.
    Ok(tokio::task::spawn_blocking(move || drop(server)).await?)
}
