//! Appends in a transaction of the application.

use std::time::Duration;

use annals_core::{
    Append, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, RecordedEvent, Subscribe,
    Subscription,
};
use annals_postgres::{
    PostgresStore,
    sqlx::{self, AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions},
};
use annals_test_servers::postgres::PgBouncer;
use tokio::task::JoinSet;

use crate::{
    common::{PATIENCE, Place, Tested, event, everything, id, seed, tests, until_listening},
    load::within,
};

tests! { "append_in":
    Any rows_and_events_are_committed_together;
    Any a_refused_append_leaves_the_transaction_as_it_was;
    Any what_cannot_be_right_is_refused;
    Any a_retry_in_another_transaction_is_recognised;
    Any subscribers_are_notified_of_the_commit;
    Any readers_wait_for_an_open_transaction_and_skip_nothing;
    Any several_streams_are_written_all_or_none;
    Any another_server_is_noticed;
    Pooler it_works_behind_a_pooler_of_transactions;
    Any sessions_that_die_leave_nothing_half_done;
}

/// A store beside a table of the application.
struct Application {
    place: Place,
    store: PostgresStore,
    pool: PgPool,
}

impl Application {
    async fn new() -> Result<Self, annals_test_servers::BoxError> {
        let place = Place::shared().await?;
        let store = place.open().await?;
        let pool = PgPoolOptions::new().connect_with(place.config().connect).await?;
        place.execute("CREATE TABLE {schema}.orders (id text, version bigint)").await?;
        Ok(Self { place, store, pool })
    }

    /// Writes a row of the application.
    async fn write(&self, connection: &mut PgConnection, order: &str, version: u64) -> Tested {
        let insert = format!("INSERT INTO {}.orders VALUES ($1, $2)", self.place.schema);
        let insert = sqlx::query(AssertSqlSafe(insert)).bind(order).bind(version as i64);
        Ok(insert.execute(connection).await.map(drop)?)
    }

    async fn rows(&self) -> Result<Vec<(String, i64)>, annals_test_servers::BoxError> {
        let select = format!("SELECT id, version FROM {}.orders ORDER BY 1, 2", self.place.schema);
        Ok(sqlx::query_as(AssertSqlSafe(select)).fetch_all(&self.pool).await?)
    }

    async fn end(self) -> Tested {
        self.pool.close().await;
        drop(self.store);
        self.place.remove().await
    }
}

fn exact(stream: &str, version: u64, number: u64) -> Append {
    Append::new(id(stream), ExpectedVersion::Exact(version.into()), [event(number)])
}

async fn next(live: &mut Subscription) -> Result<RecordedEvent, annals_test_servers::BoxError> {
    Ok(within("the next event", live.next_event()).await??)
}

async fn rows_and_events_are_committed_together() -> Tested {
    let application = Application::new().await?;
    let Application { store, pool, .. } = &application;
    for (commits, version) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
        let mut transaction = pool.begin().await?;
        let appended = store.append_in(&mut transaction, exact("o-1", version, 1)).await?;
        assert_eq!((appended.last_version.get(), appended.replayed), (version + 1, false));
        application.write(&mut transaction, "o-1", version + 1).await?;
        if commits {
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        let committed = version + u64::from(commits);
        let events = everything(store).await?;
        assert_eq!(events.len() as u64, committed);
        assert_eq!(application.rows().await?.len() as u64, committed);
        assert!(!commits || events.last().is_some_and(|last| last.position == appended.position));
    }
    application.end().await
}

async fn a_refused_append_leaves_the_transaction_as_it_was() -> Tested {
    let application = Application::new().await?;
    let Application { store, pool, .. } = &application;
    store.append(exact("o-1", 0, 1)).await?;
    let mut transaction = pool.begin().await?;
    application.write(&mut transaction, "o-1", 7).await?;
    let error = store.append_in(&mut transaction, exact("o-1", 0, 2)).await.unwrap_err();
    let conflict = error.conflict().ok_or("no conflict")?;
    assert_eq!((error.kind(), conflict.actual.get()), (ErrorKind::Conflict, 1));
    assert_eq!(error.stream(), Some(&id("o-1")));
    store.append_in(&mut transaction, exact("o-1", 1, 3)).await?;
    transaction.commit().await?;
    assert_eq!(everything(store).await?.len(), 2);
    assert_eq!(application.rows().await?.len(), 1);
    application.end().await
}

async fn what_cannot_be_right_is_refused() -> Tested {
    let application = Application::new().await?;
    let Application { store, pool, .. } = &application;
    let mut transaction = pool.begin().await?;
    let empty = Append::new(id("o-1"), ExpectedVersion::Any, []);
    let error = store.append_in(&mut transaction, empty).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let refused = sqlx::query("SELECT 1 / 0").execute(&mut *transaction).await;
    refused.expect_err("a division by zero");
    let error = store.append_in(&mut transaction, exact("o-1", 0, 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::InvalidInput, false));
    assert!(error.to_string().contains("an earlier statement"), "{error}");
    transaction.rollback().await?;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut transaction = pool.begin().await?;
        let set = format!("SET TRANSACTION ISOLATION LEVEL {level}");
        sqlx::query(AssertSqlSafe(set)).execute(&mut *transaction).await?;
        let error = store.append_in(&mut transaction, exact("o-1", 0, 1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{level}");
        assert!(error.to_string().contains("READ COMMITTED"), "{error}");
    }
    // A connection to a database without the store.
    let elsewhere = Place::in_database("").await?;
    let mut far = elsewhere.connect().await?;
    let mut transaction = far.begin().await?;
    let error = store.append_in(&mut transaction, exact("o-1", 0, 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    transaction.rollback().await?;
    far.close().await?;
    elsewhere.remove().await?;
    assert_eq!(everything(store).await?, []);
    application.end().await
}

async fn a_retry_in_another_transaction_is_recognised() -> Tested {
    let application = Application::new().await?;
    let Application { store, pool, .. } = &application;
    for expected in [ExpectedVersion::NoStream, ExpectedVersion::Any] {
        let stream = id(&format!("o-{expected:?}"));
        let append = Append::new(stream, expected, [event(1), event(2)]);
        let mut first = None;
        for _ in 0..3 {
            let mut transaction = pool.begin().await?;
            let appended = store.append_in(&mut transaction, append.clone()).await?;
            transaction.commit().await?;
            let first = *first.get_or_insert(appended);
            assert_eq!(appended.position, first.position);
        }
        assert!(store.append(append).await?.replayed);
    }
    assert_eq!(everything(store).await?.len(), 4);
    application.end().await
}

async fn subscribers_are_notified_of_the_commit() -> Tested {
    let application = Application::new().await?;
    let Application { place, store, pool } = &application;
    let mut config = place.config();
    config.options.poll_interval = Duration::from_secs(3600);
    // One store appends, another one only reads.
    let (writer, reader) =
        (PostgresStore::open(config.clone()).await?, PostgresStore::open(config).await?);
    let mut subscriptions = [
        writer.subscribe(Subscribe::default()).await?,
        reader.subscribe(Subscribe::default()).await?,
    ];
    for live in &mut subscriptions {
        within("caught up", live.next()).await??;
    }
    until_listening(place, 2).await?;
    // Whatever has woken them so far is over when they wait for the next event.
    writer.append(exact("o-1", 0, 1)).await?;
    for live in &mut subscriptions {
        next(live).await?;
        let early = tokio::time::timeout(Duration::from_millis(30), live.next_event()).await;
        assert!(early.is_err(), "{early:?}");
    }
    let mut transaction = pool.begin().await?;
    let appended = writer.append_in(&mut transaction, exact("o-1", 1, 2)).await?;
    transaction.commit().await?;
    for live in &mut subscriptions {
        assert_eq!(next(live).await?.position, appended.position);
    }
    drop((subscriptions, writer, reader));
    assert_eq!(everything(store).await?.len(), 2);
    application.end().await
}

async fn readers_wait_for_an_open_transaction_and_skip_nothing() -> Tested {
    let application = Application::new().await?;
    let Application { store, pool, .. } = &application;
    let mut live = store.subscribe(Subscribe::default()).await?;
    for commits in [true, false] {
        let before = everything(store).await?.len() as u64;
        let mut transaction = pool.begin().await?;
        let open = store.append_in(&mut transaction, exact("o-1", before / 2, 1)).await?;
        let passed = store.append_to("o-2", ExpectedVersion::Any, [event(1)]).await?;
        assert!(passed.position > open.position);
        // The event behind the open transaction does not come before it has ended.
        let early = tokio::time::timeout(Duration::from_millis(50), live.next_event()).await;
        assert!(early.is_err(), "{early:?} came beside an open transaction");
        if commits {
            transaction.commit().await?;
            assert_eq!(next(&mut live).await?.position, open.position);
        } else {
            drop(transaction);
        }
        assert_eq!(next(&mut live).await?.position, passed.position);
    }
    application.end().await
}

async fn several_streams_are_written_all_or_none() -> Tested {
    let application = Application::new().await?;
    let Application { store, pool, .. } = &application;
    let mut transaction = pool.begin().await?;
    let both = vec![exact("o-1", 0, 1), exact("o-2", 0, 1)];
    assert_eq!(store.append_multi_in(&mut transaction, both).await?.len(), 2);
    let stale = vec![exact("o-1", 1, 2), exact("o-2", 0, 2)];
    let error = store.append_multi_in(&mut transaction, stale).await.unwrap_err();
    assert_eq!((error.kind(), error.stream()), (ErrorKind::Conflict, Some(&id("o-2"))));
    transaction.commit().await?;
    assert_eq!(everything(store).await?.len(), 2);
    application.end().await
}

/// The application's connections are not the store's, which looks on each new one which server it is.
async fn another_server_is_noticed() -> Tested {
    let application = Application::new().await?;
    let Application { place, store, pool } = &application;
    store.append(exact("o-1", 0, 1)).await?;
    place.execute("UPDATE {schema}.store SET history = 'of another server'").await?;
    let mut transaction = pool.begin().await?;
    let appended = store.append_in(&mut transaction, exact("o-1", 1, 2)).await?;
    transaction.commit().await?;
    assert!(appended.position.get() > 1_000_000_000, "{appended:?}");
    application.end().await
}

async fn it_works_behind_a_pooler_of_transactions() -> Tested {
    let place = Place::shared().await?;
    let bouncer = PgBouncer::start(&place.server, "transaction", 3).await?;
    let config = place.config_at(&place.server.url_at(bouncer.addr()));
    let store = PostgresStore::open(config.clone()).await?;
    let pool = PgPoolOptions::new()
        .max_connections(6)
        .connect_with(config.connect.extra_float_digits(None))
        .await?;
    let mut tasks = JoinSet::new();
    for task in 0..6 {
        let (store, pool) = (store.clone(), pool.clone());
        tasks.spawn(async move {
            for version in 0..5 {
                let mut transaction = pool.begin().await?;
                let append = exact(&format!("o-{task}"), version, version);
                store.append_in(&mut transaction, append).await?;
                transaction.commit().await?;
            }
            Tested::Ok(())
        });
    }
    while let Some(done) = within("the appends", tasks.join_next()).await? {
        done??;
    }
    assert_eq!(everything(&store).await?.len(), 30);
    pool.close().await;
    drop((store, bouncer));
    place.remove().await
}

/// The server ends sessions in the middle of transactions, beside readers. What was committed has both
/// the row and the event; what was not has neither; and no reader skips an event.
async fn sessions_that_die_leave_nothing_half_done() -> Tested {
    const WRITERS: u64 = 4;
    const ROUNDS: u64 = 25;
    let application = Application::new().await?;
    let Application { store, pool, place } = &application;
    let mut live = store.subscribe(Subscribe::default()).await?;
    let seed = seed("sessions_that_die_leave_nothing_half_done");
    let kill = format!("SELECT pg_terminate_backend($1) /* {} */", place.schema);
    let mut committed = 0;
    let writers = (0..WRITERS).map(|writer| {
        let (application, kill) = (&application, kill.clone());
        let mut random = fastrand::Rng::with_seed(seed + writer);
        async move {
            let (mut version, stream) = (0, format!("o-{writer}"));
            for _ in 0..ROUNDS {
                let mut transaction = pool.begin().await?;
                let session: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
                    .fetch_one(&mut *transaction)
                    .await?;
                let dies = random.u8(0..3);
                let written = async {
                    store.append_in(&mut transaction, exact(&stream, version, version)).await?;
                    if dies == 0 {
                        sqlx::query(AssertSqlSafe(kill.clone()))
                            .bind(session)
                            .execute(pool)
                            .await?;
                    }
                    application.write(&mut transaction, &stream, version + 1).await?;
                    if dies == 1 {
                        sqlx::query(AssertSqlSafe(kill.clone()))
                            .bind(session)
                            .execute(pool)
                            .await?;
                    }
                    transaction.commit().await?;
                    Tested::Ok(())
                };
                match written.await {
                    Ok(()) => version += 1,
                    Err(error) if dies == 2 => return Err(error),
                    Err(_) => {}
                }
            }
            Ok::<_, annals_test_servers::BoxError>(version)
        }
    });
    for version in within("the writers", futures::future::join_all(writers)).await? {
        committed += version?;
    }
    assert!(committed > 0 && committed < WRITERS * ROUNDS, "{committed} were committed");
    let events = everything(store).await?;
    let mut written: Vec<_> =
        events.iter().map(|event| (event.stream.to_string(), event.version.to_i64())).collect();
    written.sort();
    assert_eq!((written.len() as u64, &written), (committed, &application.rows().await?));
    let mut seen = Vec::new();
    while seen.len() < events.len() {
        seen.push(tokio::time::timeout(PATIENCE, next(&mut live)).await??);
    }
    assert_eq!(seen, events);
    application.end().await
}
