//! Behind PgBouncer a store works, whether PgBouncer pools sessions or transactions.

use std::{sync::Arc, time::Duration};

use annals_core::{
    Append, CheckpointStore, ErrorKind, EventStore, ExpectedVersion, NewEvent, Subscribe,
    SubscriberId,
};
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{ConnectOptions, Connection, Row, postgres::PgPoolOptions, raw_sql},
};
use annals_postgres_shared::{dial::probe, session::Pooling};
use annals_test_servers::{
    BoxError, Proxy,
    postgres::{Marked, Options, PgBouncer, Source},
};
use tokio::task::JoinSet;

use crate::{
    beside::Listener,
    common::{PATIENCE, Place, Tested, event, everything, id, tests, until_listening},
    load::within,
    lock::*,
};

tests! { "pooler":
    Pooler a_store_works_behind_one_that_pools_sessions;
    Pooler a_store_works_behind_one_that_pools_transactions;
    Pooler statements_end_behind_one_that_pools_transactions;
    Pooler notifications_pass_by_one_that_pools_transactions;
    Pooler a_commit_whose_answer_was_lost_is_recognised;
    Pooler a_busy_one_is_noticed;
    Pooler another_server_behind_one_is_noticed;
}

/// Fewer than the stores have connections, so that sessions change hands all the time.
const SESSIONS: usize = 6;
/// A poll interval longer than any test, so that only a notification can bring an event.
const NEVER: Duration = Duration::from_secs(3600);
/// So many bytes are not written into the text of a statement.
const LONG: usize = 200_000;

fn behind(bouncer: &PgBouncer, place: &Place) -> PostgresConfig {
    place.config_at(&place.server.url_at(bouncer.addr()))
}

async fn a_store_works_behind_one_that_pools_sessions() -> Tested {
    let place = Place::shared().await?;
    let bouncer = PgBouncer::start(&place.server, "session", 30).await?;
    works(&PostgresStore::open(behind(&bouncer, &place)).await?).await?;
    drop(bouncer);
    place.remove().await
}

async fn a_store_works_behind_one_that_pools_transactions() -> Tested {
    // A server of its own, so that no other session's settings are found.
    let place = Place::on(Arc::new(Source::find()?.start(Options::default()).await?));
    let bouncer = PgBouncer::start(&place.server, "transaction", SESSIONS).await?;
    let config = behind(&bouncer, &place);
    let pool = PgPoolOptions::new()
        .max_connections(5)
        .connect_lazy_with(config.connect.clone().extra_float_digits(None));
    for _ in 0..3 {
        let stores = [
            PostgresStore::open(config.clone()).await?,
            PostgresStore::with_pool(pool.clone(), config.options.clone()).await?,
        ];
        for store in &stores {
            works(store).await?;
        }
        let (one, other) = tokio::join!(work(&stores[0]), work(&stores[1]));
        one?;
        other?;
    }
    // Nothing is left in the sessions for the pooler's other clients.
    let connect = config.connect.clone().extra_float_digits(None);
    for _ in 0..SESSIONS {
        let mut other = connect.connect().await?;
        let left = "BEGIN; SELECT current_setting('statement_timeout'), current_setting('jit'), \
                    current_setting('enable_seqscan'), \
                    (SELECT count(*) FROM pg_prepared_statements), \
                    (SELECT count(*) FROM pg_listening_channels())";
        let row = raw_sql(left).fetch_one(&mut other).await?;
        let settings: [&str; 3] = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
        assert_eq!(settings, ["0", "on", "on"]);
        assert_eq!((row.try_get(3)?, row.try_get(4)?), (0_i64, 0_i64), "statements, channels");
    }
    drop(bouncer);
    // Dropping the server blocks until it has ended.
    Ok(tokio::task::spawn_blocking(move || drop(place)).await?)
}

async fn statements_end_behind_one_that_pools_transactions() -> Tested {
    let place = Place::shared().await?;
    let bouncer = PgBouncer::start(&place.server, "transaction", SESSIONS).await?;
    let mut config = behind(&bouncer, &place);
    config.options.request_timeout = Duration::from_secs(1);
    let store = PostgresStore::open(config).await?;
    let mut lock = Lock::on(&place, "a-1").await?;
    let appended = within("an append ends", store.append(any("a-1", 1))).await?;
    failed(appended, ErrorKind::Busy, false);
    assert_eq!(lock.waiting().await?, [0; 0]);
    // An append that is dropped leaves no transaction behind.
    let dropped =
        tokio::time::timeout(Duration::from_millis(50), store.append(any("a-1", 2))).await;
    assert!(dropped.is_err(), "did not wait for the lock");
    lock.wait_for(0).await?;
    lock.release().await?;
    let before = everything(&store).await?.len();
    store.append(any("a-1", 3)).await?;
    assert_eq!(everything(&store).await?.len(), before + 1);
    drop(bouncer);
    place.remove().await
}

async fn notifications_pass_by_one_that_pools_transactions() -> Tested {
    let place = Place::shared().await?;
    let bouncer = PgBouncer::start(&place.server, "transaction", SESSIONS).await?;
    let mut config = behind(&bouncer, &place);
    config.options.poll_interval = NEVER;
    let direct = place.config().connect;
    let listening = PostgresStore::open(config.clone().with_listen(direct)).await?;
    let mut live = listening.subscribe(Subscribe::default()).await?;
    until_listening(&place, 1).await?;
    let writer = PostgresStore::open(config.clone()).await?;
    for number in 0..10 {
        let appended = writer.append(any("a-1", number)).await?;
        let seen = within("an event of another process", live.next_event()).await??;
        assert_eq!(seen.position, appended.position);
    }
    // A way to listen that leads to the pooler too.
    let twice = config.connect.clone();
    let error = PostgresStore::open(config.with_listen(twice)).await.expect_err("it is opened");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    assert!(error.to_string().contains("the server itself"), "{error}");
    drop((bouncer, live));
    place.remove().await
}

async fn a_commit_whose_answer_was_lost_is_recognised() -> Tested {
    let place = Place::shared().await?;
    let bouncer = PgBouncer::start(&place.server, "transaction", SESSIONS).await?;
    // A short append is one request, and so one transaction. A long one is several.
    for (marker, bytes, replayed) in
        [(".append", 1, true), (".append", LONG, false), ("COMMIT", LONG, true)]
    {
        let proxy = Proxy::between(bouncer.addr(), Marked::new(marker)).await?;
        let store =
            PostgresStore::open(place.config_at(&place.server.url_at(proxy.addr()))).await?;
        proxy.lose_next_answer();
        let stream = id(&format!("a-{}-{bytes}", marker.len()));
        let event = NewEvent::binary("t", vec![0; bytes])?;
        let append = Append::new(stream, ExpectedVersion::NoStream, [event]);
        let appended = store.append(append.clone()).await?;
        // Without its commit the append was rolled back, and written when it was sent again.
        assert_eq!((proxy.lost(), appended.replayed), (1, replayed), "{marker}, {bytes}");
        assert!(store.append(append).await?.replayed);
    }
    assert_eq!(everything(&place.open().await?).await?.len(), 3);
    drop(bouncer);
    place.remove().await
}

/// While other clients take and return sessions, a look often sees the same session twice, as if there
/// were no pooler. The sessions are older than the connections, which is why it looks more often.
async fn a_busy_one_is_noticed() -> Tested {
    const OTHERS: usize = 4;
    const PROBES: usize = 100;
    let place = Place::shared().await?;
    // With two sessions, one of which a look holds, every second look is wrong.
    let bouncer = PgBouncer::start(&place.server, "transaction", 2).await?;
    let connect = behind(&bouncer, &place).connect.extra_float_digits(None);
    let mut others = JoinSet::new();
    for _ in 0..OTHERS {
        let mut other = connect.connect().await?;
        others.spawn(async move { while raw_sql("SELECT 1").execute(&mut other).await.is_ok() {} });
    }
    for number in 0..PROBES {
        let connection = connect.connect().await?;
        let ([one, other], pooling) =
            within("a look", probe(connection, &connect, PATIENCE, PATIENCE)).await??;
        assert!(matches!(pooling, Pooling::Transactions { .. }), "not noticed at {number}");
        tokio::try_join!(one.close(), other.close())?;
    }
    assert!(others.try_join_next().is_none(), "a client has ended");
    drop((others, bouncer));
    place.remove().await
}

/// A pooler connects to another server, and its clients keep their connections.
async fn another_server_behind_one_is_noticed() -> Tested {
    let place = Place::shared().await?;
    let bouncer = PgBouncer::start(&place.server, "transaction", SESSIONS).await?;
    let store = PostgresStore::open(behind(&bouncer, &place)).await?;
    let mut live = Listener::on(&store, Subscribe::default()).await?;
    let before = store.append(any("a-1", 1)).await?.position.get();
    assert_eq!(live.next().await?, before);
    place.execute("UPDATE {schema}.store SET history = 'another'").await?;
    let after = store.append(any("a-1", 2)).await?.position.get();
    assert!(after > 1_000_000_000, "{after}");
    assert_eq!(live.next().await?, after);
    drop((bouncer, live));
    place.remove().await
}

const WRITERS: u64 = 8;
const APPENDS: u64 = 20;

async fn works(store: &PostgresStore) -> Tested {
    let before = everything(store).await?;
    let after = before.last().map(|event| event.position).unwrap_or_default();
    let mut live = Listener::on(store, Subscribe::default().after(after)).await?;
    let written = work(store).await?;
    let events = everything(store).await?;
    assert_eq!(events.len() - before.len(), written);
    for event in &events[before.len()..] {
        assert_eq!(live.next().await?, event.position.get());
    }
    Ok(())
}

/// Returns how many events were written.
async fn work(store: &PostgresStore) -> Result<usize, BoxError> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for number in 0..APPENDS {
                let stream = format!("a-{writer}-{}", number % 3);
                let append = Append::new(id(&stream), ExpectedVersion::Any, [event(number)]);
                insist(|| store.append(append.clone())).await?;
                insist(|| store.stream_info(&append.stream)).await?;
                let subscriber = SubscriberId::new(&stream)?;
                insist(|| store.save_checkpoint(&subscriber, number.into())).await?;
                let kept = insist(|| store.load_checkpoint(&subscriber)).await?;
                assert!(kept >= Some(number.into()), "{kept:?}");
            }
            Ok::<_, BoxError>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(usize::try_from(WRITERS * APPENDS)?)
}

/// Tries again as an application would: PgBouncer closes a client's connection if it cannot get one
/// to the server.
async fn insist<T, F>(mut call: impl FnMut() -> F) -> annals_core::Result<T>
where
    F: Future<Output = annals_core::Result<T>>,
{
    loop {
        match call().await {
            Err(error) if error.is_retryable() => tokio::task::yield_now().await,
            done => return done,
        }
    }
}
