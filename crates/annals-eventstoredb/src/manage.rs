//! What is known of a stream, and its truncation, deletion and tombstone.

use std::sync::Arc;

use annals_core::{
    Direction, Error, ErrorKind, ExpectedVersion, Result, StreamId, StreamInfo, StreamState,
    Version, adapter::StreamHead,
};
use bytes::Bytes;
use kurrentdb::{
    DeleteStreamOptions, Error as ClientError, EventData, StreamState as Expected,
    TombstoneStreamOptions,
};

use crate::{
    append::{expected, send, version},
    error::Failure,
    keep,
    metadata::StreamMetadata,
    read::one_of,
    reader::From,
    store::Shared,
};

/// A revision that no stream reaches, short of the one that the server keeps for tombstones.
const BEYOND: u64 = i64::MAX.unsigned_abs() - 1;
/// The type of an event that is never written.
const PROBE: &str = "annals-probe";

pub(crate) async fn stream_info(shared: &Arc<Shared>, stream: &StreamId) -> Result<StreamInfo> {
    let name = || shared.names.stream(stream);
    loop {
        if let Some(last) = one_of(shared, name(), Direction::Backwards, From::First).await? {
            let first = one_of(shared, name(), Direction::Forwards, From::First).await?;
            // Removed in between: what is it now?
            let Some(first) = first else { continue };
            let (first, last) = (first.revision + 1, last.revision + 1);
            return Ok(StreamInfo::new(
                StreamState::Live,
                Version::new(last),
                Some(Version::new(first)),
            ));
        }
        let (state, version) = if stream.is_system() {
            (StreamState::Missing, Version::NONE)
        } else {
            unreadable(shared, stream).await?
        };
        return Ok(StreamInfo::new(state, version, None));
    }
}

/// What is known of a stream without any event to be read.
async fn unreadable(shared: &Arc<Shared>, stream: &StreamId) -> Result<(StreamState, Version)> {
    match probe(shared, stream).await? {
        // The server says no more of what is closed; the version was noted when it was.
        Probe::Tombstoned => {
            let version = keep::closed_at(shared, stream).await?;
            Ok((StreamState::Tombstoned, version))
        }
        Probe::At(Version::NONE) => Ok((StreamState::Missing, Version::NONE)),
        Probe::At(version) => {
            let deleted = StreamMetadata::load(shared, stream).await?.is_deleted();
            Ok((if deleted { StreamState::Deleted } else { StreamState::Live }, version))
        }
    }
}

enum Probe {
    Tombstoned,
    At(Version),
}

/// Asks for an append that cannot succeed, since the refusal says the version of the stream, also
/// where all its events are removed. Nothing else does.
async fn probe(shared: &Arc<Shared>, stream: &StreamId) -> Result<Probe> {
    let name = shared.names.stream(stream);
    let mut patience = shared.connection.patience();
    loop {
        let event = EventData::binary(PROBE, Bytes::new());
        let refused = send(shared, &name, Expected::StreamRevision(BEYOND), vec![event]).await;
        match refused {
            Err(Failure::Client(ClientError::WrongExpectedVersion { current, .. })) => {
                return Ok(Probe::At(version(&current)));
            }
            Err(failure) if failure.is_deleted() => return Ok(Probe::Tombstoned),
            Err(failure) if failure.is_passing() && patience.again(&failure).await => {}
            Err(failure) => return Err(failure.into_error()),
            Ok(_) => {
                let message = "the server took an append that expected more events than there are";
                return Err(Error::new(ErrorKind::Internal, message));
            }
        }
    }
}

pub(crate) async fn truncate(
    shared: &Arc<Shared>,
    stream: &StreamId,
    before: Version,
) -> Result<()> {
    let mut patience = shared.connection.patience();
    loop {
        let info = stream_info(shared, stream).await?;
        match info.state {
            StreamState::Tombstoned => return Err(Error::stream_closed(stream)),
            StreamState::Live => {}
            _ => return Ok(()),
        }
        // Beyond the last event, it would hide those that come.
        let before = before.minus(1).min(info.version).get();
        let metadata = StreamMetadata::load(shared, stream).await?;
        if metadata.is_deleted() && info.first_version.is_none() {
            // Deleted in between.
            continue;
        }
        let behind = metadata.truncated_before().filter(|_| !metadata.is_deleted()).unwrap_or(0);
        if before <= behind {
            return Ok(());
        }
        let (name, expected) = (shared.names.metadata(stream), metadata.expected());
        let failure = match send(shared, &name, expected, vec![metadata.truncating(before)?]).await
        {
            Ok(_) => return Ok(()),
            Err(failure) => failure,
        };
        // To truncate twice is to truncate once, so that it may be sent again.
        if failure.is_failed_precondition() {
            patience.lost_race().await;
        } else if failure.is_deleted() {
            return Err(Error::stream_closed(stream));
        } else if !(failure.is_passing() && patience.again(&failure).await) {
            return Err(failure.into_write_error());
        }
    }
}

/// How a stream is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    Deletion,
    Tombstone,
}

impl Removal {
    fn is_done(self, state: StreamState) -> bool {
        match self {
            Self::Deletion => matches!(state, StreamState::Deleted | StreamState::Missing),
            Self::Tombstone => state == StreamState::Tombstoned,
        }
    }
}

pub(crate) async fn remove(
    shared: &Arc<Shared>,
    stream: &StreamId,
    expecting: ExpectedVersion,
    removal: Removal,
) -> Result<()> {
    let mut patience = shared.connection.patience();
    // The version of the stream at a try that may have succeeded.
    let mut tried: Option<Version> = None;
    let unknown = |error: Error, tried: Option<Version>| match tried {
        Some(_) => error.with_outcome_unknown(),
        None => error,
    };
    loop {
        let info = stream_info(shared, stream).await.map_err(|e| unknown(e, tried))?;
        if tried.is_some() && removal.is_done(info.state) {
            return Ok(());
        }
        if let Some(before) = tried
            && before != info.version
        {
            // It may have been removed, and be there again.
            let message = "an answer was lost, and the stream has changed since";
            return Err(unknown(Error::new(ErrorKind::Unavailable, message), tried));
        }
        let (state, version) = (info.state, info.version);
        let deleted_at = if state == StreamState::Deleted { version } else { Version::NONE };
        StreamHead { state, version, deleted_at }.check(stream, expecting)?;
        if removal == Removal::Deletion && removal.is_done(state) {
            return Ok(());
        }
        // First of all: a snapshot without its stream would come back with it.
        let closing = (removal == Removal::Tombstone).then_some(version);
        keep::forget_snapshot(shared, stream, closing).await?;
        let failure = match request(shared, stream, version, removal).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if failure.may_have_written() {
            tried = Some(version);
        }
        if failure.is_failed_precondition() {
            patience.lost_race().await;
        } else if failure.is_deleted() {
            return match (removal, tried) {
                (Removal::Tombstone, Some(_)) => Ok(()),
                _ => Err(Error::stream_closed(stream)),
            };
        } else if !(failure.is_passing() && patience.again(&failure).await) {
            return Err(unknown(failure.into_error(), tried));
        }
    }
}

/// Always of the version that was judged: where another was reached since, it is judged again.
async fn request(
    shared: &Arc<Shared>,
    stream: &StreamId,
    version: Version,
    removal: Removal,
) -> Result<(), Failure> {
    let expected = expected(ExpectedVersion::Exact(version));
    let (name, connection) = (shared.names.stream(stream), &shared.connection);
    match removal {
        Removal::Deletion => {
            let options = DeleteStreamOptions::default().stream_state(expected);
            let options = connection.identify_briefly(options);
            let sent = connection
                .once(|client| async move { client.delete_stream(name, &options).await })
                .await;
            sent.map(drop)
        }
        Removal::Tombstone => {
            let options = TombstoneStreamOptions::default().stream_state(expected);
            let options = connection.identify_briefly(options);
            let sent = connection
                .once(|client| async move { client.tombstone_stream(name, &options).await })
                .await;
            sent.map(drop)
        }
    }
}
