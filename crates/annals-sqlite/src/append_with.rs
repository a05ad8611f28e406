//! Appends together with rows of the application, in one transaction.

use std::{
    error::Error as StdError,
    panic::{AssertUnwindSafe, catch_unwind},
};

use annals_core::{Append, Appended, Error, ErrorKind, NewEvent, Result, adapter};
use rusqlite::Connection;

use crate::{
    error::{Failure, context, driver},
    queue,
    session::Session,
    store::SqliteStore,
};

/// An error of the application.
type BoxError = Box<dyn StdError + Send + Sync>;

impl SqliteStore {
    /// Appends to one or several streams, and has a function write rows of the application in the same
    /// transaction: events and rows are committed together, or neither. The rows are in the same file.
    ///
    /// The function gets the store's own connection, and the answers to the appends. It must not begin
    /// or end a transaction, nor write to tables of the store. It runs on the thread that makes all
    /// changes of the store, so that all of them wait for it: do nothing slow in it. If it fails or
    /// panics, nothing is written. It may run again in another transaction if the first one fails; only
    /// one is committed.
    ///
    /// If the appends had been written before, which makes this call a retry, so had the rows: the
    /// function does not run, and there is nothing of it in the answer.
    ///
    /// ```
    /// use annals_core::{Append, ExpectedVersion, NewEvent, StreamId};
    /// use annals_sqlite::{SqliteConfig, SqliteStore, rusqlite::params};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = SqliteStore::open(SqliteConfig::in_memory()).await?;
    /// let placed = NewEvent::json("OrderPlaced", &serde_json::json!({ "cents": 4000 }))?;
    /// let append = Append::new(StreamId::new("order-42")?, ExpectedVersion::NoStream, [placed]);
    /// let (appended, rows) = store
    ///     .append_with(vec![append], |connection, appended| {
    ///         connection.execute_batch("CREATE TABLE IF NOT EXISTS orders (id TEXT, version INTEGER)")?;
    ///         let version = appended[0].last_version.get();
    ///         let insert = "INSERT INTO orders VALUES ('42', ?1)";
    ///         Ok(connection.execute(insert, params![version as i64])?)
    ///     })
    ///     .await?;
    /// assert_eq!((appended[0].last_version.get(), rows), (1, Some(1)));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`EventStore::append_multi`](annals_core::EventStore::append_multi). An error of the
    /// function is the source of an [`ErrorKind::InvalidInput`], or of the kind of the error if it is
    /// one of SQLite.
    pub async fn append_with<T, F>(
        &self,
        appends: Vec<Append>,
        mut rows: F,
    ) -> Result<(Vec<Appended>, Option<T>)>
    where
        T: Send + 'static,
        F: FnMut(&Connection, &[Appended]) -> Result<T, BoxError> + Send + 'static,
    {
        let context = context("append_with");
        adapter::check_append(&appends, &self.capabilities).map_err(&context)?;
        let bytes = queue::bytes(appends.iter().flat_map(|a| &a.events).map(NewEvent::size));
        let change = move |session: &mut Session<'_>| session.append_with(&appends, &mut rows);
        self.engine.write_large(bytes, change).await.map_err(context)
    }
}

impl Session<'_> {
    fn append_with<T>(
        &mut self,
        appends: &[Append],
        rows: &mut impl FnMut(&Connection, &[Appended]) -> Result<T, BoxError>,
    ) -> Result<(Vec<Appended>, Option<T>), Failure> {
        const SAVEPOINT: &str = "annals_append_with";
        let (last, has_appended) = (self.last, self.has_appended);
        self.connection.execute_batch(&format!("SAVEPOINT {SAVEPOINT}"))?;
        let made = self.append_and_run(appends, rows);
        if let Err(Failure::Refused(_)) = made {
            self.connection.execute_batch(&format!("ROLLBACK TO {SAVEPOINT}"))?;
            (self.last, self.has_appended) = (last, has_appended);
            appends.iter().for_each(|append| self.forget(&append.stream));
        }
        // Otherwise SQLite has failed, and the whole transaction is rolled back.
        if !matches!(made, Err(Failure::Driver(_))) {
            self.connection.execute_batch(&format!("RELEASE {SAVEPOINT}"))?;
        }
        made
    }

    fn append_and_run<T>(
        &mut self,
        appends: &[Append],
        rows: &mut impl FnMut(&Connection, &[Appended]) -> Result<T, BoxError>,
    ) -> Result<(Vec<Appended>, Option<T>), Failure> {
        let last = self.last;
        let appended = self.append(appends)?;
        if self.last == last {
            return Ok((appended, None));
        }
        let connection = self.connection;
        let made = catch_unwind(AssertUnwindSafe(|| rows(connection, &appended)));
        let made = made.unwrap_or_else(|_| Err(panicked().into()));
        match made.map_err(|error| error.downcast::<rusqlite::Error>()) {
            // After some errors SQLite has rolled back by itself.
            Err(Ok(error)) if connection.is_autocommit() => Err(Failure::Driver(*error)),
            // What the function has committed cannot be taken back.
            _ if connection.is_autocommit() => {
                Err(Failure::Driver(rusqlite::Error::ToSqlConversionFailure(ended().into())))
            }
            Ok(made) => Ok((appended, Some(made))),
            Err(Ok(error)) => Err(driver(*error).into()),
            Err(Err(error)) => Err(failed(error).into()),
        }
    }
}

fn ended() -> Error {
    let message = "the function that writes rows has ended the transaction, and what it had \
                   committed stays; let it write rows only";
    Error::new(ErrorKind::InvalidInput, message).with_outcome_unknown()
}

fn panicked() -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        "the function that writes rows panicked; nothing is written",
    )
}

fn failed(error: BoxError) -> Error {
    let message = "the function that writes rows failed; nothing is written";
    let wrap = |error| Error::new(ErrorKind::InvalidInput, message).with_source(error);
    error.downcast::<Error>().map_or_else(wrap, |error| *error)
}
