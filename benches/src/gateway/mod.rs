//! The adapter of EventStoreDB beside bare clients, on a gateway over a store in memory; and the
//! appends that the gateway handles. The gateway and the clients share the machine's processors.

mod append;
mod bare;
mod idle;
mod read;
mod sparse;

use std::{net::SocketAddr, sync::Arc};

use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbStore, kurrentdb::Client};
use annals_gateway::{Gateway, GatewayOptions, Security};
use annals_memory::MemoryStore;
use tokio::net::TcpListener;

use crate::plan::Plan;

pub(crate) fn append(plan: &Plan) {
    append::run(plan);
    append::throughput(plan);
}

pub(crate) fn read(plan: &Plan) {
    read::run(plan);
    sparse::run(plan);
}

pub(crate) fn quiet(plan: &Plan) {
    idle::run(plan);
}

/// Starts a gateway over this store, which runs until the program ends. Returns its address.
fn serve(plan: &Plan, store: &MemoryStore) -> SocketAddr {
    let store = store.clone();
    plan.run(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = Gateway::new(Arc::new(store), GatewayOptions::default());
        tokio::spawn(gateway.serve(listener, Security::Insecure, std::future::pending()));
        address
    })
}

async fn adapter(address: SocketAddr) -> EventStoreDbStore {
    let url = format!("esdb://{address}?tls=false");
    EventStoreDbStore::open(EventStoreDbConfig::from_url(&url).unwrap()).await.unwrap()
}

/// The official client.
fn client(address: SocketAddr) -> Client {
    Client::new(format!("esdb://{address}?tls=false").parse().unwrap()).unwrap()
}
