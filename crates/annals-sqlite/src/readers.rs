//! The connections that read: a few, which are kept for later reads.

use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::{
    busy::BusyRetry, database::Database, error::Failure, read_only::FileState, rows::Decoder,
    runtime::blocking,
};

/// A connection that reads, and what it remembers from one read to the next.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) database: Arc<Database>,
    pub(crate) connection: Connection,
    pub(crate) decoder: Decoder,
    /// The state of a file that the connection takes for unchanging.
    state: Option<FileState>,
}

/// All readers of a store.
#[derive(Debug)]
pub(crate) struct Readers {
    database: Arc<Database>,
    idle: Mutex<Vec<Reader>>,
    /// A permit for each read that may run at the same time.
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        let permits = Arc::new(Semaphore::new(database.config.readers));
        Self { database, idle: Mutex::default(), permits }
    }

    /// Does work in one short read transaction, on a thread that may block. Repeats it while the
    /// database is locked, until the busy timeout is over. If the future is dropped, the work goes
    /// on to its end.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        mut work: impl FnMut(&mut Reader) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|e| {
            Error::new(ErrorKind::Unavailable, "the store was closed").with_source(e)
        })?;
        let readers = self.clone();
        blocking(move || {
            let _permit = permit;
            let mut busy = BusyRetry::new(readers.database.config.busy_timeout);
            busy.retry(|| readers.read_once(&mut work)).map_err(Error::from)
        })
        .await
    }

    /// Waits for the reads that are running, refuses later ones, and closes the connections.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(self.database.config.readers).unwrap_or(u32::MAX);
        let _permits = self.permits.acquire_many(all).await;
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn read_once<T>(
        &self,
        work: &mut impl FnMut(&mut Reader) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Take the turn first, so that it is given back last: opening a connection reads, and a
        // connection that is dropped inside a transaction holds its lock until it is closed.
        let _turn = self.database.read_turn();
        let kept = idle().pop();
        let read =
            kept.map_or_else(|| self.open(), Ok).and_then(|reader| in_transaction(reader, work));
        // Check this also after an error, of which it may be the cause.
        self.database.check_files()?;
        let (done, reader) = read?;
        idle().push(reader);
        Ok(done)
    }

    fn open(&self) -> Result<Reader, Failure> {
        let database = self.database.clone();
        let (connection, state) = database.reader()?;
        Ok(Reader { database, connection, decoder: Decoder::default(), state })
    }
}

/// Does work on a reader. After an error the connection is dropped, and with it its transaction.
fn in_transaction<T>(
    mut reader: Reader,
    work: &mut impl FnMut(&mut Reader) -> Result<T, Failure>,
) -> Result<(T, Reader), Failure> {
    reader.connection.prepare_cached("BEGIN")?.execute([])?;
    let done = work(&mut reader)?;
    reader.connection.prepare_cached("COMMIT")?.execute([])?;
    reader.state.as_ref().map_or(Ok(()), FileState::check)?;
    Ok((done, reader))
}
