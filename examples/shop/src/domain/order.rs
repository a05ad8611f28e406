//! An order: placed, paid and shipped, or cancelled.

use annals::domain::Decider;
use serde::{Deserialize, Serialize};

use super::Rejection;

#[derive(Clone, Debug)]
pub enum OrderCommand {
    Place {
        sku: String,
        quantity: u32,
        cents: u32,
    },
    Pay {
        cents: u32,
    },
    Ship,
    Cancel,
    /// The time to pay is over: cancels it, unless it was paid in the last moment.
    Expire,
}

/// Stored events are for ever, and so are the names they are stored under: they do not follow when
/// a Rust name changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderEvent {
    #[serde(rename = "OrderPlaced")]
    Placed { sku: String, quantity: u32, cents: u32 },
    #[serde(rename = "OrderPaid")]
    Paid { cents: u32 },
    #[serde(rename = "OrderShipped")]
    Shipped,
    /// With nothing to refund where it was not paid.
    #[serde(rename = "OrderCancelled")]
    Cancelled { refund_cents: u32 },
}

/// Decides for one order.
#[derive(Clone, Copy, Debug)]
pub struct Order;

/// What became of an order; by default it was not placed.
#[derive(Clone, Debug, Default)]
pub struct OrderState {
    contents: Option<Contents>,
    paid: bool,
    shipped: bool,
    cancelled: bool,
}

#[derive(Clone, Debug)]
struct Contents {
    sku: String,
    quantity: u32,
    cents: u32,
}

impl OrderState {
    /// What was ordered, once it is placed.
    pub fn sku(&self) -> Option<&str> {
        self.contents.as_ref().map(|contents| contents.sku.as_str())
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }
}

impl Decider for Order {
    const CATEGORY: &'static str = "order";
    type State = OrderState;
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Rejection = Rejection;

    fn initial(&self) -> OrderState {
        OrderState::default()
    }

    fn decide(
        &self,
        command: &OrderCommand,
        order: &OrderState,
    ) -> Result<Vec<OrderEvent>, Rejection> {
        // Each command first asks whether it was done before, so that doing it twice changes
        // nothing, whatever has happened since.
        match (command, &order.contents) {
            (OrderCommand::Place { sku, quantity, cents }, None) => Ok(vec![OrderEvent::Placed {
                sku: sku.clone(),
                quantity: *quantity,
                cents: *cents,
            }]),
            (OrderCommand::Place { sku, quantity, cents }, Some(placed)) => {
                let same = (&placed.sku, placed.quantity, placed.cents) == (sku, *quantity, *cents);
                if same { Ok(vec![]) } else { Err(Rejection::DifferentOrder) }
            }
            (_, None) => Err(Rejection::UnknownOrder),
            (OrderCommand::Pay { cents }, Some(placed)) => match order {
                _ if *cents != placed.cents => Err(Rejection::WrongPayment),
                OrderState { paid: true, .. } => Ok(vec![]),
                OrderState { cancelled: true, .. } => Err(Rejection::Cancelled),
                _ => Ok(vec![OrderEvent::Paid { cents: *cents }]),
            },
            (OrderCommand::Ship, Some(_)) => match order {
                OrderState { shipped: true, .. } => Ok(vec![]),
                OrderState { cancelled: true, .. } => Err(Rejection::Cancelled),
                OrderState { paid: false, .. } => Err(Rejection::NotPaid),
                _ => Ok(vec![OrderEvent::Shipped]),
            },
            (OrderCommand::Cancel, Some(placed)) => match order {
                OrderState { cancelled: true, .. } => Ok(vec![]),
                OrderState { shipped: true, .. } => Err(Rejection::Shipped),
                OrderState { paid, .. } => {
                    let refund_cents = if *paid { placed.cents } else { 0 };
                    Ok(vec![OrderEvent::Cancelled { refund_cents }])
                }
            },
            (OrderCommand::Expire, Some(_)) => match order {
                OrderState { paid: true, .. }
                | OrderState { shipped: true, .. }
                | OrderState { cancelled: true, .. } => Ok(vec![]),
                _ => Ok(vec![OrderEvent::Cancelled { refund_cents: 0 }]),
            },
        }
    }

    fn evolve(&self, order: &mut OrderState, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { sku, quantity, cents } => {
                let (sku, quantity, cents) = (sku.clone(), *quantity, *cents);
                order.contents = Some(Contents { sku, quantity, cents });
            }
            OrderEvent::Paid { .. } => order.paid = true,
            OrderEvent::Shipped => order.shipped = true,
            OrderEvent::Cancelled { .. } => order.cancelled = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use annals::domain::testing::given;

    use super::{
        OrderCommand::{Cancel, Expire, Pay, Ship},
        OrderEvent::*,
        *,
    };

    const PLACE: fn(u32) -> OrderCommand =
        |cents| OrderCommand::Place { sku: "mug".into(), quantity: 2, cents };
    const PAY: OrderCommand = Pay { cents: 900 };
    const PAID: OrderEvent = Paid { cents: 900 };
    const CANCELLED: OrderEvent = Cancelled { refund_cents: 0 };

    fn placed() -> OrderEvent {
        Placed { sku: "mug".into(), quantity: 2, cents: 900 }
    }

    #[test]
    fn an_order_is_placed_paid_and_shipped() {
        let placed = given(Order, []).when(PLACE(900)).then([placed()]);
        placed.when(PAY).then([PAID]).when(Ship).then([Shipped]);
    }

    #[test]
    fn what_is_cancelled_is_refunded() {
        given(Order, [placed()]).when(Cancel).then([CANCELLED]);
        let refunded = Cancelled { refund_cents: 900 };
        given(Order, [placed(), PAID]).when(Cancel).then([refunded]);
    }

    #[test]
    fn what_does_not_fit_is_rejected() {
        for (history, command, reason) in [
            (vec![], PAY, Rejection::UnknownOrder),
            (vec![], Ship, Rejection::UnknownOrder),
            (vec![], Cancel, Rejection::UnknownOrder),
            (vec![], Expire, Rejection::UnknownOrder),
            (vec![placed()], PLACE(901), Rejection::DifferentOrder),
            (vec![placed()], Pay { cents: 899 }, Rejection::WrongPayment),
            (vec![placed()], Ship, Rejection::NotPaid),
            (vec![placed(), PAID, Shipped], Cancel, Rejection::Shipped),
            (vec![placed(), CANCELLED], PAY, Rejection::Cancelled),
            (vec![placed(), CANCELLED], Ship, Rejection::Cancelled),
        ] {
            given(Order, history).when(command).then_rejected(reason);
        }
    }

    #[test]
    fn what_was_done_is_not_done_again() {
        for command in [PLACE(900), PAY, Ship] {
            given(Order, [placed(), PAID, Shipped]).when(command).then_nothing();
        }
        for command in [PLACE(900), PAY, Cancel] {
            let refunded = Cancelled { refund_cents: 900 };
            given(Order, [placed(), PAID, refunded]).when(command).then_nothing();
        }
    }

    #[test]
    fn only_what_was_not_paid_expires() {
        given(Order, [placed()]).when(Expire).then([CANCELLED]).when(Expire).then_nothing();
        given(Order, [placed(), PAID]).when(Expire).then_nothing();
        given(Order, [placed(), PAID, Shipped]).when(Expire).then_nothing();
    }
}
