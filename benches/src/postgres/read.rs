//! Reads of PostgreSQL, beside reads of the same rows through the bare drivers.

use std::{hint::black_box, sync::Arc};

use annals_benches::{Shape, fill};
use annals_core::{EventStore, EventStoreExt, ReadAll, StreamId, Subscribe};
use annals_postgres::PostgresStore;
use futures::TryStreamExt;

use crate::{
    plan::Plan,
    postgres::{
        Database, Server,
        bare::{Sqlx, TokioPostgres},
    },
    report::{Figures, Target},
};

const EVENTS: u64 = 1_000;

const STREAM: &str = "a stream";
const FETCH_ALL: &str = "sqlx: a stream, fetch_all and try_get";
const FETCH: &str = "sqlx: a stream, fetch and raw values";
const TOKIO_POSTGRES: &str = "tokio-postgres: a stream";
const ALL: &str = "all";
const CATCH_UP: &str = "all, by a subscription that catches up";
const SELECT: &str = "sqlx: all, fetch";
const PAGES: &str = "sqlx: all, fetch, 1,000 at a time";

pub(crate) fn run(plan: &Plan) {
    let Some(server) = Server::start(plan) else { return };
    let streams = if plan.quick { 20 } else { 100 };
    let database = server.database();
    let (store, ids) =
        filled(plan, &database, Shape { streams, events: EVENTS, together: streams });
    let total = ids.len() * EVENTS as usize;
    let bare = plan.run(Sqlx::connect(database.url.clone()));
    let other = plan.run(TokioPostgres::connect(database.url.clone()));

    let title = format!("PostgreSQL: reads; {streams} streams of {EVENTS} events, written in turn");
    let mut figures = Figures::new(title, "events a second");
    for name in plan.turns(&[STREAM, FETCH_ALL, FETCH, TOKIO_POSTGRES]) {
        let names: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let mut names = names.into_iter().cycle();
        let mut next = move || names.next().unwrap();
        let (bare, other, most) = (bare.clone(), other.clone(), EVENTS as i64);
        let rate = match name {
            STREAM => read_streams(plan, store.clone(), ids.clone()),
            FETCH_ALL => plan.rate_of(move || bare.clone().stream(next(), most)),
            FETCH => plan.rate_of(move || bare.clone().stream_raw(next(), most)),
            _ => plan.rate_of(move || other.clone().stream(next(), most)),
        };
        figures.add(name, rate);
    }
    figures.ratio(STREAM, FETCH_ALL, Target::AtLeast(0.9));
    figures.ratio(STREAM, FETCH, Target::None);
    figures.ratio(STREAM, TOKIO_POSTGRES, Target::None);
    for name in plan.turns(&[ALL, CATCH_UP, SELECT, PAGES]) {
        let bare = bare.clone();
        let rate = match name {
            ALL => read_all(plan, store.clone()),
            CATCH_UP => catch_up(plan, store.clone(), total),
            SELECT => plan.rate_of(move || bare.clone().all()),
            _ => plan.rate_of(move || bare.clone().all_in_pages()),
        };
        figures.add(name, rate);
    }
    for name in [ALL, CATCH_UP] {
        figures.ratio(name, SELECT, Target::None);
        figures.ratio(name, PAGES, Target::None);
    }
    figures.print();
}

/// Fills a store, and updates the statistics of its tables.
pub(crate) fn filled(
    plan: &Plan,
    database: &Database<'_>,
    shape: Shape,
) -> (Arc<PostgresStore>, Arc<[StreamId]>) {
    let store = database.open();
    let filling = store.clone();
    let ids = plan.run(async move { fill(&*filling, shape).await });
    database.execute("VACUUM ANALYZE");
    (store, ids.into())
}

/// Measures reads of one stream after another into memory, in events a second.
pub(crate) fn read_streams(plan: &Plan, store: Arc<PostgresStore>, ids: Arc<[StreamId]>) -> f64 {
    let mut turn = 0;
    plan.rate_of(move || {
        turn += 1;
        let (store, id) = (store.clone(), ids.get(turn % ids.len()).cloned().unwrap());
        async move { black_box(store.load_stream(&id).await.unwrap()).len() }
    })
}

/// Reads all events, one at a time.
fn read_all(plan: &Plan, store: Arc<PostgresStore>) -> f64 {
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

/// Reads all events by a subscription, and stops after `total` events: it has no end of its own.
fn catch_up(plan: &Plan, store: Arc<PostgresStore>, total: usize) -> f64 {
    plan.rate_of(move || {
        let store = store.clone();
        async move {
            let mut subscription = store.subscribe(Subscribe::default()).await.unwrap();
            for _ in 0..total {
                black_box(subscription.next_event().await.unwrap());
            }
            total
        }
    })
}
