//! The adapter of EventStoreDB beside the bare client, both on a gateway over a store in memory;
//! and the appends that the gateway handles. The gateway and the clients share the machine's
//! processors.

use std::{
    future::Future,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use annals_benches::{EventGenerator, Shape, fill};
use annals_core::{
    Append, ContentKind, EventStore, EventStoreExt, ExpectedVersion, NewEvent, ReadAll, StreamId,
};
use annals_eventstoredb::{
    EventStoreDbConfig, EventStoreDbStore,
    kurrentdb::{
        AppendToStreamOptions, Client, EventData, ReadAllOptions, ReadStreamOptions, StreamState,
    },
};
use annals_gateway::{Gateway, GatewayOptions, Security};
use annals_memory::MemoryStore;
use futures::TryStreamExt;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

use crate::{
    plan::Plan,
    report::{Figures, Target},
};

/// The target for the ratio to the bare client: for reads, for one writer, and for many writers, whose
/// appends share a call.
const READS: Target = Target::AtLeast(0.9);
const ONE_WRITER: Target = Target::AtLeast(0.95);
const MANY_WRITERS: Target = Target::AtLeast(1.3);
const WRITERS: usize = 32;
const CONNECTIONS: usize = 32;
/// The target for the appends a second over all connections.
const APPENDS: Target = Target::AtLeast(20_000.0);
const STREAMS: usize = 100;
const STREAM_EVENTS: u64 = 1_000;

pub(crate) fn run(plan: &Plan) {
    append(plan);
    read(plan);
    throughput(plan);
}

/// Starts a gateway over this store, which runs until the program ends. Returns its URL.
fn serve(plan: &Plan, store: &MemoryStore) -> String {
    let store = store.clone();
    plan.run(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = Gateway::new(Arc::new(store), GatewayOptions::default());
        tokio::spawn(gateway.serve(listener, Security::Insecure, std::future::pending()));
        format!("esdb://{address}?tls=false")
    })
}

async fn adapter(url: &str) -> EventStoreDbStore {
    EventStoreDbStore::open(EventStoreDbConfig::from_url(url).unwrap()).await.unwrap()
}

fn client(url: &str) -> Client {
    Client::new(url.parse().unwrap()).unwrap()
}

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

fn append(plan: &Plan) {
    let url = serve(plan, &MemoryStore::new());
    let times = [plan.warm_up(), plan.slice];
    let (ours, client) = {
        let url = url.clone();
        plan.run(async move { (adapter(&url).await, client(&url)) })
    };
    let [annals, kurrentdb] = ["annals", "kurrentdb"];
    for (writers, target) in [(1, ONE_WRITER), (WRITERS, MANY_WRITERS)] {
        let title = format!("Gateway on memory: appends of one event, {writers} at once");
        let mut figures = Figures::new(title, "appends a second");
        for (turn, name) in plan.turns(&[annals, kurrentdb]).into_iter().enumerate() {
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
            } else {
                let client = client.clone();
                plan.run(rate(writers, times, move |writer, version, event| {
                    bare_append(client.clone(), stream(writer), version, event)
                }))
            };
            figures.add(name, figure);
        }
        figures.ratio(annals, kurrentdb, target);
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

fn read(plan: &Plan) {
    let store = MemoryStore::new();
    let shape = Shape { streams: STREAMS, events: STREAM_EVENTS, together: 10 };
    let url = serve(plan, &store);
    let (ours, client, ids) = plan.run(async move {
        let ids = fill(&store, shape).await;
        (adapter(&url).await, client(&url), ids)
    });
    let title = format!("Gateway on memory: reads; {STREAMS} streams of {STREAM_EVENTS} events");
    let mut figures = Figures::new(title, "events a second");
    let [stream, bare_stream, all, bare_all] =
        ["a stream", "a stream, kurrentdb", "all", "all, kurrentdb"];
    for name in plan.turns(&[stream, bare_stream, all, bare_all]) {
        let (ours, client, ids) = (ours.clone(), client.clone(), ids.clone());
        let mut turn = 0;
        let figure = plan.rate_of(move || {
            turn += 1;
            let (ours, client) = (ours.clone(), client.clone());
            let id = ids.get(turn % ids.len()).cloned().unwrap();
            async move {
                match name {
                    _ if name == stream => black_box(ours.load_stream(&id).await.unwrap()).len(),
                    _ if name == bare_stream => {
                        let options = ReadStreamOptions::default();
                        let read = client.read_stream(id.as_str(), &options).await.unwrap();
                        bare_events(read).await
                    }
                    _ if name == all => {
                        let (mut events, mut count) = (ours.read_all(ReadAll::default()), 0);
                        while let Some(event) = events.try_next().await.unwrap() {
                            black_box(event);
                            count += 1;
                        }
                        count
                    }
                    _ => {
                        let read = client.read_all(&ReadAllOptions::default()).await.unwrap();
                        bare_events(read).await
                    }
                }
            }
        });
        figures.add(name, figure);
    }
    figures.ratio(stream, bare_stream, READS);
    figures.ratio(all, bare_all, READS);
    figures.print();
}

async fn bare_events(mut read: annals_eventstoredb::kurrentdb::ReadStream) -> usize {
    let mut count = 0;
    while let Some(event) = read.next().await.unwrap() {
        black_box(event);
        count += 1;
    }
    count
}

/// Measures appends over many connections, each with some appends at the same time.
fn throughput(plan: &Plan) {
    const EACH: usize = 4;
    let url = serve(plan, &MemoryStore::new());
    let clients: Vec<_> = plan.run(async move { (0..CONNECTIONS).map(|_| client(&url)).collect() });
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
