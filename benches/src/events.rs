//! The events that the benchmarks write.

use annals_core::{NewEvent, Payload};
use uuid::Uuid;

/// The sizes of an event: small, as most events of applications are.
const DATA_BYTES: usize = 200;
const METADATA_BYTES: usize = 40;
/// The number of event types, as in an application of medium size.
const TYPES: usize = 10;

/// Generates events of 200 bytes of JSON data and 40 bytes of metadata. They differ only in id and
/// type, so that generating one costs little.
#[derive(Clone, Debug)]
pub struct EventGenerator {
    templates: Vec<NewEvent>,
    made: usize,
}

impl EventGenerator {
    /// Generates events of ten types in turn.
    #[must_use]
    pub fn new() -> Self {
        let template = |n| {
            let data = Payload::json_text(data()).unwrap();
            let event_type = format!("OrderChanged{n}").try_into().unwrap();
            NewEvent::new(event_type, data).with_metadata(metadata())
        };
        Self { templates: (0..TYPES).map(template).collect(), made: 0 }
    }

    /// An event with a new id.
    pub fn one(&mut self) -> NewEvent {
        self.made += 1;
        let template = self.templates.get(self.made % TYPES).unwrap();
        template.clone().with_id(Uuid::now_v7())
    }

    /// Several events.
    pub fn take(&mut self, count: usize) -> Vec<NewEvent> {
        (0..count).map(|_| self.one()).collect()
    }
}

impl Default for EventGenerator {
    fn default() -> Self {
        Self::new()
    }
}

/// The data of an event, which is JSON.
#[must_use]
pub fn data() -> String {
    json(DATA_BYTES)
}

/// The metadata of an event, which is JSON.
#[must_use]
pub fn metadata() -> String {
    json(METADATA_BYTES)
}

/// A JSON object of this many bytes.
fn json(bytes: usize) -> String {
    let object = |text: &str| format!("{{\"text\":\"{text}\"}}");
    object(&"x".repeat(bytes - object("").len()))
}
