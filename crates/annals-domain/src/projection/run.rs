//! The run of a projection: reads ahead, hands over, keeps the checkpoint.

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, pending},
    pin::{Pin, pin},
    slice,
};

use annals_core::{
    Error, ErrorKind, EventStoreExt, Position, RecordedEvent, Result, Subscribe, SubscriberId,
};
use futures::{
    FutureExt,
    future::{Either, select},
};
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use super::{
    Batch, BoxError, Delivery, Guarantee, OnPoison, Poison, Projection,
    delivery::Failure,
    progress::Meter,
    reader::{Pack, Reader},
};

/// Why a projection that can still go on has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stopped {
    /// It was asked to.
    Asked,
    /// A later generation has taken over.
    Superseded,
}

/// Why a projection cannot go on. Nothing is lost: it begins where its checkpoint is.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The handler failed on an event again and again.
    Poison {
        /// The event.
        event: Box<Poison>,
        /// What the handler said the last time.
        source: BoxError,
    },
    /// The handler failed to [switch](super::Handler::switch) generations.
    Switch(BoxError),
    /// A store failed for good, or for longer than the [policy](crate::RetryPolicy) allows.
    Store(Error),
}

impl From<Error> for ProjectionError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for ProjectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poison { event, .. } => {
                let Poison { projection, stream, version, event_type, error, .. } = &**event;
                write!(
                    f,
                    "the handler of {projection:?} failed on event {version} of {stream:?}, of \
                     type {event_type:?}: {error}"
                )
            }
            Self::Switch(error) => write!(f, "the handler could not switch generations: {error}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl StdError for ProjectionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Poison { source, .. } | Self::Switch(source) => Some(&**source),
            Self::Store(error) => error.source(),
        }
    }
}

/// Why a part of a run ends although it was not asked to.
enum End {
    Failed(ProjectionError),
    /// The checkpoint was moved by somebody else: begin there.
    Moved,
}

impl From<ProjectionError> for End {
    fn from(error: ProjectionError) -> Self {
        Self::Failed(error)
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl<D: Delivery> Projection<D> {
    /// Handles every event from the checkpoint on, and goes on with live ones, until `stop` is
    /// ready; what it is about is finished before. Where a call to a store fails that may be made
    /// again, it is.
    ///
    /// Dropping the future is like a crash at that point.
    ///
    /// # Errors
    /// [`ProjectionError`].
    pub async fn run(
        &mut self,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Stopped, ProjectionError> {
        self.go_on(pin!(stop), false).await
    }

    /// Handles every event from the checkpoint to the present end, and returns how far that is.
    ///
    /// # Errors
    /// [`ProjectionError`].
    pub async fn catch_up(&mut self) -> Result<Position, ProjectionError> {
        self.go_on(pin!(pending()), true).await?;
        let subscriber = self.subscriber()?;
        Ok(self.delivery.position(&subscriber).await?.unwrap_or_default())
    }

    async fn go_on<F: Future<Output = ()> + Send>(
        &mut self,
        mut stop: Pin<&mut F>,
        once: bool,
    ) -> Result<Stopped, ProjectionError> {
        if self.partition.is_some() && self.generation.get() > 1 {
            let message = "a projection with partitions has no generations: give the new one \
                           another name";
            return Err(Error::new(ErrorKind::InvalidInput, message).into());
        }
        let policy = self.retry.clone();
        let mut patience = policy.patience();
        let mut run = Run::new(self)?;
        loop {
            let before = run.meter.events;
            match run.part(stop.as_mut(), once).await {
                Ok(stopped) => return Ok(stopped),
                Err(End::Moved) => {
                    let projection = &run.subscriber;
                    tracing::warn!(%projection, "somebody else has moved the checkpoint");
                    run.done = None;
                }
                Err(End::Failed(ProjectionError::Store(error))) => {
                    if run.meter.events > before || run.meter.is_live {
                        patience = policy.patience();
                    }
                    patience.wait(error).await?;
                }
                Err(End::Failed(error)) => return Err(error),
            }
        }
    }
}

/// One run, and how far it is.
struct Run<'a, D> {
    projection: &'a mut Projection<D>,
    subscriber: SubscriberId,
    meter: Meter,
    /// Where the checkpoint is.
    saved: Option<Position>,
    /// Up to where everything was handled, or is not wanted.
    done: Option<Position>,
    /// Whether something was handled after the checkpoint.
    is_ahead: bool,
    /// When the checkpoint, and that of the live generation, were looked after.
    looked: Instant,
}

impl<'a, D: Delivery> Run<'a, D> {
    fn new(projection: &'a mut Projection<D>) -> Result<Self> {
        let subscriber = projection.subscriber()?;
        Ok(Self {
            meter: Meter::new(subscriber.clone()),
            projection,
            subscriber,
            saved: None,
            done: None,
            is_ahead: false,
            looked: Instant::now(),
        })
    }

    /// From the checkpoint, or from where the part before has come to, until something ends it.
    async fn part<F: Future<Output = ()> + Send>(
        &mut self,
        mut stop: Pin<&mut F>,
        once: bool,
    ) -> Result<Stopped, End> {
        self.saved = self.projection.delivery.position(&self.subscriber).await?;
        self.is_ahead = self.done > self.saved;
        self.done = self.done.max(self.saved);
        self.meter.is_live = false;
        if self.is_superseded().await? {
            return Ok(Stopped::Superseded);
        }
        let mut reader = self.reader().await?;
        let (mut pack, mut next) = (Pack::default(), Pack::default());
        loop {
            // What is there is taken at once; while there is nothing, there is time for the rest.
            match reader.take(&mut next).now_or_never() {
                Some(taken) => taken?,
                None => {
                    let stopped = self.idle(stop.as_mut(), &mut reader, &mut next).await?;
                    if let Some(stopped) = stopped {
                        return Ok(stopped);
                    }
                }
            }
            std::mem::swap(&mut pack, &mut next);
            next.clear();
            let Some(to) = pack.to else { continue };
            if !pack.events.is_empty() {
                // Reads ahead while the handler works.
                let filled = {
                    let mut hand_over = pin!(self.hand_over(&pack.events, to));
                    match select(hand_over.as_mut(), pin!(reader.fill(&mut next))).await {
                        Either::Left((handed, _)) => handed.map(|()| Ok(()))?,
                        Either::Right((filled, handing)) => handing.await.map(|()| filled)?,
                    }
                };
                filled?;
            }
            self.done = self.done.max(Some(to));
            if pack.caught_up {
                self.caught_up(to).await?;
                if once {
                    return Ok(Stopped::Asked);
                }
            }
            if self.meter.is_due() && !self.meter.is_live {
                let end = self.projection.store.last_position().await?;
                self.meter.tell(to, end, self.projection.on_progress.as_mut());
            }
            if stop.as_mut().now_or_never().is_some() {
                return self.stopped().await;
            }
            if self.looked.elapsed() >= self.projection.save_every
                && let Some(stopped) = self.look().await?
            {
                return Ok(stopped);
            }
        }
    }

    async fn reader(&mut self) -> Result<Reader> {
        let from = self.done.unwrap_or_default();
        let subscribe = Subscribe::to(self.projection.source.clone()).after(from);
        let subscription = self.projection.store.subscribe(subscribe).await?;
        let projection = &*self.projection;
        let parking = match &projection.on_poison {
            OnPoison::Park(stream) => Some(stream.clone()),
            OnPoison::Stop => None,
        };
        self.meter.begin(from);
        Ok(Reader::new(subscription, projection.partition, parking, projection.batch))
    }

    /// Waits for the next events, keeping the checkpoint meanwhile.
    async fn idle<F: Future<Output = ()> + Send>(
        &mut self,
        mut stop: Pin<&mut F>,
        reader: &mut Reader,
        next: &mut Pack,
    ) -> Result<Option<Stopped>, End> {
        // Before it is live it only waits for a page: to save after each would cost half of the time.
        if self.is_ahead && self.meter.is_live {
            self.save().await?;
        }
        loop {
            tokio::select! {
                biased;
                () = stop.as_mut() => return self.stopped().await.map(Some),
                taken = reader.take(next) => {
                    taken?;
                    return Ok(None);
                }
                () = sleep(self.projection.save_every) => {
                    if let Some(stopped) = self.look().await? {
                        return Ok(Some(stopped));
                    }
                }
            }
        }
    }

    /// Hands events over: together, or where that fails, one by one.
    async fn hand_over(&mut self, events: &[RecordedEvent], to: Position) -> Result<(), End> {
        let error = match self.deliver(events, to).await {
            Ok(()) => return Ok(()),
            Err(Failure::Handler(error)) => error,
            Err(other) => return Err(other.into()),
        };
        tracing::warn!(
            projection = %self.subscriber,
            events = events.len(),
            %error,
            "the handler failed: one event at a time"
        );
        for event in events {
            self.hand_over_one(event).await?;
        }
        Ok(())
    }

    async fn hand_over_one(&mut self, event: &RecordedEvent) -> Result<(), End> {
        let policy = self.projection.retry.clone();
        let mut failures = 0;
        let error = loop {
            match self.deliver(slice::from_ref(event), event.position).await {
                Ok(()) => return Ok(()),
                Err(Failure::Handler(_)) if failures < policy.max_failures => {
                    policy.pause(failures).await;
                    failures += 1;
                }
                Err(Failure::Handler(error)) => break error,
                Err(other) => return Err(other.into()),
            }
        };
        let poison = Poison::new(&self.subscriber, event, &error);
        let OnPoison::Park(parking) = self.projection.on_poison.clone() else {
            let event = Box::new(poison);
            return Err(ProjectionError::Poison { event, source: error }.into());
        };
        poison.park(&self.projection.store, &policy, &parking).await?;
        self.done = Some(event.position);
        self.save().await
    }

    async fn deliver(&mut self, events: &[RecordedEvent], to: Position) -> Result<(), Failure> {
        let batch = Batch {
            events,
            subscriber: &self.subscriber,
            is_live: self.meter.is_live,
            token: self.projection.token,
        };
        let span = tracing::info_span!(
            "process",
            otel.kind = "consumer",
            messaging.system = "annals",
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.consumer.group.name = %self.subscriber,
            messaging.batch.message_count = events.len(),
        );
        #[cfg(feature = "opentelemetry")]
        if !span.is_disabled() {
            // A span that was entered has its parent: then they are links.
            if events.len() > 1 {
                span.in_scope(|| ());
            }
            events.iter().for_each(|event| crate::trace::link(&span, &crate::Context::of(event)));
        }
        self.projection.delivery.deliver(&batch, self.saved, to).instrument(span).await?;
        self.done = Some(to);
        match D::GUARANTEE {
            Guarantee::ExactlyOnce => self.saved = self.done,
            Guarantee::AtLeastOnce => self.is_ahead = true,
        }
        self.meter.count(events.len());
        Ok(())
    }

    /// Keeps how far it is.
    async fn save(&mut self) -> Result<(), End> {
        if let Some(to) = self.done.filter(|to| Some(*to) > self.saved) {
            self.projection.delivery.advance(&self.subscriber, self.saved, to).await?;
            self.saved = Some(to);
        }
        self.is_ahead = false;
        Ok(())
    }

    async fn stopped(&mut self) -> Result<Stopped, End> {
        self.save().await?;
        Ok(Stopped::Asked)
    }

    /// What is due from time to time.
    async fn look(&mut self) -> Result<Option<Stopped>, End> {
        self.save().await?;
        self.looked = Instant::now();
        if self.meter.is_live {
            let end = self.projection.store.last_position().await?;
            self.meter.lags(self.done.unwrap_or_default(), end);
        }
        Ok(self.is_superseded().await?.then_some(Stopped::Superseded))
    }

    async fn is_superseded(&mut self) -> Result<bool> {
        let live = self.projection.live_generation().await?;
        Ok(live > u64::from(self.projection.generation.get()))
    }

    /// There is nothing more at the moment: this generation takes over, if it has not before.
    async fn caught_up(&mut self, at: Position) -> Result<(), End> {
        self.save().await?;
        let generation = u64::from(self.projection.generation.get());
        let before = self.projection.live_position().await?;
        if generation > before.map_or(1, Position::get) {
            let live = self.projection.live_id()?;
            self.projection.delivery.switch(&live, before, generation.into()).await?;
            tracing::info!(projection = %self.subscriber, "has taken over");
        }
        self.meter.is_live = true;
        self.meter.tell(at, at, self.projection.on_progress.as_mut());
        Ok(())
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Moved => Self::Moved,
            Failure::Store(error) => Self::Failed(error.into()),
            // Where events are handed over it is dealt with.
            Failure::Handler(error) => Self::Failed(ProjectionError::Switch(error)),
        }
    }
}
