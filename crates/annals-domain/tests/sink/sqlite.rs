//! The sink for SQLite, in a file and in memory, and what only it can get wrong.

use std::time::Duration;

use annals::domain::projection::sqlite::{
    SqliteSink,
    rusqlite::{self, Connection},
};
use annals_core::{Error, ErrorKind, Position, SubscriberId};
use annals_domain::projection::Sink;
use annals_test_servers::BoxError;
use async_trait::async_trait;

use crate::{
    PATIENCE, Test, Tested,
    place::{Place, at, name, step},
    tests,
};

pub(crate) const TESTS: &[Test] = tests! {
    "sqlite" false: gives_up_waiting, finds_a_transaction_that_is_over, opens_what_it_can;
};

/// A file, which each sink opens for itself.
pub(crate) struct File(tempfile::TempDir);

impl File {
    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("sink.db")
    }
}

/// One sink for all, since another sink would be another database.
pub(crate) struct Memory(SqliteSink);

fn create_rows(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("CREATE TABLE rows (name TEXT, row INTEGER) STRICT")
}

fn write_row(connection: &Connection, name: &SubscriberId, row: Position) -> Tested {
    connection.execute("INSERT INTO rows VALUES (?1, ?2)", (name.as_str(), row.to_i64()))?;
    Ok(())
}

fn read_rows(
    connection: &Connection,
    name: &SubscriberId,
) -> Result<(Option<i64>, Vec<i64>), BoxError> {
    let sql = "SELECT (SELECT position FROM annals_projections WHERE name = ?1), \
               (SELECT group_concat(row) FROM (SELECT row FROM rows WHERE name = ?1 ORDER BY row))";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?));
    let (position, rows) = connection.query_row(sql, [name.as_str()], read)?;
    let rows = rows.iter().flat_map(|rows| rows.split(',')).map(|row| row.parse().unwrap());
    Ok((position, rows.collect()))
}

#[async_trait]
impl Place for File {
    type Sink = SqliteSink;

    async fn new() -> Result<Self, BoxError> {
        let place = Self(tempfile::tempdir()?);
        create_rows(&Connection::open(place.path())?)?;
        Ok(place)
    }

    async fn open(&self) -> Result<SqliteSink, Error> {
        Ok(SqliteSink::open(self.path())?.with_busy_timeout(PATIENCE))
    }

    async fn write(
        transaction: &mut <SqliteSink as Sink>::Transaction,
        name: &SubscriberId,
        row: Position,
    ) -> Tested {
        write_row(transaction, name, row)
    }

    async fn roll_back(transaction: <SqliteSink as Sink>::Transaction) -> Tested {
        drop(transaction); // there is no other way
        Ok(())
    }

    async fn read(&self, name: &SubscriberId) -> Result<(Option<i64>, Vec<i64>), BoxError> {
        read_rows(&Connection::open(self.path())?, name)
    }

    async fn until_one_waits(&self) -> Tested {
        Ok(())
    }

    async fn until_none_is_open(&self) -> Tested {
        drop(self.open().await?.begin().await?);
        Ok(())
    }
}

#[async_trait]
impl Place for Memory {
    type Sink = SqliteSink;

    async fn new() -> Result<Self, BoxError> {
        let sink = SqliteSink::in_memory()?.with_busy_timeout(PATIENCE);
        let transaction = sink.begin().await?;
        create_rows(&transaction)?;
        sink.commit(transaction).await?;
        Ok(Self(sink))
    }

    async fn open(&self) -> Result<SqliteSink, Error> {
        Ok(self.0.clone())
    }

    async fn write(
        transaction: &mut <SqliteSink as Sink>::Transaction,
        name: &SubscriberId,
        row: Position,
    ) -> Tested {
        write_row(transaction, name, row)
    }

    async fn roll_back(transaction: <SqliteSink as Sink>::Transaction) -> Tested {
        drop(transaction); // there is no other way
        Ok(())
    }

    async fn read(&self, name: &SubscriberId) -> Result<(Option<i64>, Vec<i64>), BoxError> {
        let transaction = self.0.begin().await?;
        read_rows(&transaction, name)
    }

    async fn until_one_waits(&self) -> Tested {
        Ok(())
    }

    async fn until_none_is_open(&self) -> Tested {
        drop(self.0.begin().await?);
        Ok(())
    }
}

/// A call waits neither for this sink nor for others longer than the timeout.
async fn gives_up_waiting() -> Tested {
    const SHORT: Duration = Duration::from_millis(10);
    let place = File::new().await?;
    let sink = place.open().await?;
    let other = SqliteSink::open(place.path())?.with_busy_timeout(SHORT);
    let transaction = sink.begin().await?;
    for waiting in [&sink.clone().with_busy_timeout(SHORT), &other] {
        let error = waiting.begin().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("with_busy_timeout"), "{error}");
    }
    // Reading the checkpoint needs the connection, but no lock.
    let error = sink.clone().with_busy_timeout(SHORT).position(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert_eq!(other.position(&name("a")).await?, None);
    drop(transaction);
    let forever = other.with_busy_timeout(Duration::MAX);
    assert!(step::<File>(&forever, &name("a"), None, at(1)).await?);
    Ok(())
}

/// A transaction that ended in the handler leaves nothing behind.
async fn finds_a_transaction_that_is_over() -> Tested {
    let place = File::new().await?;
    let sink = place.open().await?;
    for end in ["ROLLBACK", "INSERT OR ROLLBACK INTO annals_projections VALUES ('a', 1, '')"] {
        let mut transaction = sink.begin().await?;
        assert!(sink.advance(&mut transaction, &name("a"), None, at(1)).await?);
        drop(transaction.execute_batch(end));
        let error = sink.advance(&mut transaction, &name("a"), None, at(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let error = sink.commit(transaction).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_eq!(place.read(&name("a")).await?, (None, vec![]));
    }
    Ok(())
}

/// The error of a database that cannot be opened says why.
async fn opens_what_it_can() -> Tested {
    let place = File::new().await?;
    let directory = place.0.path();
    let kind = |sink: Result<SqliteSink, Error>| sink.unwrap_err().kind();
    assert_eq!(kind(SqliteSink::open("")), ErrorKind::InvalidInput);
    assert_eq!(kind(SqliteSink::open(directory)), ErrorKind::Unavailable);
    assert_eq!(kind(SqliteSink::open(directory.join("no/sink.db"))), ErrorKind::Unavailable);
    let text = directory.join("text");
    std::fs::write(&text, "x".repeat(5_000))?;
    assert_eq!(kind(SqliteSink::open(text)), ErrorKind::Incompatible);

    for table in ["(a)", "(name TEXT, position INTEGER, moved_at TEXT)"] {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(&format!("CREATE TABLE annals_projections {table}"))?;
        assert_eq!(kind(SqliteSink::with_connection(connection)), ErrorKind::Incompatible);
    }
    let connection = Connection::open_in_memory()?;
    connection.execute_batch("BEGIN")?;
    assert_eq!(kind(SqliteSink::with_connection(connection)), ErrorKind::InvalidInput);

    // Without a write-ahead log too, where a commit waits for readers.
    let connection = Connection::open(directory.join("plain.db"))?;
    create_rows(&connection)?;
    let sink = SqliteSink::with_connection(connection)?;
    assert!(step::<File>(&sink, &name("a"), None, at(1)).await?);
    Ok(())
}
