//! The options of a test's server.

use std::path::PathBuf;

use crate::BoxError;

/// The options of a test's server. `Options::default()` gives a server with default settings.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Settings for `postgresql.conf`. If a name appears several times, the last value applies.
    pub settings: Vec<(String, String)>,
    /// The names and contents of files to place into the data directory.
    pub files: Vec<(String, Vec<u8>)>,
    /// Whether commits survive a crash of the machine, which makes them slower. They survive a
    /// crash of the server in any case.
    pub durable: bool,
    /// The directory in which a server on this machine gets a directory of its own. By default, the
    /// directory for temporary files.
    pub parent: Option<PathBuf>,
    /// A data directory that the server begins with, such as a base backup. It is copied. By default,
    /// the server begins with an empty database.
    pub data: Option<PathBuf>,
}

impl Options {
    /// Adds a setting, such as `ssl` and `on`.
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Places a file into the data directory. Only the server's user can read it, as PostgreSQL
    /// demands of `server.key`.
    pub fn with_file(mut self, name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }

    /// Makes commits survive a crash of the machine, as PostgreSQL does by default.
    pub fn with_durability(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Gives the server its directory inside of this one. Keep the path short: that of a Unix
    /// socket has at most about 100 bytes. If tests run as root, every user must be able to write
    /// to it.
    pub fn with_parent(mut self, parent: impl Into<PathBuf>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// Lets a server on this machine begin with a copy of this data directory, such as a base backup.
    pub fn with_data(mut self, data: impl Into<PathBuf>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// The lines for `postgresql.conf`, without those that depend on where the server runs.
    pub(super) fn lines(&self) -> String {
        // More connections than any test uses, in a small part of a small machine's memory.
        let mut all = vec![("max_connections", "300"), ("shared_buffers", "64MB")];
        if !self.durable {
            all.push(("fsync", "off"));
        }
        all.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        all.into_iter().map(|(name, value)| line(name, value)).collect()
    }

    /// Refuses names and values that would not be taken as they are.
    pub(super) fn check(&self) -> Result<(), BoxError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        for name in self.settings.iter().map(|(n, _)| n).chain(self.files.iter().map(|(n, _)| n)) {
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                return Err(format!("{name:?} is not a valid name of a setting or a file").into());
            }
        }
        match self.settings.iter().find(|(_, value)| value.contains(['\n', '\0'])) {
            Some((name, _)) => {
                Err(format!("the value of the setting {name} is more than one line").into())
            }
            None => Ok(()),
        }
    }

    /// Refuses all options, for a server that was not started here.
    pub(super) fn refuse_any(&self) -> Result<(), BoxError> {
        if self.settings.is_empty() && self.files.is_empty() && !self.durable && self.data.is_none()
        {
            return Ok(());
        }
        Err(format!("the server that {} names has its own settings", super::source::URL).into())
    }
}

/// A line of `postgresql.conf`.
pub(super) fn line(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('\'', "''");
    format!("{name} = '{value}'\n")
}
