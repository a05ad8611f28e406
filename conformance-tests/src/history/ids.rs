//! The events of a history: numbers, and the ids and contents that they are sent with.

use std::ops::Range;

use annals_core::{NewEvent, RecordedEvent};
use uuid::Uuid;

/// The events of one append to one stream: consecutive numbers.
pub(super) type Batch = Range<u32>;

/// The type of the events at which the subscribers stop.
pub(super) const STOP: &str = "Stop";
/// The type of all other events.
const STEP: &str = "Step";

/// Makes events of numbers, and knows them again. No two runs have the same ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids(u64);

impl Ids {
    pub(super) fn new() -> Self {
        Self(fastrand::u64(1..))
    }

    pub(super) fn event(self, number: u32, is_stop: bool) -> NewEvent {
        let event_type = if is_stop { STOP } else { STEP };
        let id = Uuid::from_u64_pair(self.0, number.into());
        NewEvent::json(event_type, &number).unwrap().with_id(id)
    }

    /// The number of an event, or why it is none of this history.
    pub(super) fn number(self, event: &RecordedEvent) -> Result<u32, String> {
        let (run, number) = event.id.as_u64_pair();
        let number = u32::try_from(number).ok().filter(|_| run == self.0);
        let number = number.ok_or_else(|| format!("this history has not sent {event:?}"))?;
        if event.data.bytes()[..] == *number.to_string().as_bytes() {
            Ok(number)
        } else {
            Err(format!("event e{number} was sent with other data than {event:?}"))
        }
    }
}
