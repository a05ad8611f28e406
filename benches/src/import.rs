//! Imports, beside the fastest way to insert the same rows into each database.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use annals_benches::{EventGenerator, filled_stream};
use annals_core::{Position, RecordedEvent, TransferStore};
use rusqlite::params;
use sqlx::{Connection, PgConnection};

use crate::{
    bare,
    plan::Plan,
    postgres::{Database, Server},
    report::{Figures, Target},
    sqlite::StoreFile,
};

const STREAMS: usize = 1_000;
/// The most events that a call may have. Each contender writes this many in one or two
/// transactions.
const PIECE: usize = 10_000;

const ANNALS: &str = "annals";

pub(crate) fn run(plan: &Plan) {
    sqlite(plan);
    if let Some(server) = Server::start(plan) {
        postgres(plan, &server);
    }
}

/// Events of all streams in turn, as in a store to which many writers append at the same time.
fn pieces(plan: &Plan) -> Vec<Vec<RecordedEvent>> {
    let count = if plan.quick { 2 * PIECE } else { 10 * PIECE };
    let streams: Vec<_> = (0..STREAMS).map(filled_stream).collect();
    let mut events = EventGenerator::new();
    let event = |number: usize| {
        let version = number as u64 / STREAMS as u64 + 1;
        let stream = streams.get(number % STREAMS).unwrap().clone();
        events.one().recorded(stream, version.into(), Position::START, SystemTime::now().into())
    };
    let events: Vec<_> = (0..count).map(event).collect();
    events.chunks(PIECE).map(<[_]>::to_vec).collect()
}

/// Events a second.
fn rate(pieces: &[Vec<RecordedEvent>], began: Instant) -> f64 {
    pieces.iter().map(Vec::len).sum::<usize>() as f64 / began.elapsed().as_secs_f64()
}

fn annals(plan: &Plan, store: Arc<dyn TransferStore>) -> f64 {
    let pieces = pieces(plan);
    plan.run(async move {
        let began = Instant::now();
        for piece in &pieces {
            store.import(piece.clone()).await.unwrap();
        }
        rate(&pieces, began)
    })
}

fn sqlite(plan: &Plan) {
    const BARE: &str = "bare loop of rusqlite";
    let mut figures = Figures::new("SQLite: imports", "events a second");
    for name in plan.turns(&[BARE, ANNALS]) {
        let file = StoreFile::empty(plan);
        let rate = match name {
            BARE => insert(&pieces(plan), file.path()),
            _ => annals(plan, Arc::new(file.open(plan))),
        };
        figures.add(name, rate);
    }
    figures.ratio(ANNALS, BARE, Target::AtLeast(0.5));
    figures.print();
}

/// Inserts into the tables of annals-sqlite, with a transaction for each piece.
fn insert(pieces: &[Vec<RecordedEvent>], file: PathBuf) -> f64 {
    const JSON: i64 = 3;
    let mut connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch(bare::WRITER).unwrap();
    let (began, mut position) = (Instant::now(), 0_i64);
    for piece in pieces {
        let transaction = connection.transaction().unwrap();
        let mut insert = transaction.prepare_cached(bare::INSERT).unwrap();
        for event in piece {
            let stream = position % STREAMS as i64 + 1;
            position += 1;
            let row = params![
                position,
                stream,
                event.version.get() as i64,
                &event.id.as_bytes()[..],
                event.event_type.as_str(),
                event.recorded_at.timestamp_micros(),
                JSON,
                &**event.data.bytes(),
                &**event.metadata.bytes()
            ];
            insert.execute(row).unwrap();
        }
        drop(insert);
        transaction.commit().unwrap();
    }
    rate(pieces, began)
}

fn postgres(plan: &Plan, server: &Server<'_>) {
    const BARE: &str = "COPY";
    let mut figures = Figures::new("PostgreSQL: imports", "events a second");
    for name in plan.turns(&[BARE, ANNALS]) {
        let database = server.database();
        let store = database.open();
        let rate = match name {
            BARE => copy(plan, &database),
            _ => annals(plan, store),
        };
        figures.add(name, rate);
    }
    figures.ratio(ANNALS, BARE, Target::AtLeast(0.5));
    figures.print();
}

/// Copies into a table like that of annals-postgres, with a transaction for each piece.
fn copy(plan: &Plan, database: &Database<'_>) -> f64 {
    /// How many rows are sent together. The server inserts them while the next rows are encoded.
    const SENT: usize = 500;
    const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
    database.execute("CREATE TABLE bare (LIKE annals.events INCLUDING ALL)");
    let (pieces, url) = (pieces(plan), database.url.clone());
    plan.run(async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let (began, mut position) = (Instant::now(), 0);
        for piece in &pieces {
            let statement = "COPY bare FROM STDIN (FORMAT binary)";
            let mut copy = connection.copy_in_raw(statement).await.unwrap();
            copy.send(HEADER).await.unwrap();
            for events in piece.chunks(SENT) {
                let mut rows = Vec::new();
                for event in events {
                    row(&mut rows, event, position);
                    position += 1;
                }
                copy.send(rows).await.unwrap();
            }
            copy.send(&TRAILER[..]).await.unwrap();
            assert_eq!(copy.finish().await.unwrap(), piece.len() as u64);
        }
        let rate = rate(&pieces, began);
        connection.close().await.unwrap();
        rate
    })
}

/// Encodes a row in PostgreSQL's format `binary`.
fn row(rows: &mut Vec<u8>, event: &RecordedEvent, before: i64) {
    const COLUMNS: i16 = 10;
    const JSON: i16 = 3;
    /// PostgreSQL's timestamps count from the beginning of 2000.
    const EPOCH_MICROS: i64 = 946_684_800_000_000;
    let recorded_at = event.recorded_at.timestamp_micros() - EPOCH_MICROS;
    rows.extend(COLUMNS.to_be_bytes());
    let columns: [&[u8]; COLUMNS as usize] = [
        &(before + 1).to_be_bytes(),
        &(before % STREAMS as i64 + 1).to_be_bytes(),
        &event.version.get().to_be_bytes(),
        &recorded_at.to_be_bytes(),
        event.id.as_bytes(),
        &JSON.to_be_bytes(),
        event.stream.category_str().unwrap().as_bytes(),
        event.event_type.as_str().as_bytes(),
        event.data.bytes(),
        event.metadata.bytes(),
    ];
    for column in columns {
        rows.extend((column.len() as i32).to_be_bytes());
        rows.extend(column);
    }
}
