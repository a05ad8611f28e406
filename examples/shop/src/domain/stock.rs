//! The stock of one sku: what is on hand, and what is reserved for orders.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Aggregate, DomainEvent, Rejection};

#[derive(Clone, Debug)]
pub enum StockCommand {
    Receive {
        delivery: String,
        quantity: u32,
    },
    /// Sets some aside for an order,
    Reserve {
        order: String,
        quantity: u32,
    },
    /// puts it back,
    Release {
        order: String,
    },
    /// or hands it over.
    Ship {
        order: String,
    },
}

/// The quantity stands in each event, so that who follows the stock need not remember every
/// reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum StockEvent {
    #[serde(rename = "StockReceived")]
    Received { delivery: String, quantity: u32 },
    #[serde(rename = "StockReserved")]
    Reserved { order: String, quantity: u32 },
    #[serde(rename = "StockReleased")]
    Released { order: String, quantity: u32 },
    #[serde(rename = "StockShipped")]
    Shipped { order: String, quantity: u32 },
}

impl DomainEvent for StockEvent {
    const TYPES: &'static [&'static str] =
        &["StockReceived", "StockReserved", "StockReleased", "StockShipped"];

    fn event_type(&self) -> &'static str {
        match self {
            Self::Received { .. } => "StockReceived",
            Self::Reserved { .. } => "StockReserved",
            Self::Released { .. } => "StockReleased",
            Self::Shipped { .. } => "StockShipped",
        }
    }
}

/// The state of the stock of one sku; by default there is none.
#[derive(Clone, Debug, Default)]
pub struct Stock {
    /// What can be reserved.
    on_hand: u64,
    /// The quantity of each delivery.
    deliveries: HashMap<String, u32>,
    /// Every reservation there was, so that no order reserves, ships or releases twice.
    reservations: HashMap<String, (u32, Reservation)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reservation {
    Held,
    Released,
    Shipped,
}

impl Aggregate for Stock {
    const CATEGORY: &'static str = "stock";
    type Command = StockCommand;
    type Event = StockEvent;

    fn decide(&self, command: &StockCommand) -> Result<Vec<StockEvent>, Rejection> {
        use Reservation::{Held, Released, Shipped};
        let reservation = |order: &String| {
            self.reservations.get(order).copied().ok_or(Rejection::NothingReserved)
        };
        match command.clone() {
            StockCommand::Receive { delivery, quantity } => match self.deliveries.get(&delivery) {
                None => Ok(vec![StockEvent::Received { delivery, quantity }]),
                Some(received) if *received == quantity => Ok(vec![]),
                Some(_) => Err(Rejection::DifferentDelivery),
            },
            StockCommand::Reserve { order, quantity } => match self.reservations.get(&order) {
                Some((reserved, _)) if *reserved == quantity => Ok(vec![]),
                Some(_) => Err(Rejection::DifferentOrder),
                None if self.on_hand < u64::from(quantity) => Err(Rejection::TooLittleStock),
                None => Ok(vec![StockEvent::Reserved { order, quantity }]),
            },
            StockCommand::Release { order } => match reservation(&order)? {
                (quantity, Held) => Ok(vec![StockEvent::Released { order, quantity }]),
                (_, Released) => Ok(vec![]),
                (_, Shipped) => Err(Rejection::Shipped),
            },
            StockCommand::Ship { order } => match reservation(&order)? {
                (quantity, Held) => Ok(vec![StockEvent::Shipped { order, quantity }]),
                (_, Shipped) => Ok(vec![]),
                (_, Released) => Err(Rejection::Cancelled),
            },
        }
    }

    fn evolve(&mut self, event: StockEvent) {
        match event {
            StockEvent::Received { delivery, quantity } => {
                self.on_hand += u64::from(quantity);
                self.deliveries.insert(delivery, quantity);
            }
            StockEvent::Reserved { order, quantity } => {
                self.on_hand = self.on_hand.saturating_sub(quantity.into());
                self.reservations.insert(order, (quantity, Reservation::Held));
            }
            StockEvent::Released { order, quantity } => {
                self.on_hand += u64::from(quantity);
                self.reservations.insert(order, (quantity, Reservation::Released));
            }
            StockEvent::Shipped { order, quantity } => {
                self.reservations.insert(order, (quantity, Reservation::Shipped));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, StockEvent::*, *};

    fn received(quantity: u32) -> StockEvent {
        Received { delivery: "d1".into(), quantity }
    }

    fn reserved(order: &str, quantity: u32) -> StockEvent {
        Reserved { order: order.into(), quantity }
    }

    fn reserve(order: &str, quantity: u32) -> StockCommand {
        StockCommand::Reserve { order: order.into(), quantity }
    }

    #[test]
    fn names() {
        let (released, shipped) = (
            Released { order: "o1".into(), quantity: 1 },
            Shipped { order: "o1".into(), quantity: 1 },
        );
        check_names(&[received(1), reserved("o1", 1), released, shipped]);
    }

    #[test]
    fn no_more_is_reserved_than_is_there() {
        let stock = after::<Stock>([received(5), reserved("o1", 3)]);
        assert_eq!(stock.decide(&reserve("o2", 2)), Ok(vec![reserved("o2", 2)]));
        assert_eq!(stock.decide(&reserve("o2", 3)), Err(Rejection::TooLittleStock));
        let released = Released { order: "o1".into(), quantity: 3 };
        let stock = after::<Stock>([received(5), reserved("o1", 3), released]);
        assert_eq!(stock.decide(&reserve("o2", 5)), Ok(vec![reserved("o2", 5)]));
    }

    #[test]
    fn a_reservation_is_shipped_or_released_once() {
        let order = || "o1".to_owned();
        let (ship, release) =
            (StockCommand::Ship { order: order() }, StockCommand::Release { order: order() });
        let shipped = Shipped { order: order(), quantity: 3 };
        let released = Released { order: order(), quantity: 3 };

        let none = after::<Stock>([received(5)]);
        assert_eq!(none.decide(&ship), Err(Rejection::NothingReserved));
        assert_eq!(none.decide(&release), Err(Rejection::NothingReserved));

        let held = || vec![received(5), reserved("o1", 3)];
        assert_eq!(after::<Stock>(held()).decide(&ship), Ok(vec![shipped.clone()]));
        assert_eq!(after::<Stock>(held()).decide(&release), Ok(vec![released.clone()]));

        let gone = after::<Stock>([held(), vec![shipped]].concat());
        assert_eq!(gone.decide(&ship), Ok(vec![]));
        assert_eq!(gone.decide(&release), Err(Rejection::Shipped));
        let back = after::<Stock>([held(), vec![released]].concat());
        assert_eq!(back.decide(&release), Ok(vec![]));
        assert_eq!(back.decide(&ship), Err(Rejection::Cancelled));
    }

    #[test]
    fn what_was_done_is_not_done_again() {
        let stock = after::<Stock>([received(5), reserved("o1", 5)]);
        let receive = |quantity| StockCommand::Receive { delivery: "d1".into(), quantity };
        assert_eq!(stock.decide(&receive(5)), Ok(vec![]));
        assert_eq!(stock.decide(&receive(6)), Err(Rejection::DifferentDelivery));
        assert_eq!(stock.decide(&reserve("o1", 5)), Ok(vec![]), "with nothing left on hand");
        assert_eq!(stock.decide(&reserve("o1", 4)), Err(Rejection::DifferentOrder));
    }
}
