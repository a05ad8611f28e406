//! A server that is a standby is refused: its readers would skip events. A server that has lost commits,
//! as an asynchronous replica or a restored one has, is noticed.

use std::{path::Path, process::Command, sync::Arc};

use annals_core::{
    ErrorKind, EventStore, EventStoreExt, ExpectedVersion, ReadAll, Subscribe, TryStreamExt,
};
use annals_postgres::{PostgresStore, sqlx::postgres::PgPoolOptions};
use annals_test_servers::{
    BoxError,
    postgres::{Options, Source},
    until,
};

use crate::{
    beside::Listener,
    common::{PATIENCE, Place, Tested, event, everything, id, tests},
    load::within,
    lock::{any, failed},
};

tests! { "standby":
    Local a_standby_is_refused_until_it_is_promoted;
    Local a_server_that_has_lost_commits_is_noticed;
}

async fn a_standby_is_refused_until_it_is_promoted() -> Tested {
    let server = Arc::new(Source::find()?.start(Options::default()).await?);
    let place = Place::on(server.clone());
    let pool = PgPoolOptions::new().max_connections(5).acquire_timeout(PATIENCE);
    let pool = pool.connect_lazy_with(place.config().connect);
    let options = place.config().options;
    let stores = [place.open().await?, PostgresStore::with_pool(pool.clone(), options).await?];
    let mut live = Vec::new();
    for store in &stores {
        live.push(Listener::on(store, Subscribe::default()).await?);
    }
    let first = stores[0].append(any("a-1", 1)).await?.position.get();
    for live in &mut live {
        assert_eq!(live.next().await?, first);
    }

    // The server comes back as a standby, as if its name led to another one now.
    server.kill().await?;
    let data = server.data_directory().ok_or("the server is elsewhere")?;
    std::fs::write(data.join("standby.signal"), "")?;
    server.start_again().await?;
    for store in &stores {
        let read = store.load_stream(&id("a-1")).await.expect_err("a standby is read");
        assert_eq!(read.kind(), ErrorKind::Unavailable, "{read:?}");
        assert!(read.to_string().contains("the server is a standby"), "{read}");
        let info = store.stream_info(&id("a-1")).await.expect_err("a standby is read");
        assert_eq!(info.kind(), ErrorKind::Unavailable, "{info:?}");
        failed(store.append(any("a-1", 2)).await, ErrorKind::Unavailable, false);
    }
    for opened in
        [place.open().await, PostgresStore::with_pool(pool.clone(), place.config().options).await]
    {
        let error = opened.expect_err("a standby is opened");
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
        assert!(error.to_string().contains("connect to the primary"), "{error}");
    }

    assert_eq!(place.execute("SELECT pg_promote()").await?, 1);
    until("the server is a primary", PATIENCE, || async { place.open().await.is_ok() }).await?;
    for store in &stores {
        let position = store.append(any("a-1", 3)).await?.position.get();
        for live in &mut live {
            assert_eq!(live.next().await?, position);
        }
    }
    assert_eq!(everything(&stores[0]).await?.len(), 3);
    drop((stores, live, pool, place));
    // Dropping the server blocks until it has ended.
    Ok::<_, BoxError>(tokio::task::spawn_blocking(move || drop(server)).await?)
}

/// Copies a directory with its owner.
async fn copy(from: &Path, to: &Path) -> Tested {
    let (from, to) = (from.to_owned(), to.to_owned());
    let copied = move || Command::new("cp").arg("-a").arg(from).arg(to).status();
    let status = tokio::task::spawn_blocking(copied).await??;
    if status.success() { Ok(()) } else { Err("the directory was not copied".into()) }
}

async fn a_server_that_has_lost_commits_is_noticed() -> Tested {
    /// More than the sequence logs ahead.
    const LOST: u64 = 100;
    let server = Arc::new(Source::find()?.start(Options::default()).await?);
    let place = Place::on(server.clone());
    let data = server.data_directory().ok_or("the server is elsewhere")?.to_owned();
    let replica = data.with_extension("replica");
    let store = place.open().await?;
    store.append_to("a-1", ExpectedVersion::Any, (0..10).map(event)).await?;
    server.kill().await?;
    copy(&data, &replica).await?;
    server.start_again().await?;
    until("the server answers", PATIENCE, || async { everything(&store).await.is_ok() }).await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    let lost = store.append_to("a-1", ExpectedVersion::Any, (0..LOST).map(event)).await?;
    let last = lost.position.get();
    while within("an event", live.next_event()).await??.position.get() < last {}

    // The name of the server leads to one that lacks these events.
    server.kill().await?;
    std::fs::remove_dir_all(&data)?;
    std::fs::rename(&replica, &data)?;
    server.start_again().await?;
    let mut read: Result<Vec<_>, _> = store.read_all(ReadAll::default()).try_collect().await;
    while read.as_ref().is_err_and(annals_core::Error::is_retryable) {
        read = store.read_all(ReadAll::default()).try_collect().await;
    }
    let ended = within("the subscription ends", live.next_event()).await?;
    for error in [read.expect_err("it is read"), ended.expect_err("it goes on")] {
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
        assert!(error.to_string().contains("it has lost commits"), "{error}");
    }

    // Whoever opens the store again is told of checkpoints beyond its end.
    let store = place.open().await?;
    let beyond = store.subscribe(Subscribe::default().after(last)).await;
    let beyond = match beyond {
        Ok(mut live) => within("the subscription ends", live.next_event()).await?.err(),
        Err(error) => Some(error),
    };
    assert!(beyond.is_some(), "it waits in silence");
    // As the operations page says: then no position is given twice.
    let statement = "SELECT setval('{schema}.positions', (SELECT max(position) \
                     FROM {schema}.events) + 1000000)";
    place.execute(statement).await?;
    let mut live = store.subscribe(Subscribe::default().after(last)).await?;
    let next = store.append(any("a-1", 1)).await?.position;
    assert!(next.get() > last, "a position is given twice");
    assert_eq!(within("an event", live.next_event()).await??.position, next);
    drop((store, live, place));
    // Dropping the server blocks until it has ended.
    Ok::<_, BoxError>(tokio::task::spawn_blocking(move || drop(server)).await?)
}
