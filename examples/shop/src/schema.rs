//! How events are stored, and what became of those that older shops have stored.

use annals::{
    Filter, RecordedEvent, Result,
    domain::{Decider, Schema, Upcast, Upcasters},
};
use serde::{Deserialize, Serialize};

use crate::domain::{Order, OrderEvent, Stock, StockEvent};

/// Every event that read models are made of, and which order or sku it is about.
#[derive(Clone, Debug)]
pub enum ShopEvent {
    Order(String, OrderEvent),
    Stock(String, StockEvent),
}

/// Reads the events of orders and of stock.
#[derive(Clone, Debug)]
pub struct ShopSchema {
    pub orders: Schema<OrderEvent>,
    pub stock: Schema<StockEvent>,
}

impl ShopSchema {
    pub fn new() -> Result<Self> {
        Ok(Self { orders: orders()?, stock: stock()? })
    }

    /// What it reads. The store does the filtering.
    pub fn filter(&self) -> Filter {
        let types = self.orders.types().into_iter().chain(self.stock.types());
        Filter::default().with_event_types(types)
    }

    /// What an event says: nothing where it is none of the shop's, or means nothing any more.
    pub async fn decode(&self, event: &RecordedEvent) -> Result<Vec<ShopEvent>> {
        Ok(match event.stream.as_str().split_once('-') {
            Some((Order::CATEGORY, order)) => {
                let events = self.orders.decode(event).await?.into_events();
                events.map(|event| ShopEvent::Order(order.to_owned(), event)).collect()
            }
            Some((Stock::CATEGORY, sku)) => {
                let events = self.stock.decode(event).await?.into_events();
                events.map(|event| ShopEvent::Stock(sku.to_owned(), event)).collect()
            }
            _ => Vec::new(),
        })
    }
}

/// In whole units of the currency, once.
#[derive(Deserialize)]
struct PlacedV0 {
    sku: String,
    quantity: u32,
    price: u64,
}

/// A price of more cents than today's event has room for makes an event that cannot be read, and
/// none that is read wrong.
#[derive(Serialize)]
struct Placed {
    sku: String,
    quantity: u32,
    cents: u64,
}

#[derive(Deserialize)]
struct PaidV0 {
    price: u64,
}

#[derive(Serialize)]
struct Paid {
    cents: u64,
}

fn cents(price: u64) -> u64 {
    price.saturating_mul(100)
}

pub fn orders() -> Result<Schema<OrderEvent>> {
    let upcasters = Upcasters::new()
        .one("OrderPlacedV0", "OrderPlaced", |PlacedV0 { sku, quantity, price }| Placed {
            sku,
            quantity,
            cents: cents(price),
        })
        .one("OrderPaidV0", "OrderPaid", |PaidV0 { price }| Paid { cents: cents(price) })
        .renamed("OrderSent", "OrderShipped")
        .none("OrderViewed");
    Schema::new()?.with_upcasters(upcasters)
}

/// Into the stock with a delivery, or out of it, below zero, for an order.
#[derive(Deserialize)]
struct Moved {
    quantity: i32,
    reason: String,
}

#[derive(Serialize)]
struct Received {
    delivery: String,
    quantity: u32,
}

#[derive(Serialize)]
struct Reserved {
    order: String,
    quantity: u32,
}

pub fn stock() -> Result<Schema<StockEvent>> {
    const IN: &str = "StockReceived";
    const OUT: &str = "StockReserved";
    let upcasters = Upcasters::new()
        .many("StockMoved", &[IN, OUT], |Moved { quantity: moved, reason }| {
            let quantity = moved.unsigned_abs();
            Ok(vec![match moved {
                0 => return Ok(Vec::new()),
                1.. => Upcast::new(IN, &Received { delivery: reason, quantity })?,
                _ => Upcast::new(OUT, &Reserved { order: reason, quantity })?,
            }])
        })
        .renamed("StockSent", "StockShipped");
    Schema::new()?.with_upcasters(upcasters)
}
