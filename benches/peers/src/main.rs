//! Measures other crates: appends to an SQLite file with `synchronous=FULL`, or appends to or reads
//! from a PostgreSQL database, in events a second.
//!
//! The load program of annals calls `peers NAME WRITERS WARM-UP SECONDS PLACE`. The writers append
//! as those of annals do: one event of 200 bytes in each append, to the writer's own stream with
//! its exact version, and to a new stream after 100 events. With `read` in place of WRITERS, one
//! task reads streams of 1,000 events into memory.

mod cart;
mod disintegrate;
mod eventcore;
mod postgres_es;
mod sqlite_es;

use std::{
    env,
    future::Future,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::sleep};

/// The length of the text that makes an event's data about 200 bytes of JSON.
const TEXT: usize = 189;
/// A writer begins a new stream after this many events.
const STREAM_EVENTS: usize = 100;
/// The streams to read.
const READ_STREAMS: usize = 10;
const READ_EVENTS: usize = 1_000;

#[tokio::main]
async fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let [name, what, warm_up, seconds, place] = args.as_slice() else {
        panic!("usage: peers NAME WRITERS WARM-UP SECONDS PLACE");
    };
    let times = [warm_up, seconds].map(|time| Duration::from_secs_f64(time.parse().unwrap()));
    let rate = match name.as_str() {
        "eventcore-sqlite" => {
            let store = eventcore::open_sqlite(place).await;
            append(what, times, || eventcore::Writer::new(store.clone())).await
        }
        "sqlite-es" => {
            let pool = sqlite_es::open(place).await;
            append(what, times, || sqlite_es::Writer::new(pool.clone())).await
        }
        "eventcore-postgres" => {
            let store = eventcore::open_postgres(place).await;
            measure(what, times, || eventcore::Writer::new(store.clone())).await
        }
        "postgres-es" => {
            let pool = postgres_es::open(place).await;
            measure(what, times, || postgres_es::Writer::new(pool.clone())).await
        }
        "disintegrate-postgres" => {
            let store = disintegrate::open(place).await;
            measure(what, times, || disintegrate::Writer::new(store.clone())).await
        }
        _ => panic!("there is no peer {name:?}"),
    };
    println!("{rate}");
}

/// A writer of a peer.
trait Write: Send + 'static {
    /// Appends `events` events to a stream that has `version` events.
    fn append(
        &mut self,
        stream: &str,
        version: usize,
        events: usize,
    ) -> impl Future<Output = ()> + Send;
}

/// A reader of a peer.
trait Read: Send + Sync + 'static {
    /// Reads a stream into memory. Returns the number of its events.
    fn read(&self, stream: &str) -> impl Future<Output = usize> + Send;
}

async fn measure<W: Write + Read>(what: &str, times: [Duration; 2], writer: impl Fn() -> W) -> f64 {
    match what {
        "read" => tokio::spawn(read(times, writer())).await.unwrap(),
        _ => append(what, times, writer).await,
    }
}

async fn append<W: Write>(
    writers: &str,
    [warm_up, seconds]: [Duration; 2],
    writer: impl Fn() -> W,
) -> f64 {
    let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for number in 0..writers.parse().unwrap() {
        let number: usize = number;
        let (mut writer, written, stop) = (writer(), written.clone(), stop.clone());
        tasks.spawn(async move {
            for nth in 0.. {
                let stream = format!("cart-{number:02}-{:06}", nth / STREAM_EVENTS);
                writer.append(&stream, nth % STREAM_EVENTS, 1).await;
                written.fetch_add(1, Relaxed);
                if stop.load(Relaxed) {
                    return;
                }
            }
        });
    }
    sleep(warm_up).await;
    let (before, began) = (written.load(Relaxed), Instant::now());
    sleep(seconds).await;
    let rate = (written.load(Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    tasks.join_all().await;
    rate
}

async fn read<W: Write + Read>(times: [Duration; 2], mut writer: W) -> f64 {
    let streams: Vec<_> = (0..READ_STREAMS).map(|number| format!("order-{number:08}")).collect();
    for stream in &streams {
        for version in (0..READ_EVENTS).step_by(STREAM_EVENTS) {
            writer.append(stream, version, STREAM_EVENTS).await;
        }
    }
    let mut next = streams.iter().cycle();
    let mut rate = 0.0;
    for time in times {
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < time {
            let events = writer.read(next.next().unwrap()).await;
            assert_eq!(events, READ_EVENTS);
            done += black_box(events);
        }
        rate = done as f64 / began.elapsed().as_secs_f64();
    }
    rate
}
