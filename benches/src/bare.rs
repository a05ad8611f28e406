//! The bare driver of SQLite: writes and reads the rows of annals-sqlite with `rusqlite` alone.

use std::{hint::black_box, path::Path};

use annals_benches::STREAM_EVENTS;
use rusqlite::{Connection, Statement, params};

use crate::plan::Plan;

/// The options of annals-sqlite's writing connection.
pub(crate) const WRITER: &str = "PRAGMA journal_mode = wal; PRAGMA synchronous = full; \
                      PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -16384";
pub(crate) const INSERT: &str = "INSERT INTO annals_events \
    (position, stream, version, id, type, recorded_at, kinds, data, metadata) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
const COLUMNS: &str = "SELECT position, stream, version, id, type, recorded_at, kinds, data, \
                       metadata FROM annals_events";

/// Transactions by one connection, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Loop {
    /// The number of appends in a transaction.
    pub(crate) appends: i64,
    /// The number of rows in an append, all of one stream.
    pub(crate) events: i64,
}

impl Loop {
    /// Measures, in rows a second, inserts into the empty tables of a file that annals-sqlite has
    /// created. Each append of a transaction is to another stream.
    pub(crate) fn rate(self, plan: &Plan, file: &Path) -> f64 {
        let connection = Connection::open(file).unwrap();
        connection.execute_batch(WRITER).unwrap();
        let mut begin = connection.prepare("BEGIN IMMEDIATE").unwrap();
        let mut insert = connection.prepare(INSERT).unwrap();
        let mut commit = connection.prepare("COMMIT").unwrap();
        let mut position = 0;
        let rate = plan.rate(|| {
            begin.execute([]).unwrap();
            for _ in 0..self.appends * self.events {
                self.insert(&mut insert, position);
                position += 1;
            }
            commit.execute([]).unwrap();
            (self.appends * self.events) as usize
        });
        let rows: i64 = connection
            .query_row("SELECT count(*) FROM annals_events", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, position, "the loop has lost rows");
        rate
    }

    fn insert(self, insert: &mut Statement<'_>, before: i64) {
        const DATA: [u8; 200] = [b'x'; 200];
        const METADATA: [u8; 40] = [b'x'; 40];
        const NOW: i64 = 1_700_000_000_000_000;
        const LIFE: i64 = STREAM_EVENTS as i64;
        let (append, event) = (before / self.events, before % self.events);
        let (writer, turn) = (append % self.appends, append / self.appends);
        let nth = turn * self.events + event;
        let stream = nth / LIFE * self.appends + writer + 1;
        let (position, version) = (before + 1, nth % LIFE + 1);
        let (id, now) = (u128::from(position.unsigned_abs()).to_be_bytes(), NOW + position);
        let (kind, json) = ("OrderChanged1", 3);
        let row = params![position, stream, version, &id[..], kind, now, json, &DATA, &METADATA];
        insert.execute(row).unwrap();
    }
}

/// A row that was read: all columns, as owned values.
#[allow(dead_code, reason = "reading the values is what is measured")]
struct Event {
    position: i64,
    stream: i64,
    version: i64,
    id: [u8; 16],
    event_type: String,
    recorded_at: i64,
    kinds: i64,
    data: Vec<u8>,
    metadata: Vec<u8>,
}

/// A connection that reads a file of annals-sqlite.
pub(crate) struct Reader(Connection);

impl Reader {
    pub(crate) fn open(file: &Path) -> Self {
        Self(Connection::open(file).unwrap())
    }

    /// Reads a stream into memory. Returns the number of its events.
    pub(crate) fn stream(&self, name: &str) -> usize {
        const STREAM: &str = "SELECT id FROM annals_streams WHERE name = ?";
        let events = format!("{COLUMNS} WHERE stream = ? ORDER BY version");
        let row: i64 =
            self.0.prepare_cached(STREAM).unwrap().query_row([name], |row| row.get(0)).unwrap();
        let mut statement = self.0.prepare_cached(&events).unwrap();
        let events: Vec<Event> =
            statement.query_map([row], event).unwrap().map(Result::unwrap).collect();
        black_box(events).len()
    }

    /// Reads all events with one statement, one event at a time. Returns their number.
    pub(crate) fn all(&self) -> usize {
        let events = format!("{COLUMNS} ORDER BY position");
        let mut statement = self.0.prepare_cached(&events).unwrap();
        let events = statement.query_map([], event).unwrap();
        events.fold(0, |read, event| {
            black_box(event.unwrap());
            read + 1
        })
    }

    /// Reads all events with a statement for each page. Returns their number. Pages avoid a long
    /// read transaction, during which SQLite cannot reset the WAL.
    pub(crate) fn all_in_pages(&self) -> usize {
        const PAGE: usize = 1_000;
        let events = format!("{COLUMNS} WHERE position > ? ORDER BY position LIMIT {PAGE}");
        let mut statement = self.0.prepare_cached(&events).unwrap();
        let (mut after, mut read) = (0, 0);
        loop {
            let page: Vec<Event> =
                statement.query_map([after], event).unwrap().map(Result::unwrap).collect();
            read += page.len();
            match black_box(page).last() {
                Some(last) => after = last.position,
                None => return read,
            }
        }
    }
}

fn event(row: &rusqlite::Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        position: row.get(0)?,
        stream: row.get(1)?,
        version: row.get(2)?,
        id: row.get(3)?,
        event_type: row.get(4)?,
        recorded_at: row.get(5)?,
        kinds: row.get(6)?,
        data: row.get(7)?,
        metadata: row.get(8)?,
    })
}
