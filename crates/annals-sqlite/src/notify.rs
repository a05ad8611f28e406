//! Wakes those who wait for events: at once where this process committed them, and within one poll
//! interval where another did.

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

use crate::{database::Database, error::Failure};

/// How often to look for commits of other processes, while somebody waits.
const POLL: Duration = Duration::from_millis(10);
/// For how many polls the thread stays although nobody waits: a subscriber that is being served
/// comes back soon, and a thread costs more than a few polls.
const LINGER: u32 = 100;

/// What identifies a store within the process: tables of SQLite are the same in upper and lower
/// case.
type Key = (PathBuf, String);

static NOTIFIERS: LazyLock<Mutex<HashMap<Key, Weak<Notifier>>>> = LazyLock::new(Mutex::default);

/// One for all handles of this process to one store.
#[derive(Debug)]
pub(crate) struct Notifier {
    shared: Arc<Shared>,
    key: Option<Key>,
}

#[derive(Debug)]
struct Shared {
    /// How many times something was committed, or may have been.
    commits: watch::Sender<u64>,
    poller: Mutex<Poller>,
    stop: Condvar,
}

#[derive(Debug, Default)]
struct Poller {
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
    /// The notifier of this store.
    pub(crate) fn of(database: &Database) -> Arc<Self> {
        let Some(file) = database.file() else { return Arc::new(Self::new(None)) };
        let key = (file, database.config.prefix.to_ascii_lowercase());
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

    /// Something was committed.
    pub(crate) fn wake(&self) {
        self.shared.wake();
    }

    /// Is told of every commit from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.commits.subscribe()
    }

    /// Waits until the thread that looks for commits of other processes has ended.
    pub(crate) fn close(self) {
        let thread = {
            let mut poller = self.shared.poller();
            poller.stopped = true;
            poller.thread.take()
        };
        self.shared.stop.notify_all();
        // A thread that panicked has ended as well.
        drop(thread.map(JoinHandle::join));
    }

    /// Looks for commits of other processes until what is returned is dropped.
    pub(crate) fn watch(&self, database: &Arc<Database>) -> Result<Watching<'_>> {
        let mut poller = self.shared.poller();
        if self.key.is_some() && poller.thread.is_none() {
            let (shared, database) = (self.shared.clone(), database.clone());
            let thread = thread::Builder::new()
                .name("annals-sqlite-poll".to_owned())
                .spawn(move || poll(&shared, &database))
                .map_err(|e| {
                    let message = "no thread could be started";
                    Error::new(ErrorKind::Unavailable, message).with_source(e)
                })?;
            poller.thread = Some(thread);
        }
        poller.waiting += 1;
        Ok(Watching(&self.shared))
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.shared.poller().stopped = true;
        self.shared.stop.notify_all();
        if let Some(key) = &self.key {
            let mut notifiers = NOTIFIERS.lock().unwrap_or_else(PoisonError::into_inner);
            // A later one may stand there already.
            if notifiers.get(key).is_some_and(|notifier| notifier.strong_count() == 0) {
                notifiers.remove(key);
            }
        }
    }
}

/// Somebody waits.
#[derive(Debug)]
pub(crate) struct Watching<'a>(&'a Shared);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.poller().waiting -= 1;
    }
}

/// The thread that looks for commits of others, until nobody has waited for a while.
fn poll(shared: &Shared, database: &Database) {
    let mut look = Look::default();
    let mut idle = 0;
    loop {
        if look.has_changed(database) {
            shared.wake();
        }
        let poller = shared.poller();
        let (mut poller, _) = shared
            .stop
            .wait_timeout_while(poller, POLL, |poller| !poller.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        idle = if poller.waiting == 0 { idle + 1 } else { 0 };
        if poller.stopped || idle > LINGER {
            poller.thread = None;
            return;
        }
    }
}

/// The connection that looks, and what it saw last.
#[derive(Default)]
struct Look {
    connection: Option<Connection>,
    seen: Option<i64>,
}

impl Look {
    /// Whether there may have been a commit since the last look. The first look says so in any
    /// case, since nobody looked before, and so does one that fails: whoever waits then reads, and
    /// finds out.
    fn has_changed(&mut self, database: &Database) -> bool {
        let version = self.version(database).inspect_err(|error| {
            tracing::debug!(?error, "cannot look for commits of other processes");
        });
        let version = version.ok();
        if version.is_none() {
            self.connection = None;
        }
        let changed = version.is_none() || version != self.seen;
        self.seen = version;
        changed
    }

    fn version(&mut self, database: &Database) -> Result<i64, Failure> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => database.reader()?,
        };
        let version =
            connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        self.connection = Some(connection);
        Ok(version)
    }
}
