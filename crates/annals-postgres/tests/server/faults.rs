//! Killed servers, lost connections and answers, hanging networks, locks and full pools:
//! acknowledged events are there once, refused events are not, and subscribers miss nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{
    Append, Error, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Result, Subscribe,
    Version,
};
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{
        AssertSqlSafe, PgPool, Postgres, pool::PoolConnection, postgres::PgPoolOptions,
        query_scalar,
    },
};
use annals_test_servers::{
    BoxError, Conversation, Fate, Losses, Protocol, Proxy,
    postgres::{Marked, Options, Source},
    until,
};
use fastrand::Rng;
use futures::future::join_all;

use crate::common::{PATIENCE, Place, Tested, event, everything, id, seed, tests, until_listening};
use crate::{load::*, lock::*};

tests! { "faults":
    Ours a_server_is_killed_under_load;
    Ours a_server_that_is_down_is_named_soon;
    Any answers_are_lost_under_load;
    Any connections_are_cut_and_refused_under_load;
    Any answers_of_one_transaction_are_lost_together;
    Any an_append_whose_answer_was_lost_wakes_subscribers;
    Any an_append_that_repeats_an_id_is_written_once;
    Any a_retry_needs_no_second_connection;
    Any a_network_hangs;
    Any idle_connections_have_died;
    Any sessions_are_terminated;
    Any a_full_pool_is_busy;
    Any a_full_pool_fails_all_that_wait_at_once;
    Any more_calls_than_connections;
    Any subscribers_poll_without_a_listener;
}

/// How long a call waits for a connection in tests that want it to fail soon.
const SOON: Duration = Duration::from_millis(300);
async fn proxy(place: &Place) -> Result<(Proxy, PostgresConfig), BoxError> {
    let proxy = Proxy::between(place.server.addr(), Marked::new(".append")).await?;
    let config = place.config_at(&place.server.url_at(proxy.addr()));
    Ok((proxy, config.with_acquire_timeout(SOON)))
}

async fn a_server_is_killed_under_load() -> Tested {
    let mut rng = Rng::with_seed(seed("a_server_is_killed_under_load"));
    let server = Arc::new(Source::find()?.start(Options::default()).await?);
    let place = Place::on(server.clone());
    let open = || PostgresStore::open(place.config().with_acquire_timeout(SOON));
    let (store, other) = (open().await?, open().await?);
    let mut load = Load::start(&store, &other, &mut rng).await?;
    for _ in 0..3 {
        load.more(rng.usize(1..300)).await?;
        server.kill().await?;
        let error = store.append(any("outage-1", 1)).await.expect_err("the server is down");
        assert!(error.is_retryable(), "{error:?}");
        server.start_again().await?;
    }
    load.end(&place).await?;
    drop((store, other, place));
    // Dropping the server blocks until it has ended.
    Ok(tokio::task::spawn_blocking(move || drop(server)).await?)
}

/// Long before the acquire timeout, and as what it is.
async fn a_server_that_is_down_is_named_soon() -> Tested {
    let server = Arc::new(Source::find()?.start(Options::default()).await?);
    let place = Place::on(server.clone());
    let store = PostgresStore::open(place.config().with_acquire_timeout(10 * PATIENCE)).await?;
    store.append(any("a-1", 1)).await?;
    server.kill().await?;
    for _ in 0..3 {
        let error = within("a read fails", store.load_stream(&id("a-1"))).await?.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let failed = within("an append fails", store.append(any("a-1", 1))).await?;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    server.start_again().await?;
    assert!(!within("a read", store.load_stream(&id("a-1"))).await??.is_empty());
    drop((store, place));
    // Dropping the server blocks until it has ended.
    Ok(tokio::task::spawn_blocking(move || drop(server)).await?)
}

async fn answers_are_lost_under_load() -> Tested {
    let mut rng = Rng::with_seed(seed("answers_are_lost_under_load"));
    let place = Place::shared().await?;
    let (proxy, config) = proxy(&place).await?;
    let (store, other) = (PostgresStore::open(config).await?, place.open().await?);
    let mut load = Load::start(&store, &other, &mut rng).await?;
    let goal = 60;
    while proxy.lost() < goal {
        load.more(rng.usize(1..30)).await?;
        // The answer to a statement that is sent again may be lost too.
        (0..rng.usize(1..=4)).for_each(|_| proxy.lose_next_answer());
    }
    load.end(&place).await?;
    let shared: bool = query_scalar(AssertSqlSafe(format!(
        "SELECT count(DISTINCT xmin::text) < count(DISTINCT stream) \
         FROM {schema}.events WHERE category = 'new'",
        schema = place.schema
    )))
    .fetch_one(&mut place.connect().await?)
    .await?;
    assert!(shared, "no two appends shared a transaction");
    place.remove().await
}

async fn connections_are_cut_and_refused_under_load() -> Tested {
    let mut rng = Rng::with_seed(seed("connections_are_cut_and_refused_under_load"));
    let place = Place::shared().await?;
    let (proxy, config) = proxy(&place).await?;
    let (store, other) =
        (PostgresStore::open(config.clone()).await?, PostgresStore::open(config).await?);
    let mut load = Load::start(&store, &other, &mut rng).await?;
    for round in 0..20 {
        load.more(rng.usize(1..60)).await?;
        proxy.refuse(round % 5 == 4);
        proxy.cut().await;
        if round % 5 == 4 {
            let error =
                store.append(any("outage-1", 1)).await.expect_err("the proxy refuses connections");
            assert!(error.is_retryable(), "{error:?}");
            proxy.refuse(false);
        }
    }
    load.end(&place).await?;
    place.remove().await
}

async fn answers_of_one_transaction_are_lost_together() -> Tested {
    let place = Place::shared().await?;
    let (proxy, config) = proxy(&place).await?;
    let store = PostgresStore::open(one_writer(config)).await?;
    // Some streams get one append, others two.
    let appends: Vec<_> = (0..20)
        .map(|n| Append::new(id(&format!("a-{}", n % 12)), ExpectedVersion::Any, [event(n)]))
        .collect();
    let (lock, mut all) = queue(&place, &store, &appends).await?;
    // The next answer is lost, and no new connection can be made to ask again.
    proxy.lose_next_answer();
    proxy.refuse(true);
    lock.release().await?;
    all.remove(0).await??;
    for one in all {
        let error = within("an append ends", one).await??.expect_err("the outcome is unknown");
        assert!(error.is_retryable() && error.outcome_unknown(), "{error:?}");
    }
    assert_eq!(proxy.lost(), 1, "they shared a transaction");
    let direct = place.open().await?;
    let before = everything(&direct).await?;
    assert_eq!(before.len(), 21);
    proxy.refuse(false);
    let again = join_all(appends.iter().map(|append| store.append(append.clone()))).await;
    for (append, again) in appends.iter().zip(again) {
        let again = again?;
        assert!(again.replayed);
        let found = before.iter().find(|event| event.position == again.position).unwrap();
        assert_eq!((found.id, &found.stream), (append.events[0].id(), &append.stream));
    }
    assert_eq!(everything(&direct).await?.len(), 21);
    place.remove().await
}

/// A poll interval longer than any test, so that only a wake-up can bring an event.
const NEVER: Duration = Duration::from_secs(3_600);

async fn an_append_whose_answer_was_lost_wakes_subscribers() -> Tested {
    let place = Place::shared().await?;
    let (proxy, mut config) = proxy(&place).await?;
    config.options.poll_interval = NEVER;
    let (store, other) =
        (PostgresStore::open(config.clone()).await?, PostgresStore::open(config).await?);
    let (mut own, mut others) = (
        store.subscribe(Subscribe::default()).await?,
        other.subscribe(Subscribe::default()).await?,
    );
    until_listening(&place, 2).await?;
    // In the second round, the answer to the statement that is sent again is lost too.
    for (number, lost) in [(1, 1), (2, 2), (3, 1)] {
        (0..lost).for_each(|_| proxy.lose_next_answer());
        let append = Append::new(id("a-1"), Version::new(number - 1), [event(number)]);
        match store.append(append).await {
            Ok(appended) => assert!(lost == 1 && appended.replayed, "{appended:?}"),
            Err(error) => assert!(lost == 2 && error.outcome_unknown(), "{error:?}"),
        }
        for subscription in [&mut own, &mut others] {
            let seen = within("a subscriber is woken", subscription.next_event()).await??;
            assert_eq!(seen.version.get(), number);
        }
    }
    assert_eq!(proxy.lost(), 4);
    place.remove().await
}

/// Loses the answer to the second request with `.append`.
struct Second;

impl Protocol for Second {
    fn conversation(&self) -> Box<dyn Conversation> {
        let marked = Marked::new(".append");
        let first = Losses::default();
        first.arm();
        Box::new(AfterFirst {
            first,
            watching: marked.conversation(),
            losing: marked.conversation(),
        })
    }
}

struct AfterFirst {
    /// Is claimed by the first request.
    first: Losses,
    watching: Box<dyn Conversation>,
    losing: Box<dyn Conversation>,
}

impl Conversation for AfterFirst {
    fn request(&mut self, bytes: &[u8], losses: &Losses) {
        self.losing.request(bytes, losses);
        self.watching.request(bytes, &self.first);
        let is_over = !self.first.claim();
        if is_over {
            losses.arm();
        }
        self.first.arm();
        if is_over {
            self.watching = Marked::new("no other request").conversation();
        }
    }

    fn answer(&mut self, bytes: &[u8]) -> Fate {
        self.losing.answer(bytes)
    }
}

/// Its first id stands in the stream, but it is another append. When it is sent again because its
/// answer was lost, that id must not hide that it was written.
async fn an_append_that_repeats_an_id_is_written_once() -> Tested {
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists] {
        let place = Place::shared().await?;
        let direct = place.open().await?;
        let (x, c) = (event(1), event(3));
        let first = Append::new(id("a-1"), ExpectedVersion::Any, [x.clone(), event(2)]);
        direct.append(first).await?;
        let proxy = Proxy::between(place.server.addr(), Second).await?;
        let config = place.config_at(&place.server.url_at(proxy.addr()));
        let store = PostgresStore::open(config).await?;
        let again = Append::new(id("a-1"), expected, [x, c]);
        let appended = store.append(again.clone()).await?;
        assert_eq!(proxy.lost(), 1);
        assert_eq!((appended.last_version.get(), appended.replayed), (4, true));
        assert_eq!(everything(&direct).await?.len(), 4);
        assert!(direct.append(again).await?.replayed);
        place.remove().await?;
    }
    Ok(())
}

/// A small pool of an application.
fn pool(config: PostgresConfig, acquire_timeout: Duration) -> PgPool {
    PgPoolOptions::new()
        .max_connections(PostgresConfig::MIN_CONNECTIONS)
        .acquire_timeout(acquire_timeout)
        .connect_lazy_with(config.connect)
}

async fn a_retry_needs_no_second_connection() -> Tested {
    let place = Place::shared().await?;
    let (proxy, config) = proxy(&place).await?;
    let pool = pool(config.clone(), SOON);
    let store = PostgresStore::with_pool(pool.clone(), config.options).await?;
    let held = [pool.acquire().await?, pool.acquire().await?];
    for (number, expected) in [ExpectedVersion::NoStream, ExpectedVersion::Any].iter().enumerate() {
        proxy.lose_next_answer();
        let append = Append::new(id(&format!("a-{number}")), *expected, [event(1)]);
        assert!(store.append(append).await?.replayed);
    }
    drop(held);
    assert_eq!((everything(&store).await?.len(), proxy.lost()), (2, 2));
    place.remove().await
}

async fn a_network_hangs() -> Tested {
    let place = Place::shared().await?;
    let (proxy, mut config) = proxy(&place).await?;
    // Long enough for the test to stall the network while the append waits for its lock.
    config.options.request_timeout = Duration::from_secs(2);
    let (store, direct) = (PostgresStore::open(config).await?, place.open().await?);
    let mut live = store.subscribe(Subscribe::default()).await?;
    store.append(any("a-1", 1)).await?;
    assert_eq!(live.next_event().await?.version, Version::FIRST);

    let mut lock = Lock::on(&place, "a-1").await?;
    let append = Append::new(id("a-1"), Version::FIRST, [event(2)]);
    let hanging = spawn(&store, append.clone());
    lock.wait_for(1).await?;
    proxy.stall(true);
    lock.release().await?;
    failed(within("an append ends", hanging).await??, ErrorKind::Unavailable, true);
    let read = within("a read ends", store.load_stream(&id("a-1"))).await?;
    assert!(read.is_err_and(|error| error.is_retryable()));
    until("it is written all the same", PATIENCE, || async {
        everything(&direct).await.is_ok_and(|events| events.len() == 2)
    })
    .await?;

    proxy.stall(false);
    let again = store.append(append).await?;
    assert!(again.replayed);
    store.append(Append::new(id("a-1"), Version::new(2), [event(3)])).await?;
    for version in 2..=3 {
        let event = within("the subscriber goes on", live.next_event()).await??;
        assert_eq!(event.version.get(), version);
    }
    assert_eq!(everything(&direct).await?[1].position, again.position);
    place.remove().await
}

/// No call fails because an idle connection has died.
async fn idle_connections_have_died() -> Tested {
    let place = Place::shared().await?;
    let (proxy, config) = proxy(&place).await?;
    let store = PostgresStore::open(config).await?;
    for number in 1..=5 {
        // This leaves several idle connections.
        let appends = (0..40).map(|n| store.append(any(&format!("b-{n}"), number)));
        for appended in join_all(appends).await {
            appended?;
        }
        proxy.cut().await;
        store.load_stream(&id("a-1")).await?;
        proxy.cut().await;
        store.append(any("a-1", number)).await?;
    }
    assert_eq!(everything(&store).await?.len(), 5 * 41);
    place.remove().await
}

/// A fast shutdown of the server terminates sessions like this.
async fn sessions_are_terminated() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    let mut lock = Lock::on(&place, "a-1").await?;
    let mut administrator = place.connect().await?;
    let append = any("a-1", 1);
    let appending = spawn(&store, append.clone());
    let mut before = Vec::new();
    for _ in 0..2 {
        let waiting = lock.wait_for(1).await?;
        assert_ne!(waiting, before, "the append is sent again in another session");
        let terminate = "SELECT pg_terminate_backend($1, 10000)";
        let gone: bool =
            query_scalar(terminate).bind(waiting[0]).fetch_one(&mut administrator).await?;
        assert!(gone, "the session is still there");
        before = waiting;
    }
    failed(within("an append ends", appending).await??, ErrorKind::Unavailable, true);
    let again = spawn(&store, append);
    lock.wait_for(1).await?;
    lock.release().await?;
    assert!(!again.await??.replayed);
    within("the subscriber goes on", live.next_event()).await??;
    assert_eq!(everything(&store).await?.len(), 1);
    place.remove().await
}

/// Takes all connections of a pool. Terminates those that the store keeps, so that it loses them.
async fn hold_all(
    place: &Place,
    pool: &PgPool,
    store: &PostgresStore,
) -> Result<Vec<PoolConnection<Postgres>>, BoxError> {
    let mut administrator = place.connect().await?;
    let (mut held, mut pids) = (Vec::new(), Vec::<i32>::new());
    let deadline = std::time::Instant::now() + PATIENCE;
    while held.len() < usize::try_from(PostgresConfig::MIN_CONNECTIONS)? {
        assert!(std::time::Instant::now() < deadline, "the store keeps a connection to itself");
        // The store notices that a connection is dead when it uses it.
        let stream = id("a-1");
        let (acquired, _) = tokio::join!(pool.acquire(), store.load_stream(&stream));
        if let Ok(mut connection) = acquired {
            let pid = query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?;
            pids.push(pid);
            held.push(connection);
        } else {
            let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                             WHERE application_name = $1 AND pid <> ALL ($2)";
            let terminate = query_scalar::<_, i64>(terminate).bind(&place.schema).bind(&pids);
            terminate.fetch_one(&mut administrator).await?;
        }
    }
    Ok(held)
}

async fn a_full_pool_is_busy() -> Tested {
    let place = Place::shared().await?;
    let mut config = place.config();
    config.connect = config.connect.application_name(&place.schema);
    let (options, pool) = (config.options.clone(), pool(config, SOON));
    let store = PostgresStore::with_pool(pool.clone(), options).await?;
    let other = place.open().await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    store.append(any("a-1", 1)).await?;
    assert_eq!(within("the first event", live.next_event()).await??.version.get(), 1);

    let held = hold_all(&place, &pool, &store).await?;
    failed(store.append(any("a-1", 9)).await, ErrorKind::Busy, false);
    let multi = store.append_multi(vec![any("a-1", 9), any("a-2", 9)]).await.unwrap_err();
    assert_eq!((multi.kind(), multi.outcome_unknown()), (ErrorKind::Busy, false), "{multi:?}");
    let read = store.load_stream(&id("a-1")).await.unwrap_err();
    assert_eq!(read.kind(), ErrorKind::Busy, "{read:?}");
    other.append(any("a-1", 2)).await?;
    drop(held);
    for version in 2..=3 {
        let event = within("the subscriber goes on", live.next_event()).await??;
        assert_eq!(event.version.get(), version);
        if version == 2 {
            store.append(any("a-1", 3)).await?;
        }
    }
    assert_eq!(everything(&other).await?.len(), 3);
    place.remove().await
}

async fn a_full_pool_fails_all_that_wait_at_once() -> Tested {
    let place = Place::shared().await?;
    let mut config = place.config();
    config.connect = config.connect.application_name(&place.schema);
    let (options, pool) = (config.options.clone(), pool(config, SOON));
    let store = PostgresStore::with_pool(pool.clone(), options).await?;
    let held = hold_all(&place, &pool, &store).await?;
    // If they waited one after the other, it would take a minute.
    let appends = (0..200).map(|number| store.append(any("a-1", number)));
    for appended in within("all end", join_all(appends)).await? {
        failed(appended, ErrorKind::Busy, false);
    }
    drop(held);
    store.append(any("a-1", 0)).await?;
    assert_eq!(everything(&store).await?.len(), 1);
    place.remove().await
}

async fn more_calls_than_connections() -> Tested {
    const CALLERS: u64 = 60;
    let place = Place::shared().await?;
    // A call that gets no connection for so long never gets one.
    let patience = Duration::from_secs(20);
    let config = place.config().with_connections(5).with_acquire_timeout(patience);
    let store = PostgresStore::open(config).await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    store.append(any("a-1", 1)).await?;
    live.next_event().await?;
    // The callers share four connections, since one listens. A caller that is done goes on reading
    // until all are done, and must not keep the connections from the others.
    let waiting = Arc::new(AtomicU64::new(CALLERS));
    let calls = (0..CALLERS).map(|number| {
        let (store, waiting) = (store.clone(), waiting.clone());
        tokio::spawn(async move {
            for done in 1.. {
                store.load_stream(&id("a-1")).await?;
                if done == 20 {
                    store.append(any(&format!("b-{number}"), number)).await?;
                    waiting.fetch_sub(1, SeqCst);
                } else if done > 20 && waiting.load(SeqCst) == 0 {
                    break;
                }
            }
            Ok::<_, Error>(())
        })
    });
    for call in calls.collect::<Vec<_>>() {
        within("each gets a connection", call).await???;
    }
    assert_eq!(everything(&store).await?.len() as u64, CALLERS + 1);
    place.remove().await
}

async fn subscribers_poll_without_a_listener() -> Tested {
    let place = Place::shared().await?;
    let config = place.config();
    let options = config.options.clone().with_poll_interval(Duration::from_millis(50));
    let pool = pool(config, NEVER);
    let store = PostgresStore::with_pool(pool.clone(), options).await?;
    let other = place.open().await?;
    // The store keeps the connection that is left: it can read, but has no connection for LISTEN.
    let held = [pool.acquire().await?, pool.acquire().await?];
    let mut live = store.subscribe(Subscribe::default()).await?;
    for number in 1..=3 {
        other.append(any("a-1", number)).await?;
        let seen = within("a subscriber polls", live.next_event()).await??;
        assert_eq!(seen.version.get(), number);
    }
    drop(held);
    place.remove().await
}
