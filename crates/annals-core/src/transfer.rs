//! Moves events from one store to another, as they were recorded.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use futures::TryStreamExt;

use crate::{
    Append, Capabilities, Conflict, Error, ErrorKind, EventStore, EventType, ExpectedVersion,
    NewEvent, Payload, ReadStream, RecordedEvent, Result, StreamId, StreamInfo, StreamState,
    Version, adapter::StreamHead,
};

/// Lists and imports: what it takes to move events from one store to another, beyond what
/// applications use. A store that does not implement [`TransferStore::list_streams`] refuses it, and
/// one that does not implement [`TransferStore::import`] imports by appends.
///
/// ```
/// use annals_core::{EventStore, ReadAll, Result, TransferStore, TryStreamExt};
///
/// /// Copies all events. If it is interrupted, it can begin again.
/// async fn copy(from: &dyn EventStore, to: &dyn TransferStore) -> Result<()> {
///     let mut events = from.read_all(ReadAll::default());
///     while let Some(event) = events.try_next().await? {
///         // Larger pieces are faster.
///         to.import(vec![event]).await?;
///     }
///     Ok(())
/// }
/// ```
#[async_trait]
pub trait TransferStore: EventStore {
    /// Lists at most `limit` of the streams whose id is greater than `after`, in the order of the
    /// bytes of their ids. The list has every stream that was ever written to, even if its events
    /// were removed. To list all streams, call again with the last id until the list is empty.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] without [`Capabilities::list_streams`].
    async fn list_streams(
        &self,
        _after: Option<&StreamId>,
        _limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>> {
        Err(Error::unsupported("list of streams"))
    }

    /// Writes events that another store recorded, and keeps their stream, version, id, type,
    /// payloads and, with [`Capabilities::exact_import`], their time. This store gives them
    /// positions of its own, in the order given.
    ///
    /// If an event with the same id already has the same version of the stream, it is left as it is.
    /// So an import can be repeated, also in other pieces. A stream without readable events may
    /// begin at any version, as if it had been truncated before. To import a stream of which the source
    /// had deleted the versions before, which are not missing, import any event at the last of them,
    /// delete the stream, and import the rest: `annals copy` does so. If the call fails or is dropped,
    /// the first of the events may have been written: the same call again writes the rest.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the stream has passed the version of an event and has another
    /// event, or none, at that version, or if a gap would follow readable events;
    /// [`ErrorKind::StreamClosed`] for a tombstoned stream; [`ErrorKind::InvalidInput`] for names
    /// that begin with `$`, and for events of one stream whose versions do not increase by 1;
    /// [`ErrorKind::LimitExceeded`] if the events are more, or larger, than one append may have.
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

/// For adapters: refuses an import that must be refused before anything is sent to the database.
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
                _ if event.version == Version::NONE => {
                    invalid("an event has version 0; versions begin at 1")
                }
                Some(before) if event.version != before.plus(1) => {
                    invalid("the versions of the events of a stream must increase by 1")
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

/// What an adapter has to do with an imported event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportVerdict {
    /// The stream has not reached this version: write the event, and all later events of the stream.
    Write,
    /// The stream has passed this version: if the event that it has there has another id, this is a
    /// conflict; else there is nothing to do.
    Compare,
}

impl StreamHead {
    /// Decides what to do with an imported event. `is_empty` says that the stream has no readable
    /// event.
    ///
    /// # Errors
    /// [`ErrorKind::StreamClosed`] for a tombstoned stream; [`ErrorKind::Conflict`] if a gap would
    /// follow readable events.
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

/// For adapters: the error for an imported event that cannot get its version, because the stream,
/// which is at `actual`, has passed it or has not reached it.
#[must_use]
pub fn import_conflict(event: &RecordedEvent, actual: Version) -> Error {
    Error::lost_race(&event.stream, ExpectedVersion::Exact(event.version.minus(1)), actual)
}

/// The type of the placeholder events that [`import_by_appends`](crate::adapter::import_by_appends)
/// writes, and truncates again, if a stream does not begin at version 1.
pub const PLACEHOLDER: &str = "annals.placeholder";

/// [`TransferStore::import`] for a store that can only append. It keeps everything but the times,
/// and makes one append of each run of events of the same stream. If a stream begins after version
/// 1, it first writes placeholders and truncates them, which subscribers may see.
///
/// # Errors
/// As for [`TransferStore::import`]; [`ErrorKind::Unsupported`] for a stream that begins after
/// version 1, without [`Capabilities::truncate`].
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

/// Imports a run of events of the same stream.
async fn append_run<S: EventStore + ?Sized>(store: &S, run: &[RecordedEvent]) -> Result<()> {
    let Some(first) = run.first() else { return Ok(()) };
    if first.version == Version::FIRST {
        // On a deleted stream the append would succeed, with versions that continue its numbering.
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

/// Appends a run of events at their versions. Returns the conflict, if it is one.
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

/// Compares the first events of a run, up to the version `actual` that the stream has, with the
/// events of the stream. Returns the rest of the run.
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

/// Brings a stream without readable events to the version before the event `next`.
async fn fill<S: EventStore + ?Sized>(
    store: &S,
    next: &RecordedEvent,
    mut version: Version,
) -> Result<()> {
    if !store.capabilities().truncate {
        let message = "the stream begins after version 1, and this store cannot truncate the \
                       placeholders before it (see its capabilities)";
        return Err(Error::new(ErrorKind::Unsupported, message).with_stream(&next.stream));
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
