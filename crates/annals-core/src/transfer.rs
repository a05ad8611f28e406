//! Moving events from one store to another, as they were recorded.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use futures::TryStreamExt;

use crate::{
    Append, Capabilities, Conflict, Error, ErrorKind, EventStore, EventType, ExpectedVersion,
    NewEvent, Payload, ReadStream, RecordedEvent, Result, StreamId, StreamInfo, StreamState,
    Version, adapter::StreamHead,
};

/// What moving events needs beyond what applications do, at either end. What is not implemented
/// refuses, or goes by appends.
#[async_trait]
pub trait TransferStore: EventStore {
    /// The streams that were ever written to, those whose events are gone as well, by the bytes of
    /// their ids: those after an id, at most so many.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] without [`Capabilities::list_streams`].
    async fn list_streams(
        &self,
        _after: Option<&StreamId>,
        _limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        Err(Error::unsupported("a list of streams"))
    }

    /// Writes events that another store recorded, as they are: stream, version, id, type, payloads
    /// and, with [`Capabilities::exact_import`], the time. Their positions are the store's own, in
    /// the order given.
    ///
    /// An event whose id stands at its version already is left as it is, so that an import may be
    /// repeated, in other pieces as well. A stream without readable events may begin at any version,
    /// as if it had been truncated before. Where the call fails, or is dropped, the first of the
    /// events may have been written: the same call again writes the rest.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where another event, or none, stands at a version that the stream has
    /// passed, and where readable events would be followed by a gap;
    /// [`ErrorKind::StreamClosed`] for a tombstoned stream; [`ErrorKind::InvalidInput`] for names
    /// that begin with `$`, and for events of one stream whose versions do not go up by 1;
    /// [`ErrorKind::LimitExceeded`] where they are more than one append may have.
    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        import_by_appends(self, events).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: TransferStore + ?Sized> TransferStore for Arc<T> {
    async fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        (**self).list_streams(after, limit).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<()> {
        (**self).import(events).await
    }
}

/// For adapters: refuses what [`TransferStore::import`] refuses before anything is sent.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] and [`ErrorKind::LimitExceeded`].
pub fn check_import(events: &[RecordedEvent], capabilities: &Capabilities) -> Result<()> {
    let limit = |what: &str, is: usize, most: usize| {
        let message = format!("{what} {is}; this store takes at most {most}");
        Err(Error::new(ErrorKind::LimitExceeded, message))
    };
    if events.len() > capabilities.max_append_events {
        return limit("the events of the import are", events.len(), capabilities.max_append_events);
    }
    let mut bytes = 0;
    let mut versions: HashMap<&StreamId, Version> = HashMap::new();
    for event in events {
        let mut check = || {
            let invalid = |message: &'static str| Err(Error::new(ErrorKind::InvalidInput, message));
            if event.stream.is_system() || event.event_type.is_system() {
                return invalid(
                    "streams and event types that begin with `$` belong to the backend",
                );
            }
            if event.size() > capabilities.max_event_bytes {
                let what = format!("the bytes of data and metadata of event {} are", event.version);
                return limit(&what, event.size(), capabilities.max_event_bytes);
            }
            match versions.insert(&event.stream, event.version) {
                _ if event.version == Version::NONE => invalid("versions begin at 1"),
                Some(before) if event.version != before.plus(1) => {
                    invalid("the versions of a stream's events must go up by 1")
                }
                _ => Ok(()),
            }
        };
        check().map_err(|e| e.with_stream(&event.stream))?;
        bytes += event.size();
    }
    if bytes > capabilities.max_append_bytes {
        return limit("the bytes of the import are", bytes, capabilities.max_append_bytes);
    }
    Ok(())
}

/// What is to be done with an imported event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportVerdict {
    /// The stream has not come so far: write it, and what follows it in the stream.
    Write,
    /// The stream has passed this version: the event that stands there has its id, or this is a
    /// conflict.
    Compare,
}

impl StreamHead {
    /// Decides on an event that is imported. `is_empty`: whether no event of the stream is readable.
    ///
    /// # Errors
    /// [`ErrorKind::StreamClosed`]; [`ErrorKind::Conflict`] where there would be a gap.
    pub fn judge_import(&self, event: &RecordedEvent, is_empty: bool) -> Result<ImportVerdict> {
        if self.state == StreamState::Tombstoned {
            return Err(Error::stream_closed(&event.stream));
        }
        if event.version <= self.version {
            return Ok(ImportVerdict::Compare);
        }
        if !is_empty && event.version != self.version.plus(1) {
            return Err(import_conflict(event, self.version));
        }
        Ok(ImportVerdict::Write)
    }
}

/// For adapters: an imported event that cannot stand at its version in a stream that is at `actual`.
#[must_use]
pub fn import_conflict(event: &RecordedEvent, actual: Version) -> Error {
    Error::lost_race(&event.stream, ExpectedVersion::Exact(event.version.minus(1)), actual)
}

/// The type of the events that [`import_by_appends`] writes, and truncates, where a stream does not
/// begin at version 1.
pub const PLACEHOLDER: &str = "annals.placeholder";

/// [`TransferStore::import`] for a store that can only append. Keeps everything but the times; one
/// append for each run of events of one stream. Where a stream begins at a later version, writes
/// placeholders, and truncates them: subscribers may see these.
///
/// # Errors
/// As for [`TransferStore::import`]; [`ErrorKind::Unsupported`] for a stream that begins at a later
/// version, without [`Capabilities::truncate`].
pub async fn import_by_appends<S: EventStore + ?Sized>(
    store: &S,
    events: Vec<RecordedEvent>,
) -> Result<()> {
    check_import(&events, store.capabilities())?;
    for run in events.chunk_by(|one, next| one.stream == next.stream) {
        append_run(store, run).await?;
    }
    Ok(())
}

/// Writes events that follow each other in one stream.
async fn append_run<S: EventStore + ?Sized>(store: &S, run: &[RecordedEvent]) -> Result<()> {
    let Some(first) = run.first() else { return Ok(()) };
    if first.version == Version::FIRST {
        // On a deleted stream the append would succeed, and continue its numbering.
        let info = store.stream_info(&first.stream).await?;
        if info.state == StreamState::Deleted {
            return Err(import_conflict(first, info.version));
        }
    }
    let Some(Conflict { actual, .. }) = try_append(store, run).await? else { return Ok(()) };
    let info = store.stream_info(&first.stream).await?;
    let rest = if first.version <= actual {
        compare(store, run, actual).await?
    } else if info.first_version.is_none() {
        fill(store, first, actual).await?;
        run
    } else {
        return Err(import_conflict(first, actual));
    };
    let Some(next) = rest.first() else { return Ok(()) };
    match try_append(store, rest).await? {
        Some(conflict) => Err(import_conflict(next, conflict.actual)),
        None => Ok(()),
    }
}

async fn try_append<S: EventStore + ?Sized>(
    store: &S,
    run: &[RecordedEvent],
) -> Result<Option<Conflict>> {
    let Some(first) = run.first() else { return Ok(None) };
    let events = run.iter().map(|event| {
        NewEvent::from_stored(
            event.id,
            event.event_type.clone(),
            event.data.clone(),
            event.metadata.clone(),
        )
    });
    let append = Append::new(first.stream.clone(), first.version.minus(1), events);
    match store.append(append).await {
        Ok(_) => Ok(None),
        Err(error) => match error.conflict() {
            Some(conflict) => Ok(Some(conflict.clone())),
            None => Err(error),
        },
    }
}

/// What is left of a run when those are taken away that stand in the stream already.
async fn compare<'a, S: EventStore + ?Sized>(
    store: &S,
    run: &'a [RecordedEvent],
    actual: Version,
) -> Result<&'a [RecordedEvent]> {
    let split = run.partition_point(|event| event.version <= actual);
    let (there, rest) = run.split_at_checked(split).unwrap_or((run, &[]));
    let Some(first) = there.first() else { return Ok(rest) };
    let options = ReadStream::default().with_from(first.version).with_limit(there.len() as u64);
    let mut found = store.read_stream(&first.stream, options);
    for event in there {
        match found.try_next().await? {
            Some(found) if (found.version, found.id) == (event.version, event.id) => {}
            _ => return Err(import_conflict(event, actual)),
        }
    }
    Ok(rest)
}

/// Brings a stream without readable events to the version before an event.
async fn fill<S: EventStore + ?Sized>(
    store: &S,
    next: &RecordedEvent,
    mut version: Version,
) -> Result<()> {
    if !store.capabilities().truncate {
        return Err(Error::unsupported("a stream that begins after version 1, without truncation"));
    }
    let last = next.version.minus(1);
    while version < last {
        let most = store.capabilities().max_append_events.min(1_000) as u64;
        let count = most.min(last.get() - version.get());
        let placeholder = EventType::new(PLACEHOLDER)?;
        let events = (0..count).map(|_| NewEvent::new(placeholder.clone(), Payload::empty()));
        let append = Append::new(next.stream.clone(), version, events);
        version = store.append(append).await?.last_version;
    }
    store.truncate(&next.stream, next.version).await
}
