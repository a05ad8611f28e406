//! The capacity units that a store consumes in DynamoDB, counted on an emulator; and a model of the
//! throughput under the limits that DynamoDB documents.

mod append;
mod bill;
mod events;
mod limits;
mod read;
mod table;

use std::sync::atomic::{AtomicU32, Ordering};

use annals_dynamodb::{DynamoDbOptions, DynamoDbStore, aws_sdk_dynamodb::Client};
use annals_test_servers::dynamodb::{DynamoDb, Meter, Source};

use crate::plan::Plan;

pub(crate) fn run(plan: &Plan) {
    plan.run(async {
        println!("\nDynamoDB: {}; all figures are counts", Source::InProcess);
        append::run().await;
        read::run().await;
    });
    limits::run(plan);
}

pub(crate) fn bill(plan: &Plan) {
    plan.run(async {
        println!("\nDynamoDB: {}; all figures are counts", Source::InProcess);
        bill::run().await;
    });
}

/// An emulator in this process, even if the environment names another server: others count
/// differently.
struct Server(DynamoDb);

/// A name that no other table has.
fn new_table() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Server {
    async fn start() -> Self {
        Self(Source::InProcess.start().await.unwrap())
    }

    /// A store that knows no stream's version yet, and a meter of what it consumes from now on.
    async fn open(&self, table: &str, options: DynamoDbOptions) -> (DynamoDbStore, Meter) {
        let meter = Meter::new();
        let config = self.0.config().to_builder().http_client(meter.http_client()).build();
        let client = Client::from_conf(config);
        let store = DynamoDbStore::with_client(&client, table, options).await.unwrap();
        meter.take();
        (store, meter)
    }
}

fn ordered(order: bool) -> DynamoDbOptions {
    DynamoDbOptions::default().with_order(order)
}
