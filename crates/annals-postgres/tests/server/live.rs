//! How subscribers learn of commits in other processes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{
    Append, Category, EventStore, EventType, ExpectedVersion, Filter, Position, RecordedEvent,
    Subscribe, Subscription,
};
use annals_postgres::{
    PostgresStore,
    sqlx::{AssertSqlSafe, Connection, Executor, postgres::PgListener, query},
};
use annals_test_servers::{
    BoxError, Conversation, Fate, Losses, Protocol, Proxy,
    postgres::{Options, Source},
    until,
};
use futures::future::try_join_all;
use tokio::time::timeout;

use crate::beside::Listener;
use crate::common::{
    PATIENCE, Place, Tested, channel, event, everything, id, listening, tests, until_listening,
};

tests! { "live":
    Any another_process_is_heard_at_once;
    Any a_listener_that_is_terminated_comes_back;
    Any subscribers_poll_if_a_notification_is_lost;
    Any nothing_is_notified_by_an_append_itself;
    Ours appends_do_not_wait_for_notifications;
    Any a_notification_stands_for_many_commits;
    Any quiet_subscriptions_cost_nothing;
}

/// A poll interval longer than any test, so that only a notification can bring an event.
const NEVER: Duration = Duration::from_secs(3600);

async fn open(place: &Place, poll_interval: Duration) -> annals_core::Result<PostgresStore> {
    let mut config = place.config();
    config.options.poll_interval = poll_interval;
    PostgresStore::open(config).await
}

async fn append(store: &PostgresStore, number: u64) -> annals_core::Result<Position> {
    let append = Append::new(id("a-1"), ExpectedVersion::Any, [event(number)]);
    Ok(store.append(append).await?.position)
}

async fn next(live: &mut Subscription) -> Result<RecordedEvent, BoxError> {
    Ok(timeout(PATIENCE, live.next_event()).await??)
}

/// Appends in a session that sends no notification.
async fn append_silently(place: &Place) -> Tested {
    let append = "SELECT a.* FROM {schema}.store AS s CROSS JOIN LATERAL {schema}.append_one( \
        s.lock_key, 'a-1', 'a', -1, gen_random_uuid(), 'Counted', 1::smallint, '1', '') AS a";
    assert_eq!(place.execute(append).await?, 1);
    Ok(())
}

async fn another_process_is_heard_at_once() -> Tested {
    const EVENTS: u64 = 20;
    let place = Place::shared().await?;
    let (writer, reader) = (open(&place, NEVER).await?, open(&place, NEVER).await?);
    let mut live = reader.subscribe(Subscribe::default()).await?;
    until_listening(&place, 1).await?;
    // A listener looks for events once after LISTEN, so the first one may have come without a
    // notification.
    for number in 0..EVENTS {
        let position = append(&writer, number).await?;
        assert_eq!(next(&mut live).await?.position, position);
    }
    place.remove().await
}

async fn a_listener_that_is_terminated_comes_back() -> Tested {
    const TIMES: u64 = 5;
    let place = Place::shared().await?;
    let (writer, reader) = (open(&place, NEVER).await?, open(&place, NEVER).await?);
    let mut live = reader.subscribe(Subscribe::default()).await?;
    for number in 0..TIMES {
        until_listening(&place, 1).await?;
        // This call returns when the session has ended.
        let terminate = format!(
            "SELECT pg_terminate_backend(pid, {}) FROM pg_stat_activity WHERE {}",
            PATIENCE.as_millis(),
            listening(&place)
        );
        assert_eq!(place.execute(&terminate).await?, 1);
        let while_it_was_gone = append(&writer, number).await?;
        assert_eq!(next(&mut live).await?.position, while_it_was_gone);
        until_listening(&place, 1).await?;
        for _ in 0..2 {
            let position = append(&writer, number).await?;
            assert_eq!(next(&mut live).await?.position, position);
        }
    }
    place.remove().await
}

async fn subscribers_poll_if_a_notification_is_lost() -> Tested {
    let place = Place::shared().await?;
    let store = open(&place, Duration::from_millis(50)).await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    until_listening(&place, 1).await?;
    for version in 1..=5 {
        append_silently(&place).await?;
        assert_eq!(next(&mut live).await?.version.get(), version);
    }
    place.remove().await
}

async fn nothing_is_notified_by_an_append_itself() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut listener = PgListener::connect(&place.server.url()).await?;
    listener.listen(&channel(&place)).await?;
    append_silently(&place).await?;
    // Notifications come in the order of the commits.
    let last = format!("SELECT pg_notify('{}', 'last')", channel(&place));
    place.execute(&last).await?;
    let heard = timeout(PATIENCE, listener.recv()).await??;
    assert_eq!(heard.payload(), "last");
    assert_eq!(everything(&store).await?.len(), 1);
    place.remove().await
}

/// A commit with a notification takes a lock of the whole cluster. In this test a commit holds the
/// lock while it waits for a standby that does not exist.
async fn appends_do_not_wait_for_notifications() -> Tested {
    const HOLDER: &str = "holder";
    let options = Options::default()
        .with_setting("synchronous_standby_names", "nobody")
        .with_setting("synchronous_commit", "local");
    let place = Place::on(Source::find()?.start(options).await?.into());
    let store = place.open().await?;
    place.execute("CREATE TABLE {schema}.held (number bigint)").await?;
    let mut holder = place.connect().await?;
    holder.execute("SET application_name = 'holder'; SET synchronous_commit = 'on'").await?;
    let schema = place.schema.clone();
    let held = tokio::spawn(async move {
        let text = format!("BEGIN; INSERT INTO {schema}.held VALUES (1); NOTIFY held; COMMIT");
        holder.execute(AssertSqlSafe(text)).await.map(drop)
    });
    let holds = "SELECT 1 FROM pg_stat_activity AS a JOIN pg_locks AS l USING (pid) \
        WHERE a.application_name = 'holder' AND a.wait_event = 'SyncRep' AND l.granted \
        AND l.classid = 'pg_database'::regclass AND l.mode = 'AccessExclusiveLock'";
    let is_held = || async { place.execute(holds).await.is_ok_and(|rows| rows == 1) };
    until("the lock is held", PATIENCE, is_held).await?;
    for number in 0..50 {
        timeout(PATIENCE, append(&store, number)).await??;
    }
    assert!(is_held().await, "the lock was free");
    let mut other = place.connect().await?;
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    query(cancel).bind(HOLDER).execute(&mut other).await?;
    other.close().await?;
    // The transaction was committed, with a warning.
    held.await??;
    drop(store);
    // Dropping the server blocks until it has ended.
    Ok(tokio::task::spawn_blocking(move || drop(place)).await?)
}

/// Counts what clients send.
struct Requests(Arc<AtomicUsize>);

impl Protocol for Requests {
    fn conversation(&self) -> Box<dyn Conversation> {
        Box::new(Self(self.0.clone()))
    }
}

impl Conversation for Requests {
    fn request(&mut self, _bytes: &[u8], _losses: &Losses) {
        self.0.fetch_add(1, SeqCst);
    }

    fn answer(&mut self, bytes: &[u8]) -> Fate {
        Fate { pass: bytes.len(), lost: false }
    }
}

async fn quiet_subscriptions_cost_nothing() -> Tested {
    const QUIET: usize = 200;
    const APPENDS: u64 = 50;
    const NOTIFICATIONS: usize = 20;
    let place = Place::shared().await?;
    let (requests, writer) = (Arc::new(AtomicUsize::new(0)), open(&place, NEVER).await?);
    let proxy = Proxy::between(place.server.addr(), Requests(requests.clone())).await?;
    let mut config = place.config_at(&place.server.url_at(proxy.addr()));
    config.options.poll_interval = NEVER;
    let reader = PostgresStore::open(config).await?;
    let category = |number: usize| Category::new(format!("quiet{number}"));
    let mut quiet = Vec::new();
    for number in 0..QUIET / 2 {
        let filter = Filter::default().with_category(category(number)?);
        let types = Filter::default().with_event_types([EventType::new(format!("T{number}"))?]);
        for options in [
            Subscribe::to(if number % 2 == 0 { filter } else { types }),
            Subscribe::to(id(&format!("quiet{number}-1"))),
        ] {
            quiet.push(Listener::on(&reader, options).await?);
        }
    }
    let mut loud = [
        Listener::on(&reader, Subscribe::to(id("a-1"))).await?,
        Listener::on(&reader, Subscribe::to(Filter::default().with_category(Category::new("a")?)))
            .await?,
    ];
    until_listening(&place, 1).await?;
    // The store is empty. Each notification wakes all subscriptions, and there is nothing to read.
    let notify = format!("SELECT pg_notify('{}', 'of another process')", channel(&place));
    let mut after_some = 0;
    for number in 0..NOTIFICATIONS {
        let before = requests.load(SeqCst);
        place.execute(&notify).await?;
        until("somebody asks", PATIENCE, || async { requests.load(SeqCst) > before }).await?;
        if number == 2 {
            after_some = requests.load(SeqCst);
        }
    }
    let asked = requests.load(SeqCst) - after_some;
    // If each read its stream each time, this would be 1,700.
    assert!(asked < 400, "{asked} requests");
    append(&writer, 0).await?;
    for listener in &mut loud {
        assert_eq!(listener.next().await?, 1);
    }
    // The first commits may be read by each.
    for number in 0..APPENDS {
        let position = append(&writer, number).await?.get();
        for listener in &mut loud {
            assert_eq!(listener.next().await?, position);
        }
        if number == 10 {
            after_some = requests.load(SeqCst);
        }
    }
    let asked = requests.load(SeqCst) - after_some;
    // If each asked at each commit, this would be 8,000.
    assert!(asked < 2_000, "{asked} requests");
    let last = Append::new(id("quiet7-1"), ExpectedVersion::Any, [event(1)]);
    let position = writer.append(last).await?.position.get();
    assert_eq!(quiet[15].next().await?, position);
    assert_eq!(quiet.iter().map(Listener::waiting).sum::<usize>(), 0);
    place.remove().await
}

async fn a_notification_stands_for_many_commits() -> Tested {
    const WRITERS: u64 = 16;
    const APPENDS: u64 = 1_000;
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut listener = PgListener::connect(&place.server.url()).await?;
    listener.listen(&channel(&place)).await?;
    let write = (0..WRITERS).map(async |writer| {
        for number in (writer..APPENDS).step_by(WRITERS as usize) {
            let stream = id(&format!("w-{writer}"));
            store.append(Append::new(stream, ExpectedVersion::Any, [event(number)])).await?;
        }
        Ok::<_, annals_core::Error>(())
    });
    try_join_all(write).await?;
    place.execute(&format!("SELECT pg_notify('{}', 'last')", channel(&place))).await?;
    let mut count = 0;
    while timeout(PATIENCE, listener.recv()).await??.payload() != "last" {
        count += 1;
    }
    // The exact number depends on timing.
    assert!((1..APPENDS / 4).contains(&count), "{count} notifications of {APPENDS} appends");
    place.remove().await
}
