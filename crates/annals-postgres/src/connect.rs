//! Opens a store: connects, checks the server, migrates the schema.

use std::{sync::Arc, time::Duration};

use annals_core::{Capabilities, Error, ErrorKind, Result};
use sqlx::{
    ConnectOptions, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    PostgresStore,
    config::{PostgresConfig, PostgresOptions},
    connections::Connections,
    database::Database,
    error::{context, driver},
    migrate, session,
    store::CAPABILITIES,
    writer::Writers,
};

impl PostgresStore {
    /// The version of the schema that this build reads and writes. The version of the schema in a
    /// database is the greatest in the table `migrations` of that schema.
    pub const SCHEMA_VERSION: i32 = migrate::CURRENT;

    /// What every store of this crate can do.
    #[must_use]
    pub fn declared() -> &'static Capabilities {
        &CAPABILITIES
    }

    /// Opens a store with connections of its own. Creates its schema if it is missing, and migrates
    /// an older one. Safe when several processes do so at once.
    ///
    /// # Errors
    /// * [`ErrorKind::InvalidInput`] for options that cannot work.
    /// * [`ErrorKind::Denied`] for wrong credentials, and if the role may not create what is
    ///   missing.
    /// * [`ErrorKind::Incompatible`] if the server is a standby, if the database does not exist, if
    ///   the schema holds tables of another program, if its sequence of positions is behind its
    ///   events, and if a newer annals created the schema, which is then left as it is.
    /// * [`ErrorKind::Unavailable`] if the server cannot be reached.
    pub async fn open(config: PostgresConfig) -> Result<Self> {
        // If other crates of the program bring a second TLS provider and none is chosen, sqlx
        // panics. A provider that the program has chosen stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        config.check().map_err(context("open"))?;
        // Connect once outside the pool: the pool would keep trying an unreachable server until its
        // timeout.
        let probe = connect(&config.connect, config.acquire_timeout).await;
        let probe = probe.map_err(context("open"))?;
        let pool = PgPoolOptions::new()
            .max_connections(config.connections)
            .acquire_timeout(config.acquire_timeout)
            .after_connect(|connection, _| Box::pin(session::set_up(connection)))
            .connect_lazy_with(config.connect);
        let most_idle = usize::try_from(config.connections).unwrap_or(usize::MAX);
        Self::open_on(pool, probe, most_idle, config.options).await.map_err(context("open"))
    }

    /// Opens a store on a pool of the application. The store keeps at most half of the pool's
    /// connections to itself, or two of three. Subscriptions end when the pool is closed.
    ///
    /// # Errors
    /// As for [`open`](Self::open); [`ErrorKind::InvalidInput`] also for a pool of fewer
    /// connections than [`PostgresConfig::MIN_CONNECTIONS`].
    pub async fn with_pool(pool: PgPool, options: PostgresOptions) -> Result<Self> {
        let check = || {
            options.check()?;
            let (most, least) =
                (pool.options().get_max_connections(), PostgresConfig::MIN_CONNECTIONS);
            if most < least {
                let message = format!(
                    "the pool has at most {most} connections; a store needs {least}: one listens, \
                     one writes, and one reads"
                );
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            Ok(usize::try_from(most / 2).unwrap_or(usize::MAX))
        };
        let most_idle = check().map_err(context("open"))?;
        let timeout = pool.options().get_acquire_timeout();
        let probe = connect(&pool.connect_options(), timeout).await.map_err(context("open"))?;
        Self::open_on(pool, probe, most_idle, options).await.map_err(context("open"))
    }

    /// Opens a store on a pool. `probe` is another connection to the same server.
    async fn open_on(
        pool: PgPool,
        probe: PgConnection,
        most_idle: usize,
        options: PostgresOptions,
    ) -> Result<Self> {
        let most = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
        // Reserve one connection for LISTEN and one for readers, so that writers cannot use up the
        // pool.
        let writers = options.writers.min(most.saturating_sub(2).max(1));
        // The connection that listens is never idle.
        let most_idle = most_idle.saturating_sub(1).max(1);
        let connections = Connections::new(pool, most_idle, options.request_timeout);
        let mut connection = connections.pool.acquire().await.map_err(driver)?;
        // If the future is dropped while a transaction begins, the transaction stays open
        // (sqlx 0.9.0), so this connection must not go back to the pool.
        connection.close_on_drop();
        session::check_pooler(&mut connection, probe).await?;
        session::check_server(&mut connection).await?;
        migrate::run(&mut connection, &options.schema, options.migrate).await?;
        drop(connection);
        let database = Arc::new(Database::new(connections, &options).await?);
        let writers = Writers::new(database.clone(), writers);
        Ok(Self { database, writers, options: Arc::new(options) })
    }

    /// The options with which the store was opened.
    #[must_use]
    pub fn options(&self) -> &PostgresOptions {
        &self.options
    }

    /// The pool whose connections the store uses. The store may keep all connections of a pool that
    /// it made itself, so an application that needs some too opens the store
    /// [on a pool of its own](Self::with_pool).
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.database.connections.pool
    }
}

async fn connect(options: &PgConnectOptions, timeout: Duration) -> Result<PgConnection> {
    let connected = tokio::time::timeout(timeout, options.connect()).await.map_err(|e| {
        Error::new(ErrorKind::Unavailable, "the server does not answer").with_source(e)
    })?;
    connected.map_err(driver)
}
