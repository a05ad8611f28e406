//! Projections in several processes.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use annals_core::{Candidate, Error, LeaseName};
use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};

use super::{Delivery, Projection, ProjectionError, Status, Stopped};

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
    /// A [handle](Projection::handle) tells whether this process leads, and else who does.
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
    /// [`ProjectionError`]; [`ErrorKind::Unsupported`](annals_core::ErrorKind::Unsupported) if the store has no leases.
    pub async fn lead(
        &mut self,
        ttl: Duration,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Stopped, ProjectionError> {
        self.lead_within(ttl, Arc::new(Semaphore::new(1)), pin!(stop)).await
    }

    /// Does what [`Projection::lead`] does, but takes a permit before it requests the lease.
    pub(super) async fn lead_within<F: Future<Output = ()> + Send>(
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
        let told = Told(self.status.clone());
        loop {
            let waiting = async {
                loop {
                    if let Ok(permit) = permits.clone().acquire_owned().await
                        && acquire(&mut candidate, &told).await
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
                () = renew(&mut candidate, ttl, &told) => None,
                ended = self.run(stop.as_mut()) => Some(ended),
            };
            self.token = None;
            told.tell(None, &candidate);
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

/// Tells handles who leads.
struct Told(watch::Sender<Status>);

impl Told {
    fn tell(&self, token: Option<u64>, candidate: &Candidate) {
        self.0.send_if_modified(|status| {
            let changes = (status.token, &status.lease.as_ref()) != (token, &candidate.record());
            (status.token, status.lease) = (token, candidate.record().cloned());
            changes
        });
    }
}

impl Drop for Told {
    // Also if the future that leads is dropped.
    fn drop(&mut self) {
        self.0.send_modify(|status| status.token = None);
    }
}

/// Requests or renews the lease, and returns whether it is held. If the store fails, the answer is
/// that of before, and the next call tries again.
async fn acquire(candidate: &mut Candidate, told: &Told) -> bool {
    let held = match candidate.acquire().await {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(?candidate, %error, "the lease could not be requested");
            candidate.token().is_some()
        }
    };
    told.tell(candidate.token(), candidate);
    held
}

/// Renews the lease again and again, and returns when it is lost.
async fn renew(candidate: &mut Candidate, ttl: Duration, told: &Told) {
    let token = candidate.token();
    while token.is_some() && candidate.token() == token {
        sleep((ttl / TRIES_PER_TTL).min(candidate.remaining())).await;
        // An answer that comes after the lease has expired is of no use.
        let until = candidate.remaining();
        drop(tokio::time::timeout(until, acquire(candidate, told)).await);
    }
}
