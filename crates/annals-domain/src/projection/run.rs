//! The run of a projection: reads ahead, and hands events over.

use std::{
    future::{Future, pending},
    pin::{Pin, pin},
};

use annals_core::{Error, ErrorKind, EventStoreExt, Position, Result, Subscribe, SubscriberId};
use futures::{
    FutureExt,
    future::{Either, select},
};
use tokio::time::{Instant, sleep};

use super::{
    Delivery, Guarantee, OnPoison, Projection, ProjectionError, Stopped,
    error::Interruption,
    progress::Tracker,
    reader::{Chunk, Reader},
};

impl<D: Delivery> Projection<D> {
    /// Handles all events after the checkpoint, then live ones, until the future `stop` is ready. It
    /// then finishes the events that it is handling, saves the checkpoint and returns. Failed calls
    /// to the stores are retried by the [policy](Projection::with_retry).
    ///
    /// Dropping the future has the effect of a crash at that point.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use annals_core::Store;
    /// use annals_domain::projection::{Handler, Projection, ProjectionError};
    ///
    /// async fn run(store: Arc<dyn Store>, handler: impl Handler) -> Result<(), ProjectionError> {
    ///     let mut projection = Projection::at_least_once(store, "letters", handler)?;
    ///     let stop = tokio::time::sleep(Duration::from_secs(60)); // or Ctrl-C, or a channel
    ///     projection.run(stop).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ProjectionError`].
    pub async fn run(
        &mut self,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Stopped, ProjectionError> {
        self.run_until(pin!(stop), false).await
    }

    /// Handles all events after the checkpoint up to the present end of the store, and returns the
    /// position that it has reached.
    ///
    /// # Errors
    /// [`ProjectionError`].
    pub async fn catch_up(&mut self) -> Result<Position, ProjectionError> {
        self.run_until(pin!(pending()), true).await?;
        let subscriber = self.subscriber()?;
        Ok(self.delivery.position(&subscriber).await?.unwrap_or_default())
    }

    /// Runs until `stop` is ready or, with `once`, until the projection has caught up.
    async fn run_until<F: Future<Output = ()> + Send>(
        &mut self,
        mut stop: Pin<&mut F>,
        once: bool,
    ) -> Result<Stopped, ProjectionError> {
        if self.partition.is_some() && self.generation.get() > 1 {
            let message = "a projection with partitions has no generations: give the new one \
                           another name";
            return Err(Error::new(ErrorKind::InvalidInput, message).into());
        }
        if self.partition.is_none() {
            self.claim_division().await?;
        }
        self.claim_store().await?;
        let policy = self.retry.clone();
        let mut attempts = policy.attempts_without_deadline();
        let mut run = Run::new(self)?;
        loop {
            let events_before = run.tracker.events;
            match run.start(stop.as_mut(), once).await {
                Ok(stopped) => return Ok(stopped),
                Err(Interruption::CheckpointMoved) => {
                    let projection = &run.subscriber;
                    tracing::warn!(
                        %projection,
                        "the checkpoint was reset, or another process has moved it"
                    );
                    if D::GUARANTEE == Guarantee::ExactlyOnce {
                        run.handled_to = None;
                    }
                }
                Err(Interruption::Failed(ProjectionError::Store(error))) => {
                    // The limit is for failures in a row.
                    if run.tracker.events > events_before || run.tracker.is_live {
                        attempts = policy.attempts_without_deadline();
                    }
                    attempts.pause_after(error).await?;
                }
                Err(Interruption::Failed(error)) => return Err(error),
            }
        }
    }
}

/// A run, which starts again after each interruption.
pub(super) struct Run<'a, D> {
    pub(super) projection: &'a mut Projection<D>,
    pub(super) subscriber: SubscriberId,
    pub(super) tracker: Tracker,
    /// The stored checkpoint.
    pub(super) checkpoint: Option<Position>,
    /// All events up to this position were handled, or left out by the filter.
    pub(super) handled_to: Option<Position>,
    /// Whether events after the stored checkpoint were handled.
    pub(super) has_unsaved: bool,
    /// When [`Run::check`] was called last.
    pub(super) last_check: Instant,
}

impl<'a, D: Delivery> Run<'a, D> {
    fn new(projection: &'a mut Projection<D>) -> Result<Self> {
        let subscriber = projection.subscriber()?;
        projection.status.send_modify(|status| {
            (status.is_running, status.position) = (true, None);
        });
        Ok(Self {
            tracker: Tracker::new(subscriber.clone()),
            projection,
            subscriber,
            checkpoint: None,
            handled_to: None,
            has_unsaved: false,
            last_check: Instant::now(),
        })
    }

    /// Reads and handles events after the checkpoint, or after those that were handled before an
    /// interruption, until the next interruption.
    async fn start<F: Future<Output = ()> + Send>(
        &mut self,
        mut stop: Pin<&mut F>,
        once: bool,
    ) -> Result<Stopped, Interruption> {
        let before = self.checkpoint;
        self.checkpoint = self.projection.delivery.position(&self.subscriber).await?;
        if self.checkpoint.is_none() {
            self.checkpoint = self.projection.store_start(&self.subscriber).await?;
        }
        if self.checkpoint < before {
            // It was reset: the events after it are to be handled again.
            self.handled_to = None;
        }
        self.has_unsaved = self.handled_to > self.checkpoint;
        self.handled_to = self.handled_to.max(self.checkpoint);
        self.tracker.is_live = false;
        self.tell();
        if self.is_superseded().await? {
            return Ok(Stopped::Superseded);
        }
        let mut reader = self.reader().await?;
        let (mut chunk, mut next) = (Chunk::default(), Chunk::default());
        loop {
            // Take what is available at once. Do other work only while nothing is available.
            match reader.read_available(&mut next).now_or_never() {
                Some(read) => read?,
                None => {
                    let stopped = self.idle(stop.as_mut(), &mut reader, &mut next).await?;
                    if let Some(stopped) = stopped {
                        return Ok(stopped);
                    }
                }
            }
            std::mem::swap(&mut chunk, &mut next);
            next.clear();
            let Some(to) = chunk.to else { continue };
            if !chunk.events.is_empty() {
                // Read ahead while the handler works.
                let filled = {
                    let mut hand_over = pin!(self.hand_over(&chunk.events, to));
                    match select(hand_over.as_mut(), pin!(reader.fill(&mut next))).await {
                        Either::Left((handed_over, _)) => handed_over.map(|()| Ok(()))?,
                        Either::Right((filled, hand_over)) => hand_over.await.map(|()| filled)?,
                    }
                };
                filled?;
            }
            self.handled_to = self.handled_to.max(Some(to));
            self.tell();
            if chunk.caught_up {
                self.caught_up(to).await?;
                if once {
                    return Ok(Stopped::Requested);
                }
            }
            if self.tracker.is_report_due() && !self.tracker.is_live {
                let end = self.projection.store.last_position().await?;
                self.tracker.report(to, end, self.projection.on_progress.as_mut());
            }
            if stop.as_mut().now_or_never().is_some() {
                return self.stop().await;
            }
            if self.last_check.elapsed() >= self.projection.save_every
                && let Some(stopped) = self.check().await?
            {
                return Ok(stopped);
            }
        }
    }

    async fn reader(&mut self) -> Result<Reader> {
        let from = self.handled_to.unwrap_or_default();
        let subscribe = Subscribe::to(self.projection.source.clone()).after(from);
        let subscription = self.projection.store.subscribe(subscribe).await?;
        let projection = &*self.projection;
        let parks = matches!(projection.on_poison, OnPoison::Park(_));
        self.tracker.begin(from);
        Ok(Reader::new(subscription, projection.partition, parks, projection.batch))
    }

    /// Waits for the next events, and saves the checkpoint meanwhile.
    async fn idle<F: Future<Output = ()> + Send>(
        &mut self,
        mut stop: Pin<&mut F>,
        reader: &mut Reader,
        next: &mut Chunk,
    ) -> Result<Option<Stopped>, Interruption> {
        // Before the projection has caught up, it only waits for the next page. To save the checkpoint
        // after each page would double the time.
        if self.has_unsaved && self.tracker.is_live {
            self.save_checkpoint().await?;
        }
        loop {
            tokio::select! {
                biased;
                () = stop.as_mut() => return self.stop().await.map(Some),
                read = reader.read_available(next) => {
                    read?;
                    return Ok(None);
                }
                () = sleep(self.projection.save_every.saturating_sub(self.last_check.elapsed())) => {
                    if let Some(stopped) = self.check().await? {
                        return Ok(Some(stopped));
                    }
                }
            }
        }
    }

    async fn stop(&mut self) -> Result<Stopped, Interruption> {
        self.save_checkpoint().await?;
        Ok(Stopped::Requested)
    }
}

impl<D> Drop for Run<'_, D> {
    // Also if the future of the run is dropped.
    fn drop(&mut self) {
        self.projection.status.send_modify(|status| {
            (status.is_running, status.is_live) = (false, false);
        });
    }
}
