//! Commands against streams: load, decide, append; and again where another writer was faster.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use annals::{Append, Error, EventStore, NewEvent, ReadStream, Result, Store, StreamId, Version};
use futures::TryStreamExt;

use crate::{
    commands::{Command, stream},
    domain::{Aggregate, DomainEvent, Order, OrderCommand, Rejection, Stock, StockCommand},
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
    /// Calls that failed, and were made again.
    pub retries: AtomicU64,
    /// The greatest position that an append returned.
    pub last_position: AtomicU64,
}

/// Runs commands against a store. A clone works on the same one.
#[derive(Clone, Debug)]
pub struct Executor {
    store: Arc<dyn Store>,
    counters: Arc<Counters>,
}

/// Why a command goes no further.
enum Stop {
    Rejected(Rejection),
    Failed(Error),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An aggregate as it stands in the store.
struct Loaded<A> {
    state: A,
    version: Version,
    /// Whether this program has just changed it.
    changed: bool,
}

impl Executor {
    pub fn new(store: Arc<dyn Store>, counters: Arc<Counters>) -> Self {
        Self { store, counters }
    }

    /// Runs a command to its end. Where the store fails it may be half done: running it again
    /// completes it.
    pub async fn run(&self, command: &Command) -> Result<Outcome> {
        let outcome = match self.steps(command).await {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::AlreadyDone,
            Err(Stop::Rejected(rejection)) => Outcome::Rejected(rejection),
            Err(Stop::Failed(error)) => return Err(error),
        };
        self.counters.commands.fetch_add(1, Relaxed);
        Ok(outcome)
    }

    /// The appends of a command, in an order in which each can be the last before a crash: what
    /// may be refused comes first, and every step is skipped where it was taken before. Answers
    /// whether there was anything to do.
    async fn steps(&self, command: &Command) -> Result<bool, Stop> {
        match command.clone() {
            Command::Receive { delivery, sku, quantity } => {
                let receive = StockCommand::Receive { delivery, quantity };
                Ok(self.change::<Stock>(&sku, &receive, command).await?.changed)
            }
            Command::Place { order, sku, quantity, cents } => {
                let place = OrderCommand::Place { sku: sku.clone(), quantity, cents };
                // Asked before stock is reserved for an order that cannot be placed. Where it is
                // placed already, its stock was reserved before that.
                let loaded = self.load::<Order>(&order).await?;
                if loaded.state.decide(&place)?.is_empty() {
                    return Ok(false);
                }
                let reserve = StockCommand::Reserve { order: order.clone(), quantity };
                let stock = self.change::<Stock>(&sku, &reserve, command).await?;
                let order = self.change::<Order>(&order, &place, command).await?;
                Ok(stock.changed || order.changed)
            }
            Command::Pay { order, cents } => {
                let pay = OrderCommand::Pay { cents };
                Ok(self.change::<Order>(&order, &pay, command).await?.changed)
            }
            Command::Ship { order } => {
                let ship = StockCommand::Ship { order: order.clone() };
                self.change_both(&order, &OrderCommand::Ship, &ship, command).await
            }
            Command::Cancel { order } => {
                let release = StockCommand::Release { order: order.clone() };
                self.change_both(&order, &OrderCommand::Cancel, &release, command).await
            }
        }
    }

    /// An order, and then its stock, which follows even where the order was changed by an earlier
    /// run.
    async fn change_both(
        &self,
        order: &str,
        first: &OrderCommand,
        then: &StockCommand,
        cause: &Command,
    ) -> Result<bool, Stop> {
        let order = self.change::<Order>(order, first, cause).await?;
        let sku = order.state.sku().ok_or(Rejection::UnknownOrder)?;
        let stock = self.change::<Stock>(sku, then, cause).await?;
        Ok(order.changed || stock.changed)
    }

    /// Decides on the newest state there is, and appends only if it still is the newest.
    async fn change<A: Aggregate>(
        &self,
        name: &str,
        command: &A::Command,
        cause: &Command,
    ) -> Result<Loaded<A>, Stop> {
        let mut loaded = self.load::<A>(name).await?;
        let mut conflicts = 0;
        loop {
            let events = loaded.state.decide(command)?;
            if events.is_empty() {
                return Ok(loaded);
            }
            match self.append::<A>(name, loaded.version, &events, cause).await {
                Ok(()) => {
                    events.into_iter().for_each(|event| loaded.state.evolve(event));
                    loaded.changed = true;
                    return Ok(loaded);
                }
                Err(error) if error.conflict().is_some() && conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    self.counters.conflicts.fetch_add(1, Relaxed);
                    self.catch_up(name, &mut loaded).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn load<A: Aggregate>(&self, name: &str) -> Result<Loaded<A>> {
        let mut loaded = Loaded { state: A::default(), version: Version::NONE, changed: false };
        self.catch_up(name, &mut loaded).await?;
        Ok(loaded)
    }

    /// Folds what is new in the stream into the state.
    async fn catch_up<A: Aggregate>(&self, name: &str, to: &mut Loaded<A>) -> Result<()> {
        let stream = stream::<A>(name)?;
        let mut patience = Patience::default();
        while let Err(error) = self.read_new(&stream, to).await {
            patience.wait(error, &self.counters).await?;
        }
        Ok(())
    }

    /// Where it fails, what was read before is folded, and the next call goes on from there.
    async fn read_new<A: Aggregate>(&self, stream: &StreamId, to: &mut Loaded<A>) -> Result<()> {
        let new = ReadStream::default().with_from(to.version.plus(1));
        let mut events = self.store.read_stream(stream, new);
        while let Some(event) = events.try_next().await? {
            to.state.evolve(event.json()?);
            to.version = event.version;
        }
        Ok(())
    }

    async fn append<A: Aggregate>(
        &self,
        name: &str,
        version: Version,
        events: &[A::Event],
        cause: &Command,
    ) -> Result<()> {
        let (verb, key) = cause.id();
        let events = events.iter().map(|event| {
            NewEvent::json(event.event_type(), event)?
                .with_correlation_id(key)?
                .with_causation_id(format!("{verb} {key}"))
        });
        let events = events.collect::<Result<Vec<_>>>()?;
        let append = Append::new(stream::<A>(name)?, version, events);
        let mut patience = Patience::default();
        loop {
            // The clone has the same event ids, by which the store knows a retry whose first
            // answer was lost.
            match self.store.append(append.clone()).await {
                Ok(appended) => {
                    self.counters.appends.fetch_add(1, Relaxed);
                    self.counters.last_position.fetch_max(appended.position.get(), Relaxed);
                    return Ok(());
                }
                Err(error) => patience.wait(error, &self.counters).await?,
            }
        }
    }
}

/// How long to go on with a store that fails for the time being: about ten seconds.
#[derive(Default)]
pub(crate) struct Patience {
    failures: u32,
}

impl Patience {
    const MAX_FAILURES: u32 = 12;
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(2);

    /// Waits, a little longer each time, and returns when it is time to try again; or gives the
    /// error back, where trying again does not help.
    pub(crate) async fn wait(&mut self, error: Error, counters: &Counters) -> Result<()> {
        let passing = error.is_retryable() || error.outcome_unknown();
        if !passing || self.failures == Self::MAX_FAILURES {
            return Err(error);
        }
        let pause = Self::FIRST.saturating_mul(1 << self.failures).min(Self::LONGEST);
        self.failures += 1;
        counters.retries.fetch_add(1, Relaxed);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
