//! The store's sessions with the server: how many there are, how they end, and what they cost those
//! that wait.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{
    Append, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, NewEvent, ReadAll, Subscribe,
    TryStreamExt,
};
use annals_postgres::{
    PostgresStore,
    sqlx::{AssertSqlSafe, ConnectOptions, Executor, postgres::PgPoolOptions, query_scalar},
};
use annals_test_servers::{BoxError, Proxy, until};
use futures::future::join_all;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::common::{PATIENCE, Place, Tested, event, everything, id, tests, until_listening};
use crate::{contention::fail_inserts, load::within, lock::*};

tests! { "sessions":
    Any statements_end_before_their_callers_give_up;
    Any a_statement_whose_client_is_gone_ends;
    Any callers_that_are_served_leave_no_connection_half_made;
    Any timeouts_of_readers_do_not_add_up;
    Any timeouts_of_appends_do_not_add_up;
    Any an_error_of_the_server_is_not_tried_for_each_append;
    Any dropped_appends_keep_little_memory;
    Any a_read_only_session_is_dropped;
    Any connections_are_replaced_when_they_are_old;
    Any a_listener_whose_network_is_dead_is_replaced;
    Any a_server_without_durable_commits_is_declared;
    Any large_events_among_small_ones_cost_few_connections;
}

/// How long a call waits in tests that want it to fail soon.
const SOON: Duration = Duration::from_millis(500);

async fn statements_end_before_their_callers_give_up() -> Tested {
    let place = Place::shared().await?;
    let mut config = place.config();
    config.options.request_timeout = Duration::from_secs(1);
    let store = PostgresStore::open(config).await?;
    let mut holder = place.connect().await?;
    let lock = format!("BEGIN; LOCK TABLE {}.events IN SHARE MODE", place.schema);
    holder.execute(AssertSqlSafe(lock)).await?;
    let appends = (0..8).map(|number| store.append(any(&format!("a-{number}"), number)));
    for appended in within("the appends end", join_all(appends)).await? {
        failed(appended, ErrorKind::Busy, false);
    }
    let waiting =
        "SELECT FROM pg_locks WHERE NOT granted AND relation = '{schema}.events'::regclass";
    assert_eq!(place.execute(waiting).await?, 0, "sessions wait whose callers have gone");
    holder.execute("COMMIT").await?;
    store.append(any("a-1", 1)).await?;
    place.remove().await
}

async fn a_statement_whose_client_is_gone_ends() -> Tested {
    let place = Place::shared().await?;
    let proxy = Proxy::start(place.server.addr()).await?;
    let store = PostgresStore::open(place.config_at(&place.server.url_at(proxy.addr()))).await?;
    let mut lock = Lock::on(&place, "a-1").await?;
    let appending = spawn(&store, any("a-1", 1));
    let before = lock.wait_for(1).await?;
    proxy.cut().await;
    // It is sent again in another session.
    let lock = tokio::sync::Mutex::new(lock);
    until("the first session has ended, and another one waits", PATIENCE, || async {
        let waiting = lock.lock().await.waiting().await;
        waiting.is_ok_and(|waiting| waiting.len() == 1 && waiting != before)
    })
    .await?;
    lock.into_inner().release().await?;
    assert!(!within("the append ends", appending).await???.replayed);
    place.remove().await
}

/// Passes connections on, and counts them.
struct Counter {
    addr: SocketAddr,
    count: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Counter {
    async fn before(server: SocketAddr) -> Result<Self, BoxError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (addr, count) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await?;
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Ok(Self { addr, count, accepting })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn callers_that_are_served_leave_no_connection_half_made() -> Tested {
    const CALLS: usize = 400;
    let place = Place::shared().await?;
    for callers in [4, 8, 20] {
        let counter = Counter::before(place.server.addr()).await?;
        let config = place.config_at(&place.server.url_at(counter.addr));
        let most = usize::try_from(config.connections)?;
        let store = PostgresStore::open(config).await?;
        store.append(any("a-1", 1)).await?;
        let calls = (0..callers).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    store.load_stream(&id("a-1")).await?;
                }
                Ok::<_, annals_core::Error>(())
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await??;
        }
        // Opening a store takes two more, and a caller that waits for a second looks for the cause.
        let begun = counter.count.load(SeqCst);
        assert!(begun <= 2 * most, "{callers} callers began {begun} connections");
    }
    place.remove().await
}

async fn timeouts_of_readers_do_not_add_up() -> Tested {
    // If each waited by itself after the one before it, it would take much longer than the test
    // waits.
    const READERS: usize = 200;
    let place = Place::shared().await?;
    let proxy = Proxy::start(place.server.addr()).await?;
    let mut config = place.config_at(&place.server.url_at(proxy.addr())).with_acquire_timeout(SOON);
    config.options.request_timeout = SOON;
    let store = PostgresStore::open(config).await?;
    store.append(any("a-1", 1)).await?;
    proxy.stall(true);
    let reads = (0..READERS).map(|_| store.read_all(ReadAll::default()).try_collect::<Vec<_>>());
    for read in within("all readers fail", join_all(reads)).await? {
        let error = read.expect_err("the server is silent");
        assert!(error.is_retryable(), "{error:?}");
        assert!(std::error::Error::source(&error).is_some(), "the cause is missing: {error:?}");
    }
    proxy.stall(false);
    until("the store reads again", PATIENCE, || async {
        everything(&store).await.is_ok_and(|events| events.len() == 1)
    })
    .await?;
    place.remove().await
}

async fn timeouts_of_appends_do_not_add_up() -> Tested {
    // As above, for transactions of 64 appends.
    const APPENDS: u64 = 64 * 100;
    let place = Place::shared().await?;
    let proxy = Proxy::start(place.server.addr()).await?;
    let mut config = place.config_at(&place.server.url_at(proxy.addr())).with_acquire_timeout(SOON);
    config.options.request_timeout = SOON;
    let store = PostgresStore::open(one_writer(config)).await?;
    proxy.stall(true);
    let appends = (0..APPENDS).map(|number| store.append(any("a-1", number)));
    for appended in within("all appends fail", join_all(appends)).await? {
        let error = appended.expect_err("the server is silent");
        assert!(error.is_retryable(), "{error:?}");
    }
    proxy.stall(false);
    until("the store appends again", PATIENCE, || async {
        store.append(any("a-1", 0)).await.is_ok()
    })
    .await?;
    place.remove().await
}

async fn an_error_of_the_server_is_not_tried_for_each_append() -> Tested {
    let place = Place::shared().await?;
    // A full disk is one for all. Of several statements that took too long, one may have waited for
    // its own stream.
    for (code, kind, most) in [("53100", ErrorKind::Unavailable, 1), ("57014", ErrorKind::Busy, 3)]
    {
        let store = PostgresStore::open(one_writer(place.config())).await?;
        let condition = "NEW.category <> 'locked' AND nextval('{schema}.attempts') > 0";
        fail_inserts(&place, condition, code).await?;
        let appends: Vec<_> = (0..20).map(|number| any(&format!("a-{number}"), number)).collect();
        let (lock, mut all) = queue(&place, &store, &appends).await?;
        lock.release().await?;
        all.remove(0).await??;
        for appended in all {
            failed(within("an append ends", appended).await??, kind, false);
        }
        let attempts = format!("SELECT last_value FROM {}.attempts", place.schema);
        let attempts: i64 =
            query_scalar(AssertSqlSafe(attempts)).fetch_one(&mut place.connect().await?).await?;
        assert!(attempts <= most, "{code}: {attempts} attempts");
        place.execute("DROP TRIGGER fail ON {schema}.events").await?;
    }
    place.remove().await
}

/// A payload that counts itself while it is in memory.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl Counted {
    fn new(bytes: usize, count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(vec![1; bytes], count.clone())
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, SeqCst);
    }
}

async fn dropped_appends_keep_little_memory() -> Tested {
    const APPENDS: usize = 200;
    let place = Place::shared().await?;
    let store = PostgresStore::open(one_writer(place.config())).await?;
    // The only writer waits, and so takes nothing from its queue.
    let lock = Lock::on(&place, "locked-1").await?;
    let first = spawn(&store, any("locked-1", 0));
    let mut lock = lock;
    lock.wait_for(1).await?;
    let count = Arc::new(AtomicUsize::new(0));
    for _ in 0..APPENDS {
        let payload = bytes::Bytes::from_owner(Counted::new(1024 * 1024, &count));
        let append =
            Append::new(id("a-1"), ExpectedVersion::Any, [NewEvent::binary("Large", payload)?]);
        let appending = store.append(append);
        assert!(tokio::time::timeout(Duration::from_millis(1), appending).await.is_err());
    }
    let kept = count.load(SeqCst);
    assert!(kept <= 64, "{kept} MiB of appends that nobody waits for are in memory");
    lock.release().await?;
    first.await??;
    store.append(any("a-2", 0)).await?;
    assert_eq!(count.load(SeqCst), 0);
    assert_eq!(everything(&store).await?.len(), 2);
    place.remove().await
}

async fn a_read_only_session_is_dropped() -> Tested {
    let place = Place::in_database("").await?;
    let store = place.open().await?;
    store.append(any("a-1", 1)).await?;
    let database = place.config().connect.get_database().unwrap_or_default().to_owned();
    let alter = format!("ALTER DATABASE {database}");
    // Sessions that begin now are read-only, as those of a standby are.
    place.execute(&format!("{alter} SET default_transaction_read_only = on")).await?;
    let terminate = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()";
    place.execute(terminate).await?;
    failed(store.append(any("a-1", 2)).await, ErrorKind::Denied, true);
    failed(store.append(any("a-1", 2)).await, ErrorKind::Denied, false);
    let writable = place.config().connect.options([("default_transaction_read_only", "off")]);
    let mut administrator = writable.connect().await?;
    let reset = format!("{alter} RESET default_transaction_read_only");
    administrator.execute(AssertSqlSafe(reset)).await?;
    // A few such sessions may be left.
    until("the store appends again", PATIENCE, || async {
        store.append(any("a-1", 3)).await.is_ok()
    })
    .await?;
    place.remove().await
}

async fn connections_are_replaced_when_they_are_old() -> Tested {
    // More than there are connections, so that each one goes from caller to caller and never back to
    // the pool.
    const CALLERS: usize = 12;
    let place = Place::shared().await?;
    let mut config = place.config();
    config.connect = config.connect.application_name(&place.schema);
    let pool = PgPoolOptions::new()
        .max_connections(5)
        .max_lifetime(Duration::from_millis(500))
        .connect_lazy_with(config.connect);
    let store = PostgresStore::with_pool(pool, config.options).await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let calls = (0..CALLERS).map(|_| {
        let (store, is_over) = (store.clone(), is_over.clone());
        tokio::spawn(async move {
            while !is_over.load(SeqCst) {
                store.load_stream(&id("a-1")).await?;
            }
            Ok::<_, annals_core::Error>(())
        })
    });
    let calls: Vec<_> = calls.collect();
    until_replaced(&place, &store, "sessions that are always in use").await?;
    is_over.store(true, SeqCst);
    for call in calls {
        call.await??;
    }
    until_replaced(&place, &store, "sessions that nobody uses").await?;
    place.remove().await
}

/// Waits until all sessions have ended that a store has after an append. They are named after the
/// schema.
async fn until_replaced(place: &Place, store: &PostgresStore, which: &str) -> Tested {
    let administrator = tokio::sync::Mutex::new(place.connect().await?);
    let sessions = async || -> Result<HashSet<i32>, BoxError> {
        let text = "SELECT pid FROM pg_stat_activity WHERE application_name = $1";
        let mut administrator = administrator.lock().await;
        let found = query_scalar(text).bind(&place.schema).fetch_all(&mut *administrator);
        Ok(found.await?.into_iter().collect())
    };
    let mut first = HashSet::new();
    // On a slow machine a session may be gone before it is seen.
    while first.is_empty() {
        store.append(any("a-1", 1)).await?;
        first = sessions().await?;
    }
    until(&format!("{which} have ended"), PATIENCE, || async {
        sessions().await.is_ok_and(|now| now.is_disjoint(&first))
    })
    .await
}

async fn a_listener_whose_network_is_dead_is_replaced() -> Tested {
    let place = Place::shared().await?;
    let proxy = Proxy::start(place.server.addr()).await?;
    let counter = Counter::before(proxy.addr()).await?;
    let listen = place.config_at(&place.server.url_at(counter.addr)).connect;
    let mut config = place.config().with_listen(listen);
    config.acquire_timeout = SOON;
    config.options.poll_interval = Duration::from_millis(50);
    let store = PostgresStore::open(config).await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    until_listening(&place, 1).await?;
    let before = counter.count.load(SeqCst);
    proxy.stall(true);
    until("the listener connects again", PATIENCE, || async {
        counter.count.load(SeqCst) > before
    })
    .await?;
    store.append(any("a-1", 1)).await?;
    assert_eq!(within("an event", live.next_event()).await??.version.get(), 1);
    proxy.stall(false);
    place.remove().await
}

async fn a_server_without_durable_commits_is_declared() -> Tested {
    let place = Place::shared().await?;
    assert!(place.open().await?.capabilities().durable);
    let mut config = place.config();
    config.connect = config.connect.options([("synchronous_commit", "off")]);
    let store = PostgresStore::open(config).await?;
    assert!(!store.capabilities().durable, "acknowledged events may be lost");
    store.append_to("a-1", ExpectedVersion::NoStream, [event(1)]).await?;
    place.remove().await
}

async fn large_events_among_small_ones_cost_few_connections() -> Tested {
    const LARGE: usize = 12;
    let place = Place::shared().await?;
    let direct = place.open().await?;
    let large = NewEvent::binary("Large", vec![1; 3 * 1024 * 1024])?;
    for _ in 0..LARGE {
        direct.append_to("a-1", ExpectedVersion::Any, (0..100).map(event)).await?;
        let large = large.clone().with_id(uuid::Uuid::now_v7());
        direct.append_to("a-1", ExpectedVersion::Any, [large]).await?;
    }
    let counter = Counter::before(place.server.addr()).await?;
    let store = PostgresStore::open(place.config_at(&place.server.url_at(counter.addr))).await?;
    let before = counter.count.load(SeqCst);
    assert_eq!(everything(&store).await?.len(), LARGE * 101);
    assert_eq!(store.load_stream(&id("a-1")).await?.len(), LARGE * 101);
    let begun = counter.count.load(SeqCst) - before;
    assert!(begun <= 3, "{begun} connections");
    place.remove().await
}
