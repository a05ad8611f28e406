//! The read model: totals over all streams, kept up to date by a subscription.

use std::{collections::BTreeMap, sync::Arc};

use annals::{
    EventStore, EventType, Filter, Message, Payload, ReadAll, RecordedEvent, Result, Snapshot,
    SnapshotStore, Store, StreamId, Subscribe, Version,
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    domain::{Aggregate, DomainEvent, Order, OrderEvent, Stock, StockEvent},
    execute::{Counters, Patience},
};

/// The stream whose snapshot the read model is. It has no events.
const SAVED_AS: &str = "shopreport";

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
    fn apply(&mut self, event: &RecordedEvent) -> Result<()> {
        match event.stream.as_str().split_once('-') {
            Some((Stock::CATEGORY, sku)) => {
                self.stock.entry(sku.to_owned()).or_default().apply(&event.json()?);
            }
            Some((Order::CATEGORY, _)) => self.orders.apply(&event.json()?),
            _ => {}
        }
        Ok(())
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

/// Stored in one piece: a model with the position that it includes, so that no crash can part
/// them, and no event is counted twice or left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Saved {
    position: u64,
    model: Model,
}

/// Keeps the model up to date, and stores it.
#[derive(Debug)]
pub struct ReadModel {
    store: Arc<dyn Store>,
    counters: Arc<Counters>,
    now: Saved,
    /// The position it went on from.
    pub resumed_after: u64,
    /// The events it read since.
    pub events_read: u64,
    save_every: u64,
    unsaved: u64,
}

impl ReadModel {
    /// The model as it was stored last, or an empty one. It is stored again with every
    /// `save_every` events.
    pub async fn load(
        store: Arc<dyn Store>,
        counters: Arc<Counters>,
        save_every: u64,
    ) -> Result<Self> {
        let now = match store.load_snapshot(&StreamId::new(SAVED_AS)?).await? {
            Some(snapshot) => snapshot.data.decode::<Saved>()?,
            None => Saved::default(),
        };
        let resumed_after = now.position;
        Ok(Self { store, counters, now, resumed_after, events_read: 0, save_every, unsaved: 0 })
    }

    /// The totals.
    pub fn model(&self) -> &Model {
        &self.now.model
    }

    /// Follows all events until the model includes everything that was there at the beginning, and
    /// the position that it is told of.
    pub async fn follow(mut self, mut until: watch::Receiver<Option<u64>>) -> Result<Self> {
        let source = Subscribe::to(events()?).after(self.now.position);
        let mut subscription = self.store.subscribe(source).await?;
        let mut caught_up = false;
        loop {
            let told = *until.borrow_and_update();
            if caught_up && told.is_some_and(|position| position <= self.now.position) {
                break;
            }
            let message = tokio::select! {
                message = subscription.next() => message?,
                changed = until.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break, // Whoever would have told has failed.
                },
            };
            self.now.position = message.position().get();
            let save = match message {
                Message::Event(event) => {
                    self.now.model.apply(&event)?;
                    self.events_read += 1;
                    self.unsaved += 1;
                    self.unsaved >= self.save_every
                }
                Message::CaughtUp(_) => {
                    caught_up = true;
                    true
                }
                _ => false,
            };
            if save {
                self.save().await?;
            }
        }
        self.save().await?;
        Ok(self)
    }

    async fn save(&mut self) -> Result<()> {
        if self.unsaved == 0 {
            return Ok(());
        }
        // A store keeps the snapshot with the greatest version: with the position for it, a
        // program that lags behind cannot undo what another has stored.
        let version = Version::new(self.now.position);
        let snapshot = Snapshot::new(version, Payload::json(&self.now)?);
        let stream = StreamId::new(SAVED_AS)?;
        let mut patience = Patience::default();
        while let Err(error) = self.store.save_snapshot(&stream, snapshot.clone()).await {
            patience.wait(error, &self.counters).await?;
        }
        self.unsaved = 0;
        Ok(())
    }

    /// The model as it is when every event is counted from the beginning, up to the same position;
    /// and how many there are.
    pub async fn from_the_beginning(&self) -> Result<(Model, u64)> {
        let (mut model, mut count) = (Model::default(), 0);
        let mut all = self.store.read_all(ReadAll::default().with_filter(events()?));
        while let Some(event) = all.try_next().await? {
            if event.position.get() > self.now.position {
                break;
            }
            model.apply(&event)?;
            count += 1;
        }
        Ok((model, count))
    }
}

/// The events of both categories. The store does the filtering.
fn events() -> Result<Filter> {
    let types = StockEvent::TYPES.iter().chain(OrderEvent::TYPES);
    let types = types.map(EventType::new).collect::<Result<Vec<_>>>()?;
    Ok(Filter::default().with_event_types(types))
}
