//! Wakes subscriptions that wait for events: at once after a commit of this process, and within one
//! poll interval after a commit of another process.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    thread::{self, JoinHandle},
    time::Duration,
};

use annals_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::watch;

use crate::{database::Database, error::Failure, files::FileId, read_only::FileState};

/// How often to poll for commits of other processes, while a subscription waits.
const POLL: Duration = Duration::from_millis(10);
/// For how many polls the thread goes on while no subscription waits. A subscription that has just
/// been woken soon waits again, and starting a thread costs more than a few polls.
const LINGER: u32 = 100;

/// What identifies a store within the process: its file, and its prefix in lower case, because
/// SQLite does not distinguish upper and lower case in the names of tables.
type Key = (PathBuf, FileId, String);

static NOTIFIERS: LazyLock<Mutex<HashMap<Key, Weak<Notifier>>>> = LazyLock::new(Mutex::default);

/// All handles of this process to the same store share one notifier.
#[derive(Debug)]
pub(crate) struct Notifier {
    shared: Arc<Shared>,
    /// `None` for a database in memory, which no other handle can open.
    key: Option<Key>,
}

#[derive(Debug)]
struct Shared {
    /// Counts the commits, and the moments at which there may have been one.
    commits: watch::Sender<u64>,
    poller: Mutex<Poller>,
    stop: Condvar,
}

/// The thread that polls for commits of other processes.
#[derive(Debug, Default)]
struct Poller {
    /// How many subscriptions wait.
    waiting: usize,
    /// The thread, while it runs.
    thread: Option<JoinHandle<()>>,
    stopped: bool,
}

impl Shared {
    fn poller(&self) -> MutexGuard<'_, Poller> {
        self.poller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.commits.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Notifier {
    /// The notifier of the store in this database.
    pub(crate) fn of(database: &Database) -> Arc<Self> {
        let Some(files) = database.files() else { return Arc::new(Self::new(None)) };
        let (path, file) = files.identity();
        let key = (path, file, database.config.prefix.to_ascii_lowercase());
        let mut notifiers = NOTIFIERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notifier) = notifiers.get(&key).and_then(Weak::upgrade) {
            return notifier;
        }
        let notifier = Arc::new(Self::new(Some(key.clone())));
        notifiers.insert(key, Arc::downgrade(&notifier));
        notifier
    }

    fn new(key: Option<Key>) -> Self {
        let (poller, stop) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { commits: watch::Sender::new(0), poller, stop }), key }
    }

    /// Wakes the subscriptions, because events were committed.
    pub(crate) fn wake(&self) {
        self.shared.wake();
    }

    /// A receiver that is woken by every commit from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.commits.subscribe()
    }

    /// Polls for commits of other processes until the guard is dropped.
    pub(crate) fn poll(&self, database: &Arc<Database>) -> Result<Polling<'_>> {
        let mut poller = self.shared.poller();
        if self.key.is_some() && poller.thread.is_none() {
            let (shared, database) = (self.shared.clone(), database.clone());
            let thread = thread::Builder::new()
                .name("annals-sqlite-poll".to_owned())
                .spawn(move || poll(&shared, &database))
                .map_err(|e| {
                    let message = "the thread that polls for commits could not be started";
                    Error::new(ErrorKind::Unavailable, message).with_source(e)
                })?;
            poller.thread = Some(thread);
        }
        poller.waiting += 1;
        Ok(Polling(&self.shared))
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        let thread = {
            let mut poller = self.shared.poller();
            poller.stopped = true;
            poller.thread.take()
        };
        self.shared.stop.notify_all();
        // Wait until the thread has closed its connection. Ignore whether it panicked.
        drop(thread.map(JoinHandle::join));
        if let Some(key) = &self.key {
            let mut notifiers = NOTIFIERS.lock().unwrap_or_else(PoisonError::into_inner);
            // A later notifier may have taken the place of this one.
            if notifiers.get(key).is_some_and(|notifier| notifier.strong_count() == 0) {
                notifiers.remove(key);
            }
        }
    }
}

/// Held by a subscription while it waits.
#[derive(Debug)]
pub(crate) struct Polling<'a>(&'a Shared);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.poller().waiting -= 1;
    }
}

/// Polls for commits of other processes, until no subscription has waited for a while.
fn poll(shared: &Shared, database: &Database) {
    let mut watcher = FileWatcher::default();
    let mut idle = 0;
    loop {
        if watcher.may_have_changed(database) {
            shared.wake();
        }
        let poller = shared.poller();
        let (mut poller, _) = shared
            .stop
            .wait_timeout_while(poller, POLL, |poller| !poller.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        idle = if poller.waiting == 0 { idle + 1 } else { 0 };
        if poller.stopped || idle > LINGER {
            // Close the connection before the thread is forgotten, because `drop` then cannot wait
            // for it.
            drop(watcher);
            poller.thread = None;
            return;
        }
    }
}

/// Notices commits of other connections by the data version of the database.
#[derive(Default)]
struct FileWatcher {
    connection: Option<(Connection, Option<FileState>)>,
    /// The data version at the last poll.
    seen: Option<i64>,
}

impl FileWatcher {
    /// Whether there may have been a commit since the last poll. The first poll says so because it
    /// cannot know. A poll that fails says so because a woken subscription then reads, and either
    /// finds events or reports the error.
    fn may_have_changed(&mut self, database: &Database) -> bool {
        let version = self.data_version(database).inspect_err(|error| {
            tracing::debug!(?error, "cannot poll for commits of other processes");
        });
        let version = version.ok();
        if version.is_none() {
            self.connection = None;
        }
        let changed = version.is_none() || version != self.seen;
        self.seen = version;
        changed
    }

    fn data_version(&mut self, database: &Database) -> Result<i64, Failure> {
        database.check_files()?;
        let (connection, state) = match self.connection.take() {
            Some(connection) => connection,
            None => database.reader()?,
        };
        state.as_ref().map_or(Ok(()), FileState::check)?;
        let version =
            connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        self.connection = Some((connection, state));
        Ok(version)
    }
}
