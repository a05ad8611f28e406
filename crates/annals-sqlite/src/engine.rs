//! What all handles of a store share: the database, its readers, its writer, and what wakes
//! subscriptions.

use std::{sync::Arc, thread::JoinHandle};

use annals_core::{Error, ErrorKind, Result};

use crate::{
    config::SqliteConfig,
    database::Database,
    error::{Failure, context},
    notify::Notifier,
    queue::Queue,
    readers::{Reader, Readers},
    runtime::blocking,
    session::Session,
    writer,
};

/// An open store. When it is dropped, the writer still makes the changes that are queued, and then
/// the file is closed.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) database: Arc<Database>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) notifier: Arc<Notifier>,
    /// The queue of the writer; `None` if the file cannot be written.
    pub(crate) queue: Option<Arc<Queue>>,
    writer: Option<JoinHandle<()>>,
}

impl Engine {
    pub(crate) async fn open(config: SqliteConfig) -> Result<Self> {
        let opened = blocking(move || {
            let (database, connection) = Database::open(config)?;
            let database = Arc::new(database);
            let notifier = Notifier::of(&database);
            let readers = Arc::new(Readers::new(database.clone()));
            let start = |connection| writer::start(database.clone(), connection, notifier.clone());
            let (queue, writer) = connection.map(start).transpose()?.unzip();
            Ok(Self { database, readers, notifier, queue, writer })
        });
        opened.await.map_err(context("open"))
    }

    /// Waits until the changes that are queued are made and the file is closed.
    pub(crate) async fn close(mut self) -> Result<()> {
        self.readers.close().await;
        let closed = blocking(move || {
            self.end_writer();
            Ok(())
        });
        closed.await.map_err(context("close"))
    }

    /// Waits until the writer has made the changes that are queued, and has closed its connection.
    fn end_writer(&mut self) {
        self.queue.iter().for_each(|queue| queue.close());
        // Ignore whether the thread panicked: it has ended in both cases.
        drop(self.writer.take().map(JoinHandle::join));
    }

    /// Reads on one of the readers: see [`Readers::read`].
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Reader) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        self.readers.read(work).await
    }

    /// Has the writer make a change of a few bytes: see [`Queue::submit`].
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnMut(&mut Session<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        self.write_large(0, change).await
    }

    /// Has the writer make a change that takes about so many bytes of memory.
    pub(crate) async fn write_large<T: Send + 'static>(
        &self,
        bytes: usize,
        change: impl FnMut(&mut Session<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        match &self.queue {
            Some(queue) => queue.submit(bytes, change).await,
            None => {
                let message = "the store was opened for reading only, since its file or directory \
                               is not writable; make both writable and open the store again";
                Err(Error::new(ErrorKind::Denied, message))
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(queue) = &self.queue else { return };
        if queue.is_idle() {
            // All changes are committed, so the writer only has to close its connection, which takes
            // some milliseconds. Wait for that: SQLite then has copied the WAL into the file, and
            // the file is whole even if the process ends now.
            self.end_writer();
        } else {
            // The callers of the changes that are queued cancelled them, and do not wait either.
            queue.close();
        }
    }
}
