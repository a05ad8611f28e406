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

/// A lease is renewed, and asked for, this often while it would last.
const TRIES: u32 = 4;

impl<D: Delivery> Projection<D> {
    /// [Runs](Projection::run) the projection while this process is its leader, and waits while it
    /// is not: of all processes that call this for one projection, one runs it. When that one dies,
    /// another follows after at most one and a quarter of `ttl`; when it stops in order, after a
    /// quarter. A `ttl` of ten seconds is a good one: it has to be far longer than the handler
    /// keeps the thread busy without waiting for anything, since meanwhile nothing is renewed.
    ///
    /// One that was replaced without noticing, since its process stood still, may go on with what
    /// it had begun. Where events are handled exactly once, it then finds its checkpoint moved.
    /// Elsewhere, what the handler writes to can tell by the [token](super::Batch::token).
    ///
    /// # Errors
    /// [`ProjectionError`]; [`ErrorKind::Unsupported`] where the store keeps no leases.
    pub async fn lead(
        &mut self,
        ttl: Duration,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Stopped, ProjectionError> {
        self.lead_within(ttl, Arc::new(Semaphore::new(1)), pin!(stop)).await
    }

    /// As [`Projection::lead`], while there is a permit.
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
                    sleep(ttl / TRIES).await;
                }
            };
            let _permit = tokio::select! {
                biased;
                () = stop.as_mut() => return Ok(Stopped::Asked),
                permit = waiting => permit,
            };
            self.token = candidate.token();
            tracing::info!(projection = %subscriber, token = self.token, "leads");
            let ended = tokio::select! {
                biased;
                () = renew(&mut candidate, ttl) => None,
                ended = self.run(stop.as_mut()) => Some(ended),
            };
            self.token = None;
            match ended {
                None => tracing::warn!(projection = %subscriber, "has lost its lease"),
                Some(ended) => {
                    if let Err(error) = candidate.release().await {
                        tracing::warn!(projection = %subscriber, %error, "its lease runs out");
                    }
                    return ended;
                }
            }
        }
    }
}

/// Whether the lease is held now. A store that fails is asked again the next time.
async fn acquire(candidate: &mut Candidate) -> bool {
    match candidate.acquire().await {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(?candidate, %error, "cannot ask for the lease");
            candidate.token().is_some()
        }
    }
}

/// Keeps the lease, and returns when it is lost.
async fn renew(candidate: &mut Candidate, ttl: Duration) {
    let token = candidate.token();
    while token.is_some() && candidate.token() == token {
        sleep((ttl / TRIES).min(candidate.remaining())).await;
        // An answer that comes too late is none.
        let until = candidate.remaining();
        drop(tokio::time::timeout(until, acquire(candidate)).await);
    }
}

/// Spreads a projection over processes, by stream: each of its partitions has the events of some
/// streams, in order, a checkpoint of its own, and one leader at a time. Every partition reads the
/// whole source and leaves out what is not its own, so that this pays where handling costs more
/// than reading.
#[derive(Clone, Debug)]
pub struct Workers {
    partitions: NonZeroU32,
    at_most: NonZeroUsize,
    ttl: Duration,
}

impl Workers {
    /// A projection of this many partitions, the same in all processes: with another number
    /// streams would change places, and the checkpoints mean nothing. A process leads any number of
    /// them, with leases of ten seconds.
    #[must_use]
    pub fn new(partitions: NonZeroU32) -> Self {
        Self { partitions, at_most: NonZeroUsize::MAX, ttl: Duration::from_secs(10) }
    }

    /// Sets how many partitions this process leads at the same time at most. Where the processes
    /// that are left may not lead all, the rest waits.
    #[must_use]
    pub fn with_at_most(mut self, partitions: NonZeroUsize) -> Self {
        self.at_most = partitions;
        self
    }

    /// Sets how long a lease lasts: see [`Projection::lead`].
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Runs the partitions that this process gets, each as a task of its own, until `stop` is
    /// ready. `make` makes the projection, once for each partition.
    ///
    /// # Errors
    /// That of the first partition that fails, after which the others are stopped.
    pub async fn run<D: Delivery + 'static>(
        &self,
        mut make: impl FnMut(Partition) -> Result<Projection<D>>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), ProjectionError> {
        let permits = Arc::new(Semaphore::new(self.at_most.get().min(Semaphore::MAX_PERMITS)));
        let (tell, told) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for index in 0..self.partitions.get() {
            let partition = Partition { index, count: self.partitions };
            let mut projection = make(partition)?.with_partition(partition);
            let (permits, ttl, mut told) = (permits.clone(), self.ttl, told.clone());
            tasks.spawn(async move {
                let stop = async move {
                    // An error says that nobody is left who could tell: then so, too.
                    drop(told.wait_for(|told| *told).await);
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
                    tell.send_replace(true);
                    continue;
                }
                ended = tasks.join_next() => ended,
            };
            match ended {
                None => return failed.map_or(Ok(()), Err),
                Some(Ok(Ok(_))) => {}
                Some(Ok(Err(error))) => failed = failed.or(Some(error)),
                Some(Err(panicked)) => {
                    let error = Error::new(ErrorKind::Internal, "a partition's task panicked");
                    failed = failed.or(Some(error.with_source(panicked).into()));
                }
            }
            if failed.is_some() {
                stopping = true;
                tell.send_replace(true);
            }
        }
    }
}
