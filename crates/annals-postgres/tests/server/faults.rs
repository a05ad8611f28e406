//! Killed servers, lost connections and answers, hanging networks, locks and full pools: what was
//! acknowledged is there once, what was refused is not, and subscribers miss nothing.

use std::{
    collections::{HashMap, HashSet},
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use annals_core::{
    Append, Appended, Category, Error, ErrorKind, EventStore, EventStoreExt, ExpectedVersion,
    NewEvent, Position, RecordedEvent, Result, Source as From, StreamId, Subscribe, Version,
};
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{
        AssertSqlSafe, Executor, PgConnection, PgPool, Postgres, pool::PoolConnection,
        postgres::PgPoolOptions, query_scalar,
    },
};
use annals_test_servers::{
    BoxError, Proxy,
    postgres::{Marked, Options, Source},
    until,
};
use fastrand::Rng;
use futures::future::join_all;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use uuid::Uuid;

use crate::common::{PATIENCE, Place, Tested, event, everything, id, seed, tests};

tests! { "faults":
    Ours a_server_is_killed_under_load;
    Any answers_are_lost_under_load;
    Any connections_are_cut_and_refused_under_load;
    Any answers_of_one_transaction_are_lost_together;
    Any an_append_whose_answer_was_lost_wakes_subscribers;
    Any a_retry_needs_no_second_connection;
    Any a_network_hangs;
    Any kept_connections_have_died;
    Any sessions_are_terminated;
    Any a_full_pool_is_busy;
    Any a_full_pool_fails_all_that_wait_at_once;
    Any more_calls_than_connections;
    Any subscribers_look_while_nobody_listens;
    Any a_statement_takes_too_long;
    Any locked_streams_hold_up_no_other;
    Any lost_races_are_tried_again;
    Any endless_races_come_to_an_end;
    Any commits_that_fail_are_no_success;
    Ours a_deadlock_is_tried_again;
    Any an_error_harms_only_its_append;
    Any dropped_appends_are_whole_or_not_there;
}

/// How long a call waits for a connection where a test wants it to fail soon.
const SOON: Duration = Duration::from_millis(300);
/// What an application waits before it tries again, so as not to keep a processor busy.
const PAUSE: Duration = Duration::from_millis(5);

async fn within<F: Future>(what: &str, future: F) -> Result<F::Output, BoxError> {
    timeout(PATIENCE, future).await.map_err(|_| format!("{what}: not after {PATIENCE:?}").into())
}

async fn proxy(place: &Place) -> Result<(Proxy, PostgresConfig), BoxError> {
    let proxy = Proxy::between(place.server.addr(), Marked::new(".append")).await?;
    let config = place.config_at(&place.server.url_at(proxy.addr()));
    Ok((proxy, config.with_acquire_timeout(SOON)))
}

async fn write(store: &PostgresStore, appends: &[Append]) -> Result<Vec<Appended>> {
    match appends {
        [append] => store.append(append.clone()).await.map(|appended| vec![appended]),
        _ => store.append_multi(appends.to_vec()).await,
    }
}

fn any(stream: &str, number: u64) -> Append {
    Append::new(id(stream), ExpectedVersion::Any, [event(number)])
}

fn failed(result: Result<Appended>, kind: ErrorKind, is_unknown: bool) {
    let error = result.expect_err("this must fail");
    assert_eq!((error.kind(), error.outcome_unknown()), (kind, is_unknown), "{error:?}");
}

/// How many tasks append at the same time.
const TASKS: usize = 12;
/// How many streams they share.
const SHARED: usize = 3;

/// Appends of several tasks, for as long as the test goes on.
struct Load {
    tasks: JoinSet<Tested>,
    ledger: Arc<Ledger>,
    store: PostgresStore,
    followers: Vec<(From, JoinHandle<Result<Vec<RecordedEvent>>>)>,
}

#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<Vec<(Append, Appended)>>,
    /// Of appends that came to nothing, as was said.
    refused: Mutex<HashSet<Uuid>>,
    count: watch::Sender<usize>,
    unknown: AtomicU64,
    /// The versions of the shared streams, as far as somebody knows.
    versions: [AtomicU64; SHARED],
    is_over: AtomicBool,
}

/// The type of the event with which subscribers end.
const LAST: &str = "Last";

impl Load {
    /// Load on a store, and subscribers to it and to another handle.
    async fn start(
        store: &PostgresStore,
        other: &PostgresStore,
        rng: &mut Rng,
    ) -> Result<Self, BoxError> {
        let category = From::category(Category::new("shared")?);
        let sources = [
            (store, From::default()),
            (store, category.clone()),
            (store, From::Stream(id("shared-0"))),
            (other, From::default()),
            (other, From::Stream(id("shared-0"))),
        ];
        let mut followers = Vec::new();
        for (store, source) in sources {
            let subscription = store.subscribe(Subscribe::to(source.clone())).await?;
            followers.push((source, tokio::spawn(follow(subscription))));
        }
        let ledger = Arc::new(Ledger::default());
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            tasks.spawn(ledger.clone().work(store.clone(), task, rng.fork()));
        }
        Ok(Self { tasks, ledger, store: store.clone(), followers })
    }

    /// Waits until so many more appends have been acknowledged.
    async fn more(&mut self, appends: usize) -> Tested {
        let mut count = self.ledger.count.subscribe();
        let goal = *count.borrow() + appends;
        tokio::select! {
            // Only a failure ends one.
            ended = self.tasks.join_next() => ended.unwrap()?,
            reached = within("the load goes on", count.wait_for(|count| *count >= goal)) => {
                reached?.map(drop).map_err(BoxError::from)
            }
        }
    }

    /// Ends the load, and verifies that the store holds just what it said, and that the subscribers
    /// saw that.
    async fn end(mut self, place: &Place) -> Tested {
        self.more(50).await?;
        self.ledger.is_over.store(true, SeqCst);
        while let Some(ended) = within("the load ends", self.tasks.join_next()).await? {
            ended??;
        }
        // In the process that none of the subscribers to `other` belongs to.
        let last = NewEvent::json(LAST, &0)?;
        let last_id = last.id();
        self.store.append_to("shared-0", ExpectedVersion::StreamExists, [last]).await?;

        let events = everything(&place.open().await?).await?;
        let mut found: HashMap<Uuid, &RecordedEvent> = HashMap::new();
        for event in &events {
            assert!(found.insert(event.id, event).is_none(), "twice: {event:?}");
        }
        assert!(found.remove(&last_id).is_some());
        let acknowledged = std::mem::take(&mut *self.ledger.acknowledged.lock().unwrap());
        for (append, appended) in &acknowledged {
            assert_eq!(appended.last_version, appended.first_version.plus(append.count() - 1));
            let mut last = Position::START;
            for (version, event) in (appended.first_version.get()..).zip(&append.events) {
                let found = found.remove(&event.id());
                let found = found.unwrap_or_else(|| panic!("lost: {append:?}, {appended:?}"));
                assert_eq!((&found.stream, found.version.get()), (&append.stream, version));
                assert_eq!(found.data, *event.data());
                last = found.position;
            }
            assert_eq!(last, appended.position);
        }
        let refused = self.ledger.refused.lock().unwrap().clone();
        assert!(!found.keys().any(|id| refused.contains(id)), "refused, but there: {found:?}");
        assert!(found.is_empty(), "never acknowledged: {found:?}");
        eprintln!(
            "{} appends, of which {} once unknown; {} events refused",
            acknowledged.len(),
            self.ledger.unknown.load(SeqCst),
            refused.len()
        );

        for (source, follower) in self.followers {
            let seen = within(&format!("the end of {source:?}"), follower).await???;
            let place = |event: &RecordedEvent| (event.position, event.id);
            let expected = events.iter().filter(|event| source.matches(event)).map(place);
            let seen = seen.iter().map(place);
            assert!(seen.eq(expected), "{source:?} did not give its events, in order, once each");
        }
        Ok(())
    }
}

async fn follow(mut subscription: annals_core::Subscription) -> Result<Vec<RecordedEvent>> {
    let mut seen = Vec::new();
    loop {
        let event = subscription.next_event().await?;
        let is_last = event.event_type.as_str() == LAST;
        seen.push(event);
        if is_last {
            return Ok(seen);
        }
    }
}

impl Ledger {
    /// One task of the load.
    async fn work(self: Arc<Self>, store: PostgresStore, task: usize, mut rng: Rng) -> Tested {
        let own = format!("own-{task}");
        let (mut version, mut number) = (Version::NONE, 0);
        while !self.is_over.load(SeqCst) {
            number += 1;
            let events: Vec<_> = (0..rng.u64(1..=4)).map(|_| event(number)).collect();
            let shared = rng.usize(..SHARED);
            let known = Version::new(self.versions[shared].load(SeqCst));
            let [to_own, to_new, to_shared] =
                [own.clone(), format!("new-{task}-{number}"), format!("shared-{shared}")].map(
                    |stream| {
                        move |expected: ExpectedVersion, events| {
                            Append::new(id(&stream), expected, events)
                        }
                    },
                );
            let appends = match rng.u32(..10) {
                0..3 => vec![to_own(version.into(), events)],
                3..5 => vec![to_new(ExpectedVersion::NoStream, events)],
                5..7 => vec![to_shared(ExpectedVersion::Any, events)],
                7 => vec![to_shared(known.into(), events)],
                8 => vec![
                    to_own(version.into(), events),
                    to_shared(ExpectedVersion::Any, vec![event(number)]),
                ],
                _ => vec![
                    to_shared(known.into(), events),
                    to_own(ExpectedVersion::Any, vec![event(number)]),
                ],
            };
            let Some(done) = self.insist(&store, &appends, &mut rng).await? else { continue };
            for (append, appended) in appends.into_iter().zip(done) {
                if append.stream == id(&own) {
                    assert_eq!(appended.first_version, version.plus(1), "{append:?}");
                    version = appended.last_version;
                } else if append.stream.category_str() == Some("shared") {
                    self.versions[shared].fetch_max(appended.last_version.get(), SeqCst);
                }
                self.acknowledged.lock().unwrap().push((append, appended));
            }
            self.count.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Appends, and tries again with the same events while that is safe. Sometimes it gives up, but
    /// only where nothing was written; so it does after a conflict on a stream that others write to.
    async fn insist(
        &self,
        store: &PostgresStore,
        appends: &[Append],
        rng: &mut Rng,
    ) -> Result<Option<Vec<Appended>>, BoxError> {
        let mut is_unknown = false;
        loop {
            let error = match within("an append ends", write(store, appends)).await? {
                Ok(done) => return Ok(Some(done)),
                Err(error) => error,
            };
            is_unknown |= error.outcome_unknown();
            self.unknown.fetch_add(u64::from(error.outcome_unknown()), SeqCst);
            let is_lost_race = error.conflict().is_some_and(|conflict| {
                conflict.stream.category_str() == Some("shared") && !error.outcome_unknown()
            });
            if !is_lost_race && !error.is_retryable() {
                return Err(error.into());
            }
            if is_lost_race || !is_unknown && rng.bool() {
                let ids = appends.iter().flat_map(|append| &append.events).map(NewEvent::id);
                self.refused.lock().unwrap().extend(ids);
                return Ok(None);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
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
        let error = store.append(any("outage-1", 1)).await.expect_err("nobody is there");
        assert!(error.is_retryable(), "{error:?}");
        server.start_again().await?;
    }
    load.end(&place).await?;
    drop((store, other, place));
    // Waits for the end of the server.
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
        // The answer to what is sent again may be among them.
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
            let error = store.append(any("outage-1", 1)).await.expect_err("no way through");
            assert!(error.is_retryable(), "{error:?}");
            proxy.refuse(false);
        }
    }
    load.end(&place).await?;
    place.remove().await
}

/// A lock that keeps the appends to a stream waiting.
struct Lock {
    connection: PgConnection,
    key: i32,
}

impl Lock {
    async fn on(place: &Place, stream: &str) -> Result<Self, BoxError> {
        let mut connection = place.connect().await?;
        let key = format!("SELECT lock_key FROM {}.store", place.schema);
        let key = query_scalar(AssertSqlSafe(key)).fetch_one(&mut connection).await?;
        connection.execute("BEGIN").await?;
        let mut lock = Self { connection, key };
        lock.add(stream).await?;
        Ok(lock)
    }

    async fn add(&mut self, stream: &str) -> Tested {
        query_scalar::<_, ()>("SELECT pg_advisory_xact_lock($1, hashtext($2))")
            .bind(self.key)
            .bind(stream)
            .fetch_one(&mut self.connection)
            .await
            .map_err(Into::into)
    }

    /// The sessions that wait for a lock of this store.
    async fn waiting(&mut self) -> Result<Vec<i32>, BoxError> {
        let text = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                    AND classid = ($1::bigint & 4294967295)::oid ORDER BY pid";
        Ok(query_scalar(text).bind(self.key).fetch_all(&mut self.connection).await?)
    }

    async fn wait_for(&mut self, sessions: usize) -> Result<Vec<i32>, BoxError> {
        let lock = tokio::sync::Mutex::new(self);
        until(&format!("{sessions} sessions wait for locks"), PATIENCE, || async {
            lock.lock().await.waiting().await.is_ok_and(|waiting| waiting.len() == sessions)
        })
        .await?;
        lock.into_inner().waiting().await
    }

    async fn release(mut self) -> Tested {
        self.connection.execute("ROLLBACK").await?;
        Ok(())
    }
}

fn spawn(store: &PostgresStore, append: Append) -> JoinHandle<Result<Appended>> {
    let store = store.clone();
    tokio::spawn(async move { store.append(append).await })
}

/// Appends that are sent in one transaction, as soon as the lock is released: all wait for the only
/// writer, which waits for the lock.
async fn queue(
    place: &Place,
    store: &PostgresStore,
    appends: &[Append],
) -> Result<(Lock, Vec<JoinHandle<Result<Appended>>>), BoxError> {
    assert_eq!(store.options().writers, 1);
    let mut lock = Lock::on(place, "locked-1").await?;
    let first = spawn(store, any("locked-1", 0));
    lock.wait_for(1).await?;
    let mut all = vec![first];
    for append in appends {
        let store = store.clone();
        let append = append.clone();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        all.push(tokio::spawn(async move {
            let mut appending = store.append(append);
            let mut begun = Some(begun);
            poll_fn(|cx| {
                let poll = appending.as_mut().poll(cx);
                begun.take().map(|begun| begun.send(()));
                poll
            })
            .await
        }));
        has_begun.await?;
    }
    Ok((lock, all))
}

fn one_writer(mut config: PostgresConfig) -> PostgresConfig {
    config.options.writers = 1;
    config
}

async fn answers_of_one_transaction_are_lost_together() -> Tested {
    let place = Place::shared().await?;
    let (proxy, config) = proxy(&place).await?;
    let store = PostgresStore::open(one_writer(config)).await?;
    // One to each of several streams, and several to one.
    let appends: Vec<_> = (0..20)
        .map(|n| Append::new(id(&format!("a-{}", n % 12)), ExpectedVersion::Any, [event(n)]))
        .collect();
    let (lock, mut all) = queue(&place, &store, &appends).await?;
    // For what comes next: the answer, and the connection on which to ask again.
    proxy.lose_next_answer();
    proxy.refuse(true);
    lock.release().await?;
    all.remove(0).await??;
    for one in all {
        let error = within("an append ends", one).await??.expect_err("nobody knows");
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

/// Longer than any test takes: whoever looks by himself only then has to be woken.
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
    let listens =
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN \"annals ' || $1 || '\"'";
    let connection = tokio::sync::Mutex::new(place.connect().await?);
    until("both listen", PATIENCE, || async {
        let mut connection = connection.lock().await;
        let count = query_scalar(listens).bind(&place.schema).fetch_one(&mut *connection).await;
        count.is_ok_and(|count: i64| count == 2)
    })
    .await?;
    // The second time what is sent again is not answered either.
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
    // Long enough to stall while an append waits for its lock.
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

/// A connection that died while nobody used it costs nobody an error.
async fn kept_connections_have_died() -> Tested {
    let place = Place::shared().await?;
    let (proxy, config) = proxy(&place).await?;
    let store = PostgresStore::open(config).await?;
    for number in 1..=5 {
        // So that several are kept.
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

/// What a fast shutdown does to an append that is under way.
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
        assert_ne!(waiting, before, "another session has taken over");
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

/// Takes all connections of a pool: those that a store has kept, once they are terminated.
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
        // A store finds out that a connection is dead when it uses it.
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
    // One after the other they would take a minute.
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
    let patience = Duration::from_secs(5);
    let config = place.config().with_connections(5).with_acquire_timeout(patience);
    let store = PostgresStore::open(config).await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    store.append(any("a-1", 1)).await?;
    live.next_event().await?;
    // On four connections, since one listens. Who has had his turn goes on, and must leave them to
    // others all the same.
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

async fn subscribers_look_while_nobody_listens() -> Tested {
    let place = Place::shared().await?;
    let config = place.config();
    let options = config.options.clone().with_poll_interval(Duration::from_millis(50));
    let pool = pool(config, NEVER);
    let store = PostgresStore::with_pool(pool.clone(), options).await?;
    let other = place.open().await?;
    // The one that is left, the store has kept: it can read, and not listen.
    let held = [pool.acquire().await?, pool.acquire().await?];
    let mut live = store.subscribe(Subscribe::default()).await?;
    for number in 1..=3 {
        other.append(any("a-1", number)).await?;
        let seen = within("a subscriber looks by himself", live.next_event()).await??;
        assert_eq!(seen.version.get(), number);
    }
    drop(held);
    place.remove().await
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
    // One writer is left.
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

/// Lets inserts of events fail where a condition holds. Attempts are counted in a sequence, which
/// no rollback takes back.
async fn fail_inserts(place: &Place, condition: &str, code: &str) -> Tested {
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

/// What [`fail_inserts`] does, at the commit: the answer is complete by then, but for its end.
async fn fail_commits(place: &Place, condition: &str, code: &str) -> Tested {
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
    // As where transactions are judged at their commit.
    fail_commits(&place, "nextval('{schema}.attempts') <= 3", "40001").await?;
    for append in [any("a-1", 1), several] {
        assert!(!store.append(append).await?.replayed);
    }
    assert_eq!(everything(&store).await?.len(), 3);
    place.remove().await
}

/// Serialization failure, deadlock, unique violation.
const RACES: [&str; 3] = ["40001", "40P01", "23505"];

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

/// The append is the victim, and finds afterwards that its stream has moved on: a conflict.
async fn a_deadlock_is_tried_again() -> Tested {
    let place = Place::shared().await?;
    let mut config = place.config();
    config.connect = config.connect.options([("deadlock_timeout", "20ms")]);
    let store = PostgresStore::open(config).await?;
    let mut administrator = place.connect().await?;
    // In the order in which they are locked.
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
        // Each has what the other wants now.
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
    // The first is the one that was waited for.
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

/// Polls a future at most so many times, and drops it.
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
                    // What reads is dropped as well: in the middle of a page, on all connections.
                    let polls = rng.usize(..6);
                    drop(drop_after(polls, store.load_stream(&append.stream)).await);
                    let appended = drop_after(rng.usize(1..4), store.append(append)).await;
                    if let Some(appended) = appended {
                        appended.unwrap();
                        acknowledged.lock().unwrap().insert(number);
                    }
                });
            }
            // Ends the others wherever they are by then.
            for _ in 0..rng.usize(..=tasks.len()) {
                tasks.join_next().await.unwrap()?;
            }
            tasks.shutdown().await;
        }
        let appended = within("the store goes on", store.append(any("last-1", 0))).await??;
        let direct = place.open().await?;
        // One that nobody waits for may still be under way.
        let mut lock = Lock::on(&place, "nobody-1").await?;
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
                assert!(written.insert(append[0]), "{append:?} is there twice");
            }
        }
        let acknowledged = acknowledged.lock().unwrap().clone();
        assert!(acknowledged.is_subset(&written), "acknowledged, and not there");
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
