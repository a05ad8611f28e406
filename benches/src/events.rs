//! The events that are written.

use annals_core::{NewEvent, Payload};
use uuid::Uuid;

/// The bytes of an event: small, as most are.
const DATA_BYTES: usize = 200;
const METADATA_BYTES: usize = 40;
/// As many types as a middling application has.
const TYPES: usize = 10;

/// Makes events that differ in id and type only, so that to make one costs little: 200 bytes of
/// JSON each, and 40 of metadata.
#[derive(Clone, Debug)]
pub struct Events {
    templates: Vec<NewEvent>,
    made: usize,
}

impl Events {
    /// Events of ten types in turn.
    #[must_use]
    pub fn new() -> Self {
        let template = |n| {
            let data = Payload::json_text(data()).unwrap();
            let event_type = format!("OrderChanged{n}").try_into().unwrap();
            NewEvent::new(event_type, data).with_metadata(metadata())
        };
        Self { templates: (0..TYPES).map(template).collect(), made: 0 }
    }

    /// An event with an id of its own.
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

impl Default for Events {
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

/// An object of so many bytes.
fn json(bytes: usize) -> String {
    let object = |text: &str| format!("{{\"text\":\"{text}\"}}");
    object(&"x".repeat(bytes - object("").len()))
}
