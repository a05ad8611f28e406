//! Connections that are kept between two uses.
//!
//! A pool of sqlx asks the server whether a connection is alive each time one is returned, and by
//! default each time one is taken: three round trips where one would do. So a few are kept here.
//! One that died meanwhile is found out when it is used.

use std::{
    io,
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection, postgres::PgRow};
use tokio::{runtime::Handle, sync::Notify, task::AbortHandle};

use crate::{error::has_lost_connection, sql::Statement};

#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) pool: PgPool,
    idle: Mutex<Vec<PoolConnection<Postgres>>>,
    /// One was kept.
    kept: Notify,
    /// The most that are kept.
    keep: usize,
    /// How long to wait for an answer.
    patience: Duration,
    giving_back: AbortHandle,
    runtime: Handle,
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.giving_back.abort();
        // A connection that is dropped needs a runtime, which a store may outlive.
        let _entered = self.runtime.enter();
        self.idle().clear();
    }
}

impl Connections {
    pub(crate) fn new(pool: PgPool, keep: usize, patience: Duration) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let (this, closed) = (this.clone(), pool.close_event());
            // Who closes the pool waits for all of its connections.
            let give_back = async move {
                closed.await;
                drop(this.upgrade().map(|this| std::mem::take(&mut *this.idle())));
            };
            let giving_back = tokio::spawn(give_back).abort_handle();
            let (idle, kept) = (Mutex::default(), Notify::new());
            let runtime = Handle::current();
            Self { pool, idle, kept, keep, patience, giving_back, runtime }
        })
    }

    /// Waits for an answer, but not for ever. A network that swallows what is sent is not found out
    /// otherwise: sqlx sets no keep-alive on its connections.
    pub(crate) async fn within<T, E: From<sqlx::Error>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::time::timeout(self.patience, answer).await.unwrap_or_else(|_| {
            let message = "no answer within `request_timeout`";
            Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message)).into())
        })
    }

    /// One that was kept, or else as [`get_tested`](Self::get_tested).
    pub(crate) async fn get(self: &Arc<Self>) -> sqlx::Result<Lease> {
        let idle = self.idle().pop();
        match idle {
            Some(connection) => Ok(Lease::new(self, connection, true)),
            None => self.get_tested().await,
        }
    }

    /// One from the pool, which sees to it that it is alive; or, where all are in use, one that is
    /// kept meanwhile, and so was alive just before.
    pub(crate) async fn get_tested(self: &Arc<Self>) -> sqlx::Result<Lease> {
        let mut acquiring = pin!(self.pool.acquire());
        loop {
            tokio::select! {
                biased;
                made = &mut acquiring => return Ok(Lease::new(self, made?, false)),
                () = self.kept.notified() => {}
            }
            let idle = self.idle().pop();
            if let Some(connection) = idle {
                return Ok(Lease::new(self, connection, true));
            }
        }
    }

    /// Runs a statement that can be run twice without harm, to the very end of its answer. Where it
    /// turns out that the connection had died while it was kept, runs it again on another.
    pub(crate) async fn rows<'q>(
        self: &Arc<Self>,
        statement: impl Fn() -> Statement<'q>,
    ) -> sqlx::Result<Vec<PgRow>> {
        let mut lease = self.get().await?;
        loop {
            match self.within(statement().fetch_all(&mut *lease)).await {
                Ok(rows) => {
                    lease.keep();
                    return Ok(rows);
                }
                Err(error) => lease = lease.renew(error).await?,
            }
        }
    }

    /// [`rows`](Self::rows), of which there is one.
    pub(crate) async fn row<'q>(
        self: &Arc<Self>,
        statement: impl Fn() -> Statement<'q>,
    ) -> sqlx::Result<PgRow> {
        self.rows(statement).await?.into_iter().next().ok_or(sqlx::Error::RowNotFound)
    }

    /// Drops what is kept: one has died, and so may the others have.
    pub(crate) fn forget(&self) {
        let dead = std::mem::take(&mut *self.idle());
        for mut connection in dead {
            connection.close_on_drop();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PoolConnection<Postgres>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. Unless it is kept it goes back to the pool, which looks whether it is in
/// order: after an error, and where a future is dropped in the middle of something.
#[derive(Debug)]
pub(crate) struct Lease {
    home: Arc<Connections>,
    connection: PoolConnection<Postgres>,
    /// Whether it was kept before, and so may have died.
    pub(crate) was_kept: bool,
}

impl Lease {
    fn new(home: &Arc<Connections>, connection: PoolConnection<Postgres>, was_kept: bool) -> Self {
        Self { home: home.clone(), connection, was_kept }
    }

    /// Nothing is under way on it: the next one can have it.
    pub(crate) fn keep(self) {
        let Connections { pool, keep, kept, .. } = &*self.home;
        let mut idle = self.home.idle();
        // Looked at under the lock: what is kept before the pool is closed is given back after.
        if idle.len() < *keep && !pool.is_closed() {
            idle.push(self.connection);
            kept.notify_one();
        }
    }

    /// After an error: another connection, if this one had died while it was kept; else the error.
    pub(crate) async fn renew(self, error: sqlx::Error) -> sqlx::Result<Self> {
        if !has_lost_connection(&error) {
            self.keep();
            return Err(error);
        }
        let (home, was_kept) = (self.home.clone(), self.was_kept);
        self.close();
        home.forget();
        if was_kept { home.get_tested().await } else { Err(error) }
    }

    /// Closes it, whatever is under way on it.
    pub(crate) fn close(mut self) {
        self.connection.close_on_drop();
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
