//! Where a projection begins that has no checkpoint yet.

use annals_core::{
    Error, ErrorKind, EventStoreExt, Position, ReadAll, Result, Start, SubscriberId, TryStreamExt,
};

use super::{Delivery, Projection, delivery::DeliveryError};

impl<D: Delivery> Projection<D> {
    /// Sets where the projection begins when it has no checkpoint yet: after a position, at a time,
    /// or at the end of the store. By default it begins with the oldest event. A projection that has a
    /// checkpoint goes on from there, whatever its start is; after its checkpoint was
    /// [removed](annals_core::CheckpointStore::reset_checkpoint), it begins at the start again.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use annals_core::{Result, Store};
    /// use annals_core::Start;
    /// use annals_domain::projection::{Delivery, Handler, Projection};
    ///
    /// /// Sends letters about what happened since yesterday, and not about the years before.
    /// fn letters(store: Arc<dyn Store>, send: impl Handler) -> Result<Projection<impl Delivery>> {
    ///     let yesterday = chrono::Utc::now() - Duration::from_secs(24 * 60 * 60);
    ///     Ok(Projection::at_least_once(store, "letters", send)?.with_start(Start::At(yesterday)))
    /// }
    /// ```
    ///
    /// The first run turns a time or the end into a position and stores that as the checkpoint, before
    /// it handles an event. So a crash does not move the start. Where the clocks of writers disagree,
    /// the projection gets some events that were recorded before the time: see
    /// [`EventStoreExt::position_before`].
    ///
    /// A run fails with [`ErrorKind::BeyondEnd`] if the start is a position above every one that the
    /// store has given, and with [`ErrorKind::InvalidInput`] for [`Start::AfterVersion`].
    #[must_use]
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// The position after which the projection begins.
    pub(super) async fn first_position(&mut self) -> Result<Position> {
        match self.start {
            Start::Beginning => Ok(Position::START),
            Start::After(position) => {
                // Fails for a position that the store has never given.
                let next = ReadAll::default().after(position).with_limit(1);
                self.store.read_all(next).try_next().await?;
                Ok(position)
            }
            Start::At(time) => self.store.position_before(time).await,
            Start::End => self.store.last_position().await,
            Start::AfterVersion(_) => {
                let message = "a projection cannot begin at a version: begin after a position, at a \
                               time, or at the end";
                Err(Error::new(ErrorKind::InvalidInput, message))
            }
        }
    }

    /// Stores the start as the first checkpoint, so that a later run does not begin elsewhere. Returns
    /// `None` if the projection begins with the oldest event.
    pub(super) async fn store_start(
        &mut self,
        subscriber: &SubscriberId,
    ) -> Result<Option<Position>, DeliveryError> {
        if self.start == Start::Beginning {
            return Ok(None);
        }
        let first = self.first_position().await?;
        self.delivery.advance(subscriber, None, first).await?;
        Ok(Some(first))
    }
}
