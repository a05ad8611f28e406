//! Keeps connections open between two statements.
//!
//! A pool of sqlx asks the server whether a connection is alive each time the connection is
//! returned and, by default, each time it is taken: three round trips for each statement instead of
//! one. So the store keeps some of the pool's connections to itself. If a kept connection has died,
//! the next statement on it fails, and is sent again on another connection.

use std::{
    io,
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection, postgres::PgRow};
use tokio::{runtime::Handle, sync::Notify, task::AbortHandle};

use crate::{
    error::{has_lost_connection, standby},
    reach::Reach,
    session,
    sql::Statement,
};

#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) pool: PgPool,
    idle: Mutex<Vec<PoolConnection<Postgres>>>,
    /// Signalled when a connection is added to `idle`.
    returned: Notify,
    /// The most connections in `idle`.
    most_idle: usize,
    request_timeout: Duration,
    reach: Reach,
    /// The task that gives the idle connections back to the pool when the pool is closed.
    closing: AbortHandle,
    runtime: Handle,
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.closing.abort();
        // sqlx needs a runtime to drop a connection, and a store may be dropped outside of one.
        let _entered = self.runtime.enter();
        self.idle().clear();
    }
}

impl Connections {
    pub(crate) fn new(pool: PgPool, most_idle: usize, request_timeout: Duration) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let (this, closed) = (this.clone(), pool.close_event());
            // `PgPool::close` waits until every connection is back in the pool.
            let give_back = async move {
                closed.await;
                drop(this.upgrade().map(|this| std::mem::take(&mut *this.idle())));
            };
            let closing = tokio::spawn(give_back).abort_handle();
            let (idle, returned, runtime) = (Mutex::default(), Notify::new(), Handle::current());
            let reach = Reach::default();
            Self { pool, idle, returned, most_idle, request_timeout, reach, closing, runtime }
        })
    }

    /// Waits for the answer to a request, at most for the request timeout. Without it, a network
    /// that swallows packets would never be noticed: sqlx sets no keep-alive on its connections.
    pub(crate) async fn with_timeout<T, E: From<sqlx::Error>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::time::timeout(self.request_timeout, answer).await.unwrap_or_else(|_| {
            let message = "the server did not answer within `request_timeout`";
            Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message)).into())
        })
    }

    /// An idle connection, which may have died; if there is none, see
    /// [`get_tested`](Self::get_tested).
    pub(crate) async fn get(self: &Arc<Self>) -> sqlx::Result<PooledConnection> {
        let idle = self.idle().pop();
        match idle {
            Some(connection) => Ok(PooledConnection::new(self, connection, true)),
            None => self.get_tested().await,
        }
    }

    /// A connection that the pool has tested or made. If all are in use, it may be one that another
    /// caller gives back meanwhile, and so was alive a moment ago. If the server turns out to refuse
    /// connections, fails without waiting for the acquire timeout of the pool.
    pub(crate) async fn get_tested(self: &Arc<Self>) -> sqlx::Result<PooledConnection> {
        let mut acquiring = pin!(self.pool.acquire());
        let mut lost = pin!(self.reach.lost(&self.pool));
        loop {
            tokio::select! {
                biased;
                made = &mut acquiring => return self.checked(made?).await,
                () = self.returned.notified() => {}
                error = &mut lost => return Err(error),
            }
            let idle = self.idle().pop();
            if let Some(connection) = idle {
                return Ok(PooledConnection::new(self, connection, true));
            }
        }
    }

    /// Refuses a connection to a standby. A connection to a primary stays one: a server that becomes
    /// a standby has to restart.
    async fn checked(
        self: &Arc<Self>,
        mut connection: PoolConnection<Postgres>,
    ) -> sqlx::Result<PooledConnection> {
        match self.with_timeout(session::is_standby(&mut connection)).await {
            Ok(false) => Ok(PooledConnection::new(self, connection, false)),
            checked => {
                connection.close_on_drop();
                Err(checked.err().unwrap_or_else(standby))
            }
        }
    }

    /// Runs a statement that does no harm if it runs twice, and reads its answer to the end. If an
    /// idle connection turns out to have died, runs the statement again on another.
    pub(crate) async fn rows<'q>(
        self: &Arc<Self>,
        statement: impl Fn() -> Statement<'q>,
    ) -> sqlx::Result<Vec<PgRow>> {
        let mut connection = self.get().await?;
        loop {
            match self.with_timeout(statement().fetch_all(&mut *connection)).await {
                Ok(rows) => {
                    connection.give_back();
                    return Ok(rows);
                }
                Err(error) => connection = connection.replace_after(error).await?,
            }
        }
    }

    /// [`rows`](Self::rows) for a statement that answers with one row.
    pub(crate) async fn row<'q>(
        self: &Arc<Self>,
        statement: impl Fn() -> Statement<'q>,
    ) -> sqlx::Result<PgRow> {
        self.rows(statement).await?.into_iter().next().ok_or(sqlx::Error::RowNotFound)
    }

    /// Closes the idle connections: if one connection was lost, the others may be too.
    pub(crate) fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for mut connection in idle {
            connection.close_on_drop();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PoolConnection<Postgres>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. Unless it is given back, dropping it returns it to the pool of sqlx, which
/// tests it first. That happens after an error, and when a future is dropped during a statement.
#[derive(Debug)]
pub(crate) struct PooledConnection {
    home: Arc<Connections>,
    connection: PoolConnection<Postgres>,
    /// Whether it was idle before, so that it may have died unnoticed.
    was_idle: bool,
}

impl PooledConnection {
    fn new(home: &Arc<Connections>, connection: PoolConnection<Postgres>, was_idle: bool) -> Self {
        Self { home: home.clone(), connection, was_idle }
    }

    /// Lets the next caller use the connection. No statement may be under way on it.
    pub(crate) fn give_back(self) {
        let Connections { pool, most_idle, returned, .. } = &*self.home;
        let mut idle = self.home.idle();
        // Looked at under the lock: when the pool is closed, its close event comes after, and takes
        // what is idle by then.
        if idle.len() < *most_idle && !pool.is_closed() {
            idle.push(self.connection);
            returned.notify_one();
        }
    }

    /// Another connection, if the error says that this one was lost, and it was idle before;
    /// otherwise the error.
    pub(crate) async fn replace_after(self, error: sqlx::Error) -> sqlx::Result<Self> {
        if !has_lost_connection(&error) {
            self.give_back();
            return Err(error);
        }
        let (home, was_idle) = (self.home.clone(), self.was_idle);
        self.close();
        home.close_idle();
        if was_idle { home.get_tested().await } else { Err(error) }
    }

    /// Closes the connection, even if a statement is under way on it.
    pub(crate) fn close(mut self) {
        self.connection.close_on_drop();
    }
}

impl Deref for PooledConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
