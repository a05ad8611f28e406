//! The tables, and the transactions around them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use annals_core::{
    Error, ErrorKind, EventType, NewEvent, Position, RecordedEvent, Result, StreamId, Version,
    adapter::{StreamHead, payloads, state_of_code},
};
use chrono::DateTime;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, Value,
    WriteTransaction,
};
use tokio::{sync::watch, task::spawn_blocking};
use uuid::Uuid;

/// An event: stream, version, id, type, content kinds, data, metadata, and when it was recorded, in
/// microseconds since 1970.
pub(crate) type Event =
    (&'static str, u64, u128, &'static str, u8, &'static [u8], &'static [u8], i64);
/// The state of a stream, its version, and its version when it was last deleted.
pub(crate) type Head = (u8, u64, u64);
/// A snapshot: version, content kinds, data, metadata.
pub(crate) type Kept = (u64, u8, &'static [u8], &'static [u8]);
/// The three numbers of a lease, and its holder.
pub(crate) type Lease = (i64, i64, i64, u128);
type Table<K, V> = TableDefinition<'static, K, V>;

/// The event at each position.
pub(crate) const EVENTS: Table<u64, Event> = Table::new("events");
/// The position and the id of each version of a stream.
pub(crate) const PLACES: Table<(&str, u64), (u64, u128)> = Table::new("places");
/// The version of each id in a stream; the last one, if two events have the same id.
pub(crate) const IDS: Table<(&str, u128), u64> = Table::new("ids");
pub(crate) const STREAMS: Table<&str, Head> = Table::new("streams");
pub(crate) const SNAPSHOTS: Table<&str, Kept> = Table::new("snapshots");
pub(crate) const CHECKPOINTS: Table<&str, u64> = Table::new("checkpoints");
pub(crate) const LEASES: Table<&str, Lease> = Table::new("leases");
/// The version of this schema, and the last position that was ever given.
pub(crate) const NUMBERS: Table<&str, u64> = Table::new("numbers");
pub(crate) const LAST_POSITION: &str = "last_position";
const SCHEMA: u64 = 1;

/// A failure inside a transaction: an error of `redb`, or a refusal of ours.
pub(crate) struct Fault(Error);

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

macro_rules! faults {
    ($($error:ident),+) => {$(
        impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Self {
                let error = redb::Error::from(error);
                let kind = match error {
                    redb::Error::Corrupted(_) => ErrorKind::Corrupt,
                    redb::Error::Io(_) => ErrorKind::Unavailable,
                    redb::Error::DatabaseAlreadyOpen => ErrorKind::Busy,
                    _ => ErrorKind::Internal,
                };
                Self(Error::new(kind, "the database failed").with_source(error))
            }
        }
    )+};
}
faults!(StorageError, TableError, TransactionError, CommitError, DatabaseError);

/// An open file, and a signal to subscribers after each transaction that wrote.
pub(crate) struct File {
    database: Database,
    written: watch::Sender<()>,
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
        transaction.open_table(EVENTS)?;
        transaction.open_table(PLACES)?;
        transaction.open_table(IDS)?;
        transaction.open_table(STREAMS)?;
        transaction.open_table(SNAPSHOTS)?;
        transaction.open_table(CHECKPOINTS)?;
        transaction.open_table(LEASES)?;
        let newer = transaction.open_table(NUMBERS)?.insert("schema", SCHEMA)?.map(|n| n.value());
        if newer.is_some_and(|newer| newer > SCHEMA) {
            let message = "a newer version of this program has written the file; update it";
            return Err(Error::new(ErrorKind::Incompatible, message).into());
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

    /// Reads one entry of a table.
    pub(crate) async fn get<V: Value + Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        table: Table<&'static str, V>,
        key: &str,
        decode: impl FnOnce(V::SelfType<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let key = key.to_owned();
        let get = move |transaction: &ReadTransaction| {
            let found = transaction.open_table(table)?.get(key.as_str())?;
            Ok(found.map(|value| decode(value.value())).transpose()?)
        };
        self.read(get).await
    }

    /// Changes one table.
    pub(crate) async fn change<V: Value + Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        table: Table<&'static str, V>,
        key: &str,
        change: impl FnOnce(&mut redb::Table<'_, &'static str, V>, &str) -> Result<T, Fault>
        + Send
        + 'static,
    ) -> Result<T> {
        let key = key.to_owned();
        self.write(move |transaction| change(&mut transaction.open_table(table)?, &key)).await
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
            transaction.commit().map_err(|e| Fault(Fault::from(e).0.with_outcome_unknown()))?;
            file.written.send_replace(());
            Ok(answer)
        })
        .await
    }

    pub(crate) fn signal(&self) -> watch::Receiver<()> {
        self.written.subscribe()
    }
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T> {
    let called = spawn_blocking(call).await;
    let called =
        called.map_err(|e| Error::new(ErrorKind::Internal, "a task failed").with_source(e));
    called?.map_err(|fault| fault.0)
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
    let state =
        state_of_code(state.into()).ok_or_else(|| corrupt("a stream has no known state"))?;
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

pub(crate) fn event(position: u64, event: <Event as Value>::SelfType<'_>) -> Result<RecordedEvent> {
    let (stream, version, id, event_type, kinds, data, metadata, time) = event;
    let bad = || corrupt("a stored event cannot be decoded");
    let (data, metadata) =
        payloads(kinds.into(), data.to_vec().into(), metadata.to_vec().into()).ok_or_else(bad)?;
    let stream = StreamId::new(stream).map_err(|e| bad().with_source(e))?;
    let event_type = EventType::new(event_type).map_err(|e| bad().with_source(e))?;
    let time = DateTime::from_timestamp_micros(time).ok_or_else(bad)?;
    let event = NewEvent::from_stored(Uuid::from_u128(id), event_type, data, metadata);
    Ok(event.recorded(stream, version.into(), position.into(), time))
}
