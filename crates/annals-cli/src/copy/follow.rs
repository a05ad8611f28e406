//! Follows a source: copies new events as they come, and waits out an outage of either side.

use std::time::Duration;

use annals::{EventStoreExt, Message, Start, Subscribe, adapter::Backoff};
use futures::StreamExt;
use tokio::time::{Instant, MissedTickBehavior};

use super::{End, Import, Run};
use crate::{deletions, failure::Failure};

/// The most messages of a subscription that are taken at once.
const CHUNK: usize = 1_000;

/// How often a source is asked that has no new events. A subscription waits for its database without
/// a word, and the user wants to know.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long the source has for the answer.
const ASK_FOR: Duration = Duration::from_secs(10);

/// The pauses between tries during an outage: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Run {
    /// Copies what there is, and then new events as they come, until Ctrl-C. Then copies the events
    /// that the source has at that time.
    pub(super) async fn follow(&mut self) -> Result<End, Failure> {
        loop {
            let failure = match self.follow_until_outage().await {
                Ok(end) => return Ok(end),
                Err(failure) => failure,
            };
            if !failure.may_pass() {
                return Err(failure);
            }
            if !self.wait(&failure).await {
                return Ok(End::Interrupted);
            }
        }
    }

    async fn follow_until_outage(&mut self) -> Result<End, Failure> {
        if self.copy().await? == End::Interrupted {
            return Ok(End::Interrupted);
        }
        self.copy_live().await?;
        self.copy().await
    }

    /// Waits before the next try. `false` means that the user wants the command to end.
    async fn wait(&mut self, failure: &Failure) -> bool {
        let progress = &self.progress;
        let outage = self.outage.get_or_insert_with(|| {
            progress.say(&format!("waiting until this works again: {}", failure.message()));
            Backoff::new(PAUSES.0, PAUSES.1)
        });
        tokio::select! {
            biased;
            () = self.interrupt.wait() => false,
            () = tokio::time::sleep(outage.next_pause()) => true,
        }
    }

    /// Both sides have answered.
    pub(super) fn has_worked(&mut self) {
        if self.outage.take().is_some() {
            self.progress.say(&format!("it works again: going on after position {}", self.done));
        }
    }

    /// Copies new events as they come, until Ctrl-C.
    async fn copy_live(&mut self) -> Result<(), Failure> {
        let Some(store) = self.source.store().cloned() else { return Ok(()) };
        let of_source = |error| Failure::from(error).at("the source");
        let options = Subscribe::to(self.select.filter()).with_start(Start::After(self.done));
        // Events that are available at the same time are written together; none waits for more.
        let mut live = store.subscribe(options).await.map_err(of_source)?.ready_chunks(CHUNK);
        self.progress.follow();
        let mut ask = tokio::time::interval_at(Instant::now() + ASK_EVERY, ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let messages = tokio::select! {
                biased;
                () = self.interrupt.wait() => return Ok(()),
                messages = live.next() => messages,
                _ = ask.tick() => {
                    // If there is no answer in time, the next question may have one.
                    if let Ok(answer) = tokio::time::timeout(ASK_FOR, store.last_position()).await {
                        answer.map_err(of_source)?;
                    }
                    self.progress.idle(self.done);
                    continue;
                }
            };
            let Some(messages) = messages else {
                return Err(Failure::new("the subscription has ended").at("the source"));
            };
            let (mut events, mut seen) = (Vec::new(), self.done);
            for message in messages {
                let message = message.map_err(of_source)?;
                seen = seen.max(message.position());
                if let Message::Event(event) = message
                    && self.select.matches(&event)
                {
                    events.push(event);
                }
            }
            if self.source.exporter().is_some() {
                // A subscription leaves out events under names that annals does not take.
                self.copy().await?;
                self.progress.in_step();
                continue;
            }
            let events = self.carried(events).await?;
            // A stream may have been deleted since its last event was copied.
            let deletions = deletions::before(&store, &events).await;
            self.deletions.extend(deletions.map_err(|e| e.at("the source"))?);
            let mut import = Import::new(self.target.import_limits());
            for event in events {
                if let Some(full) = import.push(event) {
                    self.write(full).await?;
                }
            }
            self.write(import.take()).await?;
            self.done = self.done.max(seen);
            self.save_if_due().await?;
            self.progress.in_step();
        }
    }
}
