//! Into how many partitions a projection is divided, which must not change while it has checkpoints.

use annals_core::{Error, ErrorKind, Position, Result, SubscriberId};

use super::{Delivery, Projection, delivery::DeliveryError};

/// How many checkpoints an error names.
const NAMED: usize = 4;

impl<D: Delivery> Projection<D> {
    /// Makes sure that every checkpoint of this projection is of the division that this run has: into
    /// this number of partitions, or into none.
    ///
    /// The number is stored as a checkpoint of its own, since checkpoints cannot be listed. The
    /// partitions get their checkpoints at once, so that a process with another number that starts
    /// meanwhile finds them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if there are checkpoints of another division; those of the store.
    pub(super) async fn claim_division(&mut self) -> Result<()> {
        let mut attempts = self.retry.attempts_without_deadline();
        loop {
            match self.try_to_claim().await {
                Ok(()) => return Ok(()),
                Err(DeliveryError::Store(error)) => attempts.pause_after(error).await?,
                // Another process claims a division at the same time: look which.
                Err(DeliveryError::CheckpointMoved | DeliveryError::Handler(_)) => {}
            }
        }
    }

    async fn try_to_claim(&mut self) -> Result<(), DeliveryError> {
        let record = SubscriberId::new(format!("{}#workers", self.name))?;
        let wanted = self.partition.map_or(0, |partition| partition.count.get());
        let stored = self.delivery.position(&record).await?;
        let found = stored.map_or(0, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
        if found != wanted {
            self.refuse_others(found, wanted).await?;
            self.delivery.advance(&record, stored, Position::new(wanted.into())).await?;
        }
        let mut first = None;
        for index in 0..wanted {
            let partition = self.partition_id(index, wanted)?;
            if self.delivery.position(&partition).await?.is_none() {
                let first = match first {
                    Some(first) => first,
                    None => *first.insert(self.first_position().await?),
                };
                self.delivery.advance(&partition, None, first).await?;
            }
        }
        if wanted > 0 && self.delivery.position(&record).await? != Some(u64::from(wanted).into()) {
            return Err(DeliveryError::CheckpointMoved);
        }
        Ok(())
    }

    /// Refuses a run if there are checkpoints of another division.
    async fn refuse_others(&mut self, found: u32, wanted: u32) -> Result<()> {
        let names = if found == 0 {
            let live = self.live_generation().await?;
            let later = (live > 1).then(|| SubscriberId::new(format!("{}@{live}", self.name)));
            std::iter::once(SubscriberId::new(self.name.clone())).chain(later).collect()
        } else {
            let names = (0..found).map(|index| self.partition_id(index, found));
            names.collect::<Result<Vec<_>>>()
        };
        let mut standing = Vec::new();
        for name in names? {
            if self.delivery.position(&name).await?.is_some() {
                standing.push(name.to_string());
            }
            if standing.len() > NAMED {
                break;
            }
        }
        if standing.is_empty() {
            return Ok(());
        }
        let more = if standing.len() > NAMED { ", …" } else { "" };
        standing.truncate(NAMED);
        let parts = |count| match count {
            0 => "without partitions".to_owned(),
            count => format!("with {count} partitions"),
        };
        let message = format!(
            "the projection {:?} cannot run {}: it has checkpoints of a run {} ({}{more}), with which \
             all events would be handled again; run it {}, or give it another name, or remove these \
             checkpoints",
            self.name,
            parts(wanted),
            parts(found),
            standing.join(", "),
            parts(found)
        );
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    fn partition_id(&self, index: u32, count: u32) -> Result<SubscriberId> {
        SubscriberId::new(format!("{}#{index}/{count}", self.name))
    }
}
