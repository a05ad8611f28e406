//! A stream's state, and its truncation, deletion and tombstone.

use std::sync::Arc;

use annals_core::{
    Direction, Error, ErrorKind, ExpectedVersion, Result, StreamId, StreamInfo, StreamState,
    Version, adapter::StreamHead,
};
use bytes::Bytes;
use kurrentdb::{
    DeleteStreamOptions, Error as ClientError, EventData, StreamState as ExpectedState,
    TombstoneStreamOptions,
};

use crate::{
    codec::{current_version, expected_state, version_of},
    error::Failure,
    metadata::StreamMetadata,
    names,
    reader::{ReadFrom, read_last, read_one},
    records,
    server::Server,
};

/// A revision that no stream reaches. The server itself uses the next one, for tombstones.
const UNREACHABLE: u64 = i64::MAX.unsigned_abs() - 1;
/// The type of an event that is sent but never written.
const PROBE: &str = "annals-probe";

/// The state of a stream. It takes several requests, and appends and removals may come between them: so
/// this asks again until nothing has changed meanwhile.
pub(crate) async fn stream_info(server: &Arc<Server>, stream: &StreamId) -> Result<StreamInfo> {
    loop {
        if let Some((first, last)) = ends(server, stream).await? {
            // A stream that begins with its first event was never deleted.
            let deleted_at = match first {
                Version::FIRST => Version::NONE,
                _ => records::deleted_at(server, stream, first).await?,
            };
            let info = StreamInfo::new(StreamState::Live, last, Some(first));
            return Ok(info.with_deleted_at(deleted_at));
        }
        let (state, version) = if stream.is_system() {
            (StreamState::Missing, Version::NONE)
        } else {
            match state_without_events(server, stream).await? {
                Some(state) => state,
                None => continue,
            }
        };
        // Without events nothing shows whether the stream was deleted before it was truncated.
        let deleted_at = if state == StreamState::Live {
            records::deleted_at(server, stream, version.plus(1)).await?
        } else {
            version
        };
        return Ok(StreamInfo::new(state, version, None).with_deleted_at(deleted_at));
    }
}

/// The first and the last version of a stream that can be read, as they were at one moment. `None` if
/// the stream has no readable events.
async fn ends(server: &Arc<Server>, stream: &StreamId) -> Result<Option<(Version, Version)>> {
    let name = || server.names.stream(stream);
    let mut before = None;
    loop {
        let Some(last) = read_last(server, name()).await? else { return Ok(None) };
        let first = read_one(server, name(), Direction::Forwards, ReadFrom::First).await?;
        let Some(first) = first else { return Ok(None) };
        // The first version only rises. So it was the same when the last event was read if it is the
        // lowest, or if it is the one that was read before.
        let first = version_of(first.revision);
        if first == Version::FIRST || before == Some(first) {
            return Ok(Some((first, version_of(last.revision))));
        }
        before = Some(first);
    }
}

/// The greatest version that a stream has had. If the server does not tell it, the greatest number:
/// then no version counts as beyond the end.
pub(crate) async fn greatest_version(server: &Arc<Server>, stream: &StreamId) -> Result<Version> {
    const UNKNOWN: Version = Version::new(u64::MAX);
    if let Some(last) = read_last(server, server.names.stream(stream)).await? {
        return Ok(version_of(last.revision));
    }
    if stream.is_system() {
        return Ok(UNKNOWN);
    }
    match probe(server, stream).await? {
        ProbeAnswer::At(version) => Ok(version),
        ProbeAnswer::Tombstoned => match records::tombstoned_at(server, stream).await? {
            Version::NONE => Ok(UNKNOWN),
            version => Ok(version),
        },
    }
}

/// The state and the version of a stream that has no readable events; `None` if it has changed
/// meanwhile.
async fn state_without_events(
    server: &Arc<Server>,
    stream: &StreamId,
) -> Result<Option<(StreamState, Version)>> {
    let version = match probe(server, stream).await? {
        // The server does not tell the version of a tombstoned stream. A record of this store does.
        ProbeAnswer::Tombstoned => {
            let version = records::tombstoned_at(server, stream).await?;
            return Ok(Some((StreamState::Tombstoned, version)));
        }
        ProbeAnswer::At(Version::NONE) => return Ok(Some((StreamState::Missing, Version::NONE))),
        ProbeAnswer::At(version) => version,
    };
    // Events may have been appended since the caller found none.
    if read_last(server, server.names.stream(stream)).await?.is_some() {
        return Ok(None);
    }
    let deleted = StreamMetadata::load(server, stream).await?.is_deleted();
    let state = if deleted { StreamState::Deleted } else { StreamState::Live };
    // Nothing was appended while the metadata were read if the version is still the same.
    let is_same = matches!(probe(server, stream).await?, ProbeAnswer::At(now) if now == version);
    Ok(is_same.then_some((state, version)))
}

enum ProbeAnswer {
    Tombstoned,
    At(Version),
}

/// Finds out the version of a stream whose events are all removed. Only the refusal of an append
/// tells it, so this sends an append whose expectation cannot hold.
async fn probe(server: &Arc<Server>, stream: &StreamId) -> Result<ProbeAnswer> {
    let name = server.names.stream(stream);
    let expected = ExpectedState::StreamRevision(UNREACHABLE);
    let mut retries = server.connection.retries();
    loop {
        let event = EventData::binary(PROBE, Bytes::new());
        match server.append(&name, expected, vec![event]).await {
            Err(Failure::Client(ClientError::WrongExpectedVersion { current, .. })) => {
                return Ok(ProbeAnswer::At(current_version(&current)));
            }
            Err(failure) if failure.is_deleted() => return Ok(ProbeAnswer::Tombstoned),
            Err(failure) if failure.is_transient() && retries.pause_after(&failure).await => {}
            Err(failure) => return Err(failure.into_error()),
            Ok(_) => {
                let message = "the server accepted an append that expected a version which no \
                               stream can have";
                return Err(Error::new(ErrorKind::Internal, message));
            }
        }
    }
}

pub(crate) async fn truncate(
    server: &Arc<Server>,
    stream: &StreamId,
    before: Version,
) -> Result<()> {
    names::check_not_reserved(stream)?;
    let mut retries = server.connection.retries();
    loop {
        let info = stream_info(server, stream).await?;
        match info.state {
            StreamState::Tombstoned => return Err(Error::stream_closed(stream)),
            StreamState::Live => {}
            _ => return Ok(()),
        }
        // A `$tb` beyond the last event would also hide events that are appended later.
        let before = before.minus(1).min(info.version).get();
        let metadata = StreamMetadata::load(server, stream).await?;
        if metadata.is_deleted() && info.first_version.is_none() {
            // The stream was deleted between the two reads: look again.
            continue;
        }
        let current = metadata.truncated_before().filter(|_| !metadata.is_deleted()).unwrap_or(0);
        if before <= current {
            return Ok(());
        }
        let (name, expected) = (server.names.metadata(stream), metadata.expected());
        let failure = match server.append(&name, expected, vec![metadata.truncating(before)?]).await
        {
            Ok(_) => return Ok(()),
            Err(failure) => failure,
        };
        // A truncation that is carried out twice changes nothing the second time, so try again.
        if failure.is_failed_precondition() {
            retries.pause_after_lost_race().await;
        } else if failure.is_deleted() {
            return Err(Error::stream_closed(stream));
        } else if !(failure.is_transient() && retries.pause_after(&failure).await) {
            return Err(failure.into_write_error());
        }
    }
}

/// The two ways to remove a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemovalKind {
    Deletion,
    Tombstone,
}

impl RemovalKind {
    fn is_done(self, state: StreamState) -> bool {
        match self {
            Self::Deletion => matches!(state, StreamState::Deleted | StreamState::Missing),
            Self::Tombstone => state == StreamState::Tombstoned,
        }
    }
}

pub(crate) async fn remove(
    server: &Arc<Server>,
    stream: &StreamId,
    expecting: ExpectedVersion,
    kind: RemovalKind,
) -> Result<()> {
    names::check_not_reserved(stream)?;
    let mut retries = server.connection.retries();
    // The stream's version before a try whose answer was lost.
    let mut tried: Option<Version> = None;
    // The version at which the removal was announced.
    let mut announced: Option<Version> = None;
    let mark = |error: Error, tried: Option<Version>| match tried {
        Some(_) => error.with_outcome_unknown(),
        None => error,
    };
    loop {
        let info = stream_info(server, stream).await.map_err(|e| mark(e, tried))?;
        if tried.is_some() && kind.is_done(info.state) {
            return Ok(());
        }
        if let Some(before) = tried
            && before != info.version
        {
            // The earlier try may have removed the stream, and others may have written it anew.
            let message = "an answer was lost, and the stream has changed since";
            return Err(mark(Error::new(ErrorKind::Unavailable, message), tried));
        }
        if let Some(at) = announced.take()
            && info.version > at
            && info.first_version.is_some_and(|first| first <= at)
        {
            // Another writer came first, so nothing is removed at this version any more.
            records::withdraw_removal(server, stream, at).await.map_err(|e| mark(e, tried))?;
        }
        let (state, version) = (info.state, info.version);
        let deleted_at = if state == StreamState::Deleted { version } else { Version::NONE };
        StreamHead { state, version, deleted_at }.check(stream, expecting)?;
        if kind == RemovalKind::Deletion && kind.is_done(state) {
            // A snapshot may have been saved since the stream was deleted.
            if state == StreamState::Deleted {
                records::announce_removal(server, stream, version, false).await?;
            }
            return Ok(());
        }
        // Delete the snapshot before the stream: if this process died in between, a snapshot that
        // is left would be loaded for the next events of the stream.
        let is_tombstone = kind == RemovalKind::Tombstone;
        records::announce_removal(server, stream, version, is_tombstone).await?;
        announced = Some(version);
        let failure = match request_removal(server, stream, version, kind).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if failure.may_have_written() {
            tried = Some(version);
        }
        if failure.is_failed_precondition() {
            retries.pause_after_lost_race().await;
        } else if failure.is_deleted() {
            return match (kind, tried) {
                (RemovalKind::Tombstone, Some(_)) => Ok(()),
                _ => Err(Error::stream_closed(stream)),
            };
        } else if !(failure.is_transient() && retries.pause_after(&failure).await) {
            return Err(mark(failure.into_error(), tried));
        }
    }
}

/// Removes the stream if it is still at `version`. If not, the caller compares the expectation
/// again.
async fn request_removal(
    server: &Arc<Server>,
    stream: &StreamId,
    version: Version,
    kind: RemovalKind,
) -> Result<(), Failure> {
    let expected = expected_state(ExpectedVersion::Exact(version));
    let (name, connection) = (server.names.stream(stream), &server.connection);
    match kind {
        RemovalKind::Deletion => {
            let options = DeleteStreamOptions::default().stream_state(expected);
            let options = connection.authenticated_with_deadline(options);
            let sent = connection
                .send(|client| async move { client.delete_stream(name, &options).await })
                .await;
            sent.map(drop)
        }
        RemovalKind::Tombstone => {
            let options = TombstoneStreamOptions::default().stream_state(expected);
            let options = connection.authenticated_with_deadline(options);
            let sent = connection
                .send(|client| async move { client.tombstone_stream(name, &options).await })
                .await;
            sent.map(drop)
        }
    }
}
