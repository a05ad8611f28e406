//! A shop: orders and stock, event-sourced, on any event store.
//!
//! Each order and the stock of each sku is a stream of events, `order-17` and `stock-mug`. Read the
//! files in this order:
//!
//! 1. [`domain`]: what orders and stock decide, as pure functions on events.
//! 2. [`commands`]: what the shop can be told, as lines of text.
//! 3. [`execute`]: load, decide, append, and what to do when another writer was faster.
//! 4. [`report`]: totals over all streams, kept up to date by a subscription.
//! 5. This file, which runs the commands concurrently with the report beside them.
//!
//! None of it names a database: [`run`] takes whatever [`annals::connect`] returns.

// A program, not a library: where a name says it all, it needs no words.
#![allow(missing_docs)]

pub mod commands;
pub mod domain;
pub mod execute;
pub mod report;
mod summary;

use std::{
    error::Error,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use annals::Store;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt},
    sync::{mpsc, watch},
    task::JoinSet,
};

use commands::{BadLine, Command};
use execute::{Counters, Executor, Outcome};
use report::ReadModel;
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
    /// The read model is stored with every this many events.
    pub save_every: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 16, save_every: 1_000 }
    }
}

/// Runs every command of the input, and returns when the read model includes what they did. Where
/// it fails, running the same commands again goes on where it was.
pub async fn run(
    store: Arc<dyn Store>,
    input: impl AsyncBufRead + Unpin,
    options: &Options,
    counters: Arc<Counters>,
) -> Result<Summary, AnyError> {
    let started = Instant::now();
    let (tell, told) = watch::channel(None);
    let read_model = ReadModel::load(store.clone(), counters.clone(), options.save_every).await?;
    let read_model = tokio::spawn(read_model.follow(told));

    let executor = Executor::new(store, counters.clone());
    let (tally, bad_lines) = run_all(executor, input, options.workers).await?;
    let elapsed = started.elapsed();

    tell.send_replace(Some(counters.last_position.load(Relaxed)));
    let read_model = read_model.await??;
    let (model, events) = read_model.from_the_beginning().await?;
    if model != *read_model.model() {
        return Err("the read model is not what the events say".into());
    }
    let (events_read, resumed_after) = (read_model.events_read, read_model.resumed_after);
    Ok(Summary { tally, bad_lines, counters, elapsed, model, events, events_read, resumed_after })
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
) -> annals::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    while let Some(command) = commands.recv().await {
        outcomes.push(executor.run(&command).await?);
    }
    Ok(outcomes)
}
