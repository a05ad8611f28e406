//! A process manager: orders that are not paid in time are cancelled, and their stock given back.
//!
//! It hears of orders through a projection, at least once, and remembers through the events of a
//! [`Deadline`] for each order. So it can be stopped anywhere: what it was about it hears again,
//! and decides what of it is still to be done.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use annals::{
    Filter, Position, ReadAll, RecordedEvent, Result, Store, TryStreamExt,
    domain::{
        CommandHandler, Context, Decider, RetryPolicy, Schema,
        projection::{AtLeastOnce, Batch, BoxError, Handler, Projection},
    },
};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    AnyError,
    domain::{Deadline, DeadlineCommand, DeadlineEvent, Order, OrderEvent},
    execute::Executor,
    schema,
};

const NAME: &str = "shopfulfilment";
/// How long a time-out may go unnoticed.
const EVERY: Duration = Duration::from_secs(1);
/// Few: whatever it does is tried again by those who do it.
const MAX_FAILURES: u32 = 3;

#[derive(Debug)]
pub struct Fulfilment {
    store: Arc<dyn Store>,
    deadlines: Arc<CommandHandler<Deadline>>,
    projection: Projection<AtLeastOnce<Reactions>>,
    /// Those that are open, and what has set them; as of a position.
    open: BTreeMap<String, (DateTime<Utc>, Context)>,
    seen: Position,
}

impl Fulfilment {
    /// For a shop that waits so long for its money.
    pub fn new(store: Arc<dyn Store>, shop: Executor, within: TimeDelta) -> Result<Self> {
        let orders = schema::orders()?;
        let deadlines = Arc::new(CommandHandler::new(store.clone(), Deadline)?);
        let types = orders.types().into_iter().chain(deadlines.schema().types());
        let source = Filter::default().with_event_types(types);
        let reactions = Reactions { shop, orders, deadlines: deadlines.clone(), within };
        let projection = Projection::at_least_once(store.clone(), NAME, reactions)?
            .with_source(source)
            .with_retry(RetryPolicy::default().with_max_failures(MAX_FAILURES));
        Ok(Self { store, deadlines, projection, open: BTreeMap::new(), seen: Position::START })
    }

    /// Looks after time-outs, until something fails. May be dropped at any time.
    pub async fn run(&mut self) -> Result<Infallible, AnyError> {
        loop {
            self.round(Utc::now()).await?;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Hears of all that has happened up to now, and cancels the orders whose time is over.
    pub async fn round(&mut self, now: DateTime<Utc>) -> Result<(), AnyError> {
        self.projection.catch_up().await?;
        self.look().await?;
        for (order, (_, context)) in self.open.iter().filter(|(_, (until, _))| now >= *until) {
            self.deadlines.execute(order, &DeadlineCommand::Check { now }, context).await?;
        }
        // What has expired by this is an event like any other: this cancels the orders.
        self.projection.catch_up().await?;
        Ok(())
    }

    /// Which deadlines are open: from the beginning, then what is new.
    async fn look(&mut self) -> Result<()> {
        let schema = self.deadlines.schema();
        let new = ReadAll::default().after(self.seen).with_filter(schema.filter());
        let mut events = self.store.read_all(new);
        while let Some(event) = events.try_next().await? {
            let Some((_, order)) = event.stream.as_str().split_once('-') else { continue };
            for decoded in schema.decode(&event).await?.into_events() {
                match decoded {
                    DeadlineEvent::Set { until } => {
                        self.open.insert(order.to_owned(), (until, Context::caused_by(&event)));
                    }
                    DeadlineEvent::Met | DeadlineEvent::Expired => _ = self.open.remove(order),
                }
            }
            self.seen = event.position;
        }
        Ok(())
    }
}

/// What it does when something happens.
#[derive(Debug)]
struct Reactions {
    shop: Executor,
    orders: Schema<OrderEvent>,
    deadlines: Arc<CommandHandler<Deadline>>,
    within: TimeDelta,
}

#[async_trait]
impl Handler for Reactions {
    async fn handle(&mut self, batch: &Batch<'_>) -> Result<(), BoxError> {
        for event in batch.events {
            self.react(event).await?;
        }
        Ok(())
    }
}

impl Reactions {
    async fn react(&self, event: &RecordedEvent) -> Result<(), BoxError> {
        let context = Context::caused_by(event);
        match event.stream.as_str().split_once('-') {
            Some((Order::CATEGORY, order)) => {
                for decoded in self.orders.decode(event).await?.into_events() {
                    let command = match decoded {
                        OrderEvent::Placed { .. } => {
                            let until = event.recorded_at.checked_add_signed(self.within);
                            DeadlineCommand::Set {
                                until: until.unwrap_or(DateTime::<Utc>::MAX_UTC),
                            }
                        }
                        _ => DeadlineCommand::Meet,
                    };
                    self.deadlines.execute(order, &command, &context).await?;
                }
            }
            Some((Deadline::CATEGORY, order)) => {
                for decoded in self.deadlines.schema().decode(event).await?.into_events() {
                    if decoded == DeadlineEvent::Expired {
                        self.shop.expire(order, &context).await?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
