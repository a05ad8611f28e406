//! The options of a store.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use annals_core::{Error, ErrorKind, Result};

/// Where the events are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// In a file, together with `-wal` and `-shm` files next to it while it is open.
    File(PathBuf),
    /// In memory, seen by no other store, and gone with the last handle: at most 1 GiB, which is
    /// SQLite's own limit.
    Memory,
}

/// What SQLite waits for before an append has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Synchronous {
    /// The disk: what was appended survives the loss of power.
    #[default]
    Full,
    /// The operating system: what was appended survives the death of the process; the loss of
    /// power may cost the last appends, whole ones, and damages nothing.
    Normal,
}

/// How a store is opened.
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
    /// What the names of the tables begin with, so that several stores, and the tables of the
    /// application, share one file: `annals` unless set. A letter or `_`, then up to 30 more, or
    /// digits.
    pub prefix: String,
    /// What an append waits for: the disk, unless set.
    pub synchronous: Synchronous,
    /// How long to wait for another process that writes, or another handle: 10 seconds unless set.
    /// After it the call fails with [`ErrorKind::Busy`], and nothing was written.
    pub busy_timeout: Duration,
    /// The most connections that read at the same time, 1 to 64: 4 unless set.
    pub readers: usize,
    /// Whether a file that is missing is created: yes, unless set.
    pub create: bool,
}

impl SqliteConfig {
    /// The greatest number of reader connections.
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

    /// A store in a file. A relative path begins at the working directory.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self::at(Location::File(path.as_ref().to_owned()))
    }

    /// A store in memory, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::at(Location::Memory)
    }

    /// Reads a URL: `sqlite://relative.db`, `sqlite:///absolute.db`, `sqlite:relative.db`, or
    /// `sqlite::memory:`, each with any of the parameters `prefix`, `synchronous` (`full` or
    /// `normal`), `busy_timeout` (milliseconds), `readers` and `create` (`true` or `false`).
    /// `%20` and the like are decoded.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the part that is wrong, and what it could be.
    pub fn from_url(url: &str) -> Result<Self> {
        crate::url::parse(url)
    }

    /// Sets what the names of the tables begin with.
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

    /// Sets how long to wait for others who write.
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

    /// Sets whether a file that is missing is created.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Refuses what could not work.
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

/// The prefix becomes part of SQL text, so nothing but a plain name passes.
fn check_prefix(prefix: &str) -> Result<()> {
    /// Long enough for any name, short enough to be read in front of a table's.
    const MAX: usize = 31;
    let plain = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let named = prefix.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && prefix.chars().all(plain)
        && prefix.len() <= MAX;
    // SQLite keeps names that begin with `sqlite_` to itself, in upper and lower case.
    let lower = prefix.to_ascii_lowercase();
    let reserved = lower == "sqlite" || lower.starts_with("sqlite_");
    if named && !reserved {
        return Ok(());
    }
    let message = format!(
        "`prefix` is {prefix:?}; use a letter or `_`, then at most {} letters, digits and `_`, \
         and nothing that begins with `sqlite_`",
        MAX - 1
    );
    Err(Error::new(ErrorKind::InvalidInput, message))
}
