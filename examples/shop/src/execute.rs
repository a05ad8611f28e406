//! Commands against streams. [`CommandHandler`] does one stream: load, decide, append, and again
//! where another writer was faster. What is left to this file are commands that span two.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use annals::{
    Result, Store,
    domain::{CommandHandler, Context, Decider, ExecuteError, Executed, RetryPolicy},
};

use crate::{
    commands::Command,
    domain::{Order, OrderCommand, Rejection, Stock, StockCommand},
    metrics::Retries,
    schema,
};

/// Every lost race is another writer's success, so that nobody loses this often by chance.
const MAX_CONFLICTS: u32 = 1_000;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Now; or what was left of it.
    Done,
    /// In full, so that nothing was written.
    AlreadyDone,
    Rejected(Rejection),
}

/// What happened so far, for whoever wants to watch.
#[derive(Debug, Default)]
pub struct Counters {
    /// Those with an outcome.
    pub commands: AtomicU64,
    pub appends: AtomicU64,
    /// Races that were lost, and run again.
    pub conflicts: AtomicU64,
    /// Where it is the recorder of metrics.
    pub retries: Retries,
}

/// Runs commands against a store. A clone works on the same one.
#[derive(Clone, Debug)]
pub struct Executor {
    orders: Arc<CommandHandler<Order>>,
    stock: Arc<CommandHandler<Stock>>,
    counters: Arc<Counters>,
}

/// Why a command goes no further.
pub type Stop = ExecuteError<Rejection>;

impl Executor {
    pub fn new(store: Arc<dyn Store>, counters: Arc<Counters>) -> Result<Self> {
        let retry = RetryPolicy::default().with_max_conflicts(MAX_CONFLICTS);
        let orders = CommandHandler::new(store.clone(), Order)?.with_schema(schema::orders()?);
        let stock = CommandHandler::new(store, Stock)?.with_schema(schema::stock()?);
        let (orders, stock) = (orders.with_retry(retry.clone()), stock.with_retry(retry));
        Ok(Self { orders: Arc::new(orders), stock: Arc::new(stock), counters })
    }

    /// Runs a command to its end. Where the store fails it may be half done: running it again
    /// completes it.
    pub async fn run(&self, command: &Command) -> Result<Outcome, Stop> {
        let outcome = match self.steps(command).await {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::AlreadyDone,
            Err(ExecuteError::Rejected(rejection)) => Outcome::Rejected(rejection),
            Err(failed) => return Err(failed),
        };
        self.counters.commands.fetch_add(1, Relaxed);
        Ok(outcome)
    }

    /// Cancels an order if it is not paid, and gives its stock back.
    pub async fn expire(&self, order: &str, context: &Context) -> Result<(), Stop> {
        self.order(order, &OrderCommand::Expire, context).await?;
        let now = self.orders.load(order).await?.state;
        if let Some(sku) = now.sku().filter(|_| now.is_cancelled()) {
            let release = StockCommand::Release { order: order.to_owned() };
            self.stock(sku, &release, context).await?;
        }
        Ok(())
    }

    /// The appends of a command, in an order in which each can be the last before a crash: what
    /// may be refused comes first, and every step is skipped where it was taken before. Answers
    /// whether there was anything to do.
    async fn steps(&self, command: &Command) -> Result<bool, Stop> {
        let context = &context(command);
        match command.clone() {
            Command::Receive { delivery, sku, quantity } => {
                self.stock(&sku, &StockCommand::Receive { delivery, quantity }, context).await
            }
            Command::Place { order, sku, quantity, cents } => {
                let place = OrderCommand::Place { sku: sku.clone(), quantity, cents };
                // Asked before stock is reserved for an order that cannot be placed. Where it is
                // placed already, its stock was reserved before that.
                let now = self.orders.load(&order).await?.state;
                if Order.decide(&place, &now).map_err(ExecuteError::Rejected)?.is_empty() {
                    return Ok(false);
                }
                let reserve = StockCommand::Reserve { order: order.clone(), quantity };
                let reserved = self.stock(&sku, &reserve, context).await?;
                Ok(self.order(&order, &place, context).await? || reserved)
            }
            Command::Pay { order, cents } => {
                self.order(&order, &OrderCommand::Pay { cents }, context).await
            }
            Command::Ship { order } => {
                let ship = StockCommand::Ship { order: order.clone() };
                self.both(&order, &OrderCommand::Ship, &ship, context).await
            }
            Command::Cancel { order } => {
                let release = StockCommand::Release { order: order.clone() };
                self.both(&order, &OrderCommand::Cancel, &release, context).await
            }
        }
    }

    /// An order, and then its stock, which follows even where the order was changed by an earlier
    /// run.
    async fn both(
        &self,
        order: &str,
        first: &OrderCommand,
        then: &StockCommand,
        context: &Context,
    ) -> Result<bool, Stop> {
        let before = self.orders.load(order).await?.state;
        let sku = before.sku().ok_or(ExecuteError::Rejected(Rejection::UnknownOrder))?;
        let changed = self.order(order, first, context).await?;
        Ok(self.stock(sku, then, context).await? || changed)
    }

    async fn order(
        &self,
        id: &str,
        command: &OrderCommand,
        context: &Context,
    ) -> Result<bool, Stop> {
        Ok(self.count(&self.orders.execute(id, command, context).await?))
    }

    async fn stock(
        &self,
        sku: &str,
        command: &StockCommand,
        context: &Context,
    ) -> Result<bool, Stop> {
        Ok(self.count(&self.stock.execute(sku, command, context).await?))
    }

    /// Answers whether anything happened.
    fn count<E>(&self, executed: &Executed<E>) -> bool {
        let changed = !executed.events.is_empty();
        self.counters.appends.fetch_add(changed.into(), Relaxed);
        self.counters.conflicts.fetch_add(executed.conflicts.into(), Relaxed);
        changed
    }
}

/// What the events of a command say of their cause.
fn context(command: &Command) -> Context {
    let (verb, key) = command.id();
    Context::default().with_correlation_id(key).with_causation_id(format!("{verb} {key}"))
}
