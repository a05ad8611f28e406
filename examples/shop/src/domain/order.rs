//! An order: placed, paid and shipped, or cancelled.

use serde::{Deserialize, Serialize};

use super::{Aggregate, DomainEvent, Rejection};

#[derive(Clone, Debug)]
pub enum OrderCommand {
    Place { sku: String, quantity: u32, cents: u32 },
    Pay { cents: u32 },
    Ship,
    Cancel,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
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

impl DomainEvent for OrderEvent {
    const TYPES: &'static [&'static str] =
        &["OrderPlaced", "OrderPaid", "OrderShipped", "OrderCancelled"];

    fn event_type(&self) -> &'static str {
        match self {
            Self::Placed { .. } => "OrderPlaced",
            Self::Paid { .. } => "OrderPaid",
            Self::Shipped => "OrderShipped",
            Self::Cancelled { .. } => "OrderCancelled",
        }
    }
}

/// The state of an order; by default one that was not placed.
#[derive(Clone, Debug, Default)]
pub struct Order {
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

impl Order {
    /// What was ordered, once it is placed.
    pub fn sku(&self) -> Option<&str> {
        self.contents.as_ref().map(|contents| contents.sku.as_str())
    }
}

impl Aggregate for Order {
    const CATEGORY: &'static str = "order";
    type Command = OrderCommand;
    type Event = OrderEvent;

    fn decide(&self, command: &OrderCommand) -> Result<Vec<OrderEvent>, Rejection> {
        // Each command first asks whether it was done before, so that doing it twice changes
        // nothing, whatever has happened since.
        match (command, &self.contents) {
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
            (OrderCommand::Pay { cents }, Some(placed)) => match self {
                _ if *cents != placed.cents => Err(Rejection::WrongPayment),
                Self { paid: true, .. } => Ok(vec![]),
                Self { cancelled: true, .. } => Err(Rejection::Cancelled),
                _ => Ok(vec![OrderEvent::Paid { cents: *cents }]),
            },
            (OrderCommand::Ship, Some(_)) => match self {
                Self { shipped: true, .. } => Ok(vec![]),
                Self { cancelled: true, .. } => Err(Rejection::Cancelled),
                Self { paid: false, .. } => Err(Rejection::NotPaid),
                _ => Ok(vec![OrderEvent::Shipped]),
            },
            (OrderCommand::Cancel, Some(placed)) => match self {
                Self { cancelled: true, .. } => Ok(vec![]),
                Self { shipped: true, .. } => Err(Rejection::Shipped),
                Self { paid, .. } => {
                    let refund_cents = if *paid { placed.cents } else { 0 };
                    Ok(vec![OrderEvent::Cancelled { refund_cents }])
                }
            },
        }
    }

    fn evolve(&mut self, event: OrderEvent) {
        match event {
            OrderEvent::Placed { sku, quantity, cents } => {
                self.contents = Some(Contents { sku, quantity, cents });
            }
            OrderEvent::Paid { .. } => self.paid = true,
            OrderEvent::Shipped => self.shipped = true,
            OrderEvent::Cancelled { .. } => self.cancelled = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, OrderEvent::*, *};

    const PLACE: fn(u32) -> OrderCommand =
        |cents| OrderCommand::Place { sku: "mug".into(), quantity: 2, cents };

    fn placed() -> OrderEvent {
        Placed { sku: "mug".into(), quantity: 2, cents: 900 }
    }

    #[test]
    fn names() {
        check_names(&[placed(), Paid { cents: 900 }, Shipped, Cancelled { refund_cents: 0 }]);
    }

    #[test]
    fn decisions() {
        use OrderCommand::{Cancel, Pay, Ship};
        let paid = Paid { cents: 900 };
        let cancelled = Cancelled { refund_cents: 0 };
        for (history, command, decision) in [
            (vec![], PLACE(900), Ok(vec![placed()])),
            (vec![], Pay { cents: 900 }, Err(Rejection::UnknownOrder)),
            (vec![], Ship, Err(Rejection::UnknownOrder)),
            (vec![], Cancel, Err(Rejection::UnknownOrder)),
            (vec![placed()], PLACE(901), Err(Rejection::DifferentOrder)),
            (vec![placed()], Pay { cents: 900 }, Ok(vec![paid.clone()])),
            (vec![placed()], Pay { cents: 899 }, Err(Rejection::WrongPayment)),
            (vec![placed()], Ship, Err(Rejection::NotPaid)),
            (vec![placed()], Cancel, Ok(vec![cancelled.clone()])),
            (vec![placed(), paid.clone()], Ship, Ok(vec![Shipped])),
            (vec![placed(), paid.clone()], Cancel, Ok(vec![Cancelled { refund_cents: 900 }])),
            (vec![placed(), paid.clone(), Shipped], Cancel, Err(Rejection::Shipped)),
            (vec![placed(), cancelled.clone()], Pay { cents: 900 }, Err(Rejection::Cancelled)),
            (vec![placed(), cancelled], Ship, Err(Rejection::Cancelled)),
        ] {
            let order = after::<Order>(history);
            assert_eq!(order.decide(&command), decision, "{command:?} on {order:?}");
        }
    }

    #[test]
    fn what_was_done_is_not_done_again() {
        use OrderCommand::{Cancel, Pay, Ship};
        let shipped = after::<Order>([placed(), Paid { cents: 900 }, Shipped]);
        for command in [PLACE(900), Pay { cents: 900 }, Ship] {
            assert_eq!(shipped.decide(&command), Ok(vec![]), "{command:?}");
        }
        let refund = Cancelled { refund_cents: 900 };
        let cancelled = after::<Order>([placed(), Paid { cents: 900 }, refund]);
        for command in [PLACE(900), Pay { cents: 900 }, Cancel] {
            assert_eq!(cancelled.decide(&command), Ok(vec![]), "{command:?}");
        }
    }
}
