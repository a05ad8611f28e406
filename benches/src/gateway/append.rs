//! Appends by one and by many writers, and over many connections.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use annals_benches::EventGenerator;
use annals_core::{Append, ContentKind, EventStore, ExpectedVersion, NewEvent, StreamId};
use annals_eventstoredb::kurrentdb::{AppendToStreamOptions, Client, EventData, StreamState};
use annals_memory::MemoryStore;
use tokio::{task::JoinSet, time::sleep};

use super::{adapter, bare, client, serve};
use crate::{
    plan::Plan,
    report::{Figures, Target},
};

/// The targets for the ratio to a bare client that sends each append by a call of its own: for one
/// writer, and for many, whose appends share a call.
const ONE_WRITER: Target = Target::AtLeast(0.95);
const MANY_WRITERS: Target = Target::AtLeast(1.3);
const WRITERS: usize = 32;
const CONNECTIONS: usize = 32;
/// The target for the appends a second over all connections.
const APPENDS: Target = Target::AtLeast(20_000.0);

/// The same event, with the same bytes, for the bare client.
fn bare(event: &NewEvent) -> EventData {
    assert_eq!(event.data().kind(), ContentKind::Json);
    let text = String::from_utf8(event.data().bytes().to_vec()).unwrap();
    let raw = serde_json::value::RawValue::from_string(text).unwrap();
    EventData::json(event.event_type().as_str(), &raw)
        .unwrap()
        .id(event.id())
        .metadata(event.metadata().bytes().clone())
}

/// Measures appends by `writers` tasks, in appends a second. `times` are the warm-up and the slice.
async fn rate<F>(
    writers: usize,
    times: [Duration; 2],
    append: impl Fn(usize, u64, NewEvent) -> F + Clone + Send + 'static,
) -> f64
where
    F: Future<Output = ()> + Send,
{
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (append, stop, written) = (append.clone(), stop.clone(), written.clone());
        tasks.spawn(async move {
            let (mut events, mut version) = (EventGenerator::new(), 0);
            while !stop.load(Relaxed) {
                let event = events.take(1).pop().unwrap();
                append(writer, version, event).await;
                version += 1;
                written.fetch_add(1, Relaxed);
            }
        });
    }
    sleep(times[0]).await;
    let (before, began) = (written.load(Relaxed), Instant::now());
    sleep(times[1]).await;
    let rate = (written.load(Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    tasks.join_all().await;
    rate
}

/// The names of the streams of one turn, which no other turn uses.
fn streams(turn: usize) -> impl Fn(usize) -> String + Clone + Send + 'static {
    move |writer| format!("cart-{turn}-{writer}")
}

pub(super) fn run(plan: &Plan) {
    let address = serve(plan, &MemoryStore::new());
    let times = [plan.warm_up(), plan.slice];
    let (ours, bare, client) =
        plan.run(async move { (adapter(address).await, bare::connect(address), client(address)) });
    let [annals, without, kurrentdb] = ["annals", "bare calls", "kurrentdb"];
    for (writers, target) in [(1, ONE_WRITER), (WRITERS, MANY_WRITERS)] {
        let title = format!("Gateway on memory: appends of one event, {writers} at once");
        let mut figures = Figures::new(title, "appends a second");
        for (turn, name) in plan.turns(&[annals, without, kurrentdb]).into_iter().enumerate() {
            let stream = streams(writers * 1_000 + turn);
            let figure = if name == annals {
                let store = ours.clone();
                plan.run(rate(writers, times, move |writer, version, event| {
                    let (store, stream) = (store.clone(), StreamId::new(stream(writer)).unwrap());
                    let expected = ExpectedVersion::Exact(version.into());
                    async move {
                        store.append(Append::new(stream, expected, [event])).await.unwrap();
                    }
                }))
            } else if name == without {
                let bare = bare.clone();
                plan.run(rate(writers, times, move |writer, version, event| {
                    bare::append(bare.clone(), stream(writer), version, event)
                }))
            } else {
                let client = client.clone();
                plan.run(rate(writers, times, move |writer, version, event| {
                    bare_append(client.clone(), stream(writer), version, event)
                }))
            };
            figures.add(name, figure);
        }
        figures.ratio(annals, without, target);
        figures.ratio(annals, kurrentdb, Target::None);
        figures.print();
    }
}

async fn bare_append(client: Client, stream: String, version: u64, event: NewEvent) {
    let expected = match version {
        0 => StreamState::NoStream,
        version => StreamState::StreamRevision(version - 1),
    };
    let options = AppendToStreamOptions::default().stream_state(expected);
    client.append_to_stream(stream, &options, bare(&event)).await.unwrap();
}

/// Measures appends over many connections, each with some appends at the same time.
pub(super) fn throughput(plan: &Plan) {
    const EACH: usize = 4;
    let address = serve(plan, &MemoryStore::new());
    let clients: Vec<_> =
        plan.run(async move { (0..CONNECTIONS).map(|_| client(address)).collect() });
    let title = format!(
        "Gateway on memory: appends of one event, {CONNECTIONS} connections, {EACH} at once each"
    );
    let mut figures = Figures::new(title, "appends a second");
    let times = [plan.warm_up(), plan.slice];
    for turn in 0..plan.rounds {
        let (stream, clients) = (streams(turn), clients.clone());
        let figure = plan.run(rate(CONNECTIONS * EACH, times, move |writer, version, event| {
            let client = clients.get(writer % CONNECTIONS).cloned().unwrap();
            bare_append(client, stream(writer), version, event)
        }));
        figures.add("kurrentdb", figure);
    }
    figures.target("kurrentdb", APPENDS);
    figures.print();
}
