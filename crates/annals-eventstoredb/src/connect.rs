//! Opening a store: by a URL, or with the settings of the official client.

use std::sync::Arc;

use annals_core::{Result, adapter::context};
use kurrentdb::{Client, ClientSettings, Credentials};

use crate::{
    config::{EventStoreDbConfig, EventStoreDbOptions},
    server::{BACKEND, Server},
    settings::Settings,
    store::EventStoreDbStore,
};

impl EventStoreDbStore {
    /// Opens a store. Nothing is created on the server; opening only checks that the server answers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) if the options or the
    /// settings cannot work; [`ErrorKind::Denied`](annals_core::ErrorKind::Denied) if the credentials
    /// are wrong; [`ErrorKind::Unavailable`](annals_core::ErrorKind::Unavailable) if no server can be
    /// reached: the error names the cause, such as a certificate that no trusted authority has issued.
    pub async fn open(config: EventStoreDbConfig) -> Result<Self> {
        let EventStoreDbConfig { settings, credentials, options } = config;
        Self::connect(&settings, credentials.as_ref(), options).await
    }

    /// Opens a store with the settings of the official client, and its credentials if there are any.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn with_settings(
        settings: &ClientSettings,
        options: EventStoreDbOptions,
    ) -> Result<Self> {
        let credentials = settings.default_authenticated_user().clone();
        Self::connect(settings, credentials.as_ref(), options).await
    }

    /// Opens a store with the settings of a client that the application has, and its credentials. The
    /// store has connections of its own.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn with_client(client: Client, options: EventStoreDbOptions) -> Result<Self> {
        Self::with_settings(client.settings(), options).await
    }

    async fn connect(
        settings: &ClientSettings,
        credentials: Option<&Credentials>,
        options: EventStoreDbOptions,
    ) -> Result<Self> {
        let settings = options.check().and_then(|()| Settings::new(settings, credentials));
        let server = Server::new(settings.map_err(context(BACKEND, "open"))?, options);
        server.check_access().await.map_err(context(BACKEND, "open"))?;
        Ok(Self { server: Arc::new(server) })
    }

    /// True if reads and subscriptions of events go to a node that may lag behind the leader, since the
    /// settings prefer one: `nodePreference=follower`, `random` or `readOnlyReplica`. Then an append
    /// that has returned may not be seen yet. Everything else is asked of the leader in any case:
    /// what a stream's version is, leases, checkpoints and snapshots.
    #[must_use]
    pub fn reads_may_lag(&self) -> bool {
        !self.server.connection.reads_from_leader()
    }

    /// The version of the server that the store is connected to, such as `24.10.0`. `None` if the
    /// server does not tell it.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](annals_core::ErrorKind::Unavailable) if no server can be reached.
    pub async fn server_version(&self) -> Result<Option<String>> {
        self.server.version().await.map_err(context(BACKEND, "server_version"))
    }
}
