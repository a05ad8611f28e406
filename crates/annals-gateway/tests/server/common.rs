//! A gateway in the test's process, and helpers that the tests share.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use annals_core::{EventStoreExt, ExpectedVersion, NewEvent, Store};
use annals_gateway::{Gateway, GatewayOptions, Security};
use annals_memory::MemoryStore;
use kurrentdb::Client;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

/// How long a test waits for something that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A gateway in this process, and its store.
pub(crate) struct Served {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub(crate) async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new())).await
    }

    pub(crate) async fn over(store: Arc<dyn Store>) -> Self {
        Self::with(store, GatewayOptions::default(), Security::Insecure).await
    }

    pub(crate) async fn with(
        store: Arc<dyn Store>,
        options: GatewayOptions,
        security: Security,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let gateway = Gateway::new(store.clone(), options);
        let serving = tokio::spawn(gateway.serve(listener, security, async {
            let _ = stopped.await;
        }));
        Self { store, address, stop, serving }
    }

    pub(crate) fn client(&self) -> Client {
        client(&format!("esdb://{}?tls=false", self.address))
    }

    /// Stops the gateway, and waits until it has stopped.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        soon("the gateway stops", self.serving).await.unwrap().unwrap();
    }
}

pub(crate) fn client(url: &str) -> Client {
    Client::new(url.parse().unwrap()).unwrap()
}

/// Waits for a future. Fails the test if that takes longer than [`DEADLINE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

pub(crate) fn event(number: u64) -> NewEvent {
    NewEvent::json("Counted", &number).unwrap()
}

/// Appends events to the store directly, without the gateway.
pub(crate) async fn fill(store: &Arc<dyn Store>, stream: &str, numbers: std::ops::Range<u64>) {
    store.append_to(stream, ExpectedVersion::Any, numbers.map(event)).await.unwrap();
}
