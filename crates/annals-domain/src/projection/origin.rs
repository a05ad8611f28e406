//! To which event store the checkpoint in a sink belongs.
//!
//! A position means nothing in another store, but a sink and its store can be parted: the events are
//! copied to another store, or a URL is changed. So each event store has a number, which the typed layer
//! stores there as a checkpoint when it is first needed, and a sink keeps that number beside the
//! checkpoint. A copy of the events does not copy checkpoints, so the other store has another number. A
//! backup has them, so a restored store has the number of before.

use std::future::ready;

use annals_core::{
    Error, ErrorKind, Position, ReadAll, ReadStream, RecordedEvent, Result, Sink, Store,
    SubscriberId, TryStreamExt,
};
use uuid::Uuid;

use super::{
    Delivery, ExactlyOnce, Guarantee, Projection, TransactionalHandler, delivery::DeliveryError,
};

/// The checkpoint that holds the number of an event store.
const STORE: &str = "annals.store";

/// How many events before the checkpoint [`Projection::move_from`] looks for in the other store.
const LOOKED_AT: usize = 1_000;

/// The number of an event store, or `None` if it has none and takes none.
async fn number_of(store: &dyn Store) -> Result<Option<Position>> {
    if !store.capabilities().checkpoints {
        return Ok(None);
    }
    let name = SubscriberId::new(STORE)?;
    loop {
        if let Some(number) = store.load_checkpoint(&name).await? {
            return Ok(Some(number));
        }
        // 53 bits, which tools for JSON can hold.
        let number = Position::new(1 + (Uuid::now_v7().as_u64_pair().1 & ((1 << 53) - 2)));
        match store.swap_checkpoint(&name, None, number).await {
            // If another process was faster, the store keeps the number of that one.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Denied => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

impl<D: Delivery> Projection<D> {
    /// Makes sure that the checkpoint belongs to this event store. A checkpoint in the event store
    /// itself always does.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it belongs to another store; those of both stores.
    pub(super) async fn claim_store(&mut self) -> Result<()> {
        if D::GUARANTEE == Guarantee::AtLeastOnce {
            return Ok(());
        }
        let mut attempts = self.retry.attempts_without_deadline();
        loop {
            match self.try_to_claim_store().await {
                Ok(()) => return Ok(()),
                Err(DeliveryError::Store(error)) => attempts.pause_after(error).await?,
                // Another process does the same.
                Err(DeliveryError::CheckpointMoved | DeliveryError::Handler(_)) => {}
            }
        }
    }

    async fn try_to_claim_store(&mut self) -> Result<(), DeliveryError> {
        let Some(number) = number_of(&*self.store).await? else { return Ok(()) };
        let (subscriber, record) = (self.subscriber()?, self.origin_id()?);
        let stored = self.delivery.position(&record).await?;
        if stored == Some(number) {
            return Ok(());
        }
        if let (Some(_), Some(checkpoint)) = (stored, self.delivery.position(&subscriber).await?) {
            let message = format!(
                "the sink has handled the events of another store up to position {checkpoint} for \
                 the projection {subscriber}; this store has positions of its own. If the events were \
                 copied from there, call `move_from` with that store; else build the rows again: as \
                 the next generation, or without the checkpoint"
            );
            return Err(Error::new(ErrorKind::InvalidInput, message).into());
        }
        self.delivery.advance(&record, stored, number).await
    }

    /// The name under which a sink keeps the number of the event store.
    fn origin_id(&self) -> Result<SubscriberId> {
        SubscriberId::new(format!("{}#store", self.subscriber()?))
    }
}

impl<S: Sink, H: TransactionalHandler<S::Transaction>> Projection<ExactlyOnce<S, H>> {
    /// After the events were copied from the store `old` to the store of this projection: moves the
    /// checkpoint in the sink to the position that the last handled event has here, and returns that
    /// position. Call this once, while the projection does not run. The copy must have kept the order
    /// over all streams, as `annals copy` does with one lane.
    ///
    /// Without this call a run is refused, since a position of one store means nothing in another.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use annals_core::Store;
    /// use annals_domain::projection::{Projection, ProjectionError, Sink, TransactionalHandler};
    ///
    /// async fn swap_store<S: Sink, H: TransactionalHandler<S::Transaction>>(
    ///     (old, new): (Arc<dyn Store>, Arc<dyn Store>),
    ///     sink: S,
    ///     handler: H,
    /// ) -> Result<(), ProjectionError> {
    ///     let mut totals = Projection::exactly_once(new, "totals", sink, handler)?;
    ///     totals.move_from(&*old).await?;
    ///     totals.catch_up().await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the checkpoint belongs to neither of the two stores, if this
    /// store has none of the last thousand events that were handled, or if one of the stores keeps no
    /// checkpoints; those of the stores and the sink.
    pub async fn move_from(&mut self, old: &dyn Store) -> Result<Position> {
        let (subscriber, record) = (self.subscriber()?, self.origin_id()?);
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
        let (Some(from), Some(to)) = (number_of(old).await?, number_of(&*self.store).await?) else {
            return invalid("one of the two stores keeps no checkpoints".to_owned());
        };
        let sink = self.delivery.sink.clone();
        let stored = sink.position(&record).await?;
        let checkpoint = sink.position(&subscriber).await?;
        let Some(at) = checkpoint.filter(|_| stored != Some(to)) else {
            return Ok(checkpoint.unwrap_or_default()); // it was moved before, or never run
        };
        if stored.is_some_and(|stored| stored != from) {
            return invalid(format!(
                "the checkpoint of the projection {subscriber} in the sink belongs to neither of \
                 the two stores"
            ));
        }
        let moved = if at == Position::START {
            at
        } else if let Some(event) = last_of_both(old, &*self.store, at).await? {
            event.position
        } else {
            return invalid(format!(
                "the store has none of the last events that the projection {subscriber} has handled"
            ));
        };
        let mut transaction = sink.begin().await?;
        if sink.advance(&mut transaction, &subscriber, checkpoint, moved).await?
            && sink.advance(&mut transaction, &record, stored, to).await?
        {
            sink.commit(transaction).await?;
            return Ok(moved);
        }
        let message = format!("the projection {subscriber} runs elsewhere: stop it first");
        Err(Error::new(ErrorKind::Busy, message))
    }
}

/// The last event of a store up to a position that another store has as well, as it stands there.
async fn last_of_both(
    old: &dyn Store,
    new: &dyn Store,
    at: Position,
) -> Result<Option<RecordedEvent>> {
    // From the end, since a server may refuse to begin at a number that it has not given.
    let handled = old.read_all(ReadAll::default().backwards());
    let mut handled = handled.try_skip_while(|event| ready(Ok(event.position > at)));
    for _ in 0..LOOKED_AT {
        let Some(event) = handled.try_next().await? else { break };
        let same = ReadStream::default().with_from(event.version).with_limit(1);
        let found = new.read_stream(&event.stream, same).try_next().await?;
        if let Some(found) =
            found.filter(|found| (found.version, found.id) == (event.version, event.id))
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
