//! The aggregate type that the stores of cqrs-es need. They use only its name.

use std::convert::Infallible;

use cqrs_es::{Aggregate, DomainEvent, event_sink::EventSink, persist::SerializedEvent};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Cart;

/// An event as these stores expect it.
pub(crate) fn serialized(stream: &str, sequence: usize, text: &str) -> SerializedEvent {
    SerializedEvent::new(
        stream.to_owned(),
        sequence,
        Cart::TYPE.to_owned(),
        "OrderChanged".to_owned(),
        "1.0".to_owned(),
        json!({ "text": text }),
        json!({ "text": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxx" }),
    )
}

impl Aggregate for Cart {
    const TYPE: &'static str = "cart";
    type Command = ();
    type Event = Changed;
    type Error = Infallible;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Infallible> {
        Ok(())
    }

    fn apply(&mut self, _: Changed) {}
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Changed;

impl DomainEvent for Changed {
    fn event_type(&self) -> String {
        "OrderChanged".to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}
