//! Events a second that another crate appends to an SQLite file, each with `synchronous=FULL`.
//!
//! `peers NAME WRITERS WARM-UP SECONDS FILE`, as the load program of annals calls it. The writers
//! do what those of annals do: one event of 200 bytes an append, each to a stream of its own under
//! the version that it expects, and to a new stream after 100 events.

mod eventcore;
mod sqlite_es;

use std::{
    env,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::sleep};

/// The text that makes an event's data 200 bytes of JSON, give or take a few.
const TEXT: usize = 189;
/// After how many events a writer begins a new stream.
const STREAM_EVENTS: usize = 100;

#[tokio::main]
async fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let [name, writers, warm_up, seconds, file] = args.as_slice() else {
        panic!("usage: peers NAME WRITERS WARM-UP SECONDS FILE");
    };
    let writers = writers.parse().unwrap();
    let times = [warm_up, seconds].map(|time| Duration::from_secs_f64(time.parse().unwrap()));
    let rate = match name.as_str() {
        "eventcore-sqlite" => {
            let store = eventcore::open(file).await;
            measure(writers, times, |number| eventcore::Writer::new(number, store.clone())).await
        }
        "sqlite-es" => {
            let store = sqlite_es::open(file).await;
            measure(writers, times, |number| sqlite_es::Writer::new(number, store.clone())).await
        }
        _ => panic!("there is no peer {name:?}"),
    };
    println!("{rate}");
}

/// Writes one event after another.
trait Write: Send + 'static {
    /// Appends an event to a stream that has so many.
    fn append(&mut self, stream: &str, version: usize) -> impl Future<Output = ()> + Send;
    fn number(&self) -> usize;
}

async fn measure<W: Write>(
    writers: usize,
    [warm_up, seconds]: [Duration; 2],
    writer: impl Fn(usize) -> W,
) -> f64 {
    let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for number in 0..writers {
        let (mut writer, written, stop) = (writer(number), written.clone(), stop.clone());
        tasks.spawn(async move {
            for nth in 0.. {
                let stream = format!("cart-{:02}-{:06}", writer.number(), nth / STREAM_EVENTS);
                writer.append(&stream, nth % STREAM_EVENTS).await;
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
