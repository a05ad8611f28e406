//! The tables, and the transactions around them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use annals_core::{
    Error, ErrorKind, Position, Result, StreamInfo, Version,
    adapter::{StreamHead, state_of_code},
};
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, WriteTransaction,
};
use tokio::{sync::watch, task::spawn_blocking};

use crate::write::Streams;

/// The state of a stream, its version, and its version when it was last deleted.
pub(crate) type Head = (u8, u64, u64);
type Table<K, V> = TableDefinition<'static, K, V>;

/// The event at each position.
pub(crate) const EVENTS: Table<u64, &[u8]> = Table::new("events");
/// The position and the id of each version of a stream.
pub(crate) const PLACES: Table<(&str, u64), (u64, u128)> = Table::new("places");
/// The version of each id in a stream; the last one, if two events have the same id.
pub(crate) const IDS: Table<(&str, u128), u64> = Table::new("ids");
pub(crate) const STREAMS: Table<&str, Head> = Table::new("streams");
/// Snapshots, checkpoints and leases.
pub(crate) const RECORDS: Table<(&str, &str), &[u8]> = Table::new("records");
/// The version of this schema, and the last position that was ever given.
pub(crate) const NUMBERS: Table<&str, u64> = Table::new("numbers");
pub(crate) const LAST_POSITION: &str = "last_position";
const SCHEMA: u64 = 1;

/// A failure inside a transaction: an error of `redb`, or one of ours.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

fn error(fault: Fault) -> Error {
    let fault = match fault.downcast::<Error>() {
        Ok(ours) => return *ours,
        Err(fault) => fault,
    };
    let kind = match (fault.downcast_ref(), fault.downcast_ref()) {
        (Some(StorageError::Corrupted(_)), _) => ErrorKind::Corrupt,
        (Some(StorageError::Io(_)), _) => ErrorKind::Unavailable,
        (_, Some(DatabaseError::DatabaseAlreadyOpen)) => ErrorKind::Busy,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, "the database failed").with_source(fault)
}

/// An open file, and a signal to subscribers after each transaction that wrote.
#[derive(Debug)]
pub(crate) struct File {
    database: Database,
    pub(crate) written: watch::Sender<()>,
}

/// The files that this process has open: `redb` opens a file only once.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, Weak<File>>>> = LazyLock::new(Mutex::default);

impl File {
    /// Opens a file, and creates the tables that are missing.
    pub(crate) async fn open(path: PathBuf) -> Result<Arc<Self>> {
        blocking(move || {
            let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(file) = open.get(&path).and_then(Weak::upgrade) {
                return Ok(file);
            }
            let file = Arc::new(Self::create(&path)?);
            open.insert(path, Arc::downgrade(&file));
            Ok(file)
        })
        .await
    }

    fn create(path: &Path) -> Result<Self, Fault> {
        let database = Database::create(path)?;
        let transaction = database.begin_write()?;
        Streams::open(&transaction)?;
        let newer = transaction.open_table(NUMBERS)?.insert("schema", SCHEMA)?.map(|n| n.value());
        if newer.is_some_and(|newer| newer > SCHEMA) {
            let message = "a newer version of this program has written the file; update it";
            Err(Error::new(ErrorKind::Incompatible, message))?;
        }
        transaction.commit()?;
        Ok(Self { database, written: watch::Sender::default() })
    }

    /// Runs a read transaction: it sees the database as it was at one moment.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&ReadTransaction) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let file = self.clone();
        blocking(move || read(&file.database.begin_read()?)).await
    }

    /// Runs a write transaction. It is committed if the function succeeds, else nothing is written.
    /// It also ends if the caller has dropped the future.
    pub(crate) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        write: impl FnOnce(&WriteTransaction) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let file = self.clone();
        blocking(move || {
            let transaction = file.database.begin_write()?;
            let answer = write(&transaction)?;
            // A commit that fails may have reached the disk.
            transaction.commit().map_err(|e| error(e.into()).with_outcome_unknown())?;
            file.written.send_replace(());
            Ok(answer)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T> {
    spawn_blocking(call).await.map_err(Fault::from).flatten().map_err(error)
}

pub(crate) fn corrupt(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

pub(crate) fn last_position(
    numbers: &impl ReadableTable<&'static str, u64>,
) -> Result<Position, Fault> {
    Ok(numbers.get(LAST_POSITION)?.map_or(Position::START, |number| number.value().into()))
}

pub(crate) fn head(
    streams: &impl ReadableTable<&'static str, Head>,
    stream: &str,
) -> Result<StreamHead, Fault> {
    let Some(found) = streams.get(stream)? else { return Ok(StreamHead::MISSING) };
    let (state, version, deleted_at) = found.value();
    let state = state_of_code(state.into()).ok_or_else(|| corrupt("unknown state of a stream"))?;
    Ok(StreamHead { state, version: version.into(), deleted_at: deleted_at.into() })
}

/// The first version of a stream that can be read.
pub(crate) fn first_version(
    places: &impl ReadableTable<(&'static str, u64), (u64, u128)>,
    stream: &str,
) -> Result<Option<Version>, Fault> {
    let first = places.range((stream, 0)..=(stream, u64::MAX))?.next().transpose()?;
    Ok(first.map(|(key, _)| key.value().1.into()))
}

pub(crate) fn info(from: &ReadTransaction, stream: &str) -> Result<StreamInfo, Fault> {
    let first = first_version(&from.open_table(PLACES)?, stream)?;
    Ok(head(&from.open_table(STREAMS)?, stream)?.info(first))
}
