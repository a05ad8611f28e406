//! What the tasks and subscribers of a run share: streams, events, the clock, and places to begin at.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use annals_core::{
    Append, Category, Error, ErrorKind, Filter, RecordedEvent, StreamId, StreamPrefix,
};
use tokio::sync::{Semaphore, watch};

use super::{
    ids::{Batch, Ids},
    record::{Answer, Seen, Write},
};

/// What the tasks of a run share.
pub(super) struct Run {
    ids: Ids,
    /// The streams; the last is that of the marks.
    names: Vec<StreamId>,
    /// Two filters that let all streams of the history through, and no others.
    filters: [Filter; 2],
    clock: AtomicU64,
    next_event: AtomicU32,
    /// All appends that were sent.
    sent: Mutex<Vec<Vec<Write>>>,
    /// The position of the first mark.
    base: AtomicU64,
    /// The greatest position that an append was answered.
    latest: AtomicU64,
    pub(super) ordered: bool,
    pub(super) patience: Duration,
    /// Has a permit for each subscriber that has subscribed.
    pub(super) subscribed: Semaphore,
    /// The position of the last mark of each stream, once these are written.
    pub(super) last_marks: watch::Sender<Option<Vec<u64>>>,
}

/// Counts the runs, so that each has other streams.
static RUNS: AtomicU64 = AtomicU64::new(0);

impl Run {
    pub(super) fn new(streams: usize, ordered: bool, patience: Duration) -> Self {
        let name = format!("h{}", RUNS.fetch_add(1, Ordering::Relaxed));
        let names = (0..=streams).map(|n| StreamId::new(format!("{name}-{n}")).unwrap()).collect();
        let by_category = Filter::default().with_category(Category::new(&name).unwrap());
        let prefix = StreamPrefix::new(format!("{name}-")).unwrap();
        Self {
            ids: Ids::new(),
            names,
            filters: [by_category, Filter::default().with_prefix(prefix)],
            clock: AtomicU64::new(1),
            next_event: AtomicU32::new(1),
            sent: Mutex::default(),
            base: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            ordered,
            patience,
            subscribed: Semaphore::new(0),
            last_marks: watch::Sender::new(None),
        }
    }

    pub(super) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn name(&self, stream: usize) -> &StreamId {
        &self.names[stream]
    }

    pub(super) fn marks(&self) -> usize {
        self.names.len() - 1
    }

    pub(super) fn filter(&self, nth: usize) -> Filter {
        self.filters[nth % 2].clone()
    }

    /// The history begins here: everything that was answered so far is before it.
    pub(super) fn begin_here(&self) {
        self.base.store(self.latest(), Ordering::SeqCst);
    }

    pub(super) fn base(&self) -> u64 {
        self.base.load(Ordering::SeqCst)
    }

    /// An append was answered this position.
    pub(super) fn answered(&self, position: u64) {
        self.latest.fetch_max(position, Ordering::SeqCst);
    }

    pub(super) fn latest(&self) -> u64 {
        self.latest.load(Ordering::SeqCst)
    }

    /// The versions of the streams that a task knows at the beginning.
    pub(super) fn no_versions(&self) -> Vec<u64> {
        vec![0; self.names.len()]
    }

    pub(super) fn see(&self, event: &RecordedEvent) -> Result<Seen, String> {
        let stream = self.names.iter().position(|name| *name == event.stream);
        let stream = stream.ok_or_else(|| format!("this history has no stream of {event:?}"))?;
        let (version, position) = (event.version.get(), event.position.get());
        Ok(Seen { stream, version, event: self.ids.number(event)?, position })
    }

    pub(super) fn new_events(&self, count: u32) -> Batch {
        let first = self.next_event.fetch_add(count, Ordering::SeqCst);
        first..first + count
    }

    /// An append is about to be sent. It may be sent again later.
    pub(super) fn sends(&self, writes: &[Write]) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push(writes.to_vec());
    }

    /// One of the appends that were sent so far.
    pub(super) fn sent(&self, nth: usize) -> Option<Vec<Write>> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(nth.checked_rem(sent.len())?).cloned()
    }

    pub(super) fn append(&self, write: &Write, is_stop: bool) -> Append {
        let events = write.events.clone().map(|number| self.ids.event(number, is_stop));
        Append::new(self.names[write.stream].clone(), write.expected, events)
    }

    /// The answer that an error is.
    pub(super) fn failed(&self, error: &Error) -> Answer {
        if error.outcome_unknown() {
            return Answer::Unknown(error.to_string());
        }
        let stream = |id: &StreamId| self.names.iter().position(|name| name == id);
        match (error.kind(), error.conflict()) {
            (ErrorKind::StreamClosed, _) => Answer::Closed,
            (ErrorKind::Conflict, Some(conflict)) => match stream(&conflict.stream) {
                Some(stream) => Answer::Conflict { stream, actual: conflict.actual.get() },
                None => Answer::Wrong(format!("{error:?}")),
            },
            _ => Answer::Wrong(format!("{error:?}")),
        }
    }
}
