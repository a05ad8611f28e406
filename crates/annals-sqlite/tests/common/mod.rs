//! Helpers that the tests share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use annals_core::{Append, EventStore, ExpectedVersion, NewEvent, RecordedEvent, StreamId};
use annals_sqlite::{SqliteConfig, SqliteStore};
use rusqlite::Connection;

/// Long enough for the slowest machine. Only a test that fails waits so long.
pub const DEADLINE: Duration = Duration::from_secs(120);

pub fn id(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

pub fn event(data: impl Into<Vec<u8>>) -> NewEvent {
    NewEvent::binary("Happened", data.into()).unwrap()
}

pub fn append(stream: &str, expected: impl Into<ExpectedVersion>, data: &str) -> Append {
    Append::new(id(stream), expected, [event(data)])
}

pub fn data(events: &[RecordedEvent]) -> Vec<&str> {
    events.iter().map(|e| std::str::from_utf8(e.data.bytes()).unwrap()).collect()
}

pub fn versions(events: &[RecordedEvent]) -> Vec<u64> {
    events.iter().map(|e| e.version.get()).collect()
}

pub async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(SqliteConfig::new(path)).await.unwrap()
}

pub async fn all(store: &impl EventStore) -> Vec<RecordedEvent> {
    use futures::TryStreamExt;
    store.read_all(annals_core::ReadAll::default()).try_collect().await.unwrap()
}

/// A connection that bypasses the store, as another program has it.
pub fn raw(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(DEADLINE).unwrap();
    connection
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("not within the deadline")
}

/// Waits for a condition by checking it again and again.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "{what}: not within the deadline");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

const FILE: &str = "ANNALS_SQLITE_TEST_FILE";
const NAME: &str = "ANNALS_SQLITE_TEST_NAME";

/// Another process that runs one test function of a test binary, on a file.
pub fn child(binary: &Path, function: &str, file: &Path, name: &str) -> Command {
    let mut command = Command::new(binary);
    command
        .args(["--exact", function, "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .env(NAME, name)
        .stdout(Stdio::piped());
    command
}

/// The file and the name of this child; `None` if this process is not a child.
pub fn started() -> Option<(PathBuf, String)> {
    Some((std::env::var_os(FILE)?.into(), std::env::var(NAME).ok()?))
}
