//! What subscriptions cost that get no events, beside appends to other streams.

use std::time::Duration;

use annals_benches::Writer;
use annals_core::{Category, EventStore, Source, StreamId, Subscribe};
use futures::future::join_all;
use sqlx::Row;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    plan::Plan,
    postgres::{Database, Server, open},
    report::{Figures, Target},
};

const SUBSCRIPTIONS: usize = 200;
const APPENDS: f64 = 31.0;
/// The target for the transactions a second of the whole database.
const MOST: Target = Target::AtMost(300.0);
/// Sessions report their transactions to the server's statistics once a second, so run for longer.
const SLICES: u32 = 4;

/// What is subscribed to.
#[derive(Clone, Copy)]
enum To {
    Nothing,
    Streams,
    Categories,
}

const CONTENDERS: [(&str, To, f64); 5] = [
    ("appends, no subscription", To::Nothing, APPENDS),
    ("200 streams, no append", To::Streams, 0.0),
    ("200 categories, no append", To::Categories, 0.0),
    ("200 streams, beside appends", To::Streams, APPENDS),
    ("200 categories, beside appends", To::Categories, APPENDS),
];

pub(crate) fn run(plan: &Plan) {
    let Some(server) = Server::start(plan) else { return };
    let title = format!(
        "PostgreSQL: {SUBSCRIPTIONS} subscriptions that get nothing, beside {APPENDS} appends a second \
         of another handle"
    );
    let mut figures = Figures::new(title, "transactions a second");
    for (name, to, appends) in plan.turns(&CONTENDERS) {
        let database = server.database();
        figures.add(name, transactions(plan, &database, to, appends));
    }
    for (name, ..) in CONTENDERS {
        figures.target(name, MOST);
    }
    figures.print();
}

/// The transactions a second of all sessions of a database, from the subscriptions on.
fn transactions(plan: &Plan, database: &Database<'_>, to: To, appends: f64) -> f64 {
    let time = plan.slice * SLICES;
    let url = database.url.clone();
    // All sessions of the writing store and of the reading one end within this task, and so have
    // reported their transactions.
    let before = counted(database);
    let took = plan.run(async move {
        let (writing, reading) = (open(url.clone()).await, open(url).await);
        let subscribed = (0..SUBSCRIPTIONS).map(|number| {
            let source = match to {
                To::Nothing => None,
                To::Streams => {
                    Some(Source::Stream(StreamId::new(format!("quiet-{number}")).unwrap()))
                }
                To::Categories => {
                    let category = Category::new(format!("quiet{number}")).unwrap();
                    Some(Source::category(category))
                }
            };
            let reading = reading.clone();
            async move {
                match source {
                    Some(source) => Some(reading.subscribe(Subscribe::to(source)).await.unwrap()),
                    None => None,
                }
            }
        });
        let mut waiting = JoinSet::new();
        for mut subscription in join_all(subscribed).await.into_iter().flatten() {
            waiting.spawn(async move { subscription.next_event().await });
        }
        let began = Instant::now();
        append(&writing, appends, time).await;
        let took = began.elapsed();
        assert!(waiting.try_join_next().is_none(), "a subscription has ended");
        waiting.shutdown().await;
        writing.pool().close().await;
        reading.pool().close().await;
        took
    });
    // What it took to open the stores and to subscribe counts as well: the figure is too high, not too
    // low.
    (counted(database) - before) / took.as_secs_f64()
}

/// Appends this many events a second.
async fn append(store: &dyn EventStore, rate: f64, time: Duration) {
    if rate <= 0.0 {
        return tokio::time::sleep(time).await;
    }
    let (mut writer, deadline) = (Writer::new(0), Instant::now() + time);
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while Instant::now() < deadline {
        ticks.tick().await;
        store.append(writer.append(1)).await.unwrap();
    }
}

/// The transactions of a database so far, when no other session is left.
fn counted(database: &Database<'_>) -> f64 {
    const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                          AND pid <> pg_backend_pid()";
    const COUNT: &str = "SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database \
                         WHERE datname = current_database()";
    while database.one(OTHERS).get::<i64, _>(0) > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    database.one(COUNT).get(0)
}
