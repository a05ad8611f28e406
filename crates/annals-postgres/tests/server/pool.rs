//! A store on the application's pool: it shares the connections, and returns them unchanged.

use annals_core::{
    CheckpointStore, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Position, Sink,
    Subscribe, SubscriberId,
};
use annals_postgres::{
    PostgresSink, PostgresStore,
    sqlx::{AssertSqlSafe, Connection, Executor, PgPool, Row, postgres::PgPoolOptions, query},
};
use annals_test_servers::until;
use futures::future::{join_all, try_join_all};
use tokio::time::timeout;

use crate::common::{PATIENCE, Place, Tested, event, id, tests};

tests! { "pool":
    Any is_shared_with_the_application;
    Any keeps_half_for_the_application;
    Any has_to_have_three_connections;
    Any has_to_read_what_is_committed;
    Any is_closed_under_the_store;
    Any outlives_the_store;
    Any store_is_dropped_outside_a_runtime;
    Any gets_connections_back_as_they_were;
}

const CONNECTIONS: u32 = 5;

/// The application's pool, which names its connections after the schema.
fn pool(place: &Place, connections: u32, settings: &str) -> PgPool {
    let set = format!("SET application_name = {}; {settings}", place.schema);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        .after_connect(move |connection, _| {
            let set = AssertSqlSafe(set.clone());
            Box::pin(async move { connection.execute(set).await.map(drop) })
        })
        .connect_lazy_with(place.config().connect)
}

async fn open(place: &Place, pool: &PgPool) -> annals_core::Result<PostgresStore> {
    PostgresStore::with_pool(pool.clone(), place.config().options).await
}

/// Does many different things with the store at the same time.
async fn use_all(store: &PostgresStore) -> Tested {
    const TASKS: u64 = 20;
    let mut live = store.subscribe(Subscribe::default()).await?;
    let all = (0..TASKS).map(async |number| {
        let stream = id(&format!("s-{}", number % 3));
        store.append_to(&stream, ExpectedVersion::Any, [event(number)]).await?;
        store.load_stream(&stream).await?;
        let subscriber = SubscriberId::new(format!("s{number}"))?;
        store.save_checkpoint(&subscriber, Position::new(number)).await
    });
    try_join_all(all).await?;
    for _ in 0..TASKS {
        timeout(PATIENCE, live.next_event()).await??;
    }
    // Some appends are dropped in the middle.
    let left = (0..TASKS).map(async |number| {
        let stream = id(&format!("s-{number}"));
        let append = store.append_to(&stream, ExpectedVersion::Any, [event(number)]);
        drop(timeout(std::time::Duration::from_micros(100 * number), append).await);
    });
    join_all(left).await;
    Ok(())
}

async fn is_shared_with_the_application() -> Tested {
    let place = Place::shared().await?;
    let pool = pool(&place, CONNECTIONS, "");
    let store = open(&place, &pool).await?;
    let table = format!("{}.orders", place.schema);
    pool.execute(AssertSqlSafe(format!("CREATE TABLE {table} (number bigint)"))).await?;
    use_all(&store).await?;
    let insert = format!("INSERT INTO {table} VALUES (1)");
    assert_eq!(pool.execute(AssertSqlSafe(insert)).await?.rows_affected(), 1);
    // No other session has used this schema.
    let counts = "SELECT count(*) FILTER (WHERE application_name = $1), \
        count(*) FILTER (WHERE application_name <> $1 AND position($1 IN query) > 0) \
        FROM pg_stat_activity WHERE pid <> pg_backend_pid()";
    let row = query(counts).bind(&place.schema).fetch_one(&mut place.connect().await?).await?;
    let (of_pool, others): (i64, i64) = (row.get(0), row.get(1));
    assert!((2..=i64::from(CONNECTIONS)).contains(&of_pool) && others == 0, "{of_pool}, {others}");
    pool.execute(AssertSqlSafe(format!("DROP TABLE {table}"))).await?;
    place.remove().await
}

async fn keeps_half_for_the_application() -> Tested {
    let place = Place::shared().await?;
    for connections in [3, CONNECTIONS, 8] {
        let pool = pool(&place, connections, "");
        let store = open(&place, &pool).await?;
        use_all(&store).await?;
        // Of three connections the store needs two, since one listens.
        let others = connections - (connections / 2).max(2);
        let all = (0..others).map(|_| pool.acquire());
        let all = try_join_all(all).await?;
        // The store still works on the connections that it keeps.
        timeout(PATIENCE, store.load_stream(&id("s-0"))).await??;
        drop(all);
    }
    place.remove().await
}

async fn has_to_have_three_connections() -> Tested {
    let place = Place::shared().await?;
    let error = open(&place, &pool(&place, 2, "")).await.expect_err("a pool of two");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("at most 2 connections"), "{error}");
    Ok(())
}

/// An append must see what was committed before it got its lock.
async fn has_to_read_what_is_committed() -> Tested {
    let place = Place::shared().await?;
    let pool = pool(&place, CONNECTIONS, "SET default_transaction_isolation = 'serializable'");
    let error = open(&place, &pool).await.expect_err("another isolation level");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("default_transaction_isolation"), "{error}");
    place.remove().await
}

async fn is_closed_under_the_store() -> Tested {
    let place = Place::shared().await?;
    let pool = pool(&place, CONNECTIONS, "");
    let store = open(&place, &pool).await?;
    use_all(&store).await?;
    let mut live =
        store.subscribe(Subscribe::default().after(store.last_position().await?)).await?;
    // `close` waits until the store has returned its connections.
    timeout(PATIENCE, pool.close()).await?;
    let stream = id("s-0");
    let append = store.append_to(&stream, ExpectedVersion::Any, [event(0)]).await;
    let read = store.load_stream(&stream).await.err();
    let info = store.stream_info(&stream).await.err();
    let waiting = timeout(PATIENCE, live.next_event()).await?.err();
    for error in [append.err(), read, info, waiting] {
        let error = error.expect("the pool is closed");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(!error.outcome_unknown(), "{error}");
    }
    let sessions =
        format!("SELECT 1 FROM pg_stat_activity WHERE application_name = '{}'", place.schema);
    until("its sessions have ended", PATIENCE, || async {
        place.execute(&sessions).await.is_ok_and(|rows| rows == 0)
    })
    .await?;
    place.remove().await
}

async fn store_is_dropped_outside_a_runtime() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    use_all(&store).await?;
    let dropped = tokio::task::spawn_blocking(|| std::thread::spawn(move || drop(store)).join());
    assert!(dropped.await?.is_ok(), "it panicked");
    place.remove().await
}

async fn outlives_the_store() -> Tested {
    let place = Place::shared().await?;
    let pool = pool(&place, CONNECTIONS, "");
    for _ in 0..2 {
        let store = open(&place, &pool).await?;
        use_all(&store).await?;
        drop(store);
        assert!(!pool.is_closed());
    }
    // All connections are free again.
    drop(try_join_all((0..CONNECTIONS).map(|_| pool.acquire())).await?);
    place.remove().await
}

async fn gets_connections_back_as_they_were() -> Tested {
    const SETTINGS: &str = "SELECT string_agg(name || ' = ' || setting, ', ' ORDER BY name) \
        FROM pg_settings WHERE source IN ('session', 'client')";
    let place = Place::shared().await?;
    let pool = pool(&place, CONNECTIONS, "");
    let mut fresh = pool.acquire().await?.detach();
    let settings: String = query(SETTINGS).fetch_one(&mut fresh).await?.get(0);
    fresh.close().await?;
    let store = open(&place, &pool).await?;
    use_all(&store).await?;
    // A projection drops its transaction.
    let subscriber = SubscriberId::new("gives up")?;
    let mut transaction = pool.begin().await?;
    let last = store.last_position().await?;
    let sink = PostgresSink::new(pool.clone()).with_table(&format!("{}.sink", place.schema))?;
    sink.prepare().await?;
    assert!(sink.advance(&mut transaction, &subscriber, None, last).await?);
    drop(transaction);
    drop(store);
    let mut all = try_join_all((0..CONNECTIONS).map(|_| pool.acquire())).await?;
    let mut sessions = Vec::new();
    for connection in &mut all {
        let left = "SELECT pg_backend_pid(), (SELECT count(*) FROM pg_listening_channels())";
        let row = query(left).fetch_one(&mut **connection).await?;
        sessions.push(row.get::<i32, _>(0));
        assert_eq!(row.get::<i64, _>(1), 0, "it listens");
        let now: String = query(SETTINGS).fetch_one(&mut **connection).await?.get(0);
        assert_eq!(now, settings);
    }
    // Asked in another session, since the session that runs this statement is in a transaction.
    let left = "SELECT count(*) FILTER (WHERE state = 'idle' AND backend_xid IS NULL), \
        (SELECT count(*) FROM pg_locks WHERE pid = ANY ($1)) \
        FROM pg_stat_activity WHERE pid = ANY ($1)";
    let row = query(left).bind(&sessions).fetch_one(&mut place.connect().await?).await?;
    assert_eq!((row.get(0), row.get(1)), (i64::from(CONNECTIONS), 0_i64));
    drop(all);
    place.remove().await
}
