//! The server: its services, the health check, and how it stops.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use annals_core::{Store, StreamId};
use axum::{http::StatusCode, routing::get};
use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{oneshot, watch},
};
use tonic::{
    service::{Routes, interceptor::InterceptedService},
    transport::{Identity, Server, ServerTlsConfig, server::Connected},
};

use crate::{
    append::Limits,
    call_layer::CallLayer,
    cluster::Cluster,
    open_calls::OpenCalls,
    options::{GatewayOptions, Security},
    persistent::PersistentService,
    projections::Projections,
    proto::{
        gossip::gossip_server::GossipServer,
        persistent::persistent_subscriptions_server::PersistentSubscriptionsServer,
        projections::projections_server::ProjectionsServer,
        server_features::server_features_server::ServerFeaturesServer,
        streams::streams_server::StreamsServer,
    },
    request_memory::RequestMemory,
    socket::accept,
    streams::StreamsService,
    tombstones::Tombstones,
};

/// The time after which the server pings an idle connection, and the time that the client then has
/// to answer before the server closes the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long open calls have to end after the server was told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// The server accepts messages of at least this many bytes, even if an append may have only a few.
/// So a message over the limit of appends gets the error for that, and the call goes on.
const MIN_MESSAGE_LIMIT: usize = 16 * 1024 * 1024;
/// What a message may have besides its events, in bytes.
const MESSAGE_OVERHEAD: usize = 64 * 1024;

/// A store behind the protocol of EventStoreDB.
#[derive(Debug)]
pub struct Gateway {
    store: Arc<dyn Store>,
    options: GatewayOptions,
}

impl Gateway {
    /// Puts the protocol in front of a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, options: GatewayOptions) -> Self {
        Self { store, options }
    }

    /// Serves clients until `shutdown` completes, then stops: the gateway ends subscriptions at
    /// once, and waits up to 10 seconds for other calls.
    ///
    /// # Errors
    /// If the certificates or the key cannot be used, or the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        security: Security,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let address = listener.local_addr()?;
        let options = &self.options;
        let connections = accept(listener, options.max_connections, options.max_silence);
        self.serve_incoming(connections, address, security, shutdown).await
    }

    /// Serves connections that were made in another way than over TCP, for tests. Clients are told
    /// that the server is at `address`.
    ///
    /// # Errors
    /// If a connection fails before it is accepted.
    #[doc(hidden)]
    pub async fn serve_connections<C>(
        self,
        connections: impl Stream<Item = io::Result<C>> + Send,
        address: SocketAddr,
    ) -> io::Result<()>
    where
        C: Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C::ConnectInfo: Clone + Send + Sync + 'static,
    {
        self.serve_incoming(connections, address, Security::Insecure, std::future::pending()).await
    }

    async fn serve_incoming<C>(
        self,
        connections: impl Stream<Item = io::Result<C>> + Send,
        address: SocketAddr,
        security: Security,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()>
    where
        C: Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C::ConnectInfo: Clone + Send + Sync + 'static,
    {
        let Self { store, options } = self;
        let (stop, stopping) = watch::channel(false);
        let routes = routes(store, &options, address, OpenCalls::new(options.max_open, stopping));
        let mut server = Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .max_concurrent_streams(options.max_calls_per_connection)
            .layer(CallLayer {
                timeout: options.timeout,
                memory: RequestMemory::new(options.max_request_memory),
            });
        if let Security::Tls { certificates, key } = security {
            // A build with two crypto providers for rustls has no default one, so choose one.
            let installed = rustls::crypto::ring::default_provider().install_default();
            tracing::debug!(ring = installed.is_ok(), "the default crypto provider");
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificates, key));
            server = server.tls_config(tls).map_err(io::Error::other)?;
        }
        tracing::info!(%address, "the gateway is listening");
        let (stop_requested, stopping) = oneshot::channel();
        let serving = server.add_routes(routes).serve_with_incoming_shutdown(connections, async {
            shutdown.await;
            tracing::info!("the gateway is stopping");
            stop.send_replace(true);
            // The receiver is dropped if the server has ended on its own.
            let _ = stop_requested.send(());
        });
        let grace = async {
            // If the server ends before shutdown was requested, `stopping` never resolves, and the
            // grace period never starts.
            let _ = stopping.await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = serving => served.map_err(io::Error::other),
            () = grace => {
                tracing::warn!("the gateway cut off calls that did not end in time");
                Ok(())
            }
        }
    }
}

fn routes(
    store: Arc<dyn Store>,
    options: &GatewayOptions,
    address: SocketAddr,
    open_calls: OpenCalls,
) -> Routes {
    let max_append_bytes = options.max_append_bytes.min(store.capabilities().max_append_bytes);
    let cluster = match &options.advertise {
        Some((host, port)) => Cluster::new(host, *port),
        None => Cluster::at(address),
    };
    let tombstones = Tombstones::new(store.clone());
    let groups = PersistentService::new(store.clone(), tombstones.clone(), open_calls.clone());
    let groups = PersistentSubscriptionsServer::new(groups);
    let max_message = (max_append_bytes + MESSAGE_OVERHEAD).max(MIN_MESSAGE_LIMIT);
    let memory = store.capabilities().max_append_bytes.min(max_message);
    let limits = Limits { data: max_append_bytes, memory };
    let streams = StreamsService::new(store.clone(), tombstones, limits, open_calls);
    let streams = StreamsServer::new(streams).max_decoding_message_size(max_message);
    let projections = ProjectionsServer::new(Projections);
    let mut routes = Routes::builder();
    routes
        .add_service(InterceptedService::new(streams, options.auth.clone()))
        .add_service(InterceptedService::new(groups, options.auth.clone()))
        .add_service(InterceptedService::new(projections, options.auth.clone()))
        // Clients call these two before they send the user and the password.
        .add_service(ServerFeaturesServer::new(cluster.clone()))
        .add_service(GossipServer::new(cluster));
    let health = get(move || health(store.clone()));
    // Tonic answers all paths with 200, as gRPC does. A probe would take that for health.
    let not_found = async || StatusCode::NOT_FOUND;
    let router = routes.routes().into_axum_router().route("/health/live", health);
    router.fallback(not_found).into()
}

/// Answers 204 if the store answers.
async fn health(store: Arc<dyn Store>) -> StatusCode {
    let info = async { store.stream_info(&StreamId::new("esdb:health")?).await };
    match info.await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(error) => {
            tracing::warn!(%error, "the store does not answer");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
