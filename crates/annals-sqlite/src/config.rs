//! The options with which a store is opened.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use annals_core::{Error, ErrorKind, Result};

/// Where the events are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// In a file. While the file is open, SQLite keeps a `-wal` and a `-shm` file beside it.
    File(PathBuf),
    /// In memory. No other store sees these events, and they are lost with the last handle. SQLite
    /// limits such a database to 1 GiB.
    Memory,
}

/// What an append waits for before it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Synchronous {
    /// The disk: appended events survive a loss of power.
    #[default]
    Full,
    /// The operating system: appended events survive the death of the process. A loss of power can
    /// undo the last appends, each of them completely, and does not damage the file.
    Normal,
}

/// The options with which a store is opened.
///
/// ```
/// use annals_sqlite::{SqliteConfig, Synchronous};
/// let config = SqliteConfig::new("events.db").with_synchronous(Synchronous::Normal);
/// assert_eq!(config, SqliteConfig::from_url("sqlite://events.db?synchronous=normal")?);
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// Where the events are.
    pub location: Location,
    /// The beginning of the names of the store's tables; default `annals`. Stores with different
    /// prefixes, and tables of the application, can share one file. A prefix is a small
    /// letter or `_`, followed by at most 30 small letters, digits and `_`: for SQLite, `Shop` and `shop`
    /// would be the same.
    pub prefix: String,
    /// What an append waits for; by default the disk.
    pub synchronous: Synchronous,
    /// How long a call waits while another process, or another handle, has locked the database;
    /// default 10 seconds. After that the call fails with [`ErrorKind::Busy`] and has written
    /// nothing.
    pub busy_timeout: Duration,
    /// The most connections that read at the same time, from 1 to
    /// [`MAX_READERS`](Self::MAX_READERS); default 4.
    pub readers: usize,
    /// Whether to create a file that does not exist; default `true`.
    pub create: bool,
}

impl SqliteConfig {
    /// The greatest value of [`readers`](Self::readers).
    pub const MAX_READERS: usize = 64;

    fn at(location: Location) -> Self {
        Self {
            location,
            prefix: "annals".to_owned(),
            synchronous: Synchronous::default(),
            busy_timeout: Duration::from_secs(10),
            readers: 4,
            create: true,
        }
    }

    /// A store in a file. A relative path is relative to the working directory.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self::at(Location::File(path.as_ref().to_owned()))
    }

    /// A store in memory, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::at(Location::Memory)
    }

    /// Sets the beginning of the names of the store's tables.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets what an append waits for.
    #[must_use]
    pub fn with_synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets how long a call waits while the database is locked.
    #[must_use]
    pub fn with_busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets the most connections that read at the same time.
    #[must_use]
    pub fn with_readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Sets whether to create a file that does not exist.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Refuses options that cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        check_prefix(&self.prefix)?;
        if !(1..=Self::MAX_READERS).contains(&self.readers) {
            let message = format!(
                "`readers` is {}; use a number from 1 to {}",
                self.readers,
                Self::MAX_READERS
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(())
    }
}

/// Accepts only a plain name, because the prefix becomes part of SQL text.
fn check_prefix(prefix: &str) -> Result<()> {
    /// Long enough for every good name, and short enough to read in front of the name of a table.
    const MAX: usize = 31;
    // Names of tables have no case: with a capital letter, two prefixes could mean the same tables.
    let plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    let named = prefix.starts_with(|c: char| c == '_' || c.is_ascii_lowercase())
        && prefix.chars().all(plain)
        && prefix.len() <= MAX;
    // SQLite reserves names that begin with `sqlite_`.
    let reserved = prefix == "sqlite" || prefix.starts_with("sqlite_");
    if named && !reserved {
        return Ok(());
    }
    let message = format!(
        "`prefix` is {prefix:?}; use a small letter or `_`, then at most {} small letters, digits and \
         `_`, but not a name that begins with `sqlite_`",
        MAX - 1
    );
    Err(Error::new(ErrorKind::InvalidInput, message))
}
