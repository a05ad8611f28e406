//! The read model: totals over all streams, kept up to date by a projection.

use std::{collections::BTreeMap, sync::Arc};

use annals::{
    Position, ReadAll, Result, Store, TryStreamExt,
    domain::projection::{Batch, BoxError, ExactlyOnce, Projection, TransactionalHandler},
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    domain::{OrderEvent, StockEvent},
    schema::{ShopEvent, ShopSchema},
    sink::{Kept, SnapshotSink},
};

const NAME: &str = "shopreport";

/// Totals over all orders and all stock. Signed, so that a model that counts something twice shows
/// it rather than wraps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// By sku.
    pub stock: BTreeMap<String, StockTotals>,
    pub orders: OrderTotals,
}

/// What became of what was received: `received = on_hand + reserved + shipped`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockTotals {
    pub received: i64,
    pub on_hand: i64,
    pub reserved: i64,
    pub shipped: i64,
}

/// How many orders are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderTotals {
    pub placed: i64,
    pub paid: i64,
    pub shipped: i64,
    pub cancelled: i64,
    /// Of all orders that are paid and not cancelled.
    pub revenue_cents: i64,
}

impl Model {
    /// Counts an event, which must not have been counted before.
    fn apply(&mut self, event: ShopEvent) {
        match event {
            ShopEvent::Stock(sku, event) => self.stock.entry(sku).or_default().apply(&event),
            ShopEvent::Order(_, event) => self.orders.apply(&event),
        }
    }
}

impl StockTotals {
    fn apply(&mut self, event: &StockEvent) {
        let (received, on_hand, reserved, shipped, quantity) = match event {
            StockEvent::Received { quantity, .. } => (1, 1, 0, 0, quantity),
            StockEvent::Reserved { quantity, .. } => (0, -1, 1, 0, quantity),
            StockEvent::Released { quantity, .. } => (0, 1, -1, 0, quantity),
            StockEvent::Shipped { quantity, .. } => (0, 0, -1, 1, quantity),
        };
        let quantity = i64::from(*quantity);
        self.received += received * quantity;
        self.on_hand += on_hand * quantity;
        self.reserved += reserved * quantity;
        self.shipped += shipped * quantity;
    }
}

impl OrderTotals {
    fn apply(&mut self, event: &OrderEvent) {
        match *event {
            OrderEvent::Placed { .. } => self.placed += 1,
            OrderEvent::Paid { cents } => {
                self.placed -= 1;
                self.paid += 1;
                self.revenue_cents += i64::from(cents);
            }
            OrderEvent::Shipped => {
                self.paid -= 1;
                self.shipped += 1;
            }
            OrderEvent::Cancelled { refund_cents: 0 } => {
                self.placed -= 1;
                self.cancelled += 1;
            }
            OrderEvent::Cancelled { refund_cents } => {
                self.paid -= 1;
                self.cancelled += 1;
                self.revenue_cents -= i64::from(refund_cents);
            }
        }
    }
}

/// The projection that counts.
pub type Report = Projection<ExactlyOnce<SnapshotSink<Model>, Count>>;

/// Counts each event once, into a model that is kept with the position it includes.
#[derive(Debug)]
pub struct Count {
    schema: ShopSchema,
    /// The events it was given.
    pub read: u64,
}

#[async_trait]
impl TransactionalHandler<Kept<Model>> for Count {
    async fn handle(&mut self, kept: &mut Kept<Model>, batch: &Batch<'_>) -> Result<(), BoxError> {
        for event in batch.events {
            self.schema.decode(event).await?.into_iter().for_each(|event| kept.model.apply(event));
        }
        self.read += batch.events.len() as u64;
        Ok(())
    }
}

/// The projection, and the model as it is kept.
pub async fn report(store: Arc<dyn Store>) -> Result<(Report, SnapshotSink<Model>)> {
    let sink = SnapshotSink::load(store.clone(), NAME).await?;
    let schema = ShopSchema::new()?;
    let source = schema.filter();
    let count = Count { schema, read: 0 };
    let report = Projection::exactly_once(store, NAME, sink.clone(), count)?.with_source(source);
    Ok((report, sink))
}

/// The model as it is when every event is counted from the beginning, up to a position; and how
/// many there are.
pub async fn from_the_beginning(store: &dyn Store, to: Position) -> Result<(Model, u64)> {
    let schema = ShopSchema::new()?;
    let (mut model, mut count) = (Model::default(), 0);
    let mut all = store.read_all(ReadAll::default().with_filter(schema.filter()));
    while let Some(event) = all.try_next().await? {
        if event.position > to {
            break;
        }
        schema.decode(&event).await?.into_iter().for_each(|event| model.apply(event));
        count += 1;
    }
    Ok((model, count))
}
