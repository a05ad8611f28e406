//! Handlers, and the two ways to keep their checkpoints: at least once and exactly once.

use std::{error::Error as StdError, sync::Arc};

use annals_core::{Error, Position, RecordedEvent, Result, Store, SubscriberId};
use async_trait::async_trait;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Sink,
    handle::{InSink, InStore, Stored},
};
use crate::Schema;

/// The error of a handler: of any type.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Events for a handler, in their order.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Batch<'a> {
    /// The events; at least one.
    pub events: &'a [RecordedEvent],
    /// The name of the projection, with its generation and its partition.
    pub subscriber: &'a SubscriberId,
    /// Whether the projection had caught up before these events.
    pub is_live: bool,
    /// The fencing token, if the projection [runs under a lease](super::Projection::lead). A database
    /// that stores it with each write can refuse the writes of a process that has lost the lease.
    pub token: Option<u64>,
}

impl<'a> Batch<'a> {
    /// The events that a schema reads, each with what it decodes to, in order: an event that upcasters
    /// turn into several comes several times. Events of types that the schema does not read are left
    /// out, so a handler of several schemas calls this for each; so are forgotten events.
    ///
    /// ```
    /// use annals_domain::{Schema, projection::{Batch, BoxError, Handler}};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # enum OrderEvent { #[serde(rename = "order-placed")] Placed { cents: u64 } }
    ///
    /// struct Turnover { schema: Schema<OrderEvent>, cents: u64 }
    ///
    /// #[async_trait::async_trait]
    /// impl Handler for Turnover {
    ///     async fn handle(&mut self, batch: &Batch<'_>) -> Result<(), BoxError> {
    ///         for (_event, OrderEvent::Placed { cents }) in batch.decode(&self.schema).await? {
    ///             self.cents += cents;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// Those of [`Schema::decode`].
    pub async fn decode<E: Serialize + DeserializeOwned>(
        &self,
        schema: &Schema<E>,
    ) -> Result<Vec<(&'a RecordedEvent, E)>> {
        let mut decoded = Vec::with_capacity(self.events.len());
        for event in self.events.iter().filter(|event| schema.reads(&event.event_type)) {
            let events = schema.decode(event).await?.into_events();
            decoded.extend(events.map(|made| (event, made)));
        }
        Ok(decoded)
    }
}

/// A handler that gets each event at least once.
///
/// ```
/// use annals_domain::projection::{Batch, BoxError, Handler};
///
/// /// Keeps the type of the last event of each stream: handling an event twice changes nothing.
/// struct LastTypes(std::collections::HashMap<String, String>);
///
/// #[async_trait::async_trait]
/// impl Handler for LastTypes {
///     async fn handle(&mut self, batch: &Batch<'_>) -> Result<(), BoxError> {
///         for event in batch.events {
///             self.0.insert(event.stream.to_string(), event.event_type.to_string());
///         }
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Handler: Send {
    /// Handles events. After a failure or a crash the same events come again, and possibly later ones
    /// that were handled too. So write a handler for which handling an event twice changes nothing,
    /// or store the position of the last event together with the rows and ignore earlier events.
    ///
    /// # Errors
    /// Any error makes the projection deliver the events again, one by one.
    async fn handle(&mut self, batch: &Batch<'_>) -> Result<(), BoxError>;

    /// Called when this [generation](super::Projection::with_generation) has caught up and takes
    /// over: replace the rows of the old generation here. After a crash this may be called again.
    ///
    /// # Errors
    /// Any error stops the projection.
    async fn switch(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}

/// A handler that gets each event exactly once, inside a transaction that also moves the checkpoint.
/// `T` is the [transaction](super::Sink::Transaction) of a sink.
///
/// ```
/// use annals_domain::projection::{Batch, BoxError, TransactionalHandler};
/// use annals_sqlite::SqliteTransaction;
///
/// struct Totals;
///
/// #[async_trait::async_trait]
/// impl TransactionalHandler<SqliteTransaction> for Totals {
///     async fn handle(
///         &mut self,
///         transaction: &mut SqliteTransaction,
///         batch: &Batch<'_>,
///     ) -> Result<(), BoxError> {
///         let events = batch.events.len() as i64;
///         transaction.execute("UPDATE totals SET events = events + ?1", [events])?;
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait TransactionalHandler<T: Send>: Send {
    /// Writes rows with `transaction`. They are committed together with the checkpoint, or not at
    /// all. Anything that the handler does elsewhere happens at least once. The handler must not
    /// commit or roll back.
    ///
    /// # Errors
    /// Any error rolls the transaction back, and the events come again, one by one.
    async fn handle(&mut self, transaction: &mut T, batch: &Batch<'_>) -> Result<(), BoxError>;

    /// Called when this [generation](super::Projection::with_generation) has caught up and takes
    /// over: replace the rows of the old generation here.
    ///
    /// # Errors
    /// Any error stops the projection.
    async fn switch(&mut self, _transaction: &mut T) -> Result<(), BoxError> {
        Ok(())
    }
}

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
