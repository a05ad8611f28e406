//! Writers that append as fast as they can.

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

/// How many writers append how many events, and to which streams.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) writers: usize,
    /// The number of events in an append.
    pub(crate) events: usize,
    pub(crate) to: To,
}

/// The streams that are appended to.
#[derive(Clone, Copy)]
pub(crate) enum To {
    /// Each writer has its own streams, and expects their exact versions. `first` is the number of
    /// the first writer; no other writer of this store may have had one of these numbers.
    Own { first: usize },
    /// One stream for all writers, with any version.
    Hot,
    /// Random streams, with any version, among this many that the store was filled with.
    Filled(usize),
}

/// Writers that are running.
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

    /// Measures the load, in events a second.
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
    /// Stops the writers, after each has finished its append.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Relaxed);
        self.tasks.join_all().await;
    }
}
