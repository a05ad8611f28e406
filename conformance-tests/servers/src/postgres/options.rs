//! What a test wants of its server.

use std::path::PathBuf;

use crate::BoxError;

/// What a test wants of its server; as it is by default, `Options::default()`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Lines for `postgresql.conf`, of which the last of a name holds.
    pub settings: Vec<(String, String)>,
    /// Files to be placed into the data directory, with their contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// Whether commits survive the end of the machine, as PostgreSQL's own settings promise, and
    /// cost what they do. They survive the end of the server in any case.
    pub durable: bool,
    /// In which directory the server gets its own: by default, that for temporary files. It counts
    /// for servers on this machine only.
    pub parent: Option<PathBuf>,
}

impl Options {
    /// Adds a setting, such as `ssl` and `on`.
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Places a file into the data directory, which only the server's user can read, as it demands
    /// of `server.key`.
    pub fn with_file(mut self, name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }

    /// Leaves PostgreSQL's settings about durability as they are.
    pub fn with_durability(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Gives the server a directory in this one. Keep it short, since the path of a Unix socket is
    /// limited to about 100 bytes; where tests run as root, everybody must be able to write to it.
    pub fn with_parent(mut self, parent: impl Into<PathBuf>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// Everything for `postgresql.conf`, except for what depends on where the server runs.
    pub(super) fn lines(&self) -> String {
        // As many as a test may want, and a small fraction of a small machine's memory.
        let mut all = vec![("max_connections", "300"), ("shared_buffers", "64MB")];
        if !self.durable {
            all.push(("fsync", "off"));
        }
        all.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        all.into_iter().map(|(name, value)| line(name, value)).collect()
    }

    /// Refuses what would do something other than it says.
    pub(super) fn check(&self) -> Result<(), BoxError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        for name in self.settings.iter().map(|(n, _)| n).chain(self.files.iter().map(|(n, _)| n)) {
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                return Err(format!("{name:?} is no name of a setting or a file").into());
            }
        }
        match self.settings.iter().find(|(_, value)| value.contains(['\n', '\0'])) {
            Some((name, _)) => Err(format!("the value of {name} is more than a line").into()),
            None => Ok(()),
        }
    }

    /// Refuses all that cannot be had of a server that somebody else has started.
    pub(super) fn refuse_any(&self) -> Result<(), BoxError> {
        if self.settings.is_empty() && self.files.is_empty() && !self.durable {
            return Ok(());
        }
        Err(format!("the server that {} names has its own settings", super::source::URL).into())
    }
}

/// A line for `postgresql.conf`.
pub(super) fn line(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('\'', "''");
    format!("{name} = '{value}'\n")
}
