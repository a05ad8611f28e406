//! A server that is a standby is refused: its readers would skip events.

use std::sync::Arc;

use annals_core::{ErrorKind, EventStore, EventStoreExt, Subscribe};
use annals_postgres::{PostgresStore, sqlx::postgres::PgPoolOptions};
use annals_test_servers::{
    BoxError,
    postgres::{Options, Source},
    until,
};

use crate::{
    beside::Listener,
    common::{PATIENCE, Place, Tested, everything, id, tests},
    lock::{any, failed},
};

tests! { "standby":
    Local a_standby_is_refused_until_it_is_promoted;
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
