//! The load: writers, and a reader of what they wrote.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use annals::{
    Append, EventStore, EventType, ExpectedVersion, NewEvent, Payload, ReadAll, ReadStream, Result,
    Store, StreamId, TryStreamExt,
};
use indicatif::ProgressBar;

use crate::{
    bench::figures::{Figures, Round},
    interrupt::Interrupt,
};

/// What the writers do, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) writers: u32,
    pub(crate) streams: u32,
    pub(crate) size: u32,
    pub(crate) batch: u32,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) read: bool,
}

impl Load {
    /// Writes to an empty store, reads it back if `read` is set, and adds the results to `figures`.
    pub(crate) async fn run(
        &self,
        store: &Arc<dyn Store>,
        figures: &mut Figures,
        interrupt: &Interrupt,
        progress: &ProgressBar,
    ) -> Result<()> {
        let mut round = Round::new(self)?;
        let begin = Instant::now() + self.warm_up;
        let next_stream = Arc::new(AtomicU32::new(0));
        let writers: Vec<_> = (0..self.writers)
            .map(|_| {
                let writer = Writer {
                    store: store.clone(),
                    load: self.clone(),
                    next_stream: next_stream.clone(),
                    begin,
                    interrupt: interrupt.clone(),
                    progress: progress.clone(),
                };
                tokio::spawn(writer.write())
            })
            .collect();
        let mut failed = None;
        // Wait for all writers, even if one has failed: the caller removes the namespace next.
        for writer in writers {
            match writer.await {
                Ok(Ok(part)) => round.join(&part),
                Ok(Err(error)) => failed = Some(error),
                Err(error) => failed = Some(panicked(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        figures.wrote(round);
        if self.read && !interrupt.is_set() {
            self.read_back(store, figures, interrupt).await?;
        }
        Ok(())
    }

    fn stream(&self, turn: u32) -> Result<StreamId> {
        StreamId::new(format!("bench-{}", turn % self.streams))
    }

    /// Reads over all streams, or one stream after another if the store has no order over all.
    async fn read_back(
        &self,
        store: &Arc<dyn Store>,
        figures: &mut Figures,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let began = Instant::now();
        let mut read = 0;
        let mut reads = Vec::new();
        if store.capabilities().global_order {
            reads.push(store.read_all(ReadAll::default()));
        } else {
            for stream in 0..self.streams {
                reads.push(store.read_stream(&self.stream(stream)?, ReadStream::default()));
            }
        }
        for mut events in reads {
            while let Some(_event) = events.try_next().await? {
                read += 1;
                if interrupt.is_set() {
                    break;
                }
            }
        }
        figures.read(read, began.elapsed());
        Ok(())
    }
}

fn panicked(error: tokio::task::JoinError) -> annals::Error {
    annals::Error::new(annals::ErrorKind::Internal, "a writer panicked").with_source(error)
}

struct Writer {
    store: Arc<dyn Store>,
    load: Load,
    next_stream: Arc<AtomicU32>,
    /// When the measurement begins.
    begin: Instant,
    interrupt: Interrupt,
    progress: ProgressBar,
}

impl Writer {
    /// Appends until the time is over. If there are more streams than writers, the writers take the
    /// next stream for each append; otherwise each writer stays with one stream.
    async fn write(self) -> Result<Round> {
        let Load { duration, batch, size, .. } = self.load;
        let event_type = EventType::new("Benched")?;
        let mut round = Round::new(&self.load)?;
        let mut rng = fastrand::Rng::new();
        let own = self.next_stream.fetch_add(1, Relaxed);
        let is_shared = self.load.streams > self.load.writers;
        let mut ticked = Instant::now();
        while !self.interrupt.is_set() {
            let turn = if is_shared { self.next_stream.fetch_add(1, Relaxed) } else { own };
            let stream = self.load.stream(turn)?;
            let events = (0..batch).map(|_| {
                let mut data = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
                rng.fill(&mut data);
                NewEvent::new(event_type.clone(), Payload::binary(data))
            });
            let append = Append::new(stream, ExpectedVersion::Any, events.collect::<Vec<_>>());
            let began = Instant::now();
            if began >= self.begin + duration {
                break;
            }
            self.store.append(append).await?;
            let ended = Instant::now();
            if let Some(from) = began.checked_duration_since(self.begin) {
                round.record(from, ended - began);
            }
            if own == 0 {
                let passed = (ended - ticked).as_millis();
                self.progress.inc(u64::try_from(passed).unwrap_or(0));
                ticked += Duration::from_millis(u64::try_from(passed).unwrap_or(0));
            }
        }
        Ok(round)
    }
}
