//! The options of a store.

use std::{fmt, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use sqlx::postgres::PgConnectOptions;

/// What a store is like, whoever makes its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// The schema in which the tables are, so that several stores, and the application, share one
    /// database: `annals` unless set. A small letter or `_`, then up to 62 more, or digits.
    pub schema: String,
    /// The most appends under way at the same time, 1 to 64: 4 unless set. Each takes all that wait
    /// when it begins, so that more are not faster.
    pub writers: usize,
    /// How often subscribers look by themselves, in case a notification was lost: every second
    /// unless set.
    pub poll_interval: Duration,
    /// How long to wait for the answer to one request, so that a network that swallows it holds
    /// nobody up for ever: 60 seconds unless set. After it the connection is closed, and the call
    /// fails with [`ErrorKind::Unavailable`]; an append may have been written. Set
    /// `statement_timeout` on the server to less.
    pub request_timeout: Duration,
    /// Whether a schema that is missing, or older than this build, is created or migrated: yes,
    /// unless set. Otherwise it is refused, and no privilege to create anything is needed; nor is
    /// it where the schema is up to date.
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

    /// Sets the schema in which the tables are.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Sets the most appends under way at the same time.
    #[must_use]
    pub fn with_writers(mut self, writers: usize) -> Self {
        self.writers = writers;
        self
    }

    /// Sets how often subscribers look by themselves.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how long to wait for the answer to one request.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets whether the schema is created or migrated.
    #[must_use]
    pub fn with_migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Refuses what could not work.
    pub(crate) fn check(&self) -> Result<()> {
        check_schema(&self.schema)?;
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

/// The schema becomes part of SQL text, so nothing but a plain name passes.
fn check_schema(schema: &str) -> Result<()> {
    /// What PostgreSQL keeps of a name.
    const MAX: usize = 63;
    let plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    let named = schema.starts_with(|c: char| c == '_' || c.is_ascii_lowercase())
        && schema.chars().all(plain)
        && schema.len() <= MAX;
    if named && !schema.starts_with("pg_") && schema != "information_schema" {
        return Ok(());
    }
    let message = format!(
        "`schema` is {schema:?}; use a small letter or `_`, then at most {} small letters, digits \
         and `_`, and nothing that begins with `pg_`",
        MAX - 1
    );
    Err(Error::new(ErrorKind::InvalidInput, message))
}

/// How a store is opened with connections of its own.
#[derive(Clone)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// Server, database, credentials, TLS.
    pub connect: PgConnectOptions,
    /// What the store is like.
    pub options: PostgresOptions,
    /// The most connections, 3 to 1,000: 10 unless set. One of them listens, the others read and
    /// write.
    pub connections: u32,
    /// How long to wait for a connection, be it made or become free: 10 seconds unless set. After
    /// it the call fails with [`ErrorKind::Busy`], and nothing was written.
    pub acquire_timeout: Duration,
}

impl PostgresConfig {
    /// The least number of connections: one listens, and one more must be left beside a writer.
    pub const MIN_CONNECTIONS: u32 = 3;
    /// The greatest number of connections.
    pub const MAX_CONNECTIONS: u32 = 1_000;

    /// A store behind these connections.
    #[must_use]
    pub fn new(connect: PgConnectOptions) -> Self {
        let (options, acquire_timeout) = (PostgresOptions::default(), Duration::from_secs(10));
        Self { connect, options, connections: 10, acquire_timeout }
    }

    /// Reads a URL: `postgres://user:password@host:port/database`, with any of the parameters
    ///
    /// * of the store: `schema`, `writers`, `migrate` (`true` or `false`), `connections`, and, in
    ///   milliseconds, `poll_interval`, `request_timeout`, `acquire_timeout`;
    /// * of libpq: `sslmode` (`disable`, `prefer`, `require`, `verify-ca`, `verify-full`),
    ///   `sslrootcert`, `sslcert`, `sslkey`, `host` (a directory for a Unix socket), `hostaddr`,
    ///   `port`, `dbname`, `user`, `password`, `application_name`, `options`.
    ///
    /// What the URL leaves open is taken from `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`,
    /// `PGDATABASE`, `PGSSLMODE` and the like, and the password from `~/.pgpass`, as libpq does.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the part that is wrong, and what it could be; never with
    /// the password.
    pub fn from_url(url: &str) -> Result<Self> {
        crate::url::parse(url)
    }

    /// Sets what the store is like.
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

    /// Sets how long to wait for a connection.
    #[must_use]
    pub fn with_acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Refuses what could not work.
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

/// Without the password, which the options of sqlx would show.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("host", &self.connect.get_host())
            .field("port", &self.connect.get_port())
            .field("database", &self.connect.get_database())
            .field("user", &self.connect.get_username())
            .field("options", &self.options)
            .field("connections", &self.connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .finish_non_exhaustive()
    }
}
