//! The server, or cluster, of one store: how to reach it, and what the store's streams are called
//! there. All files that send requests share it.

use std::{fmt, sync::Arc};

use annals_core::{Capabilities, Recognition, Removal, Result};
use kurrentdb::{
    AppendToStreamOptions, Client, Credentials, EventData, ReadStreamOptions,
    StreamState as ExpectedState, WriteResult,
};

use crate::{
    config::EventStoreDbOptions, connection::Connection, doorbell::Doorbells, error::Failure,
    names::Names,
};

/// The name of this backend.
pub(crate) const BACKEND: &str = "eventstoredb";

/// What every store of this crate can do.
pub(crate) static CAPABILITIES: Capabilities = {
    let mut capabilities = Capabilities::new(BACKEND);
    capabilities.durable = true;
    capabilities.multi_stream_append = false;
    capabilities.retry_recognition = Recognition::BestEffort;
    capabilities.tells_retries = false;
    capabilities.removal = Removal::AfterCleanUp;
    // By default the server accepts 1 MiB for a whole append, in which it counts event types too.
    capabilities.max_event_bytes = 1_000_000;
    capabilities.max_append_bytes = 1_000_000;
    capabilities
};

/// Lives until the last handle of the store, read and subscription is dropped.
pub(crate) struct Server {
    pub(crate) connection: Connection,
    pub(crate) doorbells: Arc<Doorbells>,
    pub(crate) names: Names,
    pub(crate) options: EventStoreDbOptions,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("connection", &self.connection)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Server {
    pub(crate) fn new(
        client: Client,
        credentials: Option<Credentials>,
        options: EventStoreDbOptions,
    ) -> Self {
        let doorbells = Arc::new(Doorbells::new(client.settings(), credentials.as_ref()));
        let EventStoreDbOptions { deadline, retry_for, .. } = options;
        let connection = Connection::new(client, credentials, deadline, retry_for);
        let names = Names::new(options.namespace.as_deref());
        Self { connection, doorbells, names, options }
    }

    /// Fails if the server does not answer, or refuses the store's credentials.
    pub(crate) async fn check_access(&self) -> Result<()> {
        let options = ReadStreamOptions::default().max_count(1);
        let options = self.connection.authenticated_with_deadline(options);
        // The stream need not exist.
        let name = format!("{}annals.open", self.names.prefix());
        let read = self
            .connection
            .send(|client| async move { client.read_stream(name, &options).await?.next().await });
        match read.await {
            Err(failure) if !failure.is_not_found() && !failure.is_deleted() => {
                Err(failure.into_error())
            }
            _ => Ok(()),
        }
    }

    /// The server's version, if the server tells it.
    pub(crate) async fn version(&self) -> Result<Option<String>> {
        let asked = self.connection.send(|client| async move { client.server_info().await });
        let info = asked.await.map_err(Failure::into_error)?;
        let version = info.version();
        let (major, minor, patch) = (version.major(), version.minor(), version.patch());
        Ok((major > 0).then(|| format!("{major}.{minor}.{patch}")))
    }

    /// Sends one append to a stream, named as on the server, without retries.
    pub(crate) async fn append(
        &self,
        name: &str,
        expected: ExpectedState,
        events: Vec<EventData>,
    ) -> Result<WriteResult, Failure> {
        let options = AppendToStreamOptions::default().stream_state(expected);
        let options = self.connection.authenticated_with_deadline(options);
        let name = name.to_owned();
        self.connection
            .send(|client| async move { client.append_to_stream(name, &options, events).await })
            .await
    }
}
