//! Locks, races and errors in the database: an append that loses is sent again or fails, and other
//! appends go on.

use std::{
    collections::{HashMap, HashSet},
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use annals_core::{
    Append, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, NewEvent, StreamId, Subscribe,
    Version,
};
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{AssertSqlSafe, Executor, query_scalar},
};
use annals_test_servers::{Conversation, Fate, Losses, Protocol, Proxy};
use fastrand::Rng;
use futures::future::join_all;
use tokio::task::JoinSet;

use crate::common::{Place, Tested, event, everything, id, seed, tests};
use crate::{load::*, lock::*};

tests! { "contention":
    Any a_statement_takes_too_long;
    Any locked_streams_hold_up_no_other;
    Any lost_races_are_tried_again;
    Any endless_races_come_to_an_end;
    Any commits_that_fail_are_no_success;
    Ours a_deadlock_is_tried_again;
    Any an_error_harms_only_its_append;
    Any dropped_appends_are_whole_or_not_there;
    Any conflicts_cost_their_neighbours_no_statements;
}

async fn a_statement_takes_too_long() -> Tested {
    let place = Place::shared().await?;
    let mut config = place.config();
    config.connect = config.connect.options([("statement_timeout", "1s")]);
    let store = PostgresStore::open(config).await?;
    let lock = Lock::on(&place, "order-1").await?;
    let stuck = spawn(&store, any("order-1", 1));
    store.append(any("order-2", 1)).await?;
    failed(within("an append ends", stuck).await??, ErrorKind::Busy, false);
    let multi = store.append_multi(vec![any("order-1", 1), any("order-2", 2)]).await.unwrap_err();
    assert_eq!((multi.kind(), multi.outcome_unknown()), (ErrorKind::Busy, false), "{multi:?}");
    lock.release().await?;
    assert_eq!(store.append(any("order-1", 1)).await?.last_version.get(), 1);
    assert_eq!(everything(&store).await?.len(), 2);
    place.remove().await
}

async fn locked_streams_hold_up_no_other() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut lock = Lock::on(&place, "locked-0").await?;
    let mut stuck = Vec::new();
    // One writer stays free.
    for number in 0..store.options().writers - 1 {
        let stream = format!("locked-{number}");
        lock.add(&stream).await?;
        stuck.push(spawn(&store, any(&stream, 1)));
        lock.wait_for(number + 1).await?;
        for other in 0..5 {
            let append = store.append(any(&format!("a-{other}"), 1));
            within("an append to another stream", append).await??;
        }
        let appends = (0..100).map(|other| store.append(any(&format!("b-{}", other % 30), 1)));
        for appended in within("appends to other streams", join_all(appends)).await? {
            appended?;
        }
    }
    assert_eq!(lock.waiting().await?.len(), stuck.len());
    lock.release().await?;
    for stuck in stuck {
        assert_eq!(stuck.await??.last_version, Version::FIRST);
    }
    assert_eq!(everything(&store).await?.len(), 3 * 106);
    place.remove().await
}

/// Makes inserts of events fail if a condition holds. A sequence counts the attempts, since a
/// rollback does not take its numbers back.
pub(crate) async fn fail_inserts(place: &Place, condition: &str, code: &str) -> Tested {
    for statement in [
        "DROP SEQUENCE IF EXISTS {schema}.attempts",
        "CREATE SEQUENCE {schema}.attempts",
        "CREATE OR REPLACE FUNCTION {schema}.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF {condition} THEN RAISE EXCEPTION 'made up' USING ERRCODE = '{code}'; END IF; \
             RETURN NEW; END $$",
        "CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON {schema}.events \
             FOR EACH ROW EXECUTE FUNCTION {schema}.fail()",
    ] {
        let statement = statement.replace("{condition}", condition).replace("{code}", code);
        place.execute(&statement).await?;
    }
    Ok(())
}

/// Makes commits fail, as [`fail_inserts`] makes inserts fail. By then the server has sent the
/// whole answer, except for its end.
pub(crate) async fn fail_commits(place: &Place, condition: &str, code: &str) -> Tested {
    fail_inserts(place, condition, code).await?;
    place.execute("DROP TRIGGER fail ON {schema}.events").await?;
    let trigger = "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON {schema}.events DEFERRABLE \
                   INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.fail()";
    place.execute(trigger).await.map(drop)
}

async fn commits_that_fail_are_no_success() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let several = Append::new(id("a-2"), ExpectedVersion::NoStream, [event(1), event(2)]);
    fail_commits(&place, "true", "P0001").await?;
    for append in [any("a-1", 1), several.clone()] {
        failed(store.append(append).await, ErrorKind::Internal, false);
    }
    assert_eq!(everything(&store).await?.len(), 0);
    place.execute("DROP TRIGGER fail ON {schema}.events").await?;
    // Under serializable isolation too, transactions fail at their commit.
    fail_commits(&place, "nextval('{schema}.attempts') <= 3", "40001").await?;
    for append in [any("a-1", 1), several] {
        assert!(!store.append(append).await?.replayed);
    }
    assert_eq!(everything(&store).await?.len(), 3);
    place.remove().await
}

/// The codes of a serialization failure, a deadlock, and a unique violation.
pub(crate) const RACES: [&str; 3] = ["40001", "40P01", "23505"];

async fn lost_races_are_tried_again() -> Tested {
    let place = Place::shared().await?;
    let store = PostgresStore::open(one_writer(place.config())).await?;
    let mut version = 0;
    for code in RACES {
        let several = Append::new(id("a-1"), Version::new(version + 1), [event(2), event(3)]);
        let calls = [vec![any("a-1", 1)], vec![several], vec![any("a-1", 4), any("a-2", 4)]];
        for appends in calls {
            fail_inserts(&place, "nextval('{schema}.attempts') <= 3", code).await?;
            let appended = write(&store, &appends).await?;
            version += appends[0].count();
            assert_eq!((appended[0].last_version.get(), appended[0].replayed), (version, false));
        }
        fail_inserts(&place, "nextval('{schema}.attempts') <= 3", code).await?;
        let appends: Vec<_> = (0..20).map(|number| any("b-1", number)).collect();
        let (lock, all) = queue(&place, &store, &appends).await?;
        lock.release().await?;
        for one in all {
            one.await??;
        }
    }
    assert_eq!(everything(&store).await?.len(), RACES.len() * (5 + 21));
    place.remove().await
}

async fn endless_races_come_to_an_end() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    for (code, kind) in
        RACES.into_iter().zip([ErrorKind::Busy, ErrorKind::Busy, ErrorKind::Internal])
    {
        fail_inserts(&place, "true", code).await?;
        let append = Append::new(id(&format!("a-{code}")), ExpectedVersion::NoStream, [event(1)]);
        let result = within("an append ends", store.append(append.clone())).await?;
        let error = result.as_ref().unwrap_err();
        assert!(std::error::Error::source(error).is_some(), "the cause is missing: {error:?}");
        failed(result, kind, false);
        assert_eq!(everything(&store).await?.len(), 0);
    }
    place.execute("DROP TRIGGER fail ON {schema}.events").await?;
    store.append(any("a-1", 1)).await?;
    place.remove().await
}

/// The append is the victim of the deadlock. In the second round it then finds that another append
/// has been faster: a conflict.
async fn a_deadlock_is_tried_again() -> Tested {
    let place = Place::shared().await?;
    let mut config = place.config();
    // PostgreSQL looks for a deadlock once, this long after the wait began. By then the test must
    // have asked for the second lock.
    config.connect = config.connect.options([("deadlock_timeout", "2s")]);
    let store = PostgresStore::open(config).await?;
    let mut administrator = place.connect().await?;
    // The streams in the order in which appends lock them.
    let text = "SELECT name FROM unnest(ARRAY['a-1', 'a-2']) AS name ORDER BY hashtext(name)";
    let streams: Vec<String> = query_scalar(text).fetch_all(&mut administrator).await?;
    for is_conflict in [false, true] {
        let mut lock = Lock::on(&place, &streams[1]).await?;
        lock.connection.execute("SET LOCAL deadlock_timeout = '1h'").await?;
        let version = Version::new(if is_conflict { 1 } else { 0 });
        let appends: Vec<_> =
            streams.iter().map(|stream| Append::new(id(stream), version, [event(1)])).collect();
        let appending = {
            let store = store.clone();
            tokio::spawn(async move { store.append_multi(appends).await })
        };
        lock.wait_for(1).await?;
        // Now each of the two holds the lock that the other wants.
        within("the append gives way", lock.add(&streams[0])).await??;
        if is_conflict {
            let Lock { connection, key } = &mut lock;
            let append = format!(
                "SELECT written FROM {}.append_one($1, $2, 'a', -1, gen_random_uuid(), 'Counted', \
                 4::smallint, '', '')",
                place.schema
            );
            let append = query_scalar(AssertSqlSafe(append)).bind(*key).bind(&streams[0]);
            assert!(append.fetch_one(&mut *connection).await?, "written");
            connection.execute("COMMIT").await?;
        }
        lock.release().await?;
        let appended = within("the append ends", appending).await??;
        if is_conflict {
            let error = appended.unwrap_err();
            let conflict = error.conflict().unwrap_or_else(|| panic!("{error:?}"));
            assert_eq!((conflict.stream.as_str(), conflict.actual.get()), (&*streams[0], 2));
        } else {
            assert!(appended?.iter().all(|appended| !appended.replayed));
        }
    }
    assert_eq!(everything(&store).await?.len(), 3);
    place.remove().await
}

async fn an_error_harms_only_its_append() -> Tested {
    let mut rng = Rng::with_seed(seed("an_error_harms_only_its_append"));
    let place = Place::shared().await?;
    let store = PostgresStore::open(one_writer(place.config())).await?;
    fail_inserts(&place, "NEW.type = 'Poison'", "P0001").await?;
    let poison = rng.usize(..20);
    let appends: Vec<_> = (0..20)
        .map(|number| {
            let kind = if number == poison { "Poison" } else { "Counted" };
            let event = NewEvent::json(kind, &number).unwrap();
            Append::new(id(&format!("a-{}", number % 12)), ExpectedVersion::Any, [event])
        })
        .collect();
    let (lock, all) = queue(&place, &store, &appends).await?;
    lock.release().await?;
    // The first append is the one that the lock held up.
    for (number, one) in all.into_iter().enumerate() {
        let appended = within("an append ends", one).await??;
        if number == poison + 1 {
            failed(appended, ErrorKind::Internal, false);
        } else {
            assert!(!appended?.replayed);
        }
    }
    assert_eq!(everything(&store).await?.len(), 20);
    place.remove().await
}

/// Polls a future at most this many times, and drops it.
async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        let Some(fewer) = left.checked_sub(1) else { return Poll::Ready(None) };
        left = fewer;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn dropped_appends_are_whole_or_not_there() -> Tested {
    let mut rng = Rng::with_seed(seed("dropped_appends_are_whole_or_not_there"));
    for writers in [1, 4] {
        let place = Place::shared().await?;
        let mut config = place.config().with_connections(PostgresConfig::MIN_CONNECTIONS + 1);
        config.options.writers = writers;
        let store = PostgresStore::open(config).await?;
        let mut live = store.subscribe(Subscribe::default()).await?;
        let acknowledged = Arc::new(Mutex::new(HashSet::new()));
        for _ in 0..40 {
            let mut tasks = JoinSet::new();
            for _ in 0..rng.usize(1..12) {
                let number = rng.u64(..);
                let events = [(); 3].map(|()| event(number));
                let append =
                    Append::new(id(&format!("a-{}", number % 4)), ExpectedVersion::Any, events);
                let (store, acknowledged, mut rng) =
                    (store.clone(), acknowledged.clone(), rng.fork());
                tasks.spawn(async move {
                    // Reads are dropped as well, in the middle of a page, on all connections.
                    let polls = rng.usize(..6);
                    drop(drop_after(polls, store.load_stream(&append.stream)).await);
                    let appended = drop_after(rng.usize(1..4), store.append(append)).await;
                    if let Some(appended) = appended {
                        appended.unwrap();
                        acknowledged.lock().unwrap().insert(number);
                    }
                });
            }
            // The other tasks are ended wherever they are by then.
            for _ in 0..rng.usize(..=tasks.len()) {
                tasks.join_next().await.unwrap()?;
            }
            tasks.shutdown().await;
        }
        let appended = within("the store goes on", store.append(any("last-1", 0))).await??;
        let direct = place.open().await?;
        // An append whose future was dropped may still be under way.
        let mut lock = Lock::on(&place, "unrelated-1").await?;
        lock.wait_for(0).await?;
        lock.release().await?;
        let events = everything(&direct).await?;
        let mut streams: HashMap<&StreamId, Vec<u64>> = HashMap::new();
        for event in events.iter().filter(|event| event.stream != id("last-1")) {
            streams.entry(&event.stream).or_default().push(event.json()?);
        }
        let mut written = HashSet::new();
        for numbers in streams.into_values() {
            for append in numbers.chunks(3) {
                assert!(append.len() == 3 && append.iter().all(|n| *n == append[0]), "{append:?}");
                assert!(written.insert(append[0]), "{append:?} was written twice");
            }
        }
        let acknowledged = acknowledged.lock().unwrap().clone();
        assert!(acknowledged.is_subset(&written), "acknowledged, but not written");
        eprintln!("{} were written, {} acknowledged", written.len(), acknowledged.len());
        let mut seen = Vec::new();
        while seen.last() != Some(&appended.position) {
            seen.push(within("the subscriber goes on", live.next_event()).await??.position);
        }
        assert!(seen.iter().is_sorted());
        place.remove().await?;
    }
    Ok(())
}

/// Counts what clients send. A client waits for the answer to each statement before it sends the next.
#[derive(Clone, Default)]
struct Sent(Arc<AtomicUsize>);

impl Protocol for Sent {
    fn conversation(&self) -> Box<dyn Conversation> {
        Box::new(self.clone())
    }
}

impl Conversation for Sent {
    fn request(&mut self, bytes: &[u8], _losses: &Losses) {
        self.0.fetch_add(usize::from(!bytes.is_empty()), Ordering::SeqCst);
    }

    fn answer(&mut self, bytes: &[u8]) -> Fate {
        Fate { pass: bytes.len(), lost: false }
    }
}

async fn conflicts_cost_their_neighbours_no_statements() -> Tested {
    const CONFLICTS: usize = 60;
    let place = Place::shared().await?;
    place.open().await?.append(any("a-1", 1)).await?;
    let sent = Sent::default();
    let proxy = Proxy::between(place.server.addr(), sent.clone()).await?;
    let config = one_writer(place.config_at(&place.server.url_at(proxy.addr())));
    let store = PostgresStore::open(config).await?;
    let create = |n| Append::new(id("a-1"), ExpectedVersion::NoStream, [event(n)]);
    let appends: Vec<_> = (0..).map(create).take(CONFLICTS).collect();
    let (lock, mut all) = queue(&place, &store, &appends).await?;
    let before = sent.0.load(Ordering::SeqCst);
    lock.release().await?;
    all.remove(0).await??;
    for appended in all {
        failed(within("an append ends", appended).await??, ErrorKind::Conflict, false);
    }
    let sent = sent.0.load(Ordering::SeqCst) - before;
    assert!(sent <= CONFLICTS / 3, "{CONFLICTS} conflicts took {sent} requests");
    place.remove().await
}
