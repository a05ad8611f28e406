//! How often an event reaches a handler, and where the checkpoint is kept.

use std::{error::Error as StdError, sync::Arc};

use annals_core::{Error, Position, RecordedEvent, Result, Store, SubscriberId};
use async_trait::async_trait;

use super::Sink;

/// What a handler fails with.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Some events in their order, and what there is to know about them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Batch<'a> {
    /// The events; at least one.
    pub events: &'a [RecordedEvent],
    /// Which projection it is, with its generation and its partition.
    pub subscriber: &'a SubscriberId,
    /// Whether the projection had caught up before these.
    pub is_live: bool,
    /// The fencing token, where the projection [runs under a lease](super::Projection::lead):
    /// whatever takes it along can refuse the writes of one who has been replaced.
    pub token: Option<u64>,
}

/// What a projection does with events: at least once.
#[async_trait]
pub trait Handler: Send {
    /// Handles events. What comes again, after a failure or a crash, are these events and maybe
    /// later ones: handle an event a second time so that nothing changes, or keep the position of
    /// the last event beside the rows.
    ///
    /// # Errors
    /// Whatever went wrong: they come again, one by one.
    async fn handle(&mut self, batch: &Batch<'_>) -> Result<(), BoxError>;

    /// This generation has caught up and takes over: the moment to put its rows in the place of the
    /// old ones. May be called again after a crash.
    ///
    /// # Errors
    /// Whatever went wrong: the projection stops.
    async fn switch(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}

/// What a projection does with events: exactly once, inside a transaction that also moves its
/// checkpoint.
#[async_trait]
pub trait TransactionalHandler<T: Send>: Send {
    /// Writes rows. What is written with `transaction` stands with the checkpoint, or not at all;
    /// anything else is done at least once.
    ///
    /// # Errors
    /// Whatever went wrong: the transaction is undone, and the events come again, one by one.
    async fn handle(&mut self, transaction: &mut T, batch: &Batch<'_>) -> Result<(), BoxError>;

    /// This generation has caught up and takes over: the moment to put its rows in the place of the
    /// old ones.
    ///
    /// # Errors
    /// Whatever went wrong: the projection stops.
    async fn switch(&mut self, _transaction: &mut T) -> Result<(), BoxError> {
        Ok(())
    }
}

/// What a projection promises about each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guarantee {
    /// Handled, and after a crash maybe again: [`AtLeastOnce`].
    AtLeastOnce,
    /// Its rows are written once: [`ExactlyOnce`].
    ExactlyOnce,
}

/// Why a delivery did not happen.
#[derive(Debug)]
#[doc(hidden)]
pub enum Failure {
    /// The handler failed.
    Handler(BoxError),
    /// The checkpoint could not be reached.
    Store(Error),
    /// The checkpoint is somewhere else by now: another process runs the same projection.
    Moved,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// A handler and where its checkpoint is kept: [`AtLeastOnce`] or [`ExactlyOnce`].
#[async_trait]
pub trait Delivery: Send {
    /// What it promises.
    const GUARANTEE: Guarantee;

    #[doc(hidden)]
    async fn position(&mut self, subscriber: &SubscriberId) -> Result<Option<Position>>;

    /// Hands the events over. Where that moves the checkpoint, it moves from `from` to `to`.
    #[doc(hidden)]
    async fn deliver(
        &mut self,
        batch: &Batch<'_>,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), Failure>;

    /// Moves a checkpoint.
    #[doc(hidden)]
    async fn advance(
        &mut self,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), Failure>;

    /// Lets the handler switch, and moves the checkpoint that says which generation is live.
    #[doc(hidden)]
    async fn switch(
        &mut self,
        live: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), Failure>;
}

/// The checkpoint is kept in the event store, after events were handled: a crash in between makes
/// them come again.
#[derive(Debug)]
pub struct AtLeastOnce<H> {
    pub(super) store: Arc<dyn Store>,
    pub(super) handler: H,
}

#[async_trait]
impl<H: Handler> Delivery for AtLeastOnce<H> {
    const GUARANTEE: Guarantee = Guarantee::AtLeastOnce;

    async fn position(&mut self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.store.load_checkpoint(subscriber).await
    }

    async fn deliver(
        &mut self,
        batch: &Batch<'_>,
        _: Option<Position>,
        _: Position,
    ) -> Result<(), Failure> {
        self.handler.handle(batch).await.map_err(Failure::Handler)
    }

    async fn advance(
        &mut self,
        subscriber: &SubscriberId,
        _: Option<Position>,
        to: Position,
    ) -> Result<(), Failure> {
        // One that was replaced handled all up to here as well: nothing is skipped by this.
        self.store.save_checkpoint(subscriber, to).await?;
        Ok(())
    }

    async fn switch(
        &mut self,
        live: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), Failure> {
        self.handler.switch().await.map_err(Failure::Handler)?;
        self.advance(live, from, to).await
    }
}

/// The checkpoint moves in the transaction in which the handler writes its rows.
#[derive(Debug)]
pub struct ExactlyOnce<S, H> {
    pub(super) sink: S,
    pub(super) handler: H,
}

/// A transaction that has moved the checkpoint: whoever else tries to waits for its end.
async fn begin<S: Sink>(
    sink: &S,
    subscriber: &SubscriberId,
    from: Option<Position>,
    to: Position,
) -> Result<S::Transaction, Failure> {
    let mut transaction = sink.begin().await?;
    if sink.advance(&mut transaction, subscriber, from, to).await? {
        Ok(transaction)
    } else {
        Err(Failure::Moved)
    }
}

#[async_trait]
impl<S: Sink, H: TransactionalHandler<S::Transaction>> Delivery for ExactlyOnce<S, H> {
    const GUARANTEE: Guarantee = Guarantee::ExactlyOnce;

    async fn position(&mut self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.sink.position(subscriber).await
    }

    async fn deliver(
        &mut self,
        batch: &Batch<'_>,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), Failure> {
        let mut transaction = begin(&self.sink, batch.subscriber, from, to).await?;
        self.handler.handle(&mut transaction, batch).await.map_err(Failure::Handler)?;
        Ok(self.sink.commit(transaction).await?)
    }

    async fn advance(
        &mut self,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), Failure> {
        let transaction = begin(&self.sink, subscriber, from, to).await?;
        Ok(self.sink.commit(transaction).await?)
    }

    async fn switch(
        &mut self,
        live: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), Failure> {
        let mut transaction = begin(&self.sink, live, from, to).await?;
        self.handler.switch(&mut transaction).await.map_err(Failure::Handler)?;
        Ok(self.sink.commit(transaction).await?)
    }
}
