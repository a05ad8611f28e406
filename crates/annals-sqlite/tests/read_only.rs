//! Files that cannot be written: they can be read, and changes are denied. Permissions do not bind
//! the superuser, so the tests read in a child process of another user.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    fs,
    io::{self, BufRead, BufReader},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Child,
};

use annals_core::{
    CheckpointStore, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Message, Position,
    ReadStream, Subscribe, SubscriberId, TransferStore, TryStreamExt, Version,
};
use annals_sqlite::{SqliteConfig, SqliteStore};
use common::{all, append, child, data, id, open, started, within};
use tempfile::TempDir;

/// The line by which a child says that it has read all events.
const CAUGHT_UP: &str = "caught up";
/// A user without any permissions of its own.
const NOBODY: u32 = 65_534;

/// A directory with a database in a directory of its own, whose name has characters that mean
/// something in a URI.
struct Place {
    base: TempDir,
    dir: PathBuf,
    file: PathBuf,
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Place {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        set_mode(base.path(), 0o755);
        let dir = base.path().join("a %41?b=c#d");
        fs::create_dir(&dir).unwrap();
        let file = dir.join("events.db");
        Self { base, dir, file }
    }

    async fn with_events() -> Self {
        let place = Self::new();
        let store = open(&place.file).await;
        for n in 1..=3 {
            store.append(append("a-1", ExpectedVersion::Any, &n.to_string())).await.unwrap();
        }
        store.close().await.unwrap();
        place
    }

    /// A process that cannot write the file: of another user, if this one is the superuser.
    fn child(&self, function: &str, name: &str) -> Child {
        let binary = self.base.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
        let mut command = child(&binary, function, &self.file, name);
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        // A process that another test forks has the copy open for writing until it executes.
        loop {
            match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now();
                }
                spawned => return spawned.unwrap(),
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The directory can be removed only if it is writable.
        set_mode(&self.dir, 0o755);
    }
}

fn assert_denied<T: std::fmt::Debug>(result: annals_core::Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(!error.is_retryable() && !error.outcome_unknown(), "{error}");
    assert!(error.to_string().contains("writable"), "{error}");
}

#[tokio::test]
async fn child_reads() {
    let Some((file, _)) = started() else { return };
    let inspection = SqliteStore::inspect(SqliteConfig::new(&file)).await.unwrap();
    assert!(inspection.exists && !inspection.writable, "{inspection:?}");
    assert_eq!(inspection.schema_version, SqliteStore::SCHEMA_VERSION);

    let store = open(&file).await;
    let stream = id("a-1");
    for _ in 0..3 {
        assert_eq!(data(&all(&store).await), ["1", "2", "3"]);
        let backwards = store.read_stream(&stream, ReadStream::default().backwards());
        let backwards: Vec<_> = backwards.try_collect().await.unwrap();
        assert_eq!(data(&backwards), ["3", "2", "1"]);
        assert_eq!(store.stream_info(&stream).await.unwrap().version, Version::new(3));
        assert_eq!(store.list_streams(None, 10).await.unwrap().len(), 1);
        let mut live = store.subscribe(Subscribe::default().after(2)).await.unwrap();
        assert_eq!(within(live.next_event()).await.unwrap().version.get(), 3);
        assert_eq!(within(live.next()).await.unwrap(), Message::CaughtUp(Position::new(3)));
    }
    let subscriber = SubscriberId::new("sub").unwrap();
    assert_eq!(store.load_checkpoint(&subscriber).await.unwrap(), None);
    assert_denied(store.append(append("a-1", ExpectedVersion::Any, "x")).await);
    assert_denied(store.save_checkpoint(&subscriber, Position::new(1)).await);
    assert_denied(store.truncate(&stream, Version::new(2)).await);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_read() {
    for (dir_mode, file_mode) in [(0o555, 0o444), (0o777, 0o444), (0o555, 0o666)] {
        let place = Place::with_events().await;
        set_mode(&place.file, file_mode);
        set_mode(&place.dir, dir_mode);
        let before = fs::read(&place.file).unwrap();
        let ended = place.child("child_reads", "").wait_with_output().unwrap();
        assert!(ended.status.success(), "{dir_mode:o} {file_mode:o}: {ended:?}");
        assert_eq!(place.names(), ["events.db"], "{dir_mode:o} {file_mode:o}: a file was left");
        assert_eq!(fs::read(&place.file).unwrap(), before);
    }
}

/// Another user reads while this process has the file open, and its events are still in the log.
#[tokio::test]
async fn a_file_that_another_user_writes_is_read() {
    let place = Place::with_events().await;
    let store = open(&place.file).await;
    store.append(append("b-1", ExpectedVersion::Any, "removed")).await.unwrap();
    store.tombstone(&id("b-1"), ExpectedVersion::Any).await.unwrap();
    place.names().iter().for_each(|name| set_mode(&place.dir.join(name), 0o644));
    set_mode(&place.dir, 0o555);
    assert_eq!(place.names().len(), 3);
    let ended = place.child("child_follows", "").wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

/// Reads all events of the file, then one more for each character of the name of the child.
#[tokio::test]
async fn child_follows() {
    let Some((file, name)) = started() else { return };
    let store = open(&file).await;
    assert_denied(store.append(append("a-1", ExpectedVersion::Any, "x")).await);
    let mut live = store.subscribe(Subscribe::to(id("a-1"))).await.unwrap();
    for version in 1..=3 {
        assert_eq!(within(live.next_event()).await.unwrap().version.get(), version);
    }
    assert!(matches!(within(live.next()).await.unwrap(), Message::CaughtUp(_)));
    println!("{CAUGHT_UP}");
    for (version, character) in (4..).zip(name.chars()) {
        let event = within(live.next_event()).await.unwrap();
        assert_eq!(event.version.get(), version);
        assert_eq!(event.data.bytes(), character.to_string().as_bytes());
        assert!(store.load_stream(&id("a-1")).await.unwrap().len() as u64 >= version);
    }
}

/// A reader that takes the file for unchanging notices that it changes all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_later_is_followed() {
    let place = Place::with_events().await;
    set_mode(&place.file, 0o644);
    let name = "defg";
    let mut reader = place.child("child_follows", name);
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains(CAUGHT_UP)));
    for character in name.chars() {
        let store = open(&place.file).await;
        store.append(append("a-1", ExpectedVersion::Any, &character.to_string())).await.unwrap();
        store.close().await.unwrap();
    }
    let mut rest = String::new();
    lines.map_while(Result::ok).for_each(|line| rest += &line);
    assert!(reader.wait().unwrap().success(), "{rest}");
}

#[tokio::test]
async fn child_is_denied() {
    let Some((file, says)) = started() else { return };
    let error = SqliteStore::open(SqliteConfig::new(&file)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains(&says), "{error}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_either_is_denied() {
    let place = Place::with_events().await;
    set_mode(&place.file, 0o000);
    let ended = place.child("child_is_denied", "permissions").wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");

    let empty = Place::new();
    fs::write(&empty.file, "").unwrap();
    set_mode(&empty.file, 0o444);
    set_mode(&empty.dir, 0o555);
    let ended = empty.child("child_is_denied", "no tables of a store").wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}
