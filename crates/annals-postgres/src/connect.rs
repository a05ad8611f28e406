//! Opens a store: connects, checks the server, migrates the schema.

use std::{sync::Arc, time::Duration};

use annals_core::{Capabilities, Error, ErrorKind, Result};
use sqlx::{
    ConnectOptions, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    PostgresStore,
    capabilities::{CAPABILITIES, NOT_DURABLE},
    config::{PostgresConfig, PostgresOptions},
    connections::Connections,
    database::Database,
    error::{context, driver},
    imitation, migrate,
    notify::Listening,
    session::{self, Pooling},
    writer::Writers,
};

/// The name of the store's sessions in `pg_stat_activity`, unless the application sets one.
const APPLICATION: &str = "annals";

impl PostgresStore {
    /// The version of the schema that this build reads and writes. The version of the schema in a
    /// database is the greatest in the table `migrations` of that schema.
    pub const SCHEMA_VERSION: i32 = migrate::CURRENT;

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
        // If other crates of the program bring a second TLS provider and none is chosen, sqlx
        // panics. A provider that the program has chosen stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        config.check().map_err(context("open"))?;
        let PostgresConfig { connect: to, options, connections, listen, acquire_timeout } = config;
        // Some poolers refuse this parameter, which concerns types that no store has.
        let mut to = to.extra_float_digits(None);
        if to.get_application_name().is_none() {
            to = to.application_name(APPLICATION);
        }
        let opening = async {
            // Connect outside the pool first: the pool would keep trying an unreachable server until
            // its timeout.
            let connection = connect(&to, acquire_timeout).await?;
            let (mut probes, pooling) = probe(connection, &to, acquire_timeout, &options).await?;
            let settings = session::settings(options.request_timeout);
            let sets_up = matches!(pooling, Pooling::Sessions);
            if sets_up {
                session::set_up(&mut probes[0], &settings).await.map_err(driver)?;
            }
            let listening = match listen {
                Some(listen) => {
                    let listen = listen.extra_float_digits(None);
                    check_listen(&listen, acquire_timeout).await?;
                    Listening::Own(Box::new(listen))
                }
                None if sets_up => Listening::Own(Box::new(to.clone())),
                None => {
                    let every = options.poll_interval;
                    tracing::info!(
                        ?every,
                        "a connection pooler pools transactions: the store polls"
                    );
                    Listening::Never
                }
            };
            let in_pool = connections - u32::from(!matches!(listening, Listening::Never));
            let pool = PgPoolOptions::new()
                .max_connections(in_pool)
                .acquire_timeout(acquire_timeout)
                .after_connect(move |connection, _| {
                    let settings = settings.clone();
                    Box::pin(async move {
                        match sets_up {
                            true => session::set_up(connection, &settings).await,
                            false => Ok(()),
                        }
                    })
                })
                .connect_lazy_with(to);
            let most_idle = usize::try_from(in_pool).unwrap_or(usize::MAX);
            Self::open_on(pool, pooling, probes, most_idle, listening, options).await
        };
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
            let (probes, pooling) = probe(connection, &to, timeout, &options).await?;
            let (listening, most_idle) = match pooling {
                // The connection that listens is never idle.
                Pooling::Sessions => (Listening::Shared(pool.clone()), most_idle.saturating_sub(1)),
                Pooling::Transactions { .. } => (Listening::Never, most_idle),
            };
            Self::open_on(pool, pooling, probes, most_idle.max(1), listening, options).await
        };
        opening.await.map_err(context("open"))
    }

    /// Opens a store on a pool. The probes are other connections to the same server, set up like those
    /// of the pool.
    async fn open_on(
        pool: PgPool,
        pooling: Pooling,
        probes: [PgConnection; 2],
        most_idle: usize,
        listening: Listening,
        options: PostgresOptions,
    ) -> Result<Self> {
        let most = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
        // Reserve a connection for readers, so that writers cannot use up the pool, and one that
        // listens if it is one of the pool.
        let reserved = if matches!(listening, Listening::Shared(_)) { 2 } else { 1 };
        let writers = options.writers.min(most.saturating_sub(reserved).max(1));
        let [mut connection, mut other] = probes;
        let server = session::check_server(&mut connection, &pooling).await?;
        imitation::check_name(&server.version)?;
        migrate::run(&mut connection, &options.schema, options.migrate).await?;
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

/// Makes another connection, and finds out what lies between the store and the server.
async fn probe(
    mut connection: PgConnection,
    to: &PgConnectOptions,
    timeout: Duration,
    options: &PostgresOptions,
) -> Result<([PgConnection; 2], Pooling)> {
    let before = session::time(&mut connection).await?;
    let mut other = connect(to, timeout).await?;
    let transactions = session::pools_transactions(&mut connection, &mut other, &before).await?;
    let pooling = if transactions {
        Pooling::of_transactions(options.request_timeout)
    } else {
        Pooling::Sessions
    };
    Ok(([connection, other], pooling))
}

/// Refuses a way to listen on which notifications are lost.
async fn check_listen(listen: &PgConnectOptions, timeout: Duration) -> Result<()> {
    let mut one = connect(listen, timeout).await?;
    let before = session::time(&mut one).await?;
    let mut other = connect(listen, timeout).await?;
    let transactions = session::pools_transactions(&mut one, &mut other, &before).await?;
    [one, other].into_iter().for_each(session::close);
    if !transactions {
        return Ok(());
    }
    let message = "`listen_url` leads to a connection pooler that pools transactions, where \
                   notifications are lost; give the address of the server itself";
    Err(Error::new(ErrorKind::Incompatible, message))
}

async fn connect(options: &PgConnectOptions, timeout: Duration) -> Result<PgConnection> {
    let connected = tokio::time::timeout(timeout, options.connect()).await.map_err(|e| {
        Error::new(ErrorKind::Unavailable, "the server does not answer").with_source(e)
    })?;
    connected.map_err(driver)
}
