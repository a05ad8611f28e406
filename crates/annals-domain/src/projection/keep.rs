//! Keeps the checkpoint of a run, and tells others how far the run is.

use annals_core::{EventStoreExt, Position, Result};
use tokio::time::Instant;

use super::{Delivery, Stopped, error::Interruption, run::Run};

impl<D: Delivery> Run<'_, D> {
    pub(super) async fn save_checkpoint(&mut self) -> Result<(), Interruption> {
        if let Some(to) = self.handled_to.filter(|to| Some(*to) > self.checkpoint) {
            self.projection.delivery.advance(&self.subscriber, self.checkpoint, to).await?;
            self.checkpoint = Some(to);
        }
        self.has_unsaved = false;
        Ok(())
    }

    /// Tells handles how far the run is.
    pub(super) fn tell(&self) {
        let (position, is_live) = (self.handled_to.unwrap_or_default(), self.tracker.is_live);
        self.projection.status.send_if_modified(|status| {
            let changes = (status.position, status.is_live) != (Some(position), is_live);
            (status.position, status.is_live) = (Some(position), is_live);
            changes
        });
    }

    /// Does what is due from time to time: saves the checkpoint or looks whether it was reset, measures
    /// the lag, and looks whether a later generation has taken over.
    pub(super) async fn check(&mut self) -> Result<Option<Stopped>, Interruption> {
        if self.handled_to > self.checkpoint {
            self.save_checkpoint().await?;
        } else if self.projection.delivery.position(&self.subscriber).await? != self.checkpoint {
            return Err(Interruption::CheckpointMoved);
        }
        self.last_check = Instant::now();
        if self.tracker.is_live {
            let end = self.projection.store.last_position().await?;
            self.tracker.measure_lag(self.handled_to.unwrap_or_default(), end);
        }
        Ok(self.is_superseded().await?.then_some(Stopped::Superseded))
    }

    pub(super) async fn is_superseded(&mut self) -> Result<bool> {
        let live = self.projection.live_generation().await?;
        Ok(live > u64::from(self.projection.generation.get()))
    }

    /// The projection has caught up: its generation takes over, unless it has done so before.
    pub(super) async fn caught_up(&mut self, at: Position) -> Result<(), Interruption> {
        self.save_checkpoint().await?;
        let generation = u64::from(self.projection.generation.get());
        let before = self.projection.live_position().await?;
        if generation > before.map_or(1, Position::get) {
            let live = self.projection.live_id()?;
            self.projection.delivery.switch(&live, before, generation.into()).await?;
            tracing::info!(projection = %self.subscriber, "this generation has taken over");
        }
        self.tracker.is_live = true;
        self.tell();
        self.tracker.report(at, at, self.projection.on_progress.as_mut());
        Ok(())
    }
}
