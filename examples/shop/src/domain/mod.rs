//! What the shop decides, and nothing else: no store, no clock, no I/O.

mod order;
mod stock;

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

pub use order::{Order, OrderCommand, OrderEvent};
pub use stock::{Stock, StockCommand, StockEvent};

/// Something that decides by what has happened to it: the state of one stream.
pub trait Aggregate: Default + Send + Sync {
    /// The category of its streams: `order` for `order-42`.
    const CATEGORY: &'static str;
    type Command: fmt::Debug + Sync;
    type Event: DomainEvent;

    /// What follows from a command; nothing where it was done before.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Rejection>;

    /// The state after an event. Never fails: what happened, happened.
    fn evolve(&mut self, event: Self::Event);
}

/// An event that is stored as JSON under the name of its type.
pub trait DomainEvent: Serialize + DeserializeOwned + Send + Sync {
    /// Every event type there is.
    const TYPES: &'static [&'static str];

    /// The name under which it is stored. Stored events are for ever, and so are these names:
    /// they do not follow when a Rust name changes.
    fn event_type(&self) -> &'static str;
}

/// Why the shop refuses a command. A refusal is an answer, not a failure, and leaves no trace: the
/// same command can succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    TooLittleStock,
    UnknownOrder,
    DifferentOrder,
    DifferentDelivery,
    WrongPayment,
    NotPaid,
    Cancelled,
    Shipped,
    NothingReserved,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLittleStock => "too little stock",
            Self::UnknownOrder => "unknown order",
            Self::DifferentOrder => "order exists with other contents",
            Self::DifferentDelivery => "delivery exists with another quantity",
            Self::WrongPayment => "wrong payment",
            Self::NotPaid => "not paid",
            Self::Cancelled => "order was cancelled",
            Self::Shipped => "order was shipped",
            Self::NothingReserved => "nothing reserved",
        })
    }
}

#[cfg(test)]
mod testing {
    use super::*;

    /// The state after events, as a store would give them.
    pub(super) fn after<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> A {
        events.into_iter().fold(A::default(), |mut state, event| {
            state.evolve(event);
            state
        })
    }

    /// Every event is stored under its type's name, and read back as it was.
    pub(super) fn check_names<E: DomainEvent + fmt::Debug + PartialEq>(events: &[E]) {
        assert_eq!(events.len(), E::TYPES.len());
        for (event, name) in events.iter().zip(E::TYPES) {
            let json = serde_json::to_value(event).unwrap();
            assert_eq!((event.event_type(), json["type"].as_str()), (*name, Some(*name)));
            assert_eq!(serde_json::from_value::<E>(json).unwrap(), *event);
        }
    }
}
