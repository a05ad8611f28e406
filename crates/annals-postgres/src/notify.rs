//! Wakes those who wait for events: at once where this process committed them, by a notification
//! where another did.
//!
//! A `NOTIFY` in the transaction of an append would take a lock of the whole cluster at its commit.
//! So it is sent after the commit, by a task of its own, and one stands for all commits since the
//! last. One that is lost delays a subscriber until it looks by itself; the events come from the
//! table in any case.

use std::{io, sync::Arc, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgListener, PgNotification},
};
use tokio::{
    sync::{Notify, OnceCell, watch},
    task::{AbortHandle, JoinHandle},
};

use crate::connections::Connections;

/// The shortest time between two notifications: a few hundred a second cost an append nothing.
const SPACING: Duration = Duration::from_millis(3);
/// How long to wait before connecting again, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

#[derive(Debug)]
pub(crate) struct Notifier {
    /// How many times something was committed, or may have been.
    commits: watch::Sender<u64>,
    /// Something was committed here that others have not been told of.
    untold: Arc<Notify>,
    channel: String,
    /// Tells this store's own notifications from those of others.
    sender: String,
    poll_interval: Duration,
    connections: Arc<Connections>,
    telling: OnceCell<Task>,
    listening: OnceCell<Task>,
}

/// A task that ends with its owner.
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
    pub(crate) fn new(
        connections: Arc<Connections>,
        schema: &str,
        poll_interval: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            commits: watch::Sender::new(0),
            untold: Arc::default(),
            // A channel is one name for the whole database, of at most 63 bytes.
            channel: format!("annals {}", schema.get(..56).unwrap_or(schema)),
            sender: format!("{:016x}", fastrand::u64(..)),
            poll_interval,
            connections,
            telling: OnceCell::new(),
            listening: OnceCell::new(),
        })
    }

    /// Something was committed here.
    pub(crate) fn committed(self: &Arc<Self>) {
        wake(&self.commits);
        self.untold.notify_one();
        if self.telling.get().is_none() {
            let tell = tell(
                self.connections.clone(),
                self.untold.clone(),
                self.channel.clone(),
                self.sender.clone(),
            );
            // Where another was faster, this one is ended.
            drop(self.telling.set(tokio::spawn(tell).into()));
        }
    }

    /// Is told of every commit from now on.
    pub(crate) fn subscribe(self: &Arc<Self>) -> watch::Receiver<u64> {
        if self.listening.get().is_none() {
            let listen = listen(
                self.connections.pool.clone(),
                self.commits.clone(),
                self.channel.clone(),
                self.sender.clone(),
                self.poll_interval,
            );
            let look = look(self.commits.clone(), self.poll_interval);
            // They end where the pool is closed.
            let either = async {
                tokio::select! {
                    () = listen => {}
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

/// Tells other processes of commits.
async fn tell(connections: Arc<Connections>, untold: Arc<Notify>, channel: String, sender: String) {
    loop {
        untold.notified().await;
        let statement = || sqlx::query("SELECT pg_notify($1, $2)").bind(&channel).bind(&sender);
        if let Err(error) = connections.rows(statement).await {
            tracing::debug!(%error, "no notification was sent; subscribers look by themselves");
        }
        tokio::time::sleep(SPACING).await;
    }
}

/// Looks by itself once in a while, also while no connection can be had to listen.
async fn look(commits: watch::Sender<u64>, poll_interval: Duration) {
    loop {
        tokio::time::sleep(poll_interval).await;
        wake(&commits);
    }
}

/// Listens to other processes.
async fn listen(
    pool: PgPool,
    commits: watch::Sender<u64>,
    channel: String,
    sender: String,
    poll_interval: Duration,
) {
    let is_other = |notification: &PgNotification| notification.payload() != sender;
    let mut pause = RECONNECT.0;
    loop {
        let error = match connect(&pool, &channel).await {
            Ok(mut listener) => {
                pause = RECONNECT.0;
                // What was committed before is not told.
                wake(&commits);
                loop {
                    match listener.try_recv().await {
                        Ok(Some(notification)) if is_other(&notification) => wake(&commits),
                        Ok(Some(_)) => {}
                        Ok(None) => break io::Error::from(io::ErrorKind::ConnectionReset).into(),
                        Err(error) => break error,
                    }
                }
            }
            Err(error) => error,
        };
        if pool.is_closed() {
            // Subscribers are to find out, and end.
            wake(&commits);
            return;
        }
        tracing::debug!(%error, "no notifications for now; connecting again");
        tokio::time::sleep(pause.min(poll_interval)).await;
        pause = (pause * 2).min(RECONNECT.1);
        wake(&commits);
    }
}

async fn connect(pool: &PgPool, channel: &str) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(pool).await?;
    // Its own way to connect again holds up whoever waits for it.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}
