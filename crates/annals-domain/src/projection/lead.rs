//! Projections in several processes.

use std::{
    future::{Future, pending},
    num::{NonZeroU32, NonZeroUsize},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use annals_core::{Candidate, Error, ErrorKind, LeaseName, Result};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::sleep,
};

use super::{Delivery, Partition, Projection, ProjectionError, Stopped};

/// How often a lease is renewed or requested within its time to live.
const TRIES_PER_TTL: u32 = 4;

impl<D: Delivery> Projection<D> {
    /// [Runs](Projection::run) the projection while this process is its leader, and waits otherwise.
    /// Of all processes that call this for one projection, one runs it. If that process dies, another
    /// takes over within one and a quarter of `ttl`; if it stops in order, within a quarter of `ttl`.
    ///
    /// Ten seconds are a good `ttl`. The lease is renewed by the task that runs the handler, so choose
    /// a `ttl` that is far longer than the handler works without reaching an `.await` that waits.
    ///
    /// A process that was suspended and has lost the lease meanwhile may finish the handler call that
    /// it had begun. With exactly-once delivery, it then finds the checkpoint moved and rolls back.
    /// With at-least-once delivery, the database that the handler writes to can refuse its writes by
    /// the [token](super::Batch::token).
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use annals_core::Store;
    /// use annals_domain::projection::{Handler, Projection, ProjectionError};
    ///
    /// async fn lead(store: Arc<dyn Store>, handler: impl Handler) -> Result<(), ProjectionError> {
    ///     let mut projection = Projection::at_least_once(store, "letters", handler)?;
    ///     projection.lead(Duration::from_secs(10), std::future::pending()).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ProjectionError`]; [`ErrorKind::Unsupported`] if the store has no leases.
    pub async fn lead(
        &mut self,
        ttl: Duration,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Stopped, ProjectionError> {
        self.lead_within(ttl, Arc::new(Semaphore::new(1)), pin!(stop)).await
    }

    /// Does what [`Projection::lead`] does, but takes a permit before it requests the lease.
    async fn lead_within<F: Future<Output = ()> + Send>(
        &mut self,
        ttl: Duration,
        permits: Arc<Semaphore>,
        mut stop: Pin<&mut F>,
    ) -> Result<Stopped, ProjectionError> {
        if !self.store.capabilities().leases {
            return Err(Error::unsupported("leases").into());
        }
        let subscriber = self.subscriber()?;
        let name = LeaseName::new(subscriber.as_str())?;
        let mut candidate = Candidate::new(self.store.clone(), name, ttl);
        loop {
            let waiting = async {
                loop {
                    if let Ok(permit) = permits.clone().acquire_owned().await
                        && acquire(&mut candidate).await
                    {
                        return permit;
                    }
                    sleep(ttl / TRIES_PER_TTL).await;
                }
            };
            let _permit = tokio::select! {
                biased;
                () = stop.as_mut() => return Ok(Stopped::Requested),
                permit = waiting => permit,
            };
            self.token = candidate.token();
            tracing::info!(projection = %subscriber, token = self.token, "this process leads");
            let ended = tokio::select! {
                biased;
                () = renew(&mut candidate, ttl) => None,
                ended = self.run(stop.as_mut()) => Some(ended),
            };
            self.token = None;
            match ended {
                None => tracing::warn!(projection = %subscriber, "this process has lost the lease"),
                Some(ended) => {
                    if let Err(error) = candidate.release().await {
                        tracing::warn!(
                            projection = %subscriber,
                            %error,
                            "the lease could not be released, and will expire"
                        );
                    }
                    return ended;
                }
            }
        }
    }
}

/// Requests or renews the lease, and returns whether it is held. If the store fails, the answer is
/// that of before, and the next call tries again.
async fn acquire(candidate: &mut Candidate) -> bool {
    match candidate.acquire().await {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(?candidate, %error, "the lease could not be requested");
            candidate.token().is_some()
        }
    }
}

/// Renews the lease again and again, and returns when it is lost.
async fn renew(candidate: &mut Candidate, ttl: Duration) {
    let token = candidate.token();
    while token.is_some() && candidate.token() == token {
        sleep((ttl / TRIES_PER_TTL).min(candidate.remaining())).await;
        // An answer that comes after the lease has expired is of no use.
        let until = candidate.remaining();
        drop(tokio::time::timeout(until, acquire(candidate)).await);
    }
}

/// Spreads a projection over several processes. The streams are divided into partitions; each
/// partition handles the events of its streams in order, and has a checkpoint and a leader of its own.
/// Each partition reads the whole source and leaves out the events of other partitions, so this pays
/// if handling an event costs more than reading it.
///
/// ```
/// # use std::{num::{NonZeroU32, NonZeroUsize}, sync::Arc};
/// # use annals_core::Store;
/// use annals_domain::projection::{Handler, Projection, ProjectionError, Workers};
///
/// /// Runs at most two of four partitions in this process.
/// async fn work<H: Handler + 'static>(
///     store: Arc<dyn Store>,
///     handler: impl Fn() -> H,
/// ) -> Result<(), ProjectionError> {
///     let workers = Workers::new(NonZeroU32::new(4).unwrap())
///         .with_at_most(NonZeroUsize::new(2).unwrap());
///     let make = |_| Projection::at_least_once(store.clone(), "letters", handler());
///     workers.run(make, std::future::pending()).await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Workers {
    partitions: NonZeroU32,
    at_most: NonZeroUsize,
    ttl: Duration,
}

impl Workers {
    /// Workers for a projection with this many partitions. The number must be the same in all
    /// processes and stay the same: with another number, streams would move to other partitions, whose
    /// checkpoints do not fit them. By default a process may lead all partitions, and leases have a
    /// time to live of ten seconds.
    #[must_use]
    pub fn new(partitions: NonZeroU32) -> Self {
        Self { partitions, at_most: NonZeroUsize::MAX, ttl: Duration::from_secs(10) }
    }

    /// Sets how many partitions this process leads at most at the same time. Partitions that no
    /// process may lead wait.
    #[must_use]
    pub fn with_at_most(mut self, partitions: NonZeroUsize) -> Self {
        self.at_most = partitions;
        self
    }

    /// Sets the time to live of the leases: see [`Projection::lead`].
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Runs the partitions that this process leads, each in a task of its own, until the future `stop`
    /// is ready. `make` makes the projection for each partition.
    ///
    /// # Errors
    /// The error of the first partition that fails. The other partitions are then stopped.
    pub async fn run<D: Delivery + 'static>(
        &self,
        mut make: impl FnMut(Partition) -> Result<Projection<D>>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), ProjectionError> {
        let permits = Arc::new(Semaphore::new(self.at_most.get().min(Semaphore::MAX_PERMITS)));
        let (stop_all, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for index in 0..self.partitions.get() {
            let partition = Partition { index, count: self.partitions };
            let mut projection = make(partition)?.with_partition(partition);
            let (permits, ttl, mut stopped) = (permits.clone(), self.ttl, stopped.clone());
            tasks.spawn(async move {
                let stop = async move {
                    // This also returns if the sender is gone, and then the task must stop too.
                    drop(stopped.wait_for(|stop| *stop).await);
                };
                projection.lead_within(ttl, permits, pin!(stop)).await
            });
        }
        let mut stop = pin!(stop);
        let mut stopping = false;
        let mut failed = None;
        loop {
            let ended = tokio::select! {
                () = async { if stopping { pending().await } else { stop.as_mut().await } } => {
                    stopping = true;
                    stop_all.send_replace(true);
                    continue;
                }
                ended = tasks.join_next() => ended,
            };
            match ended {
                None => return failed.map_or(Ok(()), Err),
                Some(Ok(Ok(_))) => {}
                Some(Ok(Err(error))) => failed = failed.or(Some(error)),
                Some(Err(panicked)) => {
                    let error = Error::new(ErrorKind::Internal, "the task of a partition panicked");
                    failed = failed.or(Some(error.with_source(panicked).into()));
                }
            }
            if failed.is_some() {
                stopping = true;
                stop_all.send_replace(true);
            }
        }
    }
}
