//! Stores that are correct as long as their calls come one after the other: each has a race, which the
//! cases about histories have to notice.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use annals_core::{
    Append, Appended, Capabilities, CheckpointStore, Error, EventStore, EventStoreExt, EventStream,
    ExpectedVersion, LeaseStore, Message, NewEvent, ReadAll, ReadStream, RecordedEvent, Result,
    SnapshotStore, StreamId, StreamInfo, Subscribe, Subscription, TransferStore, TryStreamExt,
    Version,
};
use annals_memory::MemoryStore;
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future};
use tokio::task::yield_now;

use crate::bug::Bug;

/// How many turns of other tasks an append leaves between its parts.
const TURNS: u64 = 3;

/// What the handles of a server share.
#[derive(Debug, Default)]
pub(crate) struct Races {
    /// The positions of events that are written, but not for every reader.
    hidden: Mutex<HashSet<u64>>,
    /// The greatest position that every reader sees.
    visible: AtomicU64,
}

#[derive(Clone, Debug)]
pub(crate) struct Racing {
    pub(crate) store: MemoryStore,
    pub(crate) races: Arc<Races>,
    pub(crate) bug: Bug,
    /// The number of the handle.
    pub(crate) number: u64,
    /// The greatest position that this handle was answered.
    pub(crate) own: Arc<AtomicU64>,
}

/// Whether a bug is one of these.
pub(crate) fn is_race(bug: Bug) -> bool {
    matches!(
        bug,
        Bug::ShowsTooLate
            | Bug::HandlesLagBehind
            | Bug::AnswersBothOfARace
            | Bug::ConflictSaysThePast
            | Bug::RetriesRaceThemselves
            | Bug::DroppedAppendsWriteTwice
            | Bug::MultiIsSeenByHalves
            | Bug::DeletesCheckTooEarly
            | Bug::InfosAreTorn
            | Bug::ShowsOutOfOrder
            | Bug::ReadersGoBack
            | Bug::SkipsInFlight
    )
}

async fn turns(count: u64) {
    for _ in 0..count {
        yield_now().await;
    }
}

impl Racing {
    fn version(&self, stream: &StreamId) -> Version {
        let info = EventStore::stream_info(&self.store, stream).now_or_never().unwrap();
        info.unwrap().version
    }

    /// The positions of an append that was answered.
    fn positions(append: &Append, answer: &Appended) -> impl Iterator<Item = u64> + use<> {
        let last = answer.position.get();
        last + 1 - append.count()..=last
    }

    /// Writes, and hides the events of the appends after the first `shown` from some readers for a
    /// while.
    async fn write_hidden(&self, appends: Vec<Append>, shown: usize) -> Result<Vec<Appended>> {
        let answers = {
            let mut hidden = self.races.hidden.lock().unwrap();
            let answers = self.store.append_multi(appends.clone()).now_or_never().unwrap()?;
            let late = appends.iter().zip(&answers).skip(shown);
            hidden.extend(late.flat_map(|(append, answer)| Self::positions(append, answer)));
            answers
        };
        let last = answers.last().map_or(0, |answer| answer.position.get());
        turns(last % TURNS + 1).await;
        let mut hidden = self.races.hidden.lock().unwrap();
        for (append, answer) in appends.iter().zip(&answers) {
            for position in Self::positions(append, answer) {
                hidden.remove(&position);
            }
        }
        Ok(answers)
    }

    /// Whether a reader may not see an event yet.
    fn is_hidden(&self, event: &RecordedEvent) -> bool {
        let position = event.position.get();
        match self.bug {
            Bug::ShowsTooLate => position > self.races.visible.load(Ordering::SeqCst),
            Bug::HandlesLagBehind => {
                let visible = self.races.visible.load(Ordering::SeqCst);
                position > visible.max(self.own.load(Ordering::SeqCst))
            }
            Bug::ReadersGoBack if self.number.is_multiple_of(2) => false,
            _ => self.races.hidden.lock().unwrap().contains(&position),
        }
    }

    fn visible(&self, events: EventStream) -> EventStream {
        let handle = self.clone();
        events.try_filter(move |event| future::ready(!handle.is_hidden(event))).boxed()
    }

    /// Makes an event visible after the append was answered.
    fn show_later(&self, answer: &Appended) {
        let (races, position) = (self.races.clone(), answer.position.get());
        self.own.fetch_max(position, Ordering::SeqCst);
        tokio::spawn(async move {
            turns(TURNS).await;
            races.visible.fetch_max(position, Ordering::SeqCst);
        });
    }

    /// Looks for the ids first, and writes later.
    async fn look_and_write(&self, append: Append) -> Result<Appended> {
        let first = append.events.first().map(NewEvent::id);
        let stored = self.store.load_stream(&append.stream).await?;
        if stored.iter().any(|event| Some(event.id) == first) {
            return self.store.append(append).await;
        }
        turns(1).await;
        // Under `Exact` the store does not look for the ids.
        let base = self.version(&append.stream);
        self.store.append(Append::new(append.stream, base, append.events)).await
    }
}

/// Writes an append once more if it is dropped.
struct Again(Option<(MemoryStore, Append)>);

impl Drop for Again {
    fn drop(&mut self) {
        if let Some((store, append)) = self.0.take() {
            let info = EventStore::stream_info(&store, &append.stream).now_or_never().unwrap();
            let again = Append::new(append.stream, info.unwrap().version, append.events);
            let _ = store.append(again).now_or_never();
        }
    }
}

#[async_trait]
impl EventStore for Racing {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let is_any = append.expected == ExpectedVersion::Any;
        let base = self.version(&append.stream);
        let held = append.expected == ExpectedVersion::Exact(base);
        match self.bug {
            Bug::ShowsTooLate | Bug::HandlesLagBehind => {
                let answer = self.store.append(append).await?;
                self.show_later(&answer);
                Ok(answer)
            }
            Bug::AnswersBothOfARace => {
                turns(1).await;
                let answer = self.store.append(append.clone()).await;
                if answer.is_err() && held {
                    let position = self.store.last_position().await?;
                    return Appended::after(base, append.count(), position, false);
                }
                answer
            }
            Bug::ConflictSaysThePast => {
                turns(1).await;
                let (stream, expected) = (append.stream.clone(), append.expected);
                let answer = self.store.append(append).await;
                answer.map_err(|error| match error.conflict() {
                    Some(_) => Error::lost_race(&stream, expected, base),
                    None => error,
                })
            }
            Bug::RetriesRaceThemselves if is_any => self.look_and_write(append).await,
            Bug::DroppedAppendsWriteTwice => {
                let answer = self.store.append(append.clone()).await?;
                let mut again = Again(Some((self.store.clone(), append)));
                turns(1).await;
                again.0 = None;
                Ok(answer)
            }
            Bug::ShowsOutOfOrder | Bug::SkipsInFlight | Bug::ReadersGoBack => {
                let answers = self.write_hidden(vec![append], 0).await?;
                Ok(answers[0])
            }
            _ => self.store.append(append).await,
        }
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        match self.bug {
            Bug::MultiIsSeenByHalves => self.write_hidden(appends, 1).await,
            Bug::ShowsTooLate | Bug::HandlesLagBehind => {
                let answers = self.store.append_multi(appends).await?;
                answers.iter().for_each(|answer| self.show_later(answer));
                Ok(answers)
            }
            _ => self.store.append_multi(appends).await,
        }
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        let events = self.store.read_stream(stream, options);
        match self.bug {
            Bug::ShowsTooLate | Bug::HandlesLagBehind | Bug::MultiIsSeenByHalves => {
                self.visible(events)
            }
            _ => events,
        }
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        let events = self.store.read_all(options);
        match self.bug {
            Bug::ShowsOutOfOrder | Bug::ReadersGoBack | Bug::MultiIsSeenByHalves => {
                self.visible(events)
            }
            _ => events,
        }
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        let messages = self.store.subscribe(options).await?;
        if self.bug != Bug::SkipsInFlight {
            return Ok(messages);
        }
        let handle = self.clone();
        let is_due = move |message: &Message| match message {
            Message::Event(event) => !handle.is_hidden(event),
            _ => true,
        };
        let messages = messages.filter(move |message| {
            future::ready(message.as_ref().is_ok_and(&is_due) || message.is_err())
        });
        Ok(Subscription::new(messages))
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        let mut info = EventStore::stream_info(&self.store, stream).await?;
        if self.bug == Bug::InfosAreTorn {
            turns(1).await;
            let later = EventStore::stream_info(&self.store, stream).await?;
            info.first_version = later.first_version;
        }
        Ok(info)
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        EventStore::truncate(&self.store, stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        let mut expected = expected;
        if self.bug == Bug::DeletesCheckTooEarly
            && expected == ExpectedVersion::Exact(self.version(stream))
        {
            turns(1).await;
            expected = ExpectedVersion::Any;
        }
        EventStore::delete(&self.store, stream, expected).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        EventStore::tombstone(&self.store, stream, expected).await
    }
}

// Histories use nothing of these.
impl SnapshotStore for Racing {}
impl CheckpointStore for Racing {}
impl LeaseStore for Racing {}
impl TransferStore for Racing {}
