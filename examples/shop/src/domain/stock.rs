//! The stock of one sku: what is on hand, and what is reserved for orders.

use std::collections::HashMap;

use annals::domain::Decider;
use serde::{Deserialize, Serialize};

use super::Rejection;

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

/// Decides for the stock of one sku.
#[derive(Clone, Copy, Debug)]
pub struct Stock;

/// The stock of one sku; by default there is none.
#[derive(Clone, Debug, Default)]
pub struct StockState {
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

impl Decider for Stock {
    const CATEGORY: &'static str = "stock";
    type State = StockState;
    type Command = StockCommand;
    type Event = StockEvent;
    type Rejection = Rejection;

    fn initial(&self) -> StockState {
        StockState::default()
    }

    fn decide(
        &self,
        command: &StockCommand,
        stock: &StockState,
    ) -> Result<Vec<StockEvent>, Rejection> {
        use Reservation::{Held, Released, Shipped};
        let reservation = |order: &String| {
            stock.reservations.get(order).copied().ok_or(Rejection::NothingReserved)
        };
        match command.clone() {
            StockCommand::Receive { delivery, quantity } => match stock.deliveries.get(&delivery) {
                None => Ok(vec![StockEvent::Received { delivery, quantity }]),
                Some(received) if *received == quantity => Ok(vec![]),
                Some(_) => Err(Rejection::DifferentDelivery),
            },
            StockCommand::Reserve { order, quantity } => match stock.reservations.get(&order) {
                Some((reserved, _)) if *reserved == quantity => Ok(vec![]),
                Some(_) => Err(Rejection::DifferentOrder),
                None if stock.on_hand < u64::from(quantity) => Err(Rejection::TooLittleStock),
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

    fn evolve(&self, stock: &mut StockState, event: &StockEvent) {
        let (order, quantity, reservation) = match event {
            StockEvent::Received { delivery, quantity } => {
                stock.on_hand += u64::from(*quantity);
                stock.deliveries.insert(delivery.clone(), *quantity);
                return;
            }
            StockEvent::Reserved { order, quantity } => {
                stock.on_hand = stock.on_hand.saturating_sub((*quantity).into());
                (order, *quantity, Reservation::Held)
            }
            StockEvent::Released { order, quantity } => {
                stock.on_hand += u64::from(*quantity);
                (order, *quantity, Reservation::Released)
            }
            StockEvent::Shipped { order, quantity } => (order, *quantity, Reservation::Shipped),
        };
        stock.reservations.insert(order.clone(), (quantity, reservation));
    }
}

#[cfg(test)]
mod tests {
    use annals::domain::testing::given;

    use super::{StockEvent::*, *};

    fn received(quantity: u32) -> StockEvent {
        Received { delivery: "d1".into(), quantity }
    }

    fn reserved(order: &str, quantity: u32) -> StockEvent {
        Reserved { order: order.into(), quantity }
    }

    fn released(order: &str, quantity: u32) -> StockEvent {
        Released { order: order.into(), quantity }
    }

    fn reserve(order: &str, quantity: u32) -> StockCommand {
        StockCommand::Reserve { order: order.into(), quantity }
    }

    #[test]
    fn no_more_is_reserved_than_is_there() {
        let held = [received(5), reserved("o1", 3)];
        given(Stock, held.clone()).when(reserve("o2", 2)).then([reserved("o2", 2)]);
        given(Stock, held.clone())
            .when(reserve("o2", 3))
            .then_rejected(Rejection::TooLittleStock)
            .when(StockCommand::Release { order: "o1".into() })
            .then([released("o1", 3)])
            .when(reserve("o2", 5))
            .then([reserved("o2", 5)]);
    }

    #[test]
    fn a_reservation_is_shipped_or_released_once() {
        let ship = || StockCommand::Ship { order: "o1".into() };
        let release = || StockCommand::Release { order: "o1".into() };
        let shipped = Shipped { order: "o1".into(), quantity: 3 };
        given(Stock, [received(5)])
            .when(ship())
            .then_rejected(Rejection::NothingReserved)
            .when(release())
            .then_rejected(Rejection::NothingReserved);
        given(Stock, [received(5), reserved("o1", 3)])
            .when(ship())
            .then([shipped])
            .when(ship())
            .then_nothing()
            .when(release())
            .then_rejected(Rejection::Shipped);
        given(Stock, [received(5), reserved("o1", 3)])
            .when(release())
            .then([released("o1", 3)])
            .when(release())
            .then_nothing()
            .when(ship())
            .then_rejected(Rejection::Cancelled);
    }

    #[test]
    fn what_was_done_is_not_done_again() {
        let receive = |quantity| StockCommand::Receive { delivery: "d1".into(), quantity };
        given(Stock, [received(5), reserved("o1", 5)])
            .when(receive(5))
            .then_nothing()
            .when(receive(6))
            .then_rejected(Rejection::DifferentDelivery)
            .when(reserve("o1", 5))
            .then_nothing()
            .when(reserve("o1", 4))
            .then_rejected(Rejection::DifferentOrder);
    }
}
