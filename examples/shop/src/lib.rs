//! A shop: orders and stock, event-sourced, on any event store.
//!
//! Each order and the stock of each sku is a stream of events, `order-17` and `stock-mug`. Read the
//! files in this order:
//!
//! 1. [`domain`]: what orders and stock decide, as pure functions on events.
//! 2. [`commands`]: what the shop can be told, as lines of text.
//! 3. [`execute`]: commands on streams, and those that span two.
//! 4. [`report`]: totals over all streams, kept up to date by a projection; in [`sink`].
//! 5. This file, which runs the commands concurrently with the report beside them.
//!
//! And then, each for itself: [`fulfilment`], which cancels what is not paid in time; [`view`], a
//! table of the orders in a database; [`schema`], which reads what older shops have stored;
//! [`metrics`].
//!
//! None of it names a database: [`run`] takes whatever [`annals::connect`] returns.

// A program, not a library: where a name says it all, it needs no words.
#![allow(missing_docs)]

pub mod commands;
pub mod domain;
pub mod execute;
pub mod fulfilment;
pub mod metrics;
pub mod report;
pub mod schema;
pub mod sink;
mod summary;
pub mod view;

use std::{
    convert::Infallible,
    error::Error,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Instant,
};

use annals::{
    Store,
    domain::projection::{Delivery, Projection, ProjectionError},
};
use chrono::{TimeDelta, Utc};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt},
    sync::{mpsc, watch},
    task::JoinSet,
};

use commands::{BadLine, Command};
use execute::{Counters, Executor, Outcome, Stop};
use fulfilment::Fulfilment;
use view::View;

pub use summary::{Summary, Tally};

pub type AnyError = Box<dyn Error + Send + Sync>;

/// A day's commands, for a first run.
pub const COMMANDS: &str = include_str!("../commands.txt");

/// How many commands may wait for each worker.
const QUEUE: usize = 32;

#[derive(Clone, Debug)]
pub struct Options {
    /// How many commands run at the same time; at least one does.
    pub workers: usize,
    /// Orders that are not paid in this time are cancelled.
    pub payment_within: Option<TimeDelta>,
    /// Where to keep a table of all orders: [`View::open`].
    pub view: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 16, payment_within: None, view: None }
    }
}

/// Runs every command of the input, and returns when the read models include what they did. Where
/// it fails, running the same commands again goes on where it was.
pub async fn run(
    store: Arc<dyn Store>,
    input: impl AsyncBufRead + Unpin,
    options: &Options,
    counters: Arc<Counters>,
) -> Result<Summary, AnyError> {
    let started = Instant::now();
    let (tell, told) = watch::channel(false);
    let (mut report, kept) = report::report(store.clone()).await?;
    let resumed_after = kept.now().position;
    let view = match &options.view {
        Some(place) => Some(View::open(store.clone(), place).await?),
        None => None,
    };
    let executor = Executor::new(store.clone(), counters.clone())?;
    let fulfilment = options
        .payment_within
        .map(|within| Fulfilment::new(store.clone(), executor.clone(), within));
    let mut fulfilment = fulfilment.transpose()?;

    let report_told = told.clone();
    let report = tokio::spawn(async move {
        follow(&mut report, report_told).await?;
        Ok::<_, ProjectionError>(report.handler().read)
    });
    let view = tokio::spawn(async move {
        match view {
            Some(mut view) => view.follow(told).await,
            None => Ok(()),
        }
    });

    let (tally, bad_lines) = tokio::select! {
        tallied = run_all(executor, input, options.workers) => tallied?,
        Some(Err(error)) = look_after(&mut fulfilment) => return Err(error),
    };
    let elapsed = started.elapsed();
    if let Some(fulfilment) = &mut fulfilment {
        fulfilment.round(Utc::now()).await?;
    }
    tell.send_replace(true);
    view.await??;
    let events_read = report.await??;
    let kept = kept.now();
    let (model, events) = report::from_the_beginning(&*store, kept.position).await?;
    if model != kept.model {
        return Err("the read model is not what the events say".into());
    }
    let resumed_after = resumed_after.get();
    Ok(Summary { tally, bad_lines, counters, elapsed, model, events, events_read, resumed_after })
}

/// What there is no end to; nothing where there is nothing to do.
async fn look_after(fulfilment: &mut Option<Fulfilment>) -> Option<Result<Infallible, AnyError>> {
    Some(fulfilment.as_mut()?.run().await)
}

/// Runs a projection until it is told that no more will happen, and then to the end.
async fn follow<D: Delivery>(
    projection: &mut Projection<D>,
    mut done: watch::Receiver<bool>,
) -> Result<(), ProjectionError> {
    // Where nobody is left who could tell, whoever would have has failed.
    projection.run(async { drop(done.wait_for(|done| *done).await) }).await?;
    projection.catch_up().await?;
    Ok(())
}

/// Deals the commands out to the workers. The commands to one order go to one worker, and so stay
/// in their order; a delivery is received before the next line is read, so that an order finds
/// what was delivered before it.
async fn run_all(
    executor: Executor,
    input: impl AsyncBufRead + Unpin,
    workers: usize,
) -> Result<(Tally, Vec<BadLine>), AnyError> {
    let mut running = JoinSet::new();
    let mut queues = Vec::new();
    for _ in 0..workers.max(1) {
        let (queue, commands) = mpsc::channel(QUEUE);
        queues.push(queue);
        running.spawn(work(executor.clone(), commands));
    }
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let (mut outcomes, mut bad_lines) = (Vec::new(), Vec::new());
    let mut lines = input.split(b'\n');
    let mut number = 0;
    while let Some(line) = lines.next_segment().await? {
        number += 1;
        match Command::parse(&line) {
            Ok(None) => {}
            Ok(Some(command @ Command::Receive { .. })) => {
                outcomes.push(executor.run(&command).await?);
            }
            Ok(Some(command)) => {
                let (_, order) = command.id();
                let worker = hasher.hash_one(order) % queues.len() as u64;
                let Some(queue) = queues.get(worker as usize) else { continue };
                if queue.send(command).await.is_err() {
                    break; // The worker has failed; what it says comes next.
                }
            }
            Err(fault) => bad_lines.push(BadLine { number, fault }),
        }
    }
    drop(queues);
    while let Some(done) = running.join_next().await {
        outcomes.extend(done??);
    }
    let mut tally = Tally::new();
    for outcome in outcomes {
        *tally.entry(outcome).or_default() += 1;
    }
    Ok((tally, bad_lines))
}

async fn work(
    executor: Executor,
    mut commands: mpsc::Receiver<Command>,
) -> Result<Vec<Outcome>, Stop> {
    let mut outcomes = Vec::new();
    while let Some(command) = commands.recv().await {
        outcomes.push(executor.run(&command).await?);
    }
    Ok(outcomes)
}
