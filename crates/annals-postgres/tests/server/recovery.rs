//! Fail-over to a standby, and a restore to a point in time, as the book's page describes them.

use std::{
    collections::HashMap,
    fs::{Permissions, set_permissions},
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{
    Append, Error, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Position, ReadAll,
    Subscribe, TryStreamExt,
};
use annals_postgres::{PostgresStore, sqlx::query_scalar};
use annals_test_servers::{
    BoxError, Proxy,
    postgres::{Options, Postgres, Source},
    until,
};
use fastrand::Rng;
use futures::future::join_all;
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    common::{NEWER, PATIENCE, Place, Tested, event, everything, id, seed, tests},
    load::{Load, PAUSE, within},
    lock::any,
    page,
};

tests! { "recovery":
    Local appends_wait_for_a_missing_standby;
    Local a_synchronous_fail_over_loses_nothing;
    Local an_asynchronous_fail_over_that_loses_events_is_noticed;
    Local an_asynchronous_fail_over_under_load_is_reported;
    Local a_store_is_restored_to_a_point_in_time;
    Newer a_store_survives_an_upgrade_of_the_server;
}

/// More events than the sequence logs ahead.
const LOST: u64 = 100;

/// A directory in place of the `/srv` of the page, in which every user may write.
struct Files(TempDir);

impl Files {
    fn new() -> Result<Self, BoxError> {
        let files = Self(TempDir::new()?);
        std::fs::create_dir_all(files.0.path().join("backup/wal"))?;
        for directory in ["", "backup", "backup/wal"] {
            set_permissions(files.0.path().join(directory), Permissions::from_mode(0o777))?;
        }
        Ok(files)
    }

    /// The page's block that contains this text, with this directory in it.
    fn block(&self, containing: &str) -> Result<String, BoxError> {
        let path = self.0.path().to_str().ok_or("the path is not UTF-8")?;
        Ok(page::block(containing)?.replace("/srv/", &format!("{path}/")))
    }

    /// Starts a server on a data directory that the page's commands have made.
    async fn start(&self, data: &str, options: Options) -> Result<Arc<Postgres>, BoxError> {
        let options = options.with_data(self.0.path().join(data));
        Ok(Arc::new(Source::find()?.start(options).await?))
    }
}

/// A primary and its standby, and a name that leads to one of them.
struct Pair {
    primary: Place,
    standby: Place,
    name: Proxy,
}

impl Pair {
    async fn new() -> Result<Self, BoxError> {
        Self::with_standby(Options::default()).await
    }

    /// A standby with these options.
    async fn with_standby(options: Options) -> Result<Self, BoxError> {
        let primary = Place::on(Arc::new(Source::find()?.start(Options::default()).await?));
        let files = Files::new()?;
        page::shell(&primary, &files.block("--write-recovery-conf")?).await?;
        let mut standby = Place::on(files.start("standby", options).await?);
        standby.schema.clone_from(&primary.schema);
        let name = Proxy::start(primary.server.addr()).await?;
        Ok(Self { primary, standby, name })
    }

    async fn open(&self) -> annals_core::Result<PostgresStore> {
        let url = self.primary.server.url_at(self.name.addr());
        PostgresStore::open(self.primary.config_at(&url)).await
    }

    /// Waits until the primary says this of its standby.
    async fn until(&self, condition: &str) -> Tested {
        let question = format!("SELECT FROM pg_stat_replication WHERE {condition}");
        until(condition, PATIENCE, || async {
            self.primary.execute(&question).await.is_ok_and(|standbys| standbys == 1)
        })
        .await
    }

    /// Makes the standby the primary, as the page says.
    async fn promote(&self) -> Tested {
        self.name.redirect(self.standby.server.addr());
        page::sql(&self.standby, &page::block("pg_promote")?).await
    }
}

/// Dropping a server blocks until it has ended.
async fn end<T: Send + 'static>(servers: T) -> Tested {
    Ok(tokio::task::spawn_blocking(move || drop(servers)).await?)
}

/// The name leads to a standby that lags, and there are connections to the primary.
async fn a_lagging_standby_is_not_read(
    pair: &Pair,
    store: &PostgresStore,
) -> Result<Position, BoxError> {
    // More than there are idle connections, so that new ones are made.
    const READS: usize = 40;
    pair.standby.execute("SELECT pg_wal_replay_pause()").await?;
    let appended = store.append(any("lag-1", 1)).await?;
    pair.name.redirect(pair.standby.server.addr());
    let stream = id("lag-1");
    let reads = (0..READS).map(|_| store.load_stream(&stream));
    let mut refused = 0;
    for read in join_all(reads).await {
        match read {
            Ok(events) => assert_eq!(events.len(), 1, "the standby was read"),
            Err(error) => {
                assert!(error.to_string().contains("the server is a standby"), "{error:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "no new connection was made");
    pair.name.redirect(pair.primary.server.addr());
    pair.standby.execute("SELECT pg_wal_replay_resume()").await?;
    Ok(appended.position)
}

/// An append that waits for the standby is committed on the primary, but no reader sees it.
async fn appends_wait_for_a_missing_standby() -> Tested {
    const APPENDS: usize = 3;
    const OPENED: usize = 40;
    // Once it is promoted, the standby misses one of its own.
    let nobody = Options::default().with_setting("synchronous_standby_names", "nobody");
    let pair = Pair::with_standby(nobody).await?;
    let store = pair.open().await?;
    page::sql(&pair.primary, &page::block("synchronous_standby_names = ")?).await?;
    pair.until("sync_state = 'sync'").await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    let first = store.append(any("a-1", 0)).await?.position;
    assert_eq!(within("an event", live.next_event()).await??.position, first);

    let position = a_lagging_standby_is_not_read(&pair, &store).await?;
    assert_eq!(within("an event", live.next_event()).await??.position, position);

    pair.standby.server.kill().await?;
    let mut config = pair.primary.config();
    config.options.request_timeout = Duration::from_millis(500);
    let hasty = PostgresStore::open(config).await?;
    let appends: Vec<_> = (1..=APPENDS as u64).map(|n| any(&format!("a-{n}"), n)).collect();
    for (number, append) in appends.iter().enumerate() {
        let error = hasty.append(append.clone()).await.expect_err("the standby is missing");
        assert!(error.is_retryable() && error.outcome_unknown(), "{error:?}");
        // Sent again, it waits for the lock of the first, and so ends; the first does not.
        let waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        assert_eq!(pair.primary.execute(waiting).await?, number as u64 + 1);
    }
    assert_eq!(within("a read", everything(&hasty)).await??.len(), 2, "not on the standby");
    for _ in 0..OPENED {
        within("a store opens", pair.open()).await??;
    }

    pair.standby.server.start_again().await?;
    pair.until("sync_state = 'sync'").await?;
    let mut positions = Vec::new();
    for append in appends {
        let again = store.append(append).await?;
        assert!(again.replayed, "{again:?}");
        positions.push(again.position);
    }
    for position in positions {
        assert_eq!(within("an event", live.next_event()).await??.position, position);
    }
    assert_eq!(everything(&store).await?.len(), 2 + APPENDS);

    pair.primary.server.kill().await?;
    pair.promote().await?;
    until("readers go on", PATIENCE, || async {
        everything(&store).await.is_ok_and(|events| events.len() == 2 + APPENDS)
    })
    .await?;
    drop((store, hasty, live));
    end(pair).await
}

async fn a_synchronous_fail_over_loses_nothing() -> Tested {
    let mut rng = Rng::with_seed(seed("a_synchronous_fail_over_loses_nothing"));
    let pair = Pair::new().await?;
    page::sql(&pair.primary, &page::block("synchronous_standby_names = ")?).await?;
    pair.until("sync_state = 'sync'").await?;
    let (store, other) = (pair.open().await?, pair.open().await?);
    let mut load = Load::start(&store, &other, &mut rng).await?;
    load.more(rng.usize(50..300)).await?;
    pair.primary.server.kill().await?;
    let error = store.append(any("outage-1", 1)).await.expect_err("the server is down");
    assert!(error.is_retryable(), "{error:?}");
    pair.promote().await?;
    load.more(100).await?;
    load.end(&pair.standby).await?;
    drop((store, other));
    end(pair).await
}

/// A writer tries again until each of its events is acknowledged. The events are in order of their
/// acknowledgement.
async fn write_until(
    store: PostgresStore,
    writer: usize,
    is_over: Arc<AtomicBool>,
    written: Written,
) -> Tested {
    for number in 0.. {
        if is_over.load(SeqCst) {
            break;
        }
        let append = any(&format!("w-{writer}"), number);
        let appended = loop {
            match within("an append ends", store.append(append.clone())).await? {
                Ok(appended) => break appended,
                Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        };
        let id = append.events[0].id();
        written.send_modify(|written| written.push((id, appended.position)));
    }
    Ok(())
}

type Written = Arc<watch::Sender<Vec<(Uuid, Position)>>>;

/// Writers and subscribers go on while the primary is lost, and with it the last commits: those are
/// reported, and nothing that is written later is skipped.
async fn an_asynchronous_fail_over_under_load_is_reported() -> Tested {
    const WRITERS: usize = 8;
    // More than the sequence logs ahead, or fewer.
    for lost in [LOST, 3] {
        let pair = Pair::new().await?;
        let (store, other) = (pair.open().await?, pair.open().await?);
        store.append_to("a-1", ExpectedVersion::Any, (0..5).map(event)).await?;
        pair.until("flush_lsn >= pg_current_wal_lsn()").await?;
        pair.standby.server.kill().await?;
        let (is_over, written) = (Arc::new(AtomicBool::new(false)), Written::default());
        let mut live = Vec::new();
        for store in [&store, &other] {
            live.push(store.subscribe(Subscribe::default()).await?);
            live.push(store.subscribe(Subscribe::to(id("b-1"))).await?);
        }
        let appended = store.append_to("b-1", ExpectedVersion::Any, (0..lost).map(event)).await?;
        for live in &mut live {
            while within("an event", live.next_event()).await??.position < appended.position {}
        }
        pair.primary.server.kill().await?;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = if writer % 2 == 0 { &store } else { &other }.clone();
                tokio::spawn(write_until(store, writer, is_over.clone(), written.clone()))
            })
            .collect();
        pair.standby.server.start_again().await?;
        pair.promote().await?;
        let mut count = written.subscribe();
        let goal = usize::try_from(lost)? + 200;
        within("writers go on", count.wait_for(|written| written.len() >= goal)).await??;
        // By now the store has given more positions than were lost.
        for mut live in live {
            let ended = within("the subscription ends", live.next_event()).await?;
            let error = ended.expect_err("it goes on");
            let kinds = [ErrorKind::Incompatible, ErrorKind::BeyondEnd];
            assert!(kinds.contains(&error.kind()), "{error:?}");
        }
        is_over.store(true, SeqCst);
        for writer in writers {
            within("a writer ends", writer).await???;
        }
        let store = pair.open().await?;
        let kept = everything(&store).await?;
        let kept: HashMap<_, _> = kept.iter().map(|event| (event.id, event.position)).collect();
        let written = written.borrow().clone();
        assert_eq!(kept.len(), 5 + written.len());
        for (id, position) in written {
            assert_eq!(kept.get(&id), Some(&position), "lost after the fail-over");
            assert!(position > appended.position, "given twice");
        }
        // Who comes later with such a position is told, too.
        is_beyond(&store, appended.position).await?;
        let of_stream = Subscribe::to(id("b-1")).after(appended.position);
        let mut live = store.subscribe(of_stream).await?;
        let ended = within("the subscription ends", live.next_event()).await?;
        assert_eq!(ended.expect_err("it goes on").kind(), ErrorKind::BeyondEnd);
        drop((store, other));
        end(pair).await?;
    }
    Ok(())
}

async fn an_asynchronous_fail_over_that_loses_events_is_noticed() -> Tested {
    let pair = Pair::new().await?;
    let store = pair.open().await?;
    store.append_to("a-1", ExpectedVersion::Any, (0..10).map(event)).await?;
    // The last event of the store was deleted: it is not lost.
    let removed = store.append(any("removed-1", 1)).await?.position;
    store.delete(&id("removed-1"), ExpectedVersion::Any).await?;
    pair.until("flush_lsn >= pg_current_wal_lsn()").await?;
    pair.standby.server.kill().await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    store.append_to("a-1", ExpectedVersion::Any, (0..LOST).map(event)).await?;
    let lost = Append::new(id("b-1"), ExpectedVersion::NoStream, [event(1)]);
    let last = store.append(lost.clone()).await?.position;
    while within("an event", live.next_event()).await??.position < last {}

    pair.primary.server.kill().await?;
    pair.standby.server.start_again().await?;
    pair.promote().await?;
    let mut read: Result<Vec<_>, _> = store.read_all(ReadAll::default()).try_collect().await;
    while read.as_ref().is_err_and(Error::is_retryable) {
        read = store.read_all(ReadAll::default()).try_collect().await;
    }
    let ended = within("the subscription ends", live.next_event()).await?;
    for error in [read.expect_err("it is read"), ended.expect_err("it goes on")] {
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
        assert!(error.to_string().contains("it has lost commits"), "{error}");
    }

    let store = pair.open().await?;
    assert_eq!(everything(&store).await?.len(), 10);
    is_beyond(&store, last).await?;
    let mut live = store.subscribe(Subscribe::default().after(removed)).await?;
    let again = store.append(lost.clone()).await?;
    assert!(!again.replayed && again.position > last, "it is lost: {again:?}");
    assert_eq!(within("an event", live.next_event()).await??.position, again.position);
    // Consumers that go on with what they have seen see everything that is new.
    page::sql(&pair.standby, &page::block("SET losses")?).await?;
    let mut live = store.subscribe(Subscribe::default().after(last)).await?;
    assert_eq!(within("an event", live.next_event()).await??.position, again.position);
    assert!(store.append(lost).await?.replayed);
    drop((store, live));
    end(pair).await
}

/// A store says that it has never given a position, in place of waiting for it.
async fn is_beyond(store: &PostgresStore, position: Position) -> Tested {
    let error = match store.subscribe(Subscribe::default().after(position)).await {
        Ok(mut live) => within("the subscription ends", live.next_event()).await?.err(),
        Err(error) => Some(error),
    };
    let text = error.ok_or("it waits in silence")?.to_string();
    assert!(text.contains(&position.get().to_string()), "{text}");
    Ok(())
}

async fn a_store_is_restored_to_a_point_in_time() -> Tested {
    let files = Files::new()?;
    let options = page::with_settings(Options::default(), &files.block("archive_command")?);
    let from = Place::on(Arc::new(Source::find()?.start(options).await?));
    let store = from.open().await?;
    store.append_to("a-1", ExpectedVersion::Any, (0..3).map(event)).await?;
    page::shell(&from, &files.block("--pgdata=/srv/backup/base")?).await?;
    store.append_to("a-1", ExpectedVersion::Any, (3..6).map(event)).await?;
    let events = everything(&store).await?;
    let mut administrator = from.connect().await?;
    let time = query_scalar("SELECT clock_timestamp()::text");
    let time: String = time.fetch_one(&mut administrator).await?;
    // The restore ends before the first commit after that time, but it may take over the positions that
    // were given until then.
    store.append(any("b-1", 1)).await?;
    let mistake = store.append_to("a-1", ExpectedVersion::Any, (0..LOST).map(event)).await?;
    let file = query_scalar("SELECT pg_walfile_name(pg_switch_wal())");
    let file: String = file.fetch_one(&mut administrator).await?;
    let archived = format!("SELECT FROM pg_stat_archiver WHERE last_archived_wal >= '{file}'");
    until("the log is archived", PATIENCE, || async {
        from.execute(&archived).await.is_ok_and(|rows| rows == 1)
    })
    .await?;
    drop((store, administrator));
    end(from.server).await?;

    // The base backup alone: nothing tells that it is older than what was seen.
    let options = Options::default().with_setting("archive_mode", "off");
    let mut old = Place::on(files.start("backup/base", options).await?);
    old.schema.clone_from(&from.schema);
    let store = old.open().await?;
    assert_eq!(everything(&store).await?, events[..3]);
    is_beyond(&store, mistake.position).await?;
    page::sql(&old, &page::block("setval")?).await?;
    goes_on(&store, mistake.position).await?;
    drop(store);
    end(old).await?;

    page::shell(&Place::shared().await?, &files.block("recovery.signal")?).await?;
    let settings = files.block("recovery_target_time")?.replace("2026-11-30 12:00:00+00", &time);
    let options = page::with_settings(Options::default(), &settings);
    let mut to = Place::on(files.start("restored", options).await?);
    to.schema = from.schema;
    until("the server is restored", PATIENCE, || async { to.open().await.is_ok() }).await?;
    let store = to.open().await?;
    assert_eq!(everything(&store).await?, events);
    is_beyond(&store, mistake.position).await?;
    page::sql(&to, &page::block("SET losses")?).await?;
    goes_on(&store, mistake.position).await?;
    drop(store);
    end(to).await
}

/// Nothing is skipped by a consumer that has seen events up to a position.
async fn goes_on(store: &PostgresStore, seen: Position) -> Tested {
    let mut live = store.subscribe(Subscribe::default().after(seen)).await?;
    let next = store.append(any("a-1", 7)).await?.position;
    assert!(next > seen, "a position is given twice");
    assert_eq!(within("an event", live.next_event()).await??.position, next);
    Ok(())
}

async fn a_store_survives_an_upgrade_of_the_server() -> Tested {
    let newer = std::env::var(NEWER)?;
    let files = Files::new()?;
    let from = Place::on(Arc::new(Source::find()?.start(Options::default()).await?));
    let store = from.open().await?;
    store.append_to("a-1", ExpectedVersion::Any, (0..3).map(event)).await?;
    store.delete(&id("a-1"), ExpectedVersion::Any).await?;
    let last = store.append_to("a-1", ExpectedVersion::Any, (3..6).map(event)).await?;
    let events: Vec<_> = store.read_all(ReadAll::default()).try_collect().await?;
    let old = from.server.data_directory().ok_or("the server is elsewhere")?;
    let old = old.to_str().ok_or("the path is not UTF-8")?.to_owned();
    let Source::Local(programs) = Source::find()? else { return Err("no programs".into()) };
    let programs = programs.to_str().ok_or("the path is not UTF-8")?.to_owned();
    drop(store);
    let here = |commands: String| {
        let new = commands.replace("/usr/lib/postgresql/18/bin", &newer);
        let placed = format!("{}/old", files.0.path().display());
        new.replace("/usr/lib/postgresql/15/bin", &programs).replace(&placed, &old)
    };
    page::shell(&from, &here(files.block("--mode=fast")?)).await?;
    page::shell(&from, &here(files.block("--old-bindir")?)).await?;
    let options = Options::default().with_data(files.0.path().join("new"));
    let mut to = Place::on(Arc::new(Source::Local(newer.into()).start(options).await?));
    to.schema.clone_from(&from.schema);
    let store = to.open().await?;
    let kept: Vec<_> = store.read_all(ReadAll::default()).try_collect().await?;
    assert_eq!(kept, events);
    let mut live = store.subscribe(Subscribe::default().after(last.position)).await?;
    let next = store.append(any("a-1", 7)).await?;
    assert_eq!(next.first_version, last.last_version.plus(1));
    assert!(next.position > last.position, "a position is given twice");
    assert_eq!(within("an event", live.next_event()).await??.position, next.position);
    drop((store, live));
    end((from, to)).await
}
