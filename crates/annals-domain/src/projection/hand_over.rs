//! Hands events to the handler, and repeats that when the handler fails.

use std::slice;

use annals_core::{Position, RecordedEvent};
use tokio::time::sleep;
use tracing::Instrument;

use super::{
    Batch, Delivery, Guarantee, OnPoison, Poison, ProjectionError,
    delivery::DeliveryError,
    error::{Interruption, chain},
    run::Run,
};

impl<D: Delivery> Run<'_, D> {
    /// Hands events over together or, if the handler fails, one by one.
    pub(super) async fn hand_over(
        &mut self,
        events: &[RecordedEvent],
        to: Position,
    ) -> Result<(), Interruption> {
        let error = match self.deliver(events, to).await {
            Ok(()) => return Ok(()),
            Err(DeliveryError::Handler(error)) => error,
            Err(other) => return Err(other.into()),
        };
        tracing::warn!(
            projection = %self.subscriber,
            events = events.len(),
            error = chain(&*error),
            "the handler failed, and gets these events again, one by one"
        );
        for event in events {
            self.hand_over_one(event).await?;
        }
        Ok(())
    }

    async fn hand_over_one(&mut self, event: &RecordedEvent) -> Result<(), Interruption> {
        let policy = self.projection.retry.clone();
        let mut backoff = policy.backoff();
        let mut failures = 0;
        let error = loop {
            match self.deliver(slice::from_ref(event), event.position).await {
                Ok(()) => return Ok(()),
                Err(DeliveryError::Handler(_)) if failures < policy.max_failures => {
                    sleep(backoff.next_pause()).await;
                    failures += 1;
                }
                Err(DeliveryError::Handler(error)) => break error,
                Err(other) => return Err(other.into()),
            }
        };
        let poison = Poison::new(&self.subscriber, event, &error);
        let OnPoison::Park(parking) = self.projection.on_poison.clone() else {
            let event = Box::new(poison);
            return Err(ProjectionError::Poison { event, source: error }.into());
        };
        poison.park(&self.projection.store, &policy, &parking).await?;
        self.handled_to = Some(event.position);
        self.save_checkpoint().await
    }

    async fn deliver(
        &mut self,
        events: &[RecordedEvent],
        to: Position,
    ) -> Result<(), DeliveryError> {
        let batch = Batch {
            events,
            subscriber: &self.subscriber,
            is_live: self.tracker.is_live,
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
            // A span that was entered cannot get another parent, so that `link` adds links instead.
            if events.len() > 1 {
                span.in_scope(|| ());
            }
            events.iter().for_each(|event| crate::trace::link(&span, &crate::Context::of(event)));
        }
        self.projection.delivery.deliver(&batch, self.checkpoint, to).instrument(span).await?;
        self.handled_to = Some(to);
        match D::GUARANTEE {
            Guarantee::ExactlyOnce => self.checkpoint = self.handled_to,
            Guarantee::AtLeastOnce => self.has_unsaved = true,
        }
        self.tracker.count(events.len());
        self.tell();
        Ok(())
    }
}
