//! The capacity units that appends consume.

use std::sync::Arc;

use annals_core::{Append, EventStore, ExpectedVersion, StreamId, Version};
use annals_dynamodb::DynamoDbStore;
use futures::future::join_all;

use super::{
    Server,
    events::{Kind, stream},
    new_table, ordered,
    table::{Row, appends, targets},
};
use crate::report::Target;

const EVENTS: [usize; 3] = [1, 10, 100];
const SMALL: usize = 200;
const BYTES: [usize; 3] = [SMALL, 4_096, LARGE];
const LARGE: usize = 102_400;
/// Each append is made to this many streams: events compress differently, so some appends need one
/// kilobyte more than others.
const STREAMS: usize = 10;

/// Who knows the version of the stream that is appended to.
#[derive(Clone, Copy)]
enum Knows {
    /// The store: it has appended the event before.
    Version,
    /// Only the caller.
    Nothing,
    /// Neither: the caller appends with `ExpectedVersion::Any`.
    NothingAny,
}

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    order: bool,
    knows: Knows,
}

const CASES: [Case; 5] = [
    Case { name: "order off", order: false, knows: Knows::Version },
    Case { name: "order off, fresh store", order: false, knows: Knows::Nothing },
    Case { name: "order off, fresh store, `Any`", order: false, knows: Knows::NothingAny },
    Case { name: "order on", order: true, knows: Knows::Version },
    Case { name: "order on, fresh store", order: true, knows: Knows::Nothing },
];

pub(super) async fn run() {
    let server = Server::start().await;
    let mut judged = Vec::new();
    for kind in Kind::BOTH {
        let mut rows = Vec::new();
        for case in CASES {
            for bytes in BYTES {
                // Random text of this size costs as much per byte as that of 4 KiB.
                if kind == Kind::Random && bytes == LARGE {
                    continue;
                }
                for events in EVENTS {
                    rows.extend(case.measure(&server, kind, events, bytes).await);
                }
            }
        }
        for bytes in BYTES {
            if kind == Kind::Orders || bytes != LARGE {
                rows.push(at_once(&server, kind, 1, bytes).await);
            }
        }
        if kind == Kind::Orders {
            rows.push(in_a_row(&server, kind).await);
        }
        appends(&format!("annals: appends to a stream of one event, {}", kind.name()), &rows);
        judged.extend(judge(kind, &rows));
    }
    targets("annals: appends of small events", &judged);
}

impl Case {
    async fn measure(self, server: &Server, kind: Kind, events: usize, bytes: usize) -> Vec<Row> {
        let table = new_table();
        let streams = if bytes == LARGE { 2 } else { STREAMS };
        let (writer, meter) = server.open(&table, ordered(self.order)).await;
        for n in 0..streams {
            write(&writer, &stream(n), 0, kind, 1, bytes).await;
        }
        meter.take();
        let (store, meter) = match self.knows {
            Knows::Version => (writer, meter),
            _ => server.open(&table, ordered(self.order)).await,
        };
        let name = format!("annals, {}", self.name);
        let mut row = Row {
            name,
            events,
            bytes,
            appends: 1,
            usage: meter.take(),
            refused: None,
            note: String::new(),
        };
        let mut rows = Vec::new();
        let most = store.capabilities().max_append_bytes;
        let at_once = events.min(most / bytes);
        if at_once < events {
            let append = Append::new(stream(0), Version::new(1), kind.events(1, events, bytes));
            let error = store.append(append).await.unwrap_err();
            let name = row.name.clone();
            let (usage, note) = (meter.take(), "in one append".to_owned());
            let refused = Some(error.to_string());
            rows.push(Row { name, appends: 1, usage, refused, note, events, bytes });
            let parts = events.div_ceil(at_once);
            row.note = format!("in {parts} appends of {at_once} or less, each atomic alone");
        }
        for n in 0..streams {
            let mut version = 1;
            while version <= events as u64 {
                let count = at_once.min(events + 1 - version as usize);
                let new = kind.events(version + (n * events) as u64, count, bytes);
                let expected = match self.knows {
                    Knows::NothingAny => ExpectedVersion::Any,
                    _ => Version::new(version).into(),
                };
                let appended = store.append(Append::new(stream(n), expected, new)).await.unwrap();
                version += count as u64;
                assert_eq!(appended.last_version, Version::new(version));
            }
        }
        (row.appends, row.usage) = (streams, meter.take());
        rows.push(row);
        rows
    }
}

async fn write(
    store: &DynamoDbStore,
    stream: &StreamId,
    version: u64,
    kind: Kind,
    events: usize,
    bytes: usize,
) {
    let events = kind.events(version, events, bytes);
    store.append(Append::new(stream.clone(), Version::new(version), events)).await.unwrap();
}

/// Many appenders at the same time, each with its own stream, one append after the other. How many
/// of them share a slot is left to chance.
async fn at_once(server: &Server, kind: Kind, events: usize, bytes: usize) -> Row {
    const APPENDERS: usize = 32;
    let each = if bytes == LARGE { 4 } else { 20 };
    let (store, meter) = server.open(&new_table(), ordered(true)).await;
    let store = Arc::new(store);
    for n in 0..APPENDERS {
        write(&store, &stream(n), 0, kind, 1, bytes).await;
    }
    meter.take();
    let tasks = (0..APPENDERS).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            for version in 1..=each {
                write(&store, &stream(n), version, kind, events, bytes).await;
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let usage = meter.take();
    let slots = usage.by_operation.get("TransactWriteItems").copied().unwrap_or_default();
    let appends = APPENDERS * each as usize;
    let shared = appends as f64 / slots as f64;
    let name = format!("annals, order on, {APPENDERS} at once");
    let note = format!("{shared:.1} appends share a slot, by chance");
    Row { name, events, bytes, appends, usage, refused: None, note }
}

/// Enough appends to count the upkeep of the log: every 1,024 slots, a writer checks that all of
/// them were written.
async fn in_a_row(server: &Server, kind: Kind) -> Row {
    const APPENDS: usize = 4_096;
    let (store, meter) = server.open(&new_table(), ordered(true)).await;
    for n in 0..APPENDS {
        write(&store, &stream(n % 64), (n / 64) as u64, kind, 1, SMALL).await;
    }
    // The last check may still be running.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    Row {
        name: "annals, order on, 4,096 in a row".to_owned(),
        events: 1,
        bytes: SMALL,
        appends: APPENDS,
        usage: meter.take(),
        refused: None,
        note: "with the upkeep of the log, each 1,024 slots".to_owned(),
    }
}

/// The figures that have a target.
fn judge(kind: Kind, rows: &[Row]) -> Vec<(String, f64, Target)> {
    let of = |name: &str, events| {
        let name = format!("annals, {name}");
        let is = |row: &&Row| row.name == name && row.events == events && row.bytes == SMALL;
        rows.iter().find(is).unwrap()
    };
    let (off, on) = (of("order off", 1), of("order on", 1));
    let fresh = of("order off, fresh store", 1);
    let any = of("order off, fresh store, `Any`", 1);
    let ten = |name: &str| of(name, 10).write_units() / of(name, 1).write_units();
    let lines = [
        ("order off, version known: requests", off.requests(), 1.0),
        ("order off, version known: units", off.units(), 1.0),
        ("order off, fresh store: units, read and written", fresh.units(), 4.0),
        ("order off, fresh store, `Any`: units, read and written", any.units(), 4.0),
        ("order on, version known: units", on.units(), 6.0),
        (
            "order on, fresh store: units, read and written",
            of("order on, fresh store", 1).units(),
            6.0,
        ),
        ("order off: units of ten events / of one", ten("order off"), 1.5),
        ("order on: units of ten events / of one", ten("order on"), 1.5),
    ];
    let line =
        |(name, value, most)| (format!("{}: {name}", kind.name()), value, Target::AtMost(most));
    lines.into_iter().map(line).collect()
}
