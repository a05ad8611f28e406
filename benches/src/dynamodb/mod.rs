//! What a store consumes in DynamoDB, counted on an emulator; and how far it goes under the limits
//! that the service documents, by a model.

mod append;
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

/// An emulator in this process, whatever the environment names: others count other units.
struct Server(DynamoDb);

/// The name of a table that nobody else has.
fn new_table() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Server {
    async fn start() -> Self {
        Self(Source::InProcess.start().await.unwrap())
    }

    /// A store that knows of no stream yet, and what it consumes from now on.
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
