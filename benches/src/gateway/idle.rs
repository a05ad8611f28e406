//! The requests of subscribers that wait.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use annals_core::{
    Category, EventStore, EventStoreExt, ExpectedVersion, Filter, Message, StreamId, Subscribe,
};
use annals_memory::MemoryStore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::sleep,
};

use super::{adapter, serve};
use crate::{
    plan::Plan,
    report::{Figures, Target},
};

/// The target for the requests of a subscriber in a second.
const NONE: Target = Target::AtMost(0.0);
/// How many subscribers wait of each kind.
const EACH: usize = 20;
/// What HTTP/2 sends before the first frame.
const PREFACE: usize = 24;
/// The type of the frame that begins a request.
const HEADERS: u8 = 1;

pub(super) fn run(plan: &Plan) {
    let store = MemoryStore::new();
    let address = serve(plan, &store);
    let requests = Arc::new(AtomicU64::new(0));
    let counted = requests.clone();
    let (address, writer) =
        plan.run(async move { (count_requests(address, counted).await, store) });
    let ours = plan.run(async move { adapter(address).await });
    let category = |name| Filter::default().with_category(Category::new(name).unwrap());
    let kinds = [
        ("of a stream", Subscribe::to(StreamId::new("order-1").unwrap())),
        ("of all", Subscribe::default()),
        ("of a category", Subscribe::to(category("order"))),
    ];
    for busy in [false, true] {
        let beside =
            if busy { "while others write to other streams" } else { "while nobody writes" };
        let title = format!("Gateway on memory: {EACH} subscribers that wait, {beside}");
        let mut figures = Figures::new(title, "requests of a subscriber in a second");
        for (name, options) in &kinds {
            let (ours, options, slice) = (ours.clone(), options.clone(), plan.slice);
            let (requests, writer) = (requests.clone(), writer.clone());
            let rounds = plan.rounds;
            let found = plan.run(async move {
                let mut waiting = JoinSet::new();
                for _ in 0..EACH {
                    let mut live = ours.subscribe(options.clone()).await.unwrap();
                    while !matches!(live.next().await.unwrap(), Message::CaughtUp(_)) {}
                    waiting.spawn(async move { while live.next().await.is_ok() {} });
                }
                if busy {
                    waiting.spawn(write(writer));
                }
                let mut found = Vec::new();
                // What a subscription does once, when it has caught up, is not counted.
                sleep(slice).await;
                for _ in 0..rounds {
                    let before = requests.load(Relaxed);
                    sleep(slice).await;
                    let made = (requests.load(Relaxed) - before) as f64;
                    found.push(made / slice.as_secs_f64() / EACH as f64);
                }
                found
            });
            found.into_iter().for_each(|figure| figures.add(*name, figure));
            figures.target(name, NONE);
        }
        figures.print();
    }
}

/// Writes to a stream that nobody watches, without the gateway.
async fn write(store: MemoryStore) {
    let mut events = annals_benches::EventGenerator::new();
    loop {
        store.append_to("other-1", ExpectedVersion::Any, [events.one()]).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
}

/// Starts a proxy that counts the requests on their way to `target`. Returns its address.
async fn count_requests(target: SocketAddr, requests: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(target).await.unwrap();
            for side in [&client, &server] {
                side.set_nodelay(true).unwrap();
            }
            let ((from, mut back), (mut answers, to)) = (client.into_split(), server.into_split());
            tokio::spawn(pass_frames(from, to, requests.clone()));
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
        }
    });
    address
}

/// Passes the frames of HTTP/2 on. Ends with the connection.
async fn pass_frames(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, requests: Arc<AtomicU64>) {
    let mut preface = [0; PREFACE];
    let pass = async {
        from.read_exact(&mut preface).await?;
        to.write_all(&preface).await?;
        loop {
            let mut head = [0; 9];
            from.read_exact(&mut head).await?;
            let [a, b, c, kind, ..] = head;
            let mut body = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            from.read_exact(&mut body).await?;
            if kind == HEADERS {
                requests.fetch_add(1, Relaxed);
            }
            to.write_all(&[&head[..], &body].concat()).await?;
        }
    };
    let _: std::io::Result<()> = pass.await;
}
