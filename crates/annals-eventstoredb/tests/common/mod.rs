//! A gateway in this process behind a proxy, and a store that loses the answer to an append.

mod like;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, EventStore, EventStream, ExpectedVersion,
    LeaseName, LeaseRecord, LeaseStore, Position, ReadAll, ReadStream, RecordedEvent, Result,
    Snapshot, SnapshotStore, Store, StreamId, StreamInfo, Subscribe, SubscriberId, Subscription,
    TransferStore, Version,
};
use annals_gateway::{Gateway, GatewayOptions, Security};
use annals_test_servers::{BoxError, Proxy};
use tokio::{net::TcpListener, task::JoinHandle};

#[allow(unused_imports, reason = "not every test program uses all")]
pub(crate) use self::like::LikeServer;

/// A gateway, which clients reach through a proxy.
pub(crate) struct GatewayServer {
    addr: SocketAddr,
    options: GatewayOptions,
    serving: JoinHandle<std::io::Result<()>>,
    proxy: Arc<Proxy>,
}

impl GatewayServer {
    pub(crate) async fn start(store: Arc<dyn Store>) -> Result<Self, BoxError> {
        Self::start_with(store, GatewayOptions::default()).await
    }

    pub(crate) async fn start_with(
        store: Arc<dyn Store>,
        options: GatewayOptions,
    ) -> Result<Self, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let proxy = Arc::new(Proxy::start(addr).await?);
        let options = options.with_advertise(proxy.addr().ip().to_string(), proxy.addr().port());
        let serving = serve(store, listener, options.clone());
        Ok(Self { addr, options, serving, proxy })
    }

    pub(crate) fn url(&self) -> String {
        format!("esdb://{}?tls=false", self.proxy.addr())
    }

    pub(crate) fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// Stops the server without telling its clients.
    pub(crate) async fn kill(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
        // Also close the connections that clients had.
        self.proxy.cut().await;
    }

    /// Starts a server at the address of the one that was killed.
    pub(crate) async fn revive(&mut self, store: Arc<dyn Store>) -> Result<(), BoxError> {
        let listener = TcpListener::bind(self.addr).await?;
        self.serving = serve(store, listener, self.options.clone());
        Ok(())
    }
}

fn serve(
    store: Arc<dyn Store>,
    listener: TcpListener,
    options: GatewayOptions,
) -> JoinHandle<std::io::Result<()>> {
    let gateway = Gateway::new(store, options);
    tokio::spawn(gateway.serve(listener, Security::Insecure, std::future::pending()))
}

/// A store that, when told to, writes an append and then cuts the connections of a proxy, so that
/// the client does not get the answer.
#[derive(Debug)]
pub(crate) struct Lossy {
    store: Arc<dyn Store>,
    cut_after_append: Mutex<Option<Cut>>,
}

/// The proxy whose connections are to be cut.
struct Cut(Arc<Proxy>);

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cut")
    }
}

impl Lossy {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, cut_after_append: Mutex::default() })
    }

    pub(crate) fn lose_next_answer(&self, proxy: &Arc<Proxy>) {
        *self.cut_after_append.lock().unwrap() = Some(Cut(proxy.clone()));
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl EventStore for Lossy {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let appended = self.store.append(append).await?;
        let cut = self.cut_after_append.lock().unwrap().take();
        if let Some(Cut(proxy)) = cut {
            proxy.cut().await;
        }
        Ok(appended)
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.store.append_multi(appends).await
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        self.store.read_stream(stream, options)
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        self.store.read_all(options)
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        self.store.subscribe(options).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        self.store.stream_info(stream).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        self.store.truncate(stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.store.delete(stream, expected).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        self.store.tombstone(stream, expected).await
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl SnapshotStore for Lossy {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        self.store.load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<()> {
        self.store.save_snapshot(stream, snapshot).await
    }

    async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.store.delete_snapshot(stream).await
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl CheckpointStore for Lossy {
    async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.store.load_checkpoint(subscriber).await
    }

    async fn save_checkpoint(&self, subscriber: &SubscriberId, at: Position) -> Result<Position> {
        self.store.save_checkpoint(subscriber, at).await
    }

    async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        expected: Option<Position>,
        at: Position,
    ) -> Result<bool> {
        self.store.swap_checkpoint(subscriber, expected, at).await
    }

    async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        at: Option<Position>,
    ) -> Result<()> {
        self.store.reset_checkpoint(subscriber, at).await
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl LeaseStore for Lossy {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.store.load_lease(name).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        self.store.swap_lease(name, record).await
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl TransferStore for Lossy {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        self.store.list_streams(after, limit).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        self.store.import(events).await
    }
}
