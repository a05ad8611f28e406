//! Fail-over to a standby, and a restore to a point in time, as the book's page describes them.

use std::{
    fs::{Permissions, set_permissions},
    os::unix::fs::PermissionsExt,
    sync::Arc,
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
use futures::future::try_join_all;
use tempfile::TempDir;

use crate::{
    common::{NEWER, PATIENCE, Place, Tested, event, everything, id, seed, tests},
    load::{Load, within},
    lock::any,
    page,
};

tests! { "recovery":
    Local a_synchronous_fail_over_loses_nothing;
    Local an_asynchronous_fail_over_that_loses_events_is_noticed;
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
        let primary = Place::on(Arc::new(Source::find()?.start(Options::default()).await?));
        let files = Files::new()?;
        page::shell(&primary, &files.block("--write-recovery-conf")?).await?;
        let mut standby = Place::on(files.start("standby", Options::default()).await?);
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

async fn an_asynchronous_fail_over_that_loses_events_is_noticed() -> Tested {
    let pair = Pair::new().await?;
    let store = pair.open().await?;
    store.append_to("a-1", ExpectedVersion::Any, (0..10).map(event)).await?;
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
    page::sql(&pair.standby, &page::block("setval")?).await?;
    // Consumers that had seen what was lost see everything that is new, beside many writers.
    let mut live = store.subscribe(Subscribe::default().after(last)).await?;
    let again = store.append(lost.clone()).await?;
    assert!(!again.replayed && again.position > last, "it is lost: {again:?}");
    let appends = (0..20).map(|number| any(&format!("c-{}", number % 7), number));
    let appended = try_join_all(appends.map(|append| store.append(append))).await?;
    let mut positions: Vec<_> = appended.iter().map(|appended| appended.position).collect();
    positions.push(again.position);
    positions.sort();
    for position in positions {
        assert_eq!(within("an event", live.next_event()).await??.position, position);
    }
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

    page::shell(&Place::shared().await?, &files.block("recovery.signal")?).await?;
    let settings = files.block("recovery_target_time")?.replace("2026-11-30 12:00:00+00", &time);
    let options = page::with_settings(Options::default(), &settings);
    let mut to = Place::on(files.start("restored", options).await?);
    to.schema = from.schema;
    until("the server is restored", PATIENCE, || async { to.open().await.is_ok() }).await?;
    let store = to.open().await?;
    assert_eq!(everything(&store).await?, events);
    is_beyond(&store, mistake.position).await?;
    page::sql(&to, &page::block("setval")?).await?;
    let mut live = store.subscribe(Subscribe::default().after(mistake.position)).await?;
    let next = store.append(any("a-1", 7)).await?.position;
    assert!(next > mistake.position, "a position is given twice");
    assert_eq!(within("an event", live.next_event()).await??.position, next);
    drop((store, live));
    end(to).await
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
