//! Wakes subscribers: directly after a commit of this process, by `LISTEN` and `NOTIFY` after a
//! commit of another one.
//!
//! A `NOTIFY` in the transaction of an append would take a lock of the whole cluster at its commit.
//! So a task sends notifications after the commits, and one notification stands for all commits
//! since the last. A lost notification only delays subscribers until their next poll: a
//! notification carries no events, which subscribers read from the table.

use std::{future::pending, io, pin::pin, sync::Arc, time::Duration};

use annals_core::adapter::Backoff;
use sqlx::{
    AssertSqlSafe, Executor, PgPool, Row,
    postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions},
};
use tokio::{
    sync::{Notify, OnceCell, watch},
    task::{AbortHandle, JoinHandle},
};

use crate::{connections::Connections, sql::query};

/// The shortest time between two notifications: a few hundred of them a second slow down no append.
const SPACING: Duration = Duration::from_millis(3);
/// The first and the longest pause before the listener connects again.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How often the listener asks whether its connection is alive, in poll intervals.
const HEARTBEAT: u32 = 10;

/// Which connection listens.
#[derive(Clone, Debug)]
pub enum Listening {
    /// One of a pool of the application.
    Shared(PgPool),
    /// One of the store's own. It is no part of a pool, since sqlx cannot close a listener's connection
    /// that is dead: it waits for the server first.
    Own(Box<PgConnectOptions>),
    /// None: subscribers poll. A pooler of transactions would hand notifications to anybody.
    Never,
}

/// What wakes the subscribers of a store, apart from the commits of this process.
#[derive(Clone, Debug)]
pub struct Signals {
    /// The channel on which the store's processes tell each other of commits.
    channel: String,
    /// A channel of another program that writes to the same tables. It has no payload.
    others: Option<&'static str>,
    /// A statement whose answer, a `bigint`, changes when there are new events, and how often to ask:
    /// for programs that do not notify.
    look: Option<(Arc<str>, Duration)>,
}

impl Signals {
    /// The notifications of the processes that use a schema.
    pub fn of(schema: &str) -> Self {
        // A channel is known in the whole database. Its name has at most 63 bytes.
        let channel = format!("annals {}", schema.get(..56).unwrap_or(schema));
        Self { channel, others: None, look: None }
    }

    /// Also those of another program, and a statement whose answer shows new events.
    pub fn and_of_others(self, channel: &'static str, look: Arc<str>, every: Duration) -> Self {
        Self { others: Some(channel), look: Some((look, every)), ..self }
    }
}

#[derive(Debug)]
pub struct Notifier {
    /// Counts the commits that this process made or was told of. Some may not have happened.
    commits: watch::Sender<u64>,
    /// Signalled when this process has committed something that other processes do not know of.
    untold: Arc<Notify>,
    signals: Signals,
    /// The payload of this store's notifications, by which it recognises its own.
    sender: String,
    poll_interval: Duration,
    connections: Arc<Connections>,
    listener: Listening,
    notifying: OnceCell<Task>,
    listening: OnceCell<Task>,
}

/// A task that is aborted when this is dropped.
#[derive(Debug)]
struct Task(AbortHandle);

impl From<JoinHandle<()>> for Task {
    fn from(task: JoinHandle<()>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Notifier {
    pub fn new(
        connections: Arc<Connections>,
        listener: Listening,
        signals: Signals,
        poll_interval: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            commits: watch::Sender::new(0),
            untold: Arc::default(),
            signals,
            sender: format!("{:016x}", fastrand::u64(..)),
            poll_interval,
            connections,
            listener,
            notifying: OnceCell::new(),
            listening: OnceCell::new(),
        })
    }

    /// Says that this process has committed something, or may have.
    pub fn committed(self: &Arc<Self>) {
        wake(&self.commits);
        self.untold.notify_one();
        if self.notifying.get().is_none() {
            let notify = notify(
                self.connections.clone(),
                self.untold.clone(),
                self.signals.clone(),
                self.sender.clone(),
            );
            // If another thread was faster, `set` fails, and dropping the task aborts it.
            drop(self.notifying.set(tokio::spawn(notify).into()));
        }
    }

    /// The channel on which a transaction can notify the processes of this store.
    pub fn channel(&self) -> &str {
        &self.signals.channel
    }

    /// A receiver that changes at every commit from now on.
    pub fn subscribe(self: &Arc<Self>) -> watch::Receiver<u64> {
        if self.listening.get().is_none() {
            let listen = Listen {
                pool: self.connections.pool.clone(),
                by: self.listener.clone(),
                commits: self.commits.clone(),
                signals: self.signals.clone(),
                sender: self.sender.clone(),
                poll_interval: self.poll_interval,
            };
            let poll = poll(self.commits.clone(), self.poll_interval);
            let look =
                look(self.connections.clone(), self.signals.look.clone(), self.commits.clone());
            // The listener returns when the pool is closed.
            let either = async {
                tokio::select! {
                    () = listen.run() => {}
                    () = poll => {}
                    () = look => {}
                }
            };
            drop(self.listening.set(tokio::spawn(either).into()));
        }
        self.commits.subscribe()
    }
}

fn wake(commits: &watch::Sender<u64>) {
    commits.send_modify(|count| *count = count.wrapping_add(1));
}

/// Notifies other processes of commits.
async fn notify(
    connections: Arc<Connections>,
    untold: Arc<Notify>,
    Signals { channel, others, .. }: Signals,
    sender: String,
) {
    loop {
        untold.notified().await;
        let statement = || match others {
            None => {
                query(&"SELECT pg_catalog.pg_notify($1, $2)".into()).bind(&channel).bind(&sender)
            }
            Some(others) => {
                query(&"SELECT pg_catalog.pg_notify($1, $2), pg_catalog.pg_notify($3, '')".into())
                    .bind(&channel)
                    .bind(&sender)
                    .bind(others)
            }
        };
        if let Err(error) = connections.rows(statement).await {
            tracing::debug!(%error, "no notification was sent; subscribers have to poll");
        }
        tokio::time::sleep(SPACING).await;
    }
}

/// Wakes subscribers at every poll interval, also while the listener has no connection.
async fn poll(commits: watch::Sender<u64>, poll_interval: Duration) {
    loop {
        tokio::time::sleep(poll_interval).await;
        wake(&commits);
    }
}

/// Wakes subscribers when a statement has another answer than before.
async fn look(
    connections: Arc<Connections>,
    look: Option<(Arc<str>, Duration)>,
    commits: watch::Sender<u64>,
) {
    let Some((text, every)) = look else { return pending().await };
    let mut known = None;
    loop {
        tokio::time::sleep(every).await;
        let row = connections.row(|| query(&text)).await;
        // Without an answer, subscribers have the poll interval.
        let Ok(answer) = row.and_then(|row| row.try_get::<i64, _>(0)) else { continue };
        if known.replace(answer) != Some(answer) {
            wake(&commits);
        }
    }
}

/// Wakes subscribers when other processes notify.
struct Listen {
    /// When this pool is closed, the listener ends.
    pool: PgPool,
    by: Listening,
    commits: watch::Sender<u64>,
    signals: Signals,
    sender: String,
    poll_interval: Duration,
}

impl Listen {
    async fn run(self) {
        let mut closed = pin!(self.pool.close_event());
        let mut pauses = self.backoff();
        loop {
            let listened = async {
                let mut listener = self.connect().await?;
                // Commits before the `LISTEN` were missed.
                wake(&self.commits);
                pauses = self.backoff();
                self.hear(&mut listener).await
            };
            let error = tokio::select! {
                error = listened => error.err(),
                () = &mut closed => None,
            };
            let Some(error) = error.filter(|_| !self.pool.is_closed()) else {
                // Subscribers wake up, find the pool closed, and end.
                return wake(&self.commits);
            };
            tracing::debug!(%error, "the listener has no connection; it will connect again");
            tokio::time::sleep(pauses.next_pause()).await;
            wake(&self.commits);
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(RECONNECT.0, RECONNECT.1.min(self.poll_interval))
    }

    async fn connect(&self) -> sqlx::Result<PgListener> {
        let own;
        let pool = match &self.by {
            Listening::Shared(pool) => pool,
            Listening::Own(options) => {
                own = PgPoolOptions::new()
                    .max_connections(1)
                    .acquire_timeout(self.pool.options().get_acquire_timeout())
                    .max_lifetime(None)
                    .idle_timeout(None)
                    .connect_lazy_with((**options).clone());
                &own
            }
            Listening::Never => std::future::pending().await,
        };
        let mut listener = PgListener::connect_with(pool).await?;
        // Otherwise `try_recv` would connect again by itself, and return only when it succeeded.
        listener.eager_reconnect(false);
        for channel in self.signals.others.into_iter().chain([self.signals.channel.as_str()]) {
            listener.listen(channel).await?;
        }
        Ok(listener)
    }

    /// Hears notifications until the connection is lost. A network that forgets a connection tells
    /// neither end, so the listener asks from time to time.
    async fn hear(&self, listener: &mut PgListener) -> sqlx::Result<()> {
        let heartbeat = self.poll_interval.saturating_mul(HEARTBEAT);
        let is_other = |notification: &PgNotification| notification.payload() != self.sender;
        let lost = |kind| sqlx::Error::Io(io::Error::from(kind));
        loop {
            let Ok(heard) = tokio::time::timeout(heartbeat, listener.try_recv()).await else {
                // To listen once more changes nothing.
                let ask = format!("LISTEN \"{}\"", self.signals.channel);
                let asked = listener.execute(AssertSqlSafe(ask));
                let asked = tokio::time::timeout(heartbeat, asked).await;
                asked.map_err(|_| lost(io::ErrorKind::TimedOut))??;
                continue;
            };
            match heard? {
                Some(notification) if is_other(&notification) => wake(&self.commits),
                Some(_) => {}
                None => return Err(lost(io::ErrorKind::ConnectionReset)),
            }
        }
    }
}
