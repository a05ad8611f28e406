//! Databases that take a projection's rows and its checkpoint in one transaction.

use crate::{Position, Result, SubscriberId};

/// A database in which a projection changes its rows and its checkpoint in one transaction, so that
/// each event is applied exactly once, even if processes die or two of them run the same projection.
/// It need not be the database that holds the events.
///
/// `annals-sqlite` and `annals-postgres` each have one behind their feature `projection`; the typed
/// layer, `annals-domain`, runs projections on it. To write into another database, implement the
/// last four methods with `async fn`. A caller uses them in this order:
///
/// ```
/// use annals_core::{Position, Result, Sink, SubscriberId};
///
/// /// Returns false if another process has moved the checkpoint.
/// async fn apply<S: Sink>(sink: &S, name: &SubscriberId, event: Position) -> Result<bool> {
///     let checkpoint = sink.position(name).await?;
///     let mut transaction = sink.begin().await?;
///     // First the checkpoint, so that two processes never write the same rows.
///     if !sink.advance(&mut transaction, name, checkpoint, event).await? {
///         return Ok(false); // dropping the transaction rolls it back
///     }
///     // … write rows with `transaction`, then:
///     sink.commit(transaction).await?;
///     Ok(true)
/// }
/// ```
pub trait Sink: Send + Sync + 'static {
    /// The transaction with which handlers write. Dropping it rolls it back.
    type Transaction: Send;

    /// Whether the sink keeps a checkpoint under each name that it is given, and not only that of one
    /// projection. Then projections also keep there, under names of their own, to which event store
    /// their checkpoints belong, and refuse to go on in another one. By default it does not.
    fn keeps_names(&self) -> bool {
        false
    }

    /// The checkpoint of a projection, or `None` if the projection has not stored one yet.
    ///
    /// # Errors
    /// Those of the database.
    fn position(
        &self,
        subscriber: &SubscriberId,
    ) -> impl Future<Output = Result<Option<Position>>> + Send;

    /// Begins a transaction.
    ///
    /// # Errors
    /// Those of the database.
    fn begin(&self) -> impl Future<Output = Result<Self::Transaction>> + Send;

    /// Moves the checkpoint from `from` to `to` and returns true; or returns false, and changes
    /// nothing, if the checkpoint is not at `from`. While another open transaction has moved the
    /// same checkpoint, this call waits for the end of that transaction.
    ///
    /// # Errors
    /// Those of the database.
    fn advance(
        &self,
        transaction: &mut Self::Transaction,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Commits the transaction.
    ///
    /// # Errors
    /// Those of the database. After an error the transaction may have been committed all the same:
    /// [`Sink::position`] tells.
    fn commit(&self, transaction: Self::Transaction) -> impl Future<Output = Result<()>> + Send;
}
