//! Projections whose streams are divided between processes.

use std::{
    future::{Future, pending},
    num::{NonZeroU32, NonZeroUsize},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use annals_core::{Error, ErrorKind, Result};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{Delivery, Partition, Projection, ProjectionError};

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
    /// checkpoints do not fit them. So [`Workers::run`] refuses another number. By default a process may lead all partitions, and leases have a
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
    /// [`ErrorKind::InvalidInput`] if the projection has checkpoints of another number of partitions, or
    /// one of a run without partitions; the error names them. To begin anew with this number, remove
    /// these checkpoints, or give the projection another name.
    pub async fn run<D: Delivery + 'static>(
        &self,
        mut make: impl FnMut(Partition) -> Result<Projection<D>>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), ProjectionError> {
        let permits = Arc::new(Semaphore::new(self.at_most.get().min(Semaphore::MAX_PERMITS)));
        let (stop_all, stopped) = watch::channel(false);
        let mut projections = Vec::new();
        for index in 0..self.partitions.get() {
            let partition = Partition { index, count: self.partitions };
            projections.push(make(partition)?.with_partition(partition));
        }
        if let Some(first) = projections.first_mut() {
            first.claim_division().await?;
        }
        let mut tasks = JoinSet::new();
        for mut projection in projections {
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
