//! The files of an open database, and whether they are still the same.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use annals_core::{Error, ErrorKind};

/// Which file it is, whatever its name is: its device and inode. An inode is not used again while
/// the file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that has this path now.
    #[cfg(unix)]
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        // Do not open the file: closing it again would drop the locks that SQLite has on it.
        let file = fs::metadata(path)?;
        Ok(Self { device: file.dev(), inode: file.ino() })
    }

    /// Other systems do not let a file be moved or deleted while SQLite has it open.
    #[cfg(not(unix))]
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path)?;
        Ok(Self { device: 0, inode: 0 })
    }
}

/// The path of the log of a database file. SQLite keeps the log beside the file itself, not beside a
/// symbolic link to it.
pub(crate) fn log_path(path: &Path) -> io::Result<PathBuf> {
    let mut log = fs::canonicalize(path)?.into_os_string();
    log.push("-wal");
    Ok(log.into())
}

/// The database file and its write-ahead log, as they were when the database was opened.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    path: PathBuf,
    /// The path without symbolic links.
    canonical_path: PathBuf,
    file: FileId,
    /// The log, unless the database is open for reading only.
    log: Option<(PathBuf, FileId)>,
}

impl OpenFiles {
    /// The files of a database that was just opened, for writing or for reading only.
    pub(crate) fn of(path: &Path, for_writing: bool) -> io::Result<Self> {
        let log = match for_writing {
            true => {
                let path = log_path(path)?;
                let log = FileId::of(&path)?;
                Some((path, log))
            }
            false => None,
        };
        let (canonical_path, file) = (fs::canonicalize(path)?, FileId::of(path)?);
        Ok(Self { path: path.to_owned(), canonical_path, file, log })
    }

    /// What is the same for all handles of this process to the same file.
    pub(crate) fn identity(&self) -> (PathBuf, FileId) {
        (self.canonical_path.clone(), self.file)
    }

    /// Refuses to go on if the database file or its log was moved, deleted or replaced: other
    /// processes would not see what is written now, and this one would not see what they write.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let log = self.log.iter().map(|(path, file)| (path, file));
        for (path, file) in [(&self.path, &self.file)].into_iter().chain(log) {
            if FileId::of(path).ok().as_ref() != Some(file) {
                let message = format!(
                    "{path:?} was moved, deleted or replaced while the store was open; open the \
                     store again"
                );
                return Err(Error::new(ErrorKind::Incompatible, message));
            }
        }
        Ok(())
    }
}
