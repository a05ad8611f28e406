//! Appends as a part of the application's own transaction.

use annals_core::{Append, Appended, Error, ErrorKind, Result, adapter};
use annals_postgres_shared::session::Pooling;
use sqlx::{Postgres, Transaction};

use crate::{
    append::{self, AppendRequest, MOST_ROUNDS, Next},
    call::count,
    error::{Failure, code, context, driver},
    sql::query,
    store::PostgresStore,
};

impl PostgresStore {
    /// Appends to one stream in a transaction of the application: its rows and the events are
    /// committed together, or neither.
    ///
    /// The transaction holds the lock of the stream until it ends. So others that append to the stream
    /// wait, and readers of all streams wait for the transaction before they go beyond its events: end
    /// it soon. When it is committed, subscribers are notified. If it is rolled back, nothing is left
    /// but unused positions. Two transactions that append to the same streams in different order may
    /// wait for each other, until PostgreSQL ends one of them; append to several streams by
    /// [`append_multi_in`](Self::append_multi_in), which takes the locks in one order.
    ///
    /// An append that is refused, such as by a conflict, leaves the transaction as it was. After an error
    /// of the server PostgreSQL rolls all of it back.
    ///
    /// ```no_run
    /// use annals_core::{Append, ExpectedVersion, NewEvent, StreamId};
    /// use annals_postgres::{PostgresStore, sqlx::{self, PgPool}};
    ///
    /// async fn place(store: &PostgresStore, pool: &PgPool) -> Result<(), Box<dyn std::error::Error>> {
    ///     let placed = NewEvent::json("OrderPlaced", &serde_json::json!({ "cents": 4000 }))?;
    ///     let append = Append::new(StreamId::new("order-42")?, ExpectedVersion::NoStream, [placed]);
    ///     let mut transaction = pool.begin().await?;
    ///     let appended = store.append_in(&mut transaction, append).await?;
    ///     sqlx::query("INSERT INTO orders (id, version) VALUES ('42', $1)")
    ///         .bind(appended.last_version.get() as i64)
    ///         .execute(&mut *transaction)
    ///         .await?;
    ///     transaction.commit().await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Those of [`EventStore::append`](annals_core::EventStore::append); and
    /// [`ErrorKind::InvalidInput`] if the transaction has another isolation level than READ COMMITTED,
    /// or if one of its statements has failed before. The outcome is never unknown here: nothing is
    /// written before the application commits.
    pub async fn append_in(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        append: Append,
    ) -> Result<Appended> {
        let context = context("append_in");
        let stream = append.stream.clone();
        let answers = self.append_all_in(transaction, &[append]).await;
        let missing = || Error::new(ErrorKind::Internal, "the append has no answer");
        let answer = answers.and_then(|answers| answers.first().copied().ok_or_else(missing));
        answer.map_err(|error| context(error).with_stream(&stream))
    }

    /// Appends to several streams in a transaction of the application, to all of them or to none. See
    /// [`append_in`](Self::append_in).
    ///
    /// # Errors
    /// Those of [`append_in`](Self::append_in).
    pub async fn append_multi_in(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        appends: Vec<Append>,
    ) -> Result<Vec<Appended>> {
        let answers = self.append_all_in(transaction, &appends).await;
        answers.map_err(context("append_multi_in"))
    }

    async fn append_all_in(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        appends: &[Append],
    ) -> Result<Vec<Appended>> {
        adapter::check_append(appends, self.capabilities)?;
        let database = &*self.database;
        // Behind a pooler, the transaction's session is another one's after it.
        let persistent = matches!(database.connections.pooling, Pooling::Sessions);
        let before = query(&database.sql.follow_server_and_notify);
        let before = before.bind(database.notifier.channel()).into_query(persistent);
        before.execute(&mut **transaction).await.map_err(statement_failed)?;
        let mut requests: Vec<_> = appends.iter().map(AppendRequest::new).collect();
        for _ in 0..MOST_ROUNDS {
            let (rounds, is_multi) = ([count(requests.len())], requests.len() > 1);
            let (sql, key) = (&database.sql, database.lock_key);
            let statement = append::statement(sql, key, &requests, &rounds, is_multi);
            let row = statement.into_query(persistent).fetch_one(&mut **transaction).await;
            let outcomes = append::outcomes(&row.map_err(statement_failed)?, &requests);
            let outcomes = outcomes.map_err(|failure| match failure {
                Failure::Driver(error) => driver(error),
                Failure::InvalidAnswer(error) => error,
            })?;
            requests = match append::judge(appends, outcomes)? {
                Next::Answer(answers) => return Ok(answers),
                Next::SendAgain(again) => again,
            };
        }
        Err(append::in_the_way())
    }
}

/// The error of a statement in the application's transaction.
fn statement_failed(error: sqlx::Error) -> Error {
    let message = match code(&error) {
        Some("25000") => {
            "the transaction has another isolation level than READ COMMITTED, under which an append \
             would not see what others have committed; begin it with READ COMMITTED"
        }
        Some("25P02") => {
            "an earlier statement of the transaction failed, after which PostgreSQL rolls back all of \
             it; begin another one"
        }
        _ => return driver(error),
    };
    Error::new(ErrorKind::InvalidInput, message).with_source(error)
}
