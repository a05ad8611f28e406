//! Handlers, and the events that they get.

use std::error::Error as StdError;

use annals_core::{RecordedEvent, Result, SubscriberId};
use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};

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
