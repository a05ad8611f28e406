//! A place where sinks write, and one step of a projection there.

use annals_core::{Error, Position, SubscriberId};
use annals_domain::projection::Sink;
use annals_test_servers::BoxError;
use async_trait::async_trait;

use crate::Tested;

/// A database into which sinks write, with a table in which each handler writes the position of its
/// event.
#[async_trait]
pub(crate) trait Place: Sized + Send + Sync + 'static {
    type Sink: Sink + Clone;

    async fn new() -> Result<Self, BoxError>;

    /// Opens a sink as another process would do it.
    async fn open(&self) -> Result<Self::Sink, Error>;

    /// Writes a row, as a handler does.
    async fn write(
        transaction: &mut <Self::Sink as Sink>::Transaction,
        name: &SubscriberId,
        row: Position,
    ) -> Tested;

    /// Rolls back, if an application can do that without dropping the transaction.
    async fn roll_back(transaction: <Self::Sink as Sink>::Transaction) -> Tested;

    /// Checkpoint and rows of one moment.
    async fn read(&self, name: &SubscriberId) -> Result<(Option<i64>, Vec<i64>), BoxError>;

    /// Returns when a session waits for a lock, if that can be known.
    async fn until_one_waits(&self) -> Tested;

    /// Returns when no transaction is open any more.
    async fn until_none_is_open(&self) -> Tested;
}

pub(crate) fn name(name: &str) -> SubscriberId {
    SubscriberId::new(name).unwrap()
}

pub(crate) fn at(position: u64) -> Position {
    Position::new(position)
}

/// The position after another. Positions are the numbers of the rows.
pub(crate) fn next(from: Option<Position>) -> Position {
    from.unwrap_or_default().plus(1)
}

/// Handles one event, as a projection does. Returns whether the checkpoint was at `from`.
pub(crate) async fn step<P: Place>(
    sink: &P::Sink,
    name: &SubscriberId,
    from: Option<Position>,
    to: Position,
) -> Result<bool, BoxError> {
    let mut transaction = sink.begin().await?;
    if !sink.advance(&mut transaction, name, from, to).await? {
        return Ok(false);
    }
    P::write(&mut transaction, name, to).await?;
    sink.commit(transaction).await?;
    Ok(true)
}
