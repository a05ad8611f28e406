//! A projection's rows and its checkpoint in one transaction.

use annals_core::{Error, ErrorKind, Position, Result, SubscriberId};
use sqlx::PgConnection;

use crate::{
    PostgresStore,
    error::{code, context, driver},
    sql::query,
};

impl PostgresStore {
    /// Moves a checkpoint inside a transaction of the caller, who writes the rows of a projection in
    /// the same one: either both are there after it or neither is, so that the projection sees each
    /// event **exactly once**, whenever its process is killed.
    ///
    /// `from` is the checkpoint that the transaction builds on, as
    /// `load_checkpoint` gave it; none for a projection that has not begun. If
    /// the checkpoint is somewhere else by now, since another process runs the same projection, this
    /// fails; and while another moves it, this waits. Call it before the rows are written: then two
    /// processes never write the same rows.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where the checkpoint is no longer at `from`: roll back, and begin
    /// again at the checkpoint that is there. Any error leaves the transaction to be rolled back.
    ///
    /// ```no_run
    /// # use annals_core::{CheckpointStore, EventStore, Message, Result, Subscribe, SubscriberId};
    /// # use annals_postgres::{PostgresStore, sqlx::{self, PgPool}};
    /// # async fn run(store: PostgresStore, pool: PgPool) -> Result<(), Box<dyn std::error::Error>> {
    /// let totals = SubscriberId::new("totals")?;
    /// let mut at = store.load_checkpoint(&totals).await?;
    /// let mut events = store.subscribe(Subscribe::default().after(at.unwrap_or_default())).await?;
    /// loop {
    ///     let event = events.next_event().await?;
    ///     let mut transaction = pool.begin().await?;
    ///     store.advance_checkpoint(&mut transaction, &totals, at, event.position).await?;
    ///     sqlx::query("UPDATE totals SET events = events + 1").execute(&mut *transaction).await?;
    ///     transaction.commit().await?;
    ///     at = Some(event.position);
    /// }
    /// # }
    /// ```
    pub async fn advance_checkpoint(
        &self,
        transaction: &mut PgConnection,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<()> {
        let sql = &self.database.sql;
        let text = if from.is_some() { &sql.advance_checkpoint } else { &sql.begin_checkpoint };
        let mut query = query(text).bind(subscriber.as_str()).bind(to.to_i64());
        if let Some(from) = from {
            query = query.bind(from.to_i64());
        }
        let context = context("advance_checkpoint");
        let lost = match query.execute(transaction).await {
            Ok(moved) if moved.rows_affected() == 1 => return Ok(()),
            Ok(_) => None,
            // How a transaction that is stricter than READ COMMITTED is told of it.
            Err(error) if code(&error) == Some("40001") => Some(error),
            Err(error) => return Err(context(driver(error))),
        };
        let was = from.map_or_else(|| "not there yet".to_owned(), |from| format!("at {from}"));
        let message = format!(
            "the checkpoint of {:?} was {was}, and another process has moved it since",
            subscriber.as_str()
        );
        let error = context(Error::new(ErrorKind::Conflict, message));
        Err(match lost {
            Some(source) => error.with_source(source),
            None => error,
        })
    }
}
