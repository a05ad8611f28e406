//! Appends together with rows of the application.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use annals_core::{
    Appended, ErrorKind, EventStore, ExpectedVersion, Message, Result, Subscribe, Version,
};
use annals_sqlite::{
    SqliteStore,
    rusqlite::{Connection, params},
};
use common::{all, append, data, id, open, raw, versions, within};
use futures::future::join_all;
use tempfile::TempDir;

/// A store beside a table of the application, in one file.
struct Place {
    _dir: TempDir,
    file: PathBuf,
    store: SqliteStore,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("events.db");
        let store = open(&file).await;
        raw(&file).execute_batch("CREATE TABLE orders (id TEXT, version INTEGER)").unwrap();
        Self { _dir: dir, file, store }
    }

    fn rows(&self) -> i64 {
        raw(&self.file).query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap()
    }
}

type Rows = std::result::Result<usize, Box<dyn std::error::Error + Send + Sync>>;

fn row(connection: &Connection, appended: &[Appended]) -> Rows {
    let version = appended[0].last_version.to_i64();
    Ok(connection.execute("INSERT INTO orders VALUES ('o', ?1)", params![version])?)
}

#[tokio::test]
async fn rows_and_events_are_committed_together() {
    let place = Place::new().await;
    let both = vec![append("a-1", Version::new(0), "1"), append("b-1", Version::new(0), "2")];
    let (appended, rows) = place.store.append_with(both, row).await.unwrap();
    assert_eq!((appended.len(), rows, place.rows()), (2, Some(1), 1));
    assert_eq!(data(&all(&place.store).await), ["1", "2"]);
}

#[tokio::test]
async fn what_fails_leaves_nothing() {
    let place = Place::new().await;
    place.store.append(append("a-1", Version::new(0), "1")).await.unwrap();
    let failures: [fn(&Connection, &[Appended]) -> Rows; 3] = [
        |connection, appended| row(connection, appended).and(Err("the order is closed".into())),
        |connection, _| Ok(connection.execute("INSERT INTO nowhere VALUES (1)", [])?),
        |connection, appended| {
            row(connection, appended)?;
            panic!("a mistake")
        },
    ];
    for failure in failures {
        let appends =
            vec![append("a-1", Version::new(1), "2"), append("new-1", Version::new(0), "2")];
        let error = place.store.append_with(appends, failure).await.unwrap_err();
        assert!(!error.outcome_unknown(), "{error}");
    }
    // A conflict: the function does not run.
    let stale = vec![append("a-1", Version::new(0), "2")];
    let error = place.store.append_with(stale, |_, _| -> Rows { panic!("it runs") }).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!((place.rows(), all(&place.store).await.len()), (0, 1));
    // The store knows that nothing was written.
    let next = place.store.append(append("a-1", Version::new(1), "2")).await.unwrap();
    assert_eq!(next.position.get(), 2);
    place.store.append(append("new-1", ExpectedVersion::NoStream, "1")).await.unwrap();
}

#[tokio::test]
async fn a_retry_writes_no_row_again() {
    let place = Place::new().await;
    let once = append("a-1", Version::new(0), "1");
    for rows in [Some(1), None, None] {
        let (appended, made) = place.store.append_with(vec![once.clone()], row).await.unwrap();
        assert_eq!((appended[0].replayed, made), (rows.is_none(), rows));
    }
    assert_eq!(place.rows(), 1);
}

/// Changes that wait share a transaction. One that fails takes no other with it.
#[tokio::test]
async fn others_in_the_same_transaction_are_not_affected() {
    const CALLS: usize = 60;
    let place = Place::new().await;
    let mut live = place.store.subscribe(Subscribe::default()).await.unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let calls = (0..CALLS).map(|n| {
        let (store, runs) = (place.store.clone(), runs.clone());
        let append = append("a-1", ExpectedVersion::Any, &n.to_string());
        async move {
            match n % 3 {
                0 => store.append(append).await.map(|_| ()),
                fails => {
                    let rows = move |connection: &Connection, appended: &[Appended]| {
                        runs.fetch_add(1, SeqCst);
                        row(connection, appended)?;
                        if fails == 1 { Err("refused".into()) } else { Ok(()) }
                    };
                    store.append_with(vec![append], rows).await.map(|_| ())
                }
            }
        }
    });
    let done: Vec<Result<()>> = within(join_all(calls)).await;
    for (n, done) in done.iter().enumerate() {
        assert_eq!(done.is_err(), n % 3 == 1, "{n}: {done:?}");
    }
    let events = all(&place.store).await;
    assert_eq!(versions(&events), (1..=2 * CALLS as u64 / 3).collect::<Vec<_>>());
    assert_eq!(place.rows() as usize, CALLS / 3);
    assert_eq!(runs.load(SeqCst), 2 * CALLS / 3);
    let mut seen = Vec::new();
    while seen.len() < events.len() {
        if let Message::Event(event) = within(live.next()).await.unwrap() {
            seen.push(event);
        }
    }
    assert_eq!(seen, events);
}

#[tokio::test]
async fn a_function_that_ends_the_transaction_is_an_error() {
    let place = Place::new().await;
    for (n, end) in ["ROLLBACK", "COMMIT"].into_iter().enumerate() {
        let append = append(&format!("a-{n}"), Version::new(0), "1");
        let rows =
            move |connection: &Connection, _: &[Appended]| Ok(connection.execute_batch(end)?);
        let error = place.store.append_with(vec![append], rows).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::InvalidInput, true));
        assert!(error.to_string().contains("has ended the transaction"), "{error}");
    }
    // The store goes on.
    place.store.append(append("b-1", Version::new(0), "1")).await.unwrap();
    assert_eq!(place.store.stream_info(&id("b-1")).await.unwrap().version.get(), 1);
}
