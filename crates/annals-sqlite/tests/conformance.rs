//! The conformance suite on SQLite: on files, through independent handles, and in memory.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use annals_conformance::{Arguments, BoxError, CORRUPT_EVENT, Fault, Harness, run};
use annals_core::Store;
use annals_sqlite::{SqliteConfig, SqliteStore};
use rusqlite::{Connection, params};
use tempfile::TempDir;

/// A file for each namespace.
struct File(PathBuf);

/// The environment variable that tells a child process the directory of its parent.
const DIR: &str = "ANNALS_SQLITE_DIR";

impl File {
    fn path(&self, namespace: &str) -> PathBuf {
        self.0.join(format!("{namespace}.db"))
    }
}

#[async_trait::async_trait]
impl Harness for File {
    fn name(&self) -> &str {
        "sqlite"
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let config = SqliteConfig::new(self.path(namespace));
        Ok(Arc::new(SqliteStore::open(config).await?))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        // The `-wal` and `-shm` files are removed with the directory.
        Ok(std::fs::remove_file(self.path(namespace))?)
    }

    fn random_programs(&self) -> u32 {
        250
    }

    fn histories(&self) -> u32 {
        10_000
    }

    async fn another_process(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(DIR.to_owned(), self.0.to_str()?.to_owned())])
    }

    fn cannot_inject(&self, fault: Fault) -> Option<String> {
        let possible = matches!(fault, Fault::CorruptEvent | Fault::NewerSchema);
        (!possible).then(|| "there is no server".to_owned())
    }

    async fn inject(&self, namespace: &str, fault: Fault) -> Result<(), BoxError> {
        let (sql, (stream, version)) = match fault {
            Fault::CorruptEvent => (
                "UPDATE annals_events SET id = x'00' WHERE version = ?2 AND stream = \
                 (SELECT id FROM annals_streams WHERE name = ?1)",
                CORRUPT_EVENT,
            ),
            Fault::NewerSchema => {
                ("UPDATE annals_meta SET value = ?2 WHERE key = ?1", ("schema_version", 1_000))
            }
            other => return Err(format!("there is no server for {other:?}").into()),
        };
        // A connection that bypasses the store.
        let connection = Connection::open(self.path(namespace))?;
        connection.busy_timeout(self.patience())?;
        match connection.execute(sql, params![stream, version])? {
            1 => Ok(()),
            _ => Err(format!("{sql} harmed nothing").into()),
        }
    }
}

/// A database in memory for each namespace. Every `open` of a namespace returns a clone of the same
/// handle.
#[derive(Default)]
struct Memory(Mutex<HashMap<String, SqliteStore>>);

#[async_trait::async_trait]
impl Harness for Memory {
    fn name(&self) -> &str {
        "sqlite-in-memory"
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let opened = SqliteStore::open(SqliteConfig::in_memory()).await?;
        let mut stores = self.0.lock().unwrap();
        Ok(Arc::new(stores.entry(namespace.to_owned()).or_insert(opened).clone()))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        self.0.lock().unwrap().remove(namespace);
        Ok(())
    }

    /// The files have more: they are written by the same code.
    fn histories(&self) -> u32 {
        1_000
    }
}

fn main() -> ExitCode {
    let dir = TempDir::new().unwrap();
    let files = File(std::env::var_os(DIR).map_or_else(|| dir.path().to_owned(), PathBuf::from));
    run(&Arguments::from_args(), vec![Arc::new(files), Arc::new(Memory::default())])
}
