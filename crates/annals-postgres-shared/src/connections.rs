//! Keeps connections open between two statements.
//!
//! A pool of sqlx asks the server whether a connection is alive each time the connection is
//! returned and, by default, each time it is taken: three round trips for each statement instead of
//! one. So the store keeps some of the pool's connections to itself. If a kept connection has died,
//! the next statement on it fails, and is sent again on another connection.

use std::{
    collections::VecDeque,
    io,
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use sqlx::{
    AssertSqlSafe, Either, PgConnection, PgPool, Postgres, pool::PoolConnection, postgres::PgRow,
};
use tokio::{runtime::Handle, sync::oneshot, task::AbortHandle};

use crate::{
    error::{has_lost_connection, is_read_only},
    identity::Identity,
    reach::Reach,
    session::Pooling,
    sql::{Query, Statement},
};

/// A connection that was kept for so long goes back to the pool, which closes it if it is older than
/// the pool's `max_lifetime`, or if nobody takes it within `idle_timeout`.
const KEPT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Connections {
    pub pool: PgPool,
    pub pooling: Pooling,
    state: Mutex<State>,
    /// The most connections in `State::idle`.
    most_idle: usize,
    kept: Duration,
    request_timeout: Duration,
    reach: Reach,
    identity: OnceLock<Identity>,
    /// The first statements of a transaction behind a pooler of transactions.
    first: OnceLock<Arc<str>>,
    /// The task that gives idle connections back to the pool.
    returning: AbortHandle,
    runtime: Handle,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Session>,
    /// The callers that wait for a connection, the one that has waited longest first.
    waiting: VecDeque<Waiting>,
    /// How many tasks wait for a connection of the pool.
    acquiring: usize,
}

/// A caller that waits.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    answer: oneshot::Sender<sqlx::Result<PooledConnection>>,
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.returning.abort();
        // sqlx needs a runtime to drop a connection, and a store may be dropped outside of one.
        let _entered = self.runtime.enter();
        self.state().idle.clear();
    }
}

/// What has the connections of a store.
pub trait Connected: Send + Sync + 'static {
    fn connections(&self) -> &Arc<Connections>;
}

impl Connections {
    pub fn new(
        pool: PgPool,
        pooling: Pooling,
        most_idle: usize,
        request_timeout: Duration,
    ) -> Arc<Self> {
        let kept = pool.options().get_max_lifetime().map_or(KEPT, |lifetime| lifetime.min(KEPT));
        let kept = kept.max(Duration::from_millis(1));
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            returning: tokio::spawn(give_back_idle(this.clone(), pool.clone(), kept))
                .abort_handle(),
            pool,
            pooling,
            state: Mutex::default(),
            most_idle,
            kept,
            request_timeout,
            reach: Reach::default(),
            identity: OnceLock::new(),
            first: OnceLock::new(),
            runtime: Handle::current(),
        })
    }

    /// Has every connection that is made from now on lead to this store.
    pub fn expect(&self, identity: Identity) {
        // Both are set once, when the store is opened.
        if let (Some(settings), Some(follow)) =
            (self.pooling.settings(), identity.follow_in_transaction())
        {
            let _ = self.first.set(format!("{settings}; {follow}").into());
        }
        let _ = self.identity.set(identity);
    }

    /// Waits for the answer to a request, at most for the request timeout. Without it, a network
    /// that swallows packets would never be noticed: sqlx sets no keep-alive on its connections.
    pub async fn with_timeout<T, E: From<sqlx::Error>>(
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
    pub async fn get(self: &Arc<Self>) -> sqlx::Result<PooledConnection> {
        let idle = self.state().idle.pop();
        match idle {
            Some(session) => Ok(PooledConnection::new(self, session, true)),
            None => self.get_tested().await,
        }
    }

    /// A connection that the pool has tested or made. If all are in use, it may be one that another
    /// caller gives back meanwhile, and so was alive a moment ago. If the server turns out to refuse
    /// connections, fails without waiting for the acquire timeout of the pool.
    ///
    /// A task makes the connection. If the caller gets another one first, the task goes on, and its
    /// connection is for the next caller: a connection that is thrown away half-made costs the
    /// server a process, and the next caller would begin another one.
    pub async fn get_tested(self: &Arc<Self>) -> sqlx::Result<PooledConnection> {
        let (sender, receiver) = oneshot::channel();
        let begins = {
            let mut state = self.state();
            state.waiting.retain(|waiting| !waiting.answer.is_closed());
            state.waiting.push_back(Waiting { since: Instant::now(), answer: sender });
            let begins = state.acquiring < state.waiting.len().min(self.most());
            state.acquiring += usize::from(begins);
            begins
        };
        if begins {
            self.runtime.spawn(acquire(Arc::downgrade(self), self.pool.clone()));
        }
        let lost = pin!(self.reach.lost(&self.pool));
        let timeout = self.pool.options().get_acquire_timeout();
        tokio::select! {
            biased;
            made = receiver => made.unwrap_or(Err(sqlx::Error::PoolClosed)),
            error = lost => Err(error),
            () = tokio::time::sleep(timeout) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// The most connections of the pool.
    fn most(&self) -> usize {
        usize::try_from(self.pool.options().get_max_connections()).unwrap_or(usize::MAX)
    }

    /// Refuses a connection that leads to a standby or to another store. A connection to a primary
    /// stays one: a server that becomes a standby has to restart.
    async fn checked(
        self: &Arc<Self>,
        mut connection: PoolConnection<Postgres>,
    ) -> sqlx::Result<PooledConnection> {
        let checked = Identity::check(self.identity.get(), &mut connection);
        match self.with_timeout(checked).await {
            Ok(()) => Ok(PooledConnection::new(self, Session::new(connection), false)),
            Err(error) => {
                connection.close_on_drop();
                Err(error)
            }
        }
    }

    /// Gives a connection to the caller that has waited longest; if none waits, keeps it, or gives
    /// it back to the pool.
    fn hand_over(&self, mut connection: PooledConnection) {
        let mut state = self.state();
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.answer.send(Ok(connection)) {
                Ok(()) => return,
                // That caller has gone.
                Err(Ok(again)) => connection = again,
                Err(Err(_)) => return,
            }
        }
        // Looked at under the lock: when the pool is closed, its close event comes after, and takes
        // what is idle by then.
        if state.idle.len() < self.most_idle && !self.pool.is_closed() {
            let mut session = connection.session;
            session.used = Instant::now();
            state.idle.push(session);
        }
    }

    /// Gives an error to the caller that has waited longest, if it has waited since before the attempt
    /// that failed: for a later one, a new attempt may succeed.
    fn fail_one(&self, error: sqlx::Error, begun: Instant) {
        let mut state = self.state();
        let mut error = Err(error);
        while let Some(waiting) = state.waiting.pop_front() {
            if waiting.since > begun && !self.pool.is_closed() {
                state.waiting.push_front(waiting);
                return;
            }
            match waiting.answer.send(error) {
                Ok(()) => return,
                Err(again) => error = again,
            }
        }
    }

    /// Whether the other tasks that wait for connections of the pool are enough for the callers that
    /// wait. Then this one no longer counts.
    fn may_end(&self) -> bool {
        let mut state = self.state();
        state.waiting.retain(|waiting| !waiting.answer.is_closed());
        let ends = state.waiting.len() < state.acquiring;
        state.acquiring = state.acquiring.saturating_sub(usize::from(ends));
        ends
    }

    /// Runs a statement that does no harm if it runs twice, and reads its answer to the end. If an
    /// idle connection turns out to have died, runs the statement again on another.
    pub async fn rows<'q>(
        self: &Arc<Self>,
        statement: impl Fn() -> Statement<'q>,
    ) -> sqlx::Result<Vec<PgRow>> {
        let mut connection = self.get().await?;
        loop {
            match self.with_timeout(connection.run(statement())).await {
                Ok(rows) => {
                    connection.give_back();
                    return Ok(rows);
                }
                Err(error) => connection = connection.replace_after(error).await?,
            }
        }
    }

    /// [`rows`](Self::rows) for a statement that answers with one row.
    pub async fn row<'q>(
        self: &Arc<Self>,
        statement: impl Fn() -> Statement<'q>,
    ) -> sqlx::Result<PgRow> {
        self.rows(statement).await?.into_iter().next().ok_or(sqlx::Error::RowNotFound)
    }

    /// Closes the idle connections: if one connection was lost, the others may be too.
    pub fn close_idle(&self) {
        let idle = std::mem::take(&mut self.state().idle);
        for mut session in idle {
            session.connection.close_on_drop();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a connection of the pool, and hands it over. Goes on while callers wait that have no
/// such task.
async fn acquire(connections: Weak<Connections>, pool: PgPool) {
    loop {
        let begun = Instant::now();
        let made = pool.acquire().await;
        let Some(home) = connections.upgrade() else { return };
        let made = match made {
            Ok(connection) => home.checked(connection).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(connection) => home.hand_over(connection),
            // Each caller has a timeout of its own, and may have begun to wait later.
            Err(sqlx::Error::PoolTimedOut) => {}
            Err(error) => home.fail_one(error, begun),
        }
        if home.may_end() {
            return;
        }
    }
}

/// Gives idle connections back to the pool: all when the pool is closed, since `PgPool::close` waits
/// for them; and those that were not used for a while.
async fn give_back_idle(connections: Weak<Connections>, pool: PgPool, kept: Duration) {
    let mut closed = pin!(pool.close_event());
    loop {
        let is_closed = tokio::time::timeout(kept, &mut closed).await.is_ok();
        let Some(connections) = connections.upgrade() else { return };
        let returned: Vec<Session> = {
            let mut state = connections.state();
            let (idle, returned) = std::mem::take(&mut state.idle)
                .into_iter()
                .partition(|session| !is_closed && session.used.elapsed() < kept);
            state.idle = idle;
            returned
        };
        drop(returned);
        if is_closed {
            return;
        }
    }
}

/// A connection of the pool, as long as the store has it.
#[derive(Debug)]
struct Session {
    connection: PoolConnection<Postgres>,
    taken: Instant,
    used: Instant,
    /// Whether a transaction of several statements may be open: see [`PooledConnection::begin`].
    in_transaction: bool,
}

impl Session {
    fn new(connection: PoolConnection<Postgres>) -> Self {
        let now = Instant::now();
        Self { connection, taken: now, used: now, in_transaction: false }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The next user of the connection would write into the open transaction.
        if self.in_transaction {
            self.connection.close_on_drop();
        }
    }
}

/// A connection in use. Unless it is given back, dropping it returns it to the pool of sqlx, which
/// tests it first. That happens after an error, and when a future is dropped during a statement.
#[derive(Debug)]
pub struct PooledConnection {
    home: Arc<Connections>,
    session: Session,
    /// Whether it was idle before, so that it may have died unnoticed.
    was_idle: bool,
}

impl PooledConnection {
    fn new(home: &Arc<Connections>, session: Session, was_idle: bool) -> Self {
        Self { home: home.clone(), session, was_idle }
    }

    /// Runs a statement as a transaction, and reads its answer to the end.
    pub async fn run(&mut self, statement: Statement<'_>) -> sqlx::Result<Vec<PgRow>> {
        if let Some(first) = self.first_statements()
            && let Some(text) = statement.written_out()
        {
            return self.run_together(format!("{first}; {text}")).await;
        }
        self.begin().await?;
        let statement = self.prepared(statement);
        let done = statement.fetch_all(&mut **self).await;
        self.end(done).await
    }

    /// Sends statements in one request, which the server runs as one transaction, and reads the answer
    /// of the last.
    async fn run_together(&mut self, statements: String) -> sqlx::Result<Vec<PgRow>> {
        // Safe: it consists of constant text, plain names, and literals.
        let statements = sqlx::raw_sql(AssertSqlSafe(statements));
        let mut answers = statements.fetch_many(&mut **self);
        let (mut rows, mut is_complete) = (Vec::new(), false);
        while let Some(answer) = answers.try_next().await? {
            if std::mem::take(&mut is_complete) {
                rows.clear();
            }
            match answer {
                Either::Left(_) => is_complete = true,
                Either::Right(row) => rows.push(row),
            }
        }
        Ok(rows)
    }

    /// [`run`](Self::run) for a statement that answers with one row.
    pub async fn run_one(&mut self, statement: Statement<'_>) -> sqlx::Result<PgRow> {
        self.run(statement).await?.into_iter().next().ok_or(sqlx::Error::RowNotFound)
    }

    /// Begins a transaction for one statement, if a pooler of transactions is in between. Otherwise
    /// the statement is a transaction by itself.
    ///
    /// A driver sends a statement in two requests, one to prepare it and one to run it. Such a pooler
    /// would send them to two sessions of the server.
    pub async fn begin(&mut self) -> sqlx::Result<()> {
        let Pooling::Transactions { idle_timeout, .. } = &self.home.pooling else { return Ok(()) };
        let first = self.first_statements().unwrap_or_default();
        let begin = AssertSqlSafe(format!("BEGIN; {first}; {idle_timeout}"));
        self.session.in_transaction = true;
        let begin = sqlx::raw_sql(begin);
        begin.execute(&mut **self).await.map(drop)
    }

    /// The statements with which each transaction begins, if a pooler of transactions is in between.
    fn first_statements(&self) -> Option<Arc<str>> {
        self.home.first.get().cloned().or_else(|| self.home.pooling.settings())
    }

    /// The statement as this connection has to prepare it. The name of a prepared statement is known
    /// to one session of the server only.
    pub fn prepared<'q>(&self, statement: Statement<'q>) -> Query<'q> {
        statement.into_query(matches!(self.home.pooling, Pooling::Sessions))
    }

    /// Ends what [`begin`](Self::begin) began, after the statement.
    pub async fn end<T, E>(&mut self, done: Result<T, E>) -> Result<T, E>
    where
        E: From<sqlx::Error>,
    {
        if !self.session.in_transaction {
            return done;
        }
        let text = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = sqlx::raw_sql(text).execute(&mut **self).await;
        // A commit that the server refuses has ended the transaction too.
        self.session.in_transaction = ended.as_ref().is_err_and(has_lost_connection);
        let done = done?;
        ended?;
        Ok(done)
    }

    /// Lets the next caller use the connection. No statement may be under way on it.
    pub fn give_back(mut self) {
        let home = self.home.clone();
        self.was_idle = true;
        // Otherwise the pool never sees a connection that is always in use, and cannot replace it.
        if !self.session.in_transaction && self.session.taken.elapsed() < home.kept {
            home.hand_over(self);
        }
    }

    /// Another connection, if the error says that this one was lost, and it was idle before;
    /// otherwise the error.
    pub async fn replace_after(self, error: sqlx::Error) -> sqlx::Result<Self> {
        if is_read_only(&error) {
            self.forget();
            return Err(error);
        }
        if !has_lost_connection(&error) {
            self.give_back();
            return Err(error);
        }
        let (home, was_idle) = (self.home.clone(), self.was_idle);
        self.close();
        home.close_idle();
        if was_idle { home.get_tested().await } else { Err(error) }
    }

    /// Closes this connection and the idle ones, so that the next call makes a new one: they may lead
    /// to a server that is no longer the primary.
    pub fn forget(self) {
        let home = self.home.clone();
        self.close();
        home.close_idle();
    }

    /// Closes the connection, even if a statement is under way on it.
    pub fn close(mut self) {
        self.session.connection.close_on_drop();
    }
}

impl Deref for PooledConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.session.connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.session.connection
    }
}
