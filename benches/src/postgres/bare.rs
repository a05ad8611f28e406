//! The bare drivers of PostgreSQL: `sqlx`, which annals-postgres uses, and `tokio-postgres`. They
//! write and read the same rows, over one connection, with statements that are prepared once.

use std::{hint::black_box, sync::Arc, time::SystemTime};

use annals_benches::{STREAM_EVENTS, data, metadata};
use futures::TryStreamExt;
use sqlx::{
    Connection, Decode, PgConnection, Postgres, Row,
    error::BoxDynError,
    postgres::{PgRow, PgTypeInfo, PgValueRef, types::Oid},
};
use tokio::sync::Mutex;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::plan::Plan;

/// The columns of annals-postgres, with only the two unique indexes.
pub(crate) const TABLE: &str = "CREATE TABLE bare ( \
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream bigint NOT NULL, \
    version bigint NOT NULL, recorded_at timestamptz NOT NULL, id uuid NOT NULL, \
    flags smallint NOT NULL, category text COLLATE \"C\", type text COLLATE \"C\" NOT NULL, \
    data bytea NOT NULL, metadata bytea NOT NULL, UNIQUE (stream, version))";
const INSERT: &str = "INSERT INTO bare \
    (stream, version, recorded_at, id, flags, category, type, data, metadata) \
    VALUES ($1, $2, clock_timestamp(), $3, $4, $5, $6, $7, $8)";

/// These two read the same columns and rows as annals-postgres, by a plain join.
const STREAM: &str = "SELECT e.position, e.version, e.recorded_at, e.id, e.flags, e.type, e.data, \
    e.metadata FROM annals.events AS e JOIN annals.streams AS s ON s.id = e.stream \
    WHERE s.name = $1 AND e.version >= $2 AND e.version > s.removed_to ORDER BY e.version LIMIT $3";
const ALL: &str = "SELECT e.position, e.version, e.recorded_at, e.id, e.flags, e.type, e.data, \
    e.metadata, s.name FROM annals.events AS e JOIN annals.streams AS s ON s.id = e.stream \
    WHERE e.position > $1 AND e.version > s.removed_to ORDER BY e.position LIMIT $2";

/// A row that was read: all columns, as owned values.
#[allow(dead_code, reason = "reading the values is what is measured")]
struct Event<T> {
    position: i64,
    version: i64,
    recorded_at: T,
    id: Uuid,
    flags: i16,
    event_type: String,
    data: Vec<u8>,
    metadata: Vec<u8>,
    stream: Option<String>,
}

/// A connection through `sqlx`.
#[derive(Clone)]
pub(crate) struct Sqlx(Arc<Mutex<PgConnection>>);

impl Sqlx {
    pub(crate) async fn connect(url: String) -> Self {
        Self(Arc::new(Mutex::new(PgConnection::connect(&url).await.unwrap())))
    }

    /// Measures inserts into [`TABLE`], with a transaction for each row, in rows a second.
    pub(crate) fn insert_rate(&self, plan: &Plan) -> f64 {
        let (this, mut turn) = (self.clone(), 0);
        let (id, data, metadata) = (Uuid::now_v7(), data(), metadata());
        plan.rate_of(move || {
            let (this, before) = (this.clone(), turn);
            let (data, metadata) = (data.clone(), metadata.clone());
            turn += 1;
            async move {
                let (stream, version) = (before / STREAM_EVENTS, before % STREAM_EVENTS + 1);
                let insert = sqlx::query(INSERT)
                    .bind(stream as i64)
                    .bind(version as i64)
                    .bind(id)
                    .bind(3_i16)
                    .bind("cart")
                    .bind("OrderChanged1")
                    .bind(data.as_bytes())
                    .bind(metadata.as_bytes());
                insert.execute(&mut *this.0.lock().await).await.unwrap();
                1
            }
        })
    }

    /// Reads a stream into memory, by `fetch_all` and `try_get`. Returns the number of its events.
    pub(crate) async fn stream(self, name: String, most: i64) -> usize {
        let mut connection = self.0.lock().await;
        let query = sqlx::query(STREAM).bind(name).bind(0_i64).bind(most);
        let rows = query.fetch_all(&mut *connection).await.unwrap();
        let events: Vec<_> = rows.iter().map(|row| owned(row, None)).collect();
        black_box(events).len()
    }

    /// Reads a stream row by row, from the raw bytes of the values. Returns the number of its
    /// events.
    pub(crate) async fn stream_raw(self, name: String, most: i64) -> usize {
        let mut connection = self.0.lock().await;
        let query = sqlx::query(STREAM).bind(name).bind(0_i64).bind(most);
        let mut rows = query.fetch(&mut *connection);
        let mut events = Vec::new();
        while let Some(row) = rows.try_next().await.unwrap() {
            events.push(raw(&row));
        }
        black_box(events).len()
    }

    /// Reads all events with one statement, one event at a time. Returns their number.
    pub(crate) async fn all(self) -> usize {
        let mut connection = self.0.lock().await;
        let mut rows = sqlx::query(ALL).bind(0_i64).bind(i64::MAX).fetch(&mut *connection);
        let mut read = 0;
        while let Some(row) = rows.try_next().await.unwrap() {
            black_box(owned(&row, Some(8)));
            read += 1;
        }
        read
    }

    /// Reads all events with a statement for each page, so that no transaction stays open for long.
    pub(crate) async fn all_in_pages(self) -> usize {
        const PAGE: i64 = 1_000;
        let mut connection = self.0.lock().await;
        let (mut after, mut read) = (0, 0);
        loop {
            let mut rows = sqlx::query(ALL).bind(after).bind(PAGE).fetch(&mut *connection);
            let mut page = Vec::new();
            while let Some(row) = rows.try_next().await.unwrap() {
                page.push(owned(&row, Some(8)));
            }
            read += page.len();
            match black_box(page).last() {
                Some(last) => after = last.position,
                None => return read,
            }
        }
    }
}

fn owned(row: &PgRow, stream: Option<usize>) -> Event<Micros> {
    Event {
        position: row.try_get(0).unwrap(),
        version: row.try_get(1).unwrap(),
        recorded_at: row.try_get(2).unwrap(),
        id: row.try_get(3).unwrap(),
        flags: row.try_get(4).unwrap(),
        event_type: row.try_get(5).unwrap(),
        data: row.try_get(6).unwrap(),
        metadata: row.try_get(7).unwrap(),
        stream: stream.map(|column| row.try_get(column).unwrap()),
    }
}

fn raw(row: &PgRow) -> Event<i64> {
    let bytes = |column: usize| row.try_get_raw(column).unwrap().as_bytes().unwrap();
    let number = |column| i64::from_be_bytes(bytes(column).try_into().unwrap());
    Event {
        position: number(0),
        version: number(1),
        recorded_at: number(2),
        id: Uuid::from_slice(bytes(3)).unwrap(),
        flags: i16::from_be_bytes(bytes(4).try_into().unwrap()),
        event_type: String::from_utf8(bytes(5).to_vec()).unwrap(),
        data: bytes(6).to_vec(),
        metadata: bytes(7).to_vec(),
        stream: None,
    }
}

/// A `timestamptz`. `sqlx` itself decodes it only with a feature for a crate of times.
struct Micros(#[allow(dead_code, reason = "reading the value is what is measured")] i64);

impl sqlx::Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl<'r> Decode<'r, Postgres> for Micros {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(i64::from_be_bytes(value.as_bytes()?.try_into()?)))
    }
}

/// A connection through `tokio-postgres`.
#[derive(Clone)]
pub(crate) struct TokioPostgres(Arc<(tokio_postgres::Client, tokio_postgres::Statement)>);

impl TokioPostgres {
    pub(crate) async fn connect(url: String) -> Self {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let statement = client.prepare(STREAM).await.unwrap();
        Self(Arc::new((client, statement)))
    }

    /// Reads a stream into memory. Returns the number of its events.
    pub(crate) async fn stream(self, name: String, most: i64) -> usize {
        let (client, statement) = &*self.0;
        let rows = client.query(statement, &[&name, &0_i64, &most]).await.unwrap();
        let event = |row: &tokio_postgres::Row| Event::<SystemTime> {
            position: row.get(0),
            version: row.get(1),
            recorded_at: row.get(2),
            id: row.get(3),
            flags: row.get(4),
            event_type: row.get(5),
            data: row.get(6),
            metadata: row.get(7),
            stream: None,
        };
        let events: Vec<_> = rows.iter().map(event).collect();
        black_box(events).len()
    }
}
