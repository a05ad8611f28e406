//! Connections for reading: a few, kept for the next read, and used off the runtime's threads.

use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{busy::Patience, database::Database, error::Failure, rows::Decoder};

/// A connection that reads, and what it remembers from one read to the next.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) connection: Connection,
    pub(crate) decoder: Decoder,
}

/// All readers of a store.
#[derive(Debug)]
pub(crate) struct Readers {
    database: Arc<Database>,
    idle: Mutex<Vec<Reader>>,
    slots: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        let slots = Arc::new(Semaphore::new(database.config.readers));
        Self { database, idle: Mutex::default(), slots }
    }

    /// Does work in one short read transaction, on a thread that may block; again, where others
    /// hold a lock, until the busy timeout is over. Dropping the future leaves the work to end by
    /// itself.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        mut work: impl FnMut(&Database, &mut Reader) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let slot = self.slots.clone().acquire_owned().await.map_err(|e| lost().with_source(e))?;
        let runtime = Handle::try_current().map_err(|e| {
            let message = "a read has to be polled inside a Tokio runtime";
            Error::new(ErrorKind::InvalidInput, message).with_source(e)
        })?;
        let readers = self.clone();
        let done = runtime.spawn_blocking(move || {
            let _slot = slot;
            let mut patience = Patience::new(readers.database.config.busy_timeout);
            patience.retry(|| readers.once(&mut work)).map_err(Error::from)
        });
        done.await.map_err(|e| lost().with_source(e))?
    }

    /// Waits for the reads that are under way, takes no more, and closes the connections.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(self.database.config.readers).unwrap_or(u32::MAX);
        let _slots = self.slots.acquire_many(all).await;
        self.slots.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn once<T>(
        &self,
        work: &mut impl FnMut(&Database, &mut Reader) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let database = &*self.database;
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken first, and so given back last: to open a connection reads, and one that is dropped
        // in the middle of a transaction holds its lock until then.
        let turn = database.read_turn();
        let kept = idle().pop();
        let mut reader = match kept {
            Some(reader) => reader,
            None => Reader { connection: database.reader()?, decoder: Decoder::default() },
        };
        reader.connection.prepare_cached("BEGIN")?.execute([])?;
        let done = work(database, &mut reader)?;
        reader.connection.prepare_cached("COMMIT")?.execute([])?;
        // After an error the connection is dropped instead, and its transaction with it.
        idle().push(reader);
        drop(turn);
        Ok(done)
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Unavailable, "the read was given up, since the runtime shuts down")
}
