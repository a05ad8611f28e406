//! The capacity units that reads consume.

use std::time::Duration;

use annals_core::{
    Append, EventStore, ReadAll, ReadStream, Start, StreamId, Subscribe, Subscription, Version,
};
use annals_dynamodb::DynamoDbOptions;
use annals_test_servers::dynamodb::{Meter, Usage};
use futures::TryStreamExt;

use super::{
    Server,
    events::{Kind, least_read_units, stream},
    new_table, ordered,
    table::{number, targets},
};
use crate::report::Target;

const EVENTS: usize = 1_000;

/// How a stream was appended to.
#[derive(Clone)]
struct Shape {
    name: &'static str,
    bytes: usize,
    /// The number of events in one append.
    together: usize,
    stream: StreamId,
    /// The number of the log's stripes, if it is not the default.
    stripes: Option<u64>,
}

pub(super) async fn run() {
    let server = Server::start().await;
    let short = StreamId::new("order-4711").unwrap();
    let long = Shape { name: "", bytes: 200, together: 1, stream: stream(1), stripes: None };
    let shape = |name, bytes, together| Shape { name, bytes, together, ..long.clone() };
    let striped = |name, stripes| Shape { name, stripes: Some(stripes), ..long.clone() };
    let shapes = [
        shape("one by one", 200, 1),
        Shape { stream: short, ..shape("one by one, id of 10 letters", 200, 1) },
        shape("in tens", 200, 10),
        shape("one by one", 4_096, 1),
        shape("in tens", 4_096, 10),
        striped("one by one, 16 stripes", 16),
        striped("one by one, 64 stripes", 64),
    ];
    let mut judged = Vec::new();
    for kind in Kind::BOTH {
        println!(
            "\n### annals: reads of {} events, {}, by a fresh store\n",
            number(EVENTS as f64),
            kind.name()
        );
        println!(
            "| store | by | events | bytes each, written | requests | read units \
             | read units per event | / what their bytes must cost |"
        );
        println!("|---|---|---:|---|---:|---:|---:|---:|");
        for shape in &shapes {
            // The kind of data makes no difference for stripes: the log is the same.
            if shape.stripes.is_some() && kind != Kind::Orders {
                continue;
            }
            for order in [false, true] {
                if shape.stripes.is_some() && !order {
                    continue;
                }
                let table = shape.fill(&server, kind, order).await;
                for how in How::of(order) {
                    let (store, meter) = server.open(&table, ordered(order)).await;
                    how.read(&store, &shape.stream).await;
                    let ratio = shape.print(order, *how, &meter.take());
                    if shape.bytes == 200
                        && shape.stripes.is_none()
                        && !matches!(how, How::Subscriber)
                    {
                        let order = if order { "on" } else { "off" };
                        let name = format!(
                            "{}, order {order}, {}: {}",
                            kind.name(),
                            shape.name,
                            how.name()
                        );
                        judged.push((name, ratio, Target::AtMost(1.2)));
                    }
                }
            }
        }
    }
    targets(
        "annals: reads of 1,000 events of 200 B; read units / what their bytes must cost",
        &judged,
    );
    idle(&server).await;
}

impl Shape {
    async fn fill(&self, server: &Server, kind: Kind, order: bool) -> String {
        let table = new_table();
        let mut options = ordered(order);
        options.stripes = self.stripes;
        let (store, _) = server.open(&table, options).await;
        for version in (0..EVENTS as u64).step_by(self.together) {
            let events = kind.events(version, self.together, self.bytes);
            let append = Append::new(self.stream.clone(), Version::new(version), events);
            store.append(append).await.unwrap();
        }
        table
    }

    fn print(&self, order: bool, how: How, usage: &Usage) -> f64 {
        let ratio = usage.read_units / least_read_units(EVENTS, self.bytes) as f64;
        println!(
            "| annals, order {} | {} | {} | {}, {} | {} | {} | {:.4} | {ratio:.2} |",
            if order { "on" } else { "off" },
            how.name(),
            number(EVENTS as f64),
            number(self.bytes as f64),
            self.name,
            usage.requests,
            number(usage.read_units),
            usage.read_units / EVENTS as f64,
        );
        ratio
    }
}

#[derive(Clone, Copy)]
enum How {
    Stream,
    All,
    Subscriber,
}

impl How {
    fn of(order: bool) -> &'static [Self] {
        if order { &[Self::Stream, Self::All, Self::Subscriber] } else { &[Self::Stream] }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Stream => "`read_stream`",
            Self::All => "`read_all`",
            Self::Subscriber => "a subscriber to all",
        }
    }

    async fn read(self, store: &dyn EventStore, stream: &StreamId) {
        let found = match self {
            Self::Stream => store.read_stream(stream, ReadStream::default()),
            Self::All => store.read_all(ReadAll::default()),
            Self::Subscriber => {
                let mut subscription = store.subscribe(Subscribe::default()).await.unwrap();
                for _ in 0..EVENTS {
                    subscription.next_event().await.unwrap();
                }
                return;
            }
        };
        let found: Vec<_> = found.try_collect().await.unwrap();
        assert_eq!(found.len(), EVENTS);
    }
}

/// What an idle subscriber consumes with each poll. It polls more often here than by default.
async fn idle(server: &Server) {
    const LOOK: Duration = Duration::from_millis(10);
    let default = DynamoDbOptions::default().poll_interval;
    println!("\n### annals: a subscriber that nothing comes for\n");
    println!(
        "| subscriber to | looks counted | requests per look | read units per look \
         | read units a second, looking each {default:?} | read units a day |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let table = new_table();
    let options = ordered(true).with_poll_interval(LOOK);
    let (writer, _) = server.open(&table, options.clone()).await;
    let append = Append::new(stream(1), Version::NONE, Kind::Orders.events(0, 1, 200));
    writer.append(append).await.unwrap();
    let all = Subscribe::default().with_start(Start::End);
    let one = Subscribe::to(stream(1)).with_start(Start::End);
    for (name, subscribe, operation) in [("all", all, "GetItem"), ("one stream", one, "Query")] {
        let (store, meter) = server.open(&table, options.clone()).await;
        let subscription = store.subscribe(subscribe).await.unwrap();
        let (looks, usage) = looks(subscription, &meter, operation).await;
        let units = usage.read_units / looks as f64;
        let a_second = units / default.as_secs_f64();
        println!(
            "| {name} | {looks} | {} | {} | {} | {} |",
            number(usage.requests as f64 / looks as f64),
            number(units),
            number(a_second),
            number(a_second * 86_400.0),
        );
    }
}

/// Counts polls, which are requests of this operation, and what they consume. The first polls,
/// before the subscriber is idle, are left out.
async fn looks(mut subscription: Subscription, meter: &Meter, operation: &str) -> (u64, Usage) {
    const BEFORE: u64 = 10;
    const LOOKS: u64 = 50;
    let reading = tokio::spawn(async move { subscription.next_event().await.map(drop) });
    let mut measured = Usage::default();
    for wanted in [BEFORE, LOOKS] {
        measured = Usage::default();
        while measured.by_operation.get(operation).copied().unwrap_or_default() < wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let usage = meter.take();
            measured.requests += usage.requests;
            measured.read_units += usage.read_units;
            for (operation, count) in usage.by_operation {
                *measured.by_operation.entry(operation).or_default() += count;
            }
        }
    }
    reading.abort();
    (measured.by_operation.get(operation).copied().unwrap_or_default(), measured)
}
