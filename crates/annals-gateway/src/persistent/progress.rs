//! The progress of a group.
//!
//! An event that was read is outstanding until a consumer has acknowledged it, or the group has
//! skipped or parked it. The checkpoint is the event before the first outstanding one. So every
//! event is given at least once, even if the consumers or the gateway crash.

use std::collections::BTreeMap;

use annals_core::{Position, Store};
use tonic::Status;

use super::{name::GroupName, settings::Settings};
use crate::status::status;

/// When it is asked whether to store the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// A consumer has answered events: the checkpoint is stored if the most events are done that may be
    /// done without.
    Answered,
    /// The time between two checkpoints is over: the checkpoint is stored if enough events are done.
    TimePassed,
    /// The last consumer has gone, or the task ends: there may be no other time.
    Ending,
}

/// A place is a revision, or a position in a category or `$all`. `None` is the place before the
/// first event.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    next_number: u64,
    /// The outstanding events by their number, each with the place of the event read before it.
    outstanding: BTreeMap<u64, Option<u64>>,
    last_read: Option<u64>,
    /// The place of the last event that was read.
    last_event: Option<u64>,
    checkpoint: Option<u64>,
    /// Events that are done since the checkpoint was stored.
    done: i32,
}

impl Progress {
    /// Begins after the stored checkpoint, with nothing outstanding.
    pub(crate) fn resume(&mut self, checkpoint: Option<u64>) {
        self.checkpoint = checkpoint;
        self.last_read = checkpoint;
        self.last_event = checkpoint;
    }

    /// Notes that the event at `place` was read. Returns its number, in reading order.
    pub(crate) fn begin(&mut self, place: Option<u64>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.outstanding.insert(number, self.last_read);
        self.last_read = place;
        self.last_event = place;
        number
    }

    /// Notes that the filter matches no event between the last one read and `place`.
    pub(crate) fn pass(&mut self, place: u64) {
        self.last_read = self.last_read.max(Some(place));
    }

    pub(crate) fn finish(&mut self, number: u64) {
        self.outstanding.remove(&number);
        self.done = self.done.saturating_add(1);
    }

    /// The place to store as the new checkpoint. `None` if the group has made no progress, or if fewer
    /// events are done than the settings ask for at such a time.
    pub(crate) fn due(&self, settings: &Settings, when: When) -> Option<u64> {
        let place = self.completed().filter(|place| Some(*place) > self.checkpoint)?;
        let least = match when {
            When::Answered => settings.max_checkpoint_count.max(1),
            When::TimePassed => settings.min_checkpoint_count.max(1),
            When::Ending => 0,
        };
        (self.done >= least).then_some(place)
    }

    /// Notes that `place` was stored as the checkpoint.
    pub(crate) fn stored(&mut self, place: u64) {
        self.checkpoint = Some(place);
        self.done = 0;
    }

    /// The place up to which every event is done.
    fn completed(&self) -> Option<u64> {
        self.outstanding.first_key_value().map_or(self.last_read, |(_, before)| *before)
    }

    pub(crate) fn last_read(&self) -> Option<u64> {
        self.last_read
    }

    pub(crate) fn last_event(&self) -> Option<u64> {
        self.last_event
    }

    /// True if nothing was read yet, nor a checkpoint loaded.
    pub(crate) fn is_new(&self) -> bool {
        self.checkpoint.is_none() && self.last_read.is_none()
    }

    pub(crate) fn checkpoint(&self) -> Option<u64> {
        self.checkpoint
    }
}

pub(crate) async fn load_checkpoint(
    store: &dyn Store,
    name: &GroupName,
) -> Result<Option<u64>, Status> {
    let stored = store.load_checkpoint(&name.subscriber()?).await.map_err(|e| status(&e))?;
    Ok(stored.and_then(|position| position.get().checked_sub(1)))
}

/// Stores `place + 1`: the store's checkpoints begin at 1, revisions at 0.
pub(crate) async fn save_checkpoint(
    store: &dyn Store,
    name: &GroupName,
    place: u64,
) -> Result<(), Status> {
    let position = Position::new(place + 1);
    store.save_checkpoint(&name.subscriber()?, position).await.map(drop).map_err(|e| status(&e))
}

#[cfg(test)]
mod tests {
    use super::{
        super::settings::{Settings, Strategy},
        *,
    };

    fn settings(min_checkpoint_count: i32, max_checkpoint_count: i32) -> Settings {
        Settings {
            resolve_links: false,
            extra_statistics: false,
            max_retries: 0,
            message_timeout_ms: 0,
            checkpoint_after_ms: 0,
            min_checkpoint_count,
            max_checkpoint_count,
            max_subscribers: 0,
            live_buffer_size: 1,
            read_batch_size: 1,
            history_buffer_size: 1,
            strategy: Strategy::RoundRobin,
        }
    }

    #[test]
    fn the_checkpoint_stays_before_the_first_outstanding_event() {
        let (mut progress, settings) = (Progress::default(), settings(1, 1));
        progress.resume(Some(10));
        let [first, second, third] = [11, 12, 13].map(|place| progress.begin(Some(place)));
        progress.finish(second);
        progress.finish(third);
        assert_eq!(progress.due(&settings, When::Ending), None);
        progress.finish(first);
        assert_eq!(progress.due(&settings, When::Answered), Some(13));
        progress.stored(13);
        assert_eq!(progress.due(&settings, When::Ending), None);
        progress.pass(20);
        assert_eq!(
            (progress.due(&settings, When::Answered), progress.due(&settings, When::Ending)),
            (None, Some(20))
        );
    }

    #[test]
    fn the_checkpoint_is_due_after_the_numbers_of_events_that_are_set() {
        for (min, max, when, least) in [
            (3, 10, When::TimePassed, 3),
            (3, 10, When::Answered, 10),
            (10, 2, When::Answered, 2),
            (5, 0, When::Answered, 1),
            (0, 5, When::TimePassed, 1),
        ] {
            let (mut progress, settings) = (Progress::default(), settings(min, max));
            for place in 0..least {
                assert_eq!(progress.due(&settings, when), None, "{min} to {max}");
                let number = progress.begin(Some(place));
                progress.finish(number);
            }
            assert_eq!(progress.due(&settings, when), Some(least - 1), "{min} to {max}");
        }
    }
}
