//! The server: what it listens on, whom it lets in, and how it ends.

use std::{fmt, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use annals_core::{Store, StreamId};
use axum::{http::StatusCode, routing::get};
use futures::TryStreamExt;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    service::{Routes, interceptor::InterceptedService},
    transport::{Identity, Server, ServerTlsConfig},
};

use crate::{
    auth::Auth,
    cluster::Cluster,
    open::Open,
    persistent::PersistentService,
    proto::{
        gossip::gossip_server::GossipServer,
        persistent::persistent_subscriptions_server::PersistentSubscriptionsServer,
        server_features::server_features_server::ServerFeaturesServer,
        streams::streams_server::StreamsServer,
    },
    request::Around,
    socket::Socket,
    streams::StreamsService,
};

/// How often a connection on which nothing happens is asked whether its client is still there, and
/// how long it has for the answer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long calls have to come to an end when the server is told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// The most bytes of a message: more than an append may have, so that it is refused by the right
/// error, and the call goes on.
const MOST_MESSAGE: usize = 16 * 1024 * 1024;
/// What a message may have beside its events.
const AROUND: usize = 64 * 1024;

/// Whether what goes over the wire can be read by others.
#[non_exhaustive]
pub enum Security {
    /// Anybody on the way can read and change it.
    Insecure,
    /// TLS, with a chain of certificates and their key, as PEM.
    Tls {
        /// The certificates, the server's own first.
        certificates: String,
        /// The private key.
        key: String,
    },
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Insecure => "Insecure",
            Self::Tls { .. } => "Tls",
        })
    }
}

/// Who may call, and how much of everything there may be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GatewayOptions {
    auth: Auth,
    /// Where clients that ask for the members of the cluster are sent: a host and a port; the
    /// address of the listener unless set.
    pub advertise: Option<(String, u16)>,
    /// The most bytes of one append: 1 MiB unless set, as EventStoreDB has it, and never more than
    /// the store takes.
    pub max_append_bytes: usize,
    /// How many reads, subscriptions and calls with batches may be open at the same time: 10,000
    /// unless set. What is beyond is refused with `RESOURCE_EXHAUSTED`.
    pub max_open: usize,
    /// How many calls one connection may have open: 1,000 unless set.
    pub max_calls_per_connection: u32,
    /// How long a call may take until it begins to answer: 30 seconds unless set. A read or a
    /// subscription has begun with its first message.
    pub timeout: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            auth: Auth::default(),
            advertise: None,
            max_append_bytes: 1024 * 1024,
            max_open: 10_000,
            max_calls_per_connection: 1_000,
            timeout: Duration::from_secs(30),
        }
    }
}

impl GatewayOptions {
    /// Lets nobody in but this user.
    #[must_use]
    pub fn with_user(mut self, user: &str, password: &str) -> Self {
        self.auth = Auth::new(user, password);
        self
    }

    /// Sets where clients find this server.
    #[must_use]
    pub fn with_advertise(mut self, host: impl Into<String>, port: u16) -> Self {
        self.advertise = Some((host.into(), port));
        self
    }

    /// Sets the most bytes of one append.
    #[must_use]
    pub fn with_max_append_bytes(mut self, bytes: usize) -> Self {
        self.max_append_bytes = bytes;
        self
    }

    /// Sets how many reads and subscriptions may be open.
    #[must_use]
    pub fn with_max_open(mut self, count: usize) -> Self {
        self.max_open = count;
        self
    }

    /// Sets how many calls one connection may have open.
    #[must_use]
    pub fn with_max_calls_per_connection(mut self, count: u32) -> Self {
        self.max_calls_per_connection = count;
        self
    }

    /// Sets how long a call may take until it begins to answer.
    #[must_use]
    pub fn with_timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }
}

/// A store, behind the protocol of EventStoreDB.
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

    /// Serves until the future is ready, then ends: subscriptions at once, other calls when they
    /// are done, at the latest after 10 seconds.
    ///
    /// # Errors
    /// Where the certificates or their key cannot be used, or the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        security: Security,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let Self { store, options } = self;
        let (close, closing) = watch::channel(false);
        let address = listener.local_addr()?;
        let routes = routes(store, &options, address, Open::new(options.max_open, closing));
        let mut server = Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .max_concurrent_streams(options.max_calls_per_connection)
            .layer(Around { timeout: options.timeout });
        if let Security::Tls { certificates, key } = security {
            // A build may have two providers of cryptography, and then none by itself.
            let installed = rustls::crypto::ring::default_provider().install_default();
            tracing::debug!(ours = installed.is_ok(), "the provider of cryptography");
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificates, key));
            server = server.tls_config(tls).map_err(io::Error::other)?;
        }
        tracing::info!(%address, "the gateway listens");
        let (told, stopping) = tokio::sync::oneshot::channel();
        let incoming = TcpListenerStream::new(listener).map_ok(Socket::new);
        let serving = server.add_routes(routes).serve_with_incoming_shutdown(incoming, async {
            shutdown.await;
            tracing::info!("the gateway stops");
            close.send_replace(true);
            // It may have ended by itself.
            let _ = told.send(());
        });
        let grace = async {
            // Where it ends before it is told to, this is not waited for.
            let _ = stopping.await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = serving => served.map_err(io::Error::other),
            () = grace => {
                tracing::warn!("calls that did not end are cut off");
                Ok(())
            }
        }
    }
}

fn routes(
    store: Arc<dyn Store>,
    options: &GatewayOptions,
    address: SocketAddr,
    open: Open,
) -> Routes {
    let max_append_bytes = options.max_append_bytes.min(store.capabilities().max_append_bytes);
    let (host, port) =
        options.advertise.clone().unwrap_or_else(|| (address.ip().to_string(), address.port()));
    let cluster = Cluster::new(host, port);
    let groups = PersistentService::new(store.clone(), open.clone());
    let groups = PersistentSubscriptionsServer::new(groups);
    let streams = StreamsService { store: store.clone(), max_append_bytes, open };
    let most = (max_append_bytes + AROUND).max(MOST_MESSAGE);
    let streams = StreamsServer::new(streams).max_decoding_message_size(most);
    let mut routes = Routes::builder();
    routes
        .add_service(InterceptedService::new(streams, options.auth.clone()))
        .add_service(InterceptedService::new(groups, options.auth.clone()))
        // Clients ask for these before they log in.
        .add_service(ServerFeaturesServer::new(cluster.clone()))
        .add_service(GossipServer::new(cluster));
    let health = get(move || health(store.clone()));
    routes.routes().into_axum_router().route("/health/live", health).into()
}

/// Whether the store answers.
async fn health(store: Arc<dyn Store>) -> StatusCode {
    let asked = async { store.stream_info(&StreamId::new("esdb:health")?).await };
    match asked.await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(error) => {
            tracing::warn!(%error, "the store does not answer");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
