//! The two ways to keep the checkpoint of a handler: at least once and exactly once.

use std::sync::Arc;

use annals_core::{Error, Position, Result, Store, SubscriberId};
use async_trait::async_trait;

use super::{
    Batch, BoxError, Handler, Sink, TransactionalHandler,
    handle::{InSink, InStore, Stored},
};

/// What a projection guarantees for each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guarantee {
    /// The event is handled, and after a crash possibly again: [`AtLeastOnce`].
    AtLeastOnce,
    /// The rows of the event are written exactly once: [`ExactlyOnce`].
    ExactlyOnce,
}

/// Why events were not delivered, or a checkpoint not moved.
#[derive(Debug)]
#[doc(hidden)]
pub enum DeliveryError {
    /// The handler failed.
    Handler(BoxError),
    /// The store of the checkpoint failed.
    Store(Error),
    /// Another process that runs the same projection has moved the checkpoint, or somebody has reset
    /// it.
    CheckpointMoved,
}

impl From<Error> for DeliveryError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// A handler and the place of its checkpoint: [`AtLeastOnce`] or [`ExactlyOnce`].
#[async_trait]
pub trait Delivery: Send {
    /// What this delivery guarantees.
    const GUARANTEE: Guarantee;

    /// Where the checkpoint is stored.
    #[doc(hidden)]
    fn stored(&self) -> Arc<dyn Stored>;

    #[doc(hidden)]
    async fn position(&mut self, subscriber: &SubscriberId) -> Result<Option<Position>>;

    /// Passes the events to the handler. Exactly-once delivery also moves the checkpoint, from `from`
    /// to `to`.
    #[doc(hidden)]
    async fn deliver(
        &mut self,
        batch: &Batch<'_>,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), DeliveryError>;

    /// Moves a checkpoint.
    #[doc(hidden)]
    async fn advance(
        &mut self,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), DeliveryError>;

    /// Lets the handler switch, and moves the checkpoint that holds the live generation.
    #[doc(hidden)]
    async fn switch(
        &mut self,
        live: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), DeliveryError>;
}

/// The checkpoint is saved in the event store after the events were handled. If the process crashes
/// in between, the events come again.
#[derive(Debug)]
pub struct AtLeastOnce<H> {
    pub(super) store: Arc<dyn Store>,
    pub(super) handler: H,
}

#[async_trait]
impl<H: Handler> Delivery for AtLeastOnce<H> {
    const GUARANTEE: Guarantee = Guarantee::AtLeastOnce;

    fn stored(&self) -> Arc<dyn Stored> {
        Arc::new(InStore(self.store.clone()))
    }

    async fn position(&mut self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.store.load_checkpoint(subscriber).await
    }

    async fn deliver(
        &mut self,
        batch: &Batch<'_>,
        _: Option<Position>,
        _: Position,
    ) -> Result<(), DeliveryError> {
        self.handler.handle(batch).await.map_err(DeliveryError::Handler)
    }

    async fn advance(
        &mut self,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), DeliveryError> {
        // A process that has lost its lease may save a checkpoint late. That skips no event, since it
        // has handled all events up to there. A checkpoint that was reset meanwhile stays reset.
        if self.store.swap_checkpoint(subscriber, from, to).await? {
            Ok(())
        } else {
            Err(DeliveryError::CheckpointMoved)
        }
    }

    async fn switch(
        &mut self,
        live: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), DeliveryError> {
        self.handler.switch().await.map_err(DeliveryError::Handler)?;
        self.advance(live, from, to).await
    }
}

/// The checkpoint moves in the transaction in which the handler writes its rows.
#[derive(Debug)]
pub struct ExactlyOnce<S, H> {
    pub(super) sink: Arc<S>,
    pub(super) handler: H,
}

/// Begins a transaction and moves the checkpoint in it. Other processes that move the same checkpoint
/// wait for the end of this transaction.
async fn begin<S: Sink>(
    sink: &S,
    subscriber: &SubscriberId,
    from: Option<Position>,
    to: Position,
) -> Result<S::Transaction, DeliveryError> {
    let mut transaction = sink.begin().await?;
    if sink.advance(&mut transaction, subscriber, from, to).await? {
        Ok(transaction)
    } else {
        Err(DeliveryError::CheckpointMoved)
    }
}

#[async_trait]
impl<S: Sink, H: TransactionalHandler<S::Transaction>> Delivery for ExactlyOnce<S, H> {
    const GUARANTEE: Guarantee = Guarantee::ExactlyOnce;

    fn stored(&self) -> Arc<dyn Stored> {
        Arc::new(InSink(self.sink.clone()))
    }

    async fn position(&mut self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        self.sink.position(subscriber).await
    }

    async fn deliver(
        &mut self,
        batch: &Batch<'_>,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), DeliveryError> {
        let mut transaction = begin(&*self.sink, batch.subscriber, from, to).await?;
        self.handler.handle(&mut transaction, batch).await.map_err(DeliveryError::Handler)?;
        Ok(self.sink.commit(transaction).await?)
    }

    async fn advance(
        &mut self,
        subscriber: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), DeliveryError> {
        let transaction = begin(&*self.sink, subscriber, from, to).await?;
        Ok(self.sink.commit(transaction).await?)
    }

    async fn switch(
        &mut self,
        live: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), DeliveryError> {
        let mut transaction = begin(&*self.sink, live, from, to).await?;
        self.handler.switch(&mut transaction).await.map_err(DeliveryError::Handler)?;
        Ok(self.sink.commit(transaction).await?)
    }
}
