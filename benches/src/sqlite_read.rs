//! Reads of SQLite, beside SELECTs of the same rows from the same file.

use std::hint::black_box;

use annals_benches::Shape;
use annals_core::{EventStore, EventStoreExt, ReadAll, StreamId};
use annals_sqlite::SqliteStore;
use futures::TryStreamExt;

use crate::{
    bare::Reader,
    plan::Plan,
    report::{Figures, Target},
    sqlite::StoreFile,
};

/// The target for the ratio to the SELECT.
const TARGET: Target = Target::AtLeast(0.8);
const EVENTS: u64 = 1_000;

pub(crate) fn run(plan: &Plan) {
    let streams = if plan.quick { 20 } else { 100 };
    for (how, together) in [("written in turn", streams), ("each in one piece", 1)] {
        let (file, ids) = StoreFile::filled(plan, Shape { streams, events: EVENTS, together });
        let store = file.open(plan);
        let bare = Reader::open(&file.path());
        let title = format!("SQLite: reads; {streams} streams of {EVENTS} events, {how}");
        let mut figures = Figures::new(title, "events a second");
        let [stream, select] = ["a stream", "SELECT of a stream"];
        for annals in plan.turns(&[true, false]) {
            if annals {
                figures.add(stream, read_streams(plan, &store, &ids));
            } else {
                let mut next = ids.iter().cycle();
                let read = || next.next().map_or(0, |id| bare.stream(id.as_str()));
                figures.add(select, plan.rate(read));
            }
        }
        figures.ratio(stream, select, TARGET);
        let [all, select, pages] = ["all", "SELECT of all", "SELECT of all, 1,000 at a time"];
        for name in plan.turns(&[all, select, pages]) {
            let rate = match name {
                _ if name == all => read_all(plan, &store),
                _ if name == select => plan.rate(|| bare.all()),
                _ => plan.rate(|| bare.all_in_pages()),
            };
            figures.add(name, rate);
        }
        figures.ratio(all, select, Target::None);
        figures.ratio(all, pages, Target::None);
        figures.print();
    }
}

/// Reads one stream after another into memory.
fn read_streams(plan: &Plan, store: &SqliteStore, ids: &[StreamId]) -> f64 {
    let (store, ids) = (store.clone(), ids.to_vec());
    let mut turn = 0;
    plan.rate_of(move || {
        turn += 1;
        let (store, id) = (store.clone(), ids.get(turn % ids.len()).cloned().unwrap());
        async move { black_box(store.load_stream(&id).await.unwrap()).len() }
    })
}

/// Reads all events, one at a time.
fn read_all(plan: &Plan, store: &SqliteStore) -> f64 {
    let store = store.clone();
    plan.rate_of(move || {
        let mut events = store.read_all(ReadAll::default());
        async move {
            let mut read = 0;
            while let Some(event) = events.try_next().await.unwrap() {
                black_box(event);
                read += 1;
            }
            read
        }
    })
}
