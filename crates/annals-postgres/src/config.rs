//! The options of a store.

use std::{fmt, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use annals_postgres_shared::sql::check_schema;
use sqlx::postgres::PgConnectOptions;

/// The options of a store, apart from its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// The schema that holds the store's tables; `annals` unless set. Several stores and the
    /// application can share a database under different schemas. A lower-case letter or `_`, then
    /// at most 62 lower-case letters, digits and `_`.
    pub schema: String,
    /// The most transactions of appends at the same time, 1 to 64; 4 unless set. Each takes all
    /// appends that wait when it begins, so that more writers are not faster.
    pub writers: usize,
    /// How often subscribers look for new events without being notified, since a notification may
    /// be lost; every second unless set. Behind a connection pooler that pools transactions nobody
    /// is notified of the commits of other processes, unless [`PostgresConfig::listen`] leads past
    /// the pooler: then this is how late their events come at most.
    pub poll_interval: Duration,
    /// How long to wait for the server's answer to one request; 60 seconds unless set. After that
    /// time the connection is closed and the call fails with [`ErrorKind::Unavailable`]; an append
    /// may have been written all the same. On its own connections the store sets `statement_timeout`
    /// to nine tenths of this time, unless it is set to less: a statement that takes as long, as one
    /// that waits for a lock, fails with [`ErrorKind::Busy`], and nothing was written. A pool of the
    /// application should set `statement_timeout` on its connections too.
    pub request_timeout: Duration,
    /// Whether to create a missing schema and to migrate an older one; `true` unless set. If
    /// `false`, such a schema is refused. Only creating and migrating need the privilege to create
    /// tables.
    pub migrate: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            schema: "annals".to_owned(),
            writers: 4,
            poll_interval: Duration::from_secs(1),
            request_timeout: Duration::from_secs(60),
            migrate: true,
        }
    }
}

impl PostgresOptions {
    /// The greatest number of writers.
    pub const MAX_WRITERS: usize = 64;

    /// Sets the schema that holds the store's tables.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Sets the most transactions of appends at the same time.
    #[must_use]
    pub fn with_writers(mut self, writers: usize) -> Self {
        self.writers = writers;
        self
    }

    /// Sets how often subscribers look for new events without being notified.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how long to wait for the server's answer to one request.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets whether to create a missing schema and to migrate an older one.
    #[must_use]
    pub fn with_migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Refuses values that cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        check_schema("schema", &self.schema)?;
        if !(1..=Self::MAX_WRITERS).contains(&self.writers) {
            let most = Self::MAX_WRITERS;
            let message = format!("`writers` is {}; use a number from 1 to {most}", self.writers);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let times =
            [("poll_interval", self.poll_interval), ("request_timeout", self.request_timeout)];
        if let Some((name, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            let message = format!("`{name}` is 0; use 1 millisecond or more");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(())
    }
}

/// The options of a store that makes its own connections.
#[derive(Clone)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// The server, the database, the credentials, TLS.
    pub connect: PgConnectOptions,
    /// The other options of the store.
    pub options: PostgresOptions,
    /// The most connections, 3 to 1,000; 10 unless set. One of them listens for notifications, the
    /// others read and write.
    pub connections: u32,
    /// Where to listen for notifications, if not at the same address: a connection to the same
    /// database past a connection pooler that pools transactions.
    pub listen: Option<PgConnectOptions>,
    /// How long to wait until a connection is made or becomes free; 10 seconds unless set. After
    /// that time the call fails with [`ErrorKind::Busy`], and nothing was written.
    pub acquire_timeout: Duration,
}

impl PostgresConfig {
    /// The least number of connections: one listens, one writes, one reads.
    pub const MIN_CONNECTIONS: u32 = 3;
    /// The greatest number of connections.
    pub const MAX_CONNECTIONS: u32 = 1_000;

    /// A store whose connections are made with these options of sqlx.
    #[must_use]
    pub fn new(connect: PgConnectOptions) -> Self {
        let (options, acquire_timeout) = (PostgresOptions::default(), Duration::from_secs(10));
        Self { connect, options, connections: 10, listen: None, acquire_timeout }
    }

    /// Sets the other options of the store.
    #[must_use]
    pub fn with_options(mut self, options: PostgresOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the most connections.
    #[must_use]
    pub fn with_connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Sets where to listen for notifications.
    #[must_use]
    pub fn with_listen(mut self, listen: PgConnectOptions) -> Self {
        self.listen = Some(listen);
        self
    }

    /// Sets how long to wait for a connection.
    #[must_use]
    pub fn with_acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Refuses values that cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let (least, most) = (Self::MIN_CONNECTIONS, Self::MAX_CONNECTIONS);
        if !(least..=most).contains(&self.connections) {
            let message = format!(
                "`connections` is {}; use a number from {least} to {most}",
                self.connections
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        self.options.check()
    }
}

/// Shows no password, as the `Debug` output of `PgConnectOptions` would.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("host", &self.connect.get_host())
            .field("port", &self.connect.get_port())
            .field("database", &self.connect.get_database())
            .field("options", &self.options)
            .field("connections", &self.connections)
            .field("listen", &self.listen.as_ref().map(|listen| listen.get_host()))
            .field("acquire_timeout", &self.acquire_timeout)
            .finish_non_exhaustive()
    }
}
