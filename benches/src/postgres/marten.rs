//! Marten's tables: appends beside a function after the steps of the one that a .NET program calls, reads
//! beside bare ones, and the time from an append to a subscriber.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use annals_benches::{STREAM_EVENTS, data};
use annals_core::{
    EventStore, EventStoreExt, ExpectedVersion, NewEvent, Start, StreamId, Subscribe,
};
use annals_marten::{MartenConfig, MartenStore};
use sqlx::{Connection, PgConnection, Row};
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use crate::{
    load::{Load, To},
    plan::Plan,
    postgres::{Database, Server},
    report::{Figures, Target, median, percentile},
};

/// What stands in for `mt_quick_append_events`, in its order: the version first, then for each event a
/// number and a row, then the row of the stream.
const QUICK: &str = "CREATE FUNCTION events.quick(stream varchar, ids uuid[], types varchar[], \
    dotnet_types varchar[], bodies jsonb[], expected bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$ \
    DECLARE last bigint; number bigint; numbers bigint[]; \
    BEGIN \
        SELECT s.version INTO last FROM events.mt_streams AS s WHERE s.id = stream; \
        IF expected IS NOT NULL AND coalesce(last, 0) <> expected THEN \
            RAISE EXCEPTION 'another version' USING ERRCODE = 'MT003'; \
        END IF; \
        IF last IS NULL THEN \
            last := 0; \
            INSERT INTO events.mt_streams (id, type, version, timestamp, tenant_id) \
            VALUES (stream, 'cart', cardinality(ids), now(), '*DEFAULT*'); \
        END IF; \
        FOR i IN 1..cardinality(ids) LOOP \
            number := nextval('events.mt_events_sequence'); \
            numbers := numbers || number; \
            INSERT INTO events.mt_events (seq_id, id, stream_id, version, data, type, timestamp, \
                tenant_id, mt_dotnet_type, is_archived) \
            VALUES (number, ids[i], stream, last + i, bodies[i], types[i], now(), '*DEFAULT*', \
                dotnet_types[i], false); \
        END LOOP; \
        UPDATE events.mt_streams AS s SET version = greatest(s.version, last + cardinality(ids)), \
            timestamp = now() WHERE s.id = stream; \
        RETURN (last + cardinality(ids)) || numbers; \
    END $$";
const CALL: &str = "SELECT events.quick($1, $2, $3, $4, $5::text[]::jsonb[], $6)";
/// What Marten reads of a stream.
const SELECT: &str = "SELECT data::text, type, mt_dotnet_type, id, seq_id, stream_id, version, timestamp, \
    tenant_id, is_archived FROM events.mt_events WHERE stream_id = $1 AND is_archived = false \
    ORDER BY seq_id";

const EVENTS: usize = 1_000;
/// The longest pause between two events whose time is measured, in milliseconds.
const PAUSE: u64 = 10;

#[derive(Clone, Copy)]
enum Contender {
    Quick(usize),
    Annals(usize),
}

impl Contender {
    fn name(self) -> String {
        match self {
            Self::Quick(connections) => format!("quick function, {connections}"),
            Self::Annals(writers) => format!("annals, {writers}"),
        }
    }
}

pub(crate) fn run(plan: &Plan) {
    let Some(server) = Server::start(plan) else { return };
    appends(plan, &server);
    reads(plan, &server);
    latency(plan, &server);
}

fn appends(plan: &Plan, server: &Server<'_>) {
    let mut figures = Figures::new("Marten: appends of 1 event", "events a second");
    let all = [1, 8].into_iter().flat_map(|n| [Contender::Quick(n), Contender::Annals(n)]);
    for contender in plan.turns(&all.collect::<Vec<_>>()) {
        let database = server.database();
        let store = open(plan, &database);
        let rate = match contender {
            Contender::Quick(connections) => quick(plan, &database, connections),
            Contender::Annals(writers) => {
                let load = Load { writers, events: 1, to: To::Own { first: 0 } };
                plan.run(load.rate(store, plan.warm_up(), plan.slice))
            }
        };
        figures.add(contender.name(), rate);
    }
    for n in [1, 8] {
        let (of, to) = (Contender::Annals(n).name(), Contender::Quick(n).name());
        figures.ratio(&of, &to, Target::AtLeast(0.7));
    }
    figures.print();
}

fn open(plan: &Plan, database: &Database<'_>) -> Arc<MartenStore> {
    let url = marten(&database.url);
    let store =
        plan.run(
            async move { MartenStore::open(MartenConfig::from_url(&url).unwrap()).await.unwrap() },
        );
    database.execute(QUICK);
    Arc::new(store)
}

fn marten(url: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{}{joint}schema=events&create=string", url.replacen("postgres", "marten", 1))
}

/// Appends one event by the function.
async fn call(connection: &mut PgConnection, stream: &str, body: String, expected: Option<i64>) {
    let call = sqlx::query(CALL)
        .bind(stream)
        .bind([Uuid::now_v7()])
        .bind(["order_changed"])
        .bind(["Shop.OrderChanged, Shop"])
        .bind([body])
        .bind(expected);
    black_box(call.execute(connection).await.unwrap());
}

/// Measures calls of the function by several connections, each to streams of its own.
fn quick(plan: &Plan, database: &Database<'_>, connections: usize) -> f64 {
    let (url, warm_up, slice) = (database.url.clone(), plan.warm_up(), plan.slice);
    plan.run(async move {
        let mut tasks = JoinSet::new();
        let mut opened = Vec::new();
        for _ in 0..connections {
            opened.push(PgConnection::connect(&url).await.unwrap());
        }
        for (number, mut connection) in opened.into_iter().enumerate() {
            tasks.spawn(async move {
                let (began, mut done, mut turn) = (Instant::now(), 0_u64, 0_u64);
                while began.elapsed() < warm_up + slice {
                    let stream = format!("cart-{number}-{}", turn / STREAM_EVENTS);
                    let version = (turn % STREAM_EVENTS) as i64;
                    call(&mut connection, &stream, data(), Some(version)).await;
                    turn += 1;
                    done += u64::from(began.elapsed() >= warm_up);
                }
                done
            });
        }
        tasks.join_all().await.into_iter().sum::<u64>() as f64 / slice.as_secs_f64()
    })
}

/// Streams that annals wrote have their exact bytes beside them; those of a .NET program do not.
fn reads(plan: &Plan, server: &Server<'_>) {
    const OURS: (&str, &str) = ("annals: a stream of annals", "select: a stream of annals");
    const THEIRS: (&str, &str) = ("annals: a stream of .NET", "select: a stream of .NET");
    let streams = if plan.quick { 4 } else { 20 };
    let database = server.database();
    let store = open(plan, &database);
    let (filling, url) = (store.clone(), database.url.clone());
    plan.run(async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        for number in 0..streams {
            let events = (0..EVENTS).map(|_| NewEvent::json("order_changed", &json()).unwrap());
            let stream = format!("ours-{number}");
            let appended = filling.append_to(stream.as_str(), ExpectedVersion::NoStream, events);
            appended.await.unwrap();
            for _ in 0..EVENTS {
                call(&mut connection, &format!("theirs-{number}"), data(), None).await;
            }
        }
    });
    database.execute("VACUUM ANALYZE");
    let title = format!("Marten: reads of streams of {EVENTS} events");
    let mut figures = Figures::new(title, "events a second");
    for name in plan.turns(&[OURS.0, OURS.1, THEIRS.0, THEIRS.1]) {
        let kind = if name.ends_with("annals") { "ours" } else { "theirs" };
        let mut turn = 0;
        let mut next = move || {
            turn += 1;
            format!("{kind}-{}", turn % streams)
        };
        let rate = if name.starts_with("annals") {
            let store = store.clone();
            plan.rate_of(move || {
                let (store, stream) = (store.clone(), StreamId::new(next()).unwrap());
                async move { black_box(store.load_stream(&stream).await.unwrap()).len() }
            })
        } else {
            let url = database.url.clone();
            let connection = plan.run(async move { PgConnection::connect(&url).await.unwrap() });
            let connection = Arc::new(tokio::sync::Mutex::new(connection));
            plan.rate_of(move || {
                let (connection, stream) = (connection.clone(), next());
                async move { select(&mut *connection.lock().await, stream).await }
            })
        };
        figures.add(name, rate);
    }
    for (of, to) in [OURS, THEIRS] {
        figures.ratio(of, to, Target::AtLeast(0.8));
    }
    figures.print();
}

fn json() -> serde_json::Value {
    serde_json::from_str(&data()).unwrap()
}

/// Reads a stream into owned values, and gives the number of its events.
async fn select(connection: &mut PgConnection, stream: String) -> usize {
    let rows = sqlx::query(SELECT).bind(stream).fetch_all(connection).await.unwrap();
    let owned = |row: &sqlx::postgres::PgRow| {
        let texts: [String; 5] = [0, 1, 2, 5, 8].map(|column| row.get(column));
        let id: Uuid = row.get(3);
        let numbers: [i64; 2] = [row.get(4), row.get(6)];
        // A client makes its own type of the time.
        let time = row.try_get_raw(7).unwrap().as_bytes().unwrap().to_vec();
        (texts, id, numbers, time)
    };
    let events: Vec<_> = rows.iter().map(owned).collect();
    black_box(events).len()
}

fn latency(plan: &Plan, server: &Server<'_>) {
    const OURS: &str = "annals";
    const THEIRS: &str = "quick function, which does not notify";
    let title = "Marten: from append to subscriber, one event at a time";
    let mut figures = Figures::new(title, "microseconds");
    for name in plan.turns(&[OURS, THEIRS]) {
        let database = server.database();
        let (store, url) = (open(plan, &database), database.url.clone());
        let time = plan.warm_up() + plan.slice;
        let ages = plan.run(async move {
            let writer = (name == OURS).then_some(store);
            arrivals(writer, url, time).await
        });
        let share = plan.warm_up().as_secs_f64() / time.as_secs_f64();
        let warm = ages.get((ages.len() as f64 * share) as usize..).unwrap_or_default();
        figures.add(format!("{name}: p50"), median(warm));
        figures.add(format!("{name}: p99"), percentile(warm, 0.99));
    }
    figures.target(&format!("{OURS}: p99"), Target::AtMost(20_000.0));
    figures.target(&format!("{THEIRS}: p99"), Target::AtMost(100_000.0));
    figures.print();
}

/// The microseconds from before each append until its event arrives, at another handle.
async fn arrivals(writer: Option<Arc<MartenStore>>, url: String, time: Duration) -> Vec<f64> {
    let other = MartenStore::open(MartenConfig::from_url(&marten(&url)).unwrap()).await.unwrap();
    let start = Subscribe::default().with_start(Start::End);
    let mut subscription = other.subscribe(start).await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut ages = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        sleep(Duration::from_millis(fastrand::u64(1..=PAUSE))).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        match &writer {
            Some(store) => {
                let event = NewEvent::json("order_changed", &now).unwrap();
                store.append_to("cart-1", ExpectedVersion::Any, [event]).await.unwrap();
            }
            None => call(&mut connection, "cart-1", now.to_string(), None).await,
        }
        let event = subscription.next_event().await.unwrap();
        assert_eq!(event.data.decode::<u64>().unwrap(), now);
        let arrived = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        ages.push(arrived.saturating_sub(now) as f64);
    }
    ages
}
