//! Opens a store: connects, checks the server, migrates the schema.

use std::sync::Arc;

use annals_core::{Capabilities, Error, ErrorKind, Result};
use annals_postgres_shared::{
    dial::{Dial, Dialled, probe},
    imitation,
    migrate::{self, Migrations},
    session,
};
use sqlx::PgPool;

use crate::{
    PostgresStore,
    capabilities::{CAPABILITIES, NOT_DURABLE},
    config::{PostgresConfig, PostgresOptions},
    connections::Connections,
    database::Database,
    error::{context, driver},
    notify::Listening,
    session::Pooling,
    writer::Writers,
};

/// The scripts of the schema.
const MIGRATIONS: Migrations<'static> =
    Migrations { scripts: &[include_str!("../schema/0001.sql")], words: &[] };

impl PostgresStore {
    /// The version of the schema that this build reads and writes. The version of the schema in a
    /// database is the greatest in the table `migrations` of that schema.
    pub const SCHEMA_VERSION: i32 = MIGRATIONS.current();

    /// What every store of this crate can do. A store declares that it is not
    /// [durable](Capabilities::durable) if its server has `synchronous_commit = off`: then events that
    /// were acknowledged may be lost when the server crashes.
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
    /// * [`ErrorKind::Incompatible`] if the server is a standby or only looks like PostgreSQL, if the
    ///   database does not exist, if the schema holds tables of another program or was renamed, if its
    ///   sequence of positions is behind its events, if a newer annals created the schema, which is
    ///   then left as it is, and if [`PostgresConfig::listen`] leads to a pooler of transactions.
    /// * [`ErrorKind::Unavailable`] if the server cannot be reached.
    pub async fn open(config: PostgresConfig) -> Result<Self> {
        config.check().map_err(context("open"))?;
        let PostgresConfig { connect, options, connections, listen, acquire_timeout } = config;
        let dial = Dial {
            connect,
            connections,
            listen,
            acquire_timeout,
            request_timeout: options.request_timeout,
            poll_interval: options.poll_interval,
        };
        let opening = async { Self::open_on(dial.dial().await?, options).await };
        opening.await.map_err(context("open"))
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
        let opening = async {
            let (to, timeout) = (pool.connect_options(), pool.options().get_acquire_timeout());
            // Leave the pool out of it: this connection is closed in the end.
            let connection = pool.acquire().await.map_err(driver)?.detach();
            let request_timeout = options.request_timeout;
            let (probes, pooling) = probe(connection, &to, timeout, request_timeout).await?;
            let (listening, most_idle) = match pooling {
                // The connection that listens is never idle.
                Pooling::Sessions => (Listening::Shared(pool.clone()), most_idle.saturating_sub(1)),
                Pooling::Transactions { .. } => (Listening::Never, most_idle),
            };
            let most_idle = most_idle.max(1);
            let dialled = Dialled { pool, pooling, probes, most_idle, listening };
            Self::open_on(dialled, options).await
        };
        opening.await.map_err(context("open"))
    }

    /// Opens a store on a pool.
    async fn open_on(dialled: Dialled, options: PostgresOptions) -> Result<Self> {
        let Dialled { pool, pooling, probes, most_idle, listening } = dialled;
        let most = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
        // Reserve a connection for readers, so that writers cannot use up the pool, and one that
        // listens if it is one of the pool.
        let reserved = if matches!(listening, Listening::Shared(_)) { 2 } else { 1 };
        let writers = options.writers.min(most.saturating_sub(reserved).max(1));
        let [mut connection, mut other] = probes;
        let server = session::check_server(&mut connection, &pooling).await?;
        imitation::check_name(&server.version)?;
        migrate::run(&mut connection, &options.schema, MIGRATIONS, options.migrate).await?;
        imitation::check(&mut connection, &mut other, &options.schema).await?;
        [connection, other].into_iter().for_each(session::close);
        let connections = Connections::new(pool, pooling, most_idle, options.request_timeout);
        let database = Arc::new(Database::new(connections, listening, &options).await?);
        let writers = Writers::new(database.clone(), writers);
        let capabilities = if server.is_durable { &CAPABILITIES } else { &NOT_DURABLE };
        Ok(Self { database, writers, options: Arc::new(options), capabilities })
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
