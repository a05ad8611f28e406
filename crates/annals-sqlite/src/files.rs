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
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        // Do not open the file: closing it again would drop the locks that SQLite has on it.
        let file = fs::metadata(path)?;
        Ok(Self { device: file.dev(), inode: file.ino() })
    }

    /// Other systems do not let a file be moved or deleted while SQLite has it open.
    #[cfg(not(unix))]
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path)?;
        Ok(Self { device: 0, inode: 0 })
    }
}

/// The database file and its write-ahead log, as they were when the database was opened.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    path: PathBuf,
    /// The path without symbolic links.
    canonical_path: PathBuf,
    file: FileId,
    log_path: PathBuf,
    log: FileId,
}

impl OpenFiles {
    /// The files of a database that was just opened.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let canonical_path = fs::canonicalize(path)?;
        // SQLite keeps the log beside the file, not beside a symbolic link to it.
        let mut log_path = canonical_path.clone().into_os_string();
        log_path.push("-wal");
        let log_path = PathBuf::from(log_path);
        let (file, log) = (FileId::of(path)?, FileId::of(&log_path)?);
        Ok(Self { path: path.to_owned(), canonical_path, file, log_path, log })
    }

    /// What is the same for all handles of this process to the same file.
    pub(crate) fn identity(&self) -> (PathBuf, FileId) {
        (self.canonical_path.clone(), self.file)
    }

    /// Refuses to go on if the database file or its log was moved, deleted or replaced: other
    /// processes would not see what is written now, and this one would not see what they write.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (path, file) in [(&self.path, self.file), (&self.log_path, self.log)] {
            if FileId::of(path).ok() != Some(file) {
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
