//! Writers that write as fast as they can.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use annals_benches::{Writer, filled_stream};
use annals_core::EventStore;
use tokio::{task::JoinSet, time::sleep};

/// Who writes what.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) writers: usize,
    /// How many events an append has.
    pub(crate) events: usize,
    pub(crate) to: To,
}

/// Where to.
#[derive(Clone, Copy)]
pub(crate) enum To {
    /// Each writer has streams of its own, and expects the version that they have. The first has
    /// this number; nobody may have had it, or one of the next, in this store.
    Own { first: usize },
    /// One stream for all, whatever its version.
    Hot,
    /// Any of the first so many streams that the store was filled with, whatever its version.
    Filled(usize),
}

/// Writers at work.
pub(crate) struct Writers {
    tasks: JoinSet<()>,
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Load {
    pub(crate) fn start(self, store: &Arc<dyn EventStore>) -> Writers {
        let mut tasks = JoinSet::new();
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        for number in 0..self.writers {
            let (store, written, stop) = (store.clone(), written.clone(), stop.clone());
            tasks.spawn(async move {
                let first = if let To::Own { first } = self.to { first } else { 0 };
                let mut writer = Writer::new(first + number);
                while !stop.load(Relaxed) {
                    let append = match self.to {
                        To::Own { .. } => writer.append(self.events),
                        To::Hot => writer.append_hot(self.events),
                        To::Filled(streams) => {
                            let stream = filled_stream(fastrand::usize(..streams));
                            writer.append_to(stream, self.events)
                        }
                    };
                    store.append(append).await.unwrap();
                    written.fetch_add(self.events as u64, Relaxed);
                }
            });
        }
        Writers { tasks, written, stop }
    }

    /// Events a second.
    pub(crate) async fn rate(
        self,
        store: Arc<dyn EventStore>,
        warm_up: Duration,
        slice: Duration,
    ) -> f64 {
        let writers = self.start(&store);
        sleep(warm_up).await;
        let (before, began) = (writers.written.load(Relaxed), Instant::now());
        sleep(slice).await;
        let written = writers.written.load(Relaxed) - before;
        let rate = written as f64 / began.elapsed().as_secs_f64();
        writers.stop().await;
        rate
    }
}

impl Writers {
    /// Lets each finish its append.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Relaxed);
        self.tasks.join_all().await;
    }
}
