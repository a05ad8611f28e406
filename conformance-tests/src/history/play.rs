//! Runs a program on a store, and records its history.

use std::{future::Future, sync::Arc, time::Duration};

use annals_core::{Capabilities, Recognition, Removal, Store};
use fastrand::Rng;
use futures::{
    FutureExt,
    future::{BoxFuture, join, join_all},
};

use super::{
    follow,
    program::Program,
    record::{History, Rules},
    run::Run,
    task::Task,
};

/// Where programs run: a namespace with several handles.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) handles: Vec<Arc<dyn Store>>,
    /// How long a subscriber waits for something that has to come.
    pub(super) patience: Duration,
}

impl Stage {
    pub(super) fn capabilities(&self) -> &Capabilities {
        self.handles[0].capabilities()
    }

    fn rules(&self) -> Rules {
        let can = self.capabilities();
        Rules {
            guaranteed: can.retry_recognition == Recognition::Guaranteed,
            tells_retries: can.tells_retries,
            at_once: can.removal == Removal::AtOnce,
            ordered: can.global_order,
        }
    }

    /// Runs a program. The pauses between the calls are those of the attempt: 0 in the first run.
    pub(super) async fn play(&self, program: &Program, attempt: u64) -> History {
        let run =
            Arc::new(Run::new(program.streams, self.capabilities().global_order, self.patience));
        let handle = |nth: usize| self.handles[nth % self.handles.len()].clone();
        // The suite's own task begins and ends the history.
        let last = program.tasks.len();
        let mut frame = Task::new(run.clone(), handle(last), last, Rng::with_seed(0));
        frame.begin().await;
        let pauses = Rng::with_seed(program.pauses.wrapping_add(attempt)).u64(..);
        let rng = |part: usize| Rng::with_seed(pauses.wrapping_add(part as u64));
        let tasks = program.tasks.iter().enumerate().map(|(n, steps)| {
            let (mut task, steps) = (Task::new(run.clone(), handle(n), n, rng(n)), steps.clone());
            launch(program.in_parallel, async move {
                task.steps(&steps).await;
                task.ops
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let followers = program.followers.iter().enumerate().map(|(n, follower)| {
            let following = follow::follow(run.clone(), handle(n + 1), *follower);
            launch(program.in_parallel, following)
        });
        let followers: Vec<_> = followers.collect();
        let subscribed = u32::try_from(followers.len()).unwrap_or(u32::MAX);
        let calls = async {
            let ops = join_all(tasks).await;
            // A subscriber from the end has to know the end before the marks are appended.
            drop(run.subscribed.acquire_many(subscribed).await);
            frame.end(program.streams).await;
            ops
        };
        let (followed, ops) = join(join_all(followers), calls).await;
        let mut ops = ops.concat();
        ops.append(&mut frame.ops);
        ops.sort_by_key(|op| op.began);
        History { streams: program.streams + 1, ops, followed, rules: self.rules() }
    }
}

/// Starts a task of the runtime, or leaves the future to be polled with the others.
fn launch<T: Send + 'static>(
    in_parallel: bool,
    future: impl Future<Output = T> + Send + 'static,
) -> BoxFuture<'static, T> {
    if in_parallel {
        let task = tokio::spawn(future);
        async move { task.await.unwrap() }.boxed()
    } else {
        future.boxed()
    }
}
