//! Connects to a server, and makes the pool of a store.

use std::time::Duration;

use annals_core::{Error, ErrorKind, Result};
use sqlx::{
    ConnectOptions, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    error::driver,
    notify::Listening,
    session::{self, Pooling},
};

/// The name of the store's sessions in `pg_stat_activity`, unless the application sets one.
const APPLICATION: &str = "annals";

/// How to reach a server.
#[derive(Clone)]
pub struct Dial {
    pub connect: PgConnectOptions,
    /// The most connections, of which one listens.
    pub connections: u32,
    pub listen: Option<PgConnectOptions>,
    pub acquire_timeout: Duration,
    pub request_timeout: Duration,
    pub poll_interval: Duration,
}

/// A server that was reached.
#[derive(Debug)]
pub struct Dialled {
    pub pool: PgPool,
    pub pooling: Pooling,
    /// Two other connections to the same server, set up like those of the pool.
    pub probes: [PgConnection; 2],
    /// How many connections of the pool the store may keep to itself.
    pub most_idle: usize,
    pub listening: Listening,
}

impl Dial {
    /// Connects, finds out what lies between the store and the server, and makes a pool.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] if `listen` leads to a pooler of transactions;
    /// [`ErrorKind::Unavailable`] if the server cannot be reached.
    pub async fn dial(self) -> Result<Dialled> {
        let Self { connect: to, connections, listen, acquire_timeout, .. } = self;
        let (request_timeout, every) = (self.request_timeout, self.poll_interval);
        // If other crates of the program bring a second TLS provider and none is chosen, sqlx
        // panics. A provider that the program has chosen stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Some poolers refuse this parameter, which concerns types that no store has.
        let mut to = to.extra_float_digits(None);
        if to.get_application_name().is_none() {
            to = to.application_name(APPLICATION);
        }
        // Connect outside the pool first: the pool would keep trying an unreachable server until its
        // timeout.
        let connection = connect(&to, acquire_timeout).await?;
        let (mut probes, pooling) =
            probe(connection, &to, acquire_timeout, request_timeout).await?;
        let settings = session::settings(request_timeout);
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
                tracing::info!(?every, "a connection pooler pools transactions: the store polls");
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
        Ok(Dialled { pool, pooling, probes, most_idle, listening })
    }
}

/// Makes another connection, and finds out what lies between the store and the server.
pub async fn probe(
    mut connection: PgConnection,
    to: &PgConnectOptions,
    timeout: Duration,
    request_timeout: Duration,
) -> Result<([PgConnection; 2], Pooling)> {
    let before = session::time(&mut connection).await?;
    let mut other = connect(to, timeout).await?;
    let transactions = session::pools_transactions(&mut connection, &mut other, &before).await?;
    let pooling =
        if transactions { Pooling::of_transactions(request_timeout) } else { Pooling::Sessions };
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
