//! What can be set of a projection, besides its start and its generation.

use std::time::Duration;

use annals_core::Source;

use super::{Delivery, OnPoison, Progress, Projection};
use crate::RetryPolicy;

impl<D: Delivery> Projection<D> {
    /// Sets which events the projection reads: one stream, a category, or those that pass a filter,
    /// best a filter [made from a schema](crate::Schema::filter). By default it reads all events.
    ///
    /// On DynamoDB and EventStoreDB a projection of one stream stays at the position of the stream's last
    /// event while others are appended elsewhere. To wait for those, use a filter.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets how many events the handler gets at once, at most: 500 by default, and at least one. The
    /// projection reads as many events ahead while the handler works.
    #[must_use]
    pub fn with_batch(mut self, events: usize) -> Self {
        self.batch = events.max(1);
        self
    }

    /// Sets how often the projection saves its checkpoint, every second by default. This is for
    /// at-least-once delivery while catching up, and for events that the filter leaves out. If there
    /// were none, nothing is saved. The projection looks as often whether its checkpoint was
    /// [reset](annals_core::CheckpointStore::reset_checkpoint), after which it goes on from there, and
    /// whether a later generation has taken over.
    #[must_use]
    pub fn with_save_every(mut self, time: Duration) -> Self {
        self.save_every = time;
        self
    }

    /// Sets how often failed calls to the stores are retried, and how often the handler gets an event
    /// on which it fails.
    #[must_use]
    pub fn with_retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Sets what to do with an event on which the handler fails at every try. By default the
    /// projection stops.
    #[must_use]
    pub fn with_poison(mut self, on_poison: OnPoison) -> Self {
        self.on_poison = on_poison;
        self
    }

    /// Sets a function that is called with the progress: every second while the projection catches
    /// up, and once when it has caught up. The progress is also logged, and the lag is a
    /// [metric](crate::observe).
    #[must_use]
    pub fn with_progress(mut self, callback: impl FnMut(&Progress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(callback));
        self
    }
}
