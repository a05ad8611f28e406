//! What a fleet of processes pays for one million events a day.

use std::time::Duration;

use annals_core::{Append, EventStore, Start, Subscribe, Subscription, Version};
use annals_dynamodb::{DynamoDbOptions, DynamoDbStore};
use annals_test_servers::dynamodb::Meter;
use futures::future::join_all;

use super::{
    Server,
    events::{Kind, stream},
    new_table, ordered,
    table::number,
};

const PROCESSES: [usize; 3] = [1, 8, 50];
const SUBSCRIBERS: [usize; 2] = [1, 100];
/// How many appends are made at once: alone, or so many that they share a slot of the log.
const AT_ONCE: [usize; 2] = [1, 32];
/// The appends whose units are counted, without a subscriber and with them. A writer settles the log once
/// every 1,024 slots.
const SLOTS: usize = 4_096;
const FOLLOWED: usize = 512;

const EVENTS_A_DAY: f64 = 1e6;
/// Dollars for a million units on demand in `us-east-1` (price list of DynamoDB, 2026).
const WRITE_PRICE: f64 = 0.625;
const READ_PRICE: f64 = 0.125;
/// A process that has subscribers polls for what others append 20, 50 and 95 ms after it has found
/// something. One million events a day are 86 ms apart, so that it finds the next with the third poll; each
/// costs half a unit.
const POLLS: f64 = 3.0 * 0.5;

/// Processes with a store each on the same table.
struct Fleet {
    processes: Vec<(DynamoDbStore, Meter)>,
    appended: usize,
}

impl Fleet {
    async fn new(server: &Server, processes: usize) -> Self {
        let (table, mut all) = (new_table(), Vec::new());
        // Here events follow each other faster than in a day with a million of them.
        let options: DynamoDbOptions = ordered(true).with_poll_interval(Duration::from_millis(1));
        for _ in 0..processes {
            all.push(server.open(&table, options.clone()).await);
        }
        Self { processes: all, appended: 0 }
    }

    /// The store of the process whose turn it is.
    fn process(&self, turn: usize) -> &DynamoDbStore {
        &self.processes.get(turn % self.processes.len()).unwrap().0
    }

    /// Appends so many events at once, each to a new stream, by the process whose turn it is.
    async fn append(&mut self, at_once: usize) {
        let store = self.process(self.appended / at_once);
        let appends = (self.appended..self.appended + at_once).map(|n| {
            let events = Kind::Orders.events(n as u64, 1, 200);
            store.append(Append::new(stream(n), Version::NONE, events))
        });
        for appended in join_all(appends).await {
            appended.unwrap();
        }
        self.appended += at_once;
    }

    /// What all processes have consumed since the last call: write units, and read units without those of
    /// single items, which are polls.
    fn take(&self) -> (f64, f64) {
        let mut sum = (0.0, 0.0);
        for (_, meter) in &self.processes {
            let usage = meter.take();
            let polls = usage.by_operation.get("GetItem").copied().unwrap_or_default();
            sum.0 += usage.write_units;
            sum.1 += usage.read_units - 0.5 * polls as f64;
        }
        sum
    }
}

pub(super) async fn run() {
    let server = Server::start().await;
    println!("\n### annals with an order: what a fleet pays for a million small events a day\n");
    println!(
        "| processes | subscribers to all | appends at once | write units an event | read units an event: \
         settling | subscribers | polls | dollars a day: writing | reading |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for processes in PROCESSES {
        for at_once in AT_ONCE {
            let mut fleet = Fleet::new(&server, processes).await;
            while fleet.appended < SLOTS * at_once {
                fleet.append(at_once).await;
            }
            let appended = fleet.appended as f64;
            let (written, settling) = fleet.take();
            let (written, settling) = (written / appended, settling / appended);
            for subscribers in SUBSCRIBERS {
                let read = followed(&mut fleet, subscribers, at_once).await;
                let polling = subscribers.min(processes) as f64 * POLLS;
                let dollars = |units: f64, price: f64| units * EVENTS_A_DAY / 1e6 * price;
                println!(
                    "| {processes} | {subscribers} | {at_once} | {} | {settling:.3} | {} | {} | {:.2} | {:.2} |",
                    number(written),
                    number(read),
                    number(polling),
                    dollars(written, WRITE_PRICE),
                    dollars(settling + read + polling, READ_PRICE),
                );
            }
        }
    }
}

/// The read units an event of subscribers, spread over the processes, that get each event before the next
/// is appended.
async fn followed(fleet: &mut Fleet, subscribers: usize, at_once: usize) -> f64 {
    let mut subscriptions = Vec::new();
    for n in 0..subscribers {
        let store = fleet.process(n);
        let subscribe = Subscribe::default().with_start(Start::End);
        subscriptions.push(store.subscribe(subscribe).await.unwrap());
    }
    fleet.take();
    for _ in 0..FOLLOWED {
        fleet.append(at_once).await;
        join_all(subscriptions.iter_mut().map(|live| next(live, at_once))).await;
    }
    fleet.take().1 / (FOLLOWED * at_once) as f64
}

async fn next(live: &mut Subscription, events: usize) {
    for _ in 0..events {
        live.next_event().await.unwrap();
    }
}
