//! Where a projection writes rows and checkpoint in one transaction.

use annals_core::{Position, Result, SubscriberId};
use async_trait::async_trait;

/// A database in which a projection's rows and its checkpoint change together, so that each event
/// is applied exactly once, whoever dies, and whoever else runs the same projection. It need not be
/// the one that the events are in.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// What handlers write with. Dropping it undoes all.
    type Transaction: Send;

    /// The checkpoint; none for a projection that has not begun.
    async fn position(&self, subscriber: &SubscriberId) -> Result<Option<Position>>;

    /// Begins a transaction.
    async fn begin(&self) -> Result<Self::Transaction>;

    /// Moves the checkpoint, if it still is where it was, and keeps it from being moved by others
    /// until the transaction ends. Says whether it was.
    async fn advance(
        &self,
        transaction: &mut Self::Transaction,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<bool>;

    /// Makes all of it stand.
    ///
    /// # Errors
    /// After any, it may stand or not: [`Sink::position`] tells.
    async fn commit(&self, transaction: Self::Transaction) -> Result<()>;
}
