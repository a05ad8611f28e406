//! A stream's state, and its truncation, deletion and tombstone.

use std::sync::Arc;

use annals_core::{
    Error, ErrorKind, ExpectedVersion, Result, StreamId, StreamInfo, StreamState, Version,
    adapter::StreamHead,
};
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    connection::Target,
    error::Refusal,
    message::{AppendAnswer, EventData, RemovalKind, version_of},
    metadata::StreamMetadata,
    names,
    reader::{Place, Seen, look, look_at_last},
    records,
    server::Server,
};

/// A version that no stream reaches. The server itself uses the next revision, for tombstones.
const UNREACHABLE: Version = Version::new(i64::MAX.unsigned_abs());
/// How often a tombstone is sent again at once, each time at the version that the server has told.
const MOST_RACES: usize = 1_000;
/// How often a truncation is carried out again, since events were appended meanwhile.
const MOST_CHASES: usize = 16;
/// The type of an event that is sent but never written.
const PROBE: &str = "annals-probe";

/// The state of a stream. It takes several requests, and appends and removals may come between them: so
/// this asks again until nothing has changed meanwhile.
pub(crate) async fn stream_info(server: &Arc<Server>, stream: &StreamId) -> Result<StreamInfo> {
    loop {
        let without = match ends(server, stream).await? {
            Ok((first, last)) => {
                // A stream that begins with its first event was never deleted.
                let deleted_at = match first {
                    Version::FIRST => Version::NONE,
                    _ => records::deleted_below(server, stream, first).await?,
                };
                let info = StreamInfo::new(StreamState::Live, last, Some(first));
                return Ok(info.with_deleted_at(deleted_at));
            }
            Err(without) => without,
        };
        let found = state_without_events(server, stream, &without).await?;
        let Some((state, version)) = found else { continue };
        // Without events nothing shows whether the stream was deleted before it was truncated.
        let deleted_at = if state == StreamState::Live {
            records::deleted_below(server, stream, version.plus(1)).await?
        } else {
            version
        };
        return Ok(StreamInfo::new(state, version, None).with_deleted_at(deleted_at));
    }
}

/// The first and the last version of a stream that can be read, as they were at one moment; or what
/// was seen in place of an event.
async fn ends(server: &Arc<Server>, stream: &StreamId) -> Result<Result<(Version, Version), Seen>> {
    let name = || server.names.stream(stream);
    let mut before = None;
    loop {
        let last = match look_at_last(server, name()).await? {
            Seen::Event(last) => version_of(last.revision),
            without => return Ok(Err(without)),
        };
        let first = look(server, Target::Leader, name(), false, Place::First).await?.event();
        // All events were removed between the two looks: look again.
        let Some(first) = first else { continue };
        // The first version only rises. So it was the same when the last event was looked at if it is
        // the lowest that there is, or the one that was seen before.
        let first = version_of(first.revision);
        if first == Version::FIRST || before == Some(first) {
            return Ok(Ok((first, last)));
        }
        before = Some(first);
    }
}

/// The greatest version that a stream has had. If the server does not tell it, the greatest number:
/// then no version counts as beyond the end.
pub(crate) async fn greatest_version(server: &Arc<Server>, stream: &StreamId) -> Result<Version> {
    const UNKNOWN: Version = Version::new(u64::MAX);
    loop {
        let without = match look_at_last(server, server.names.stream(stream)).await? {
            Seen::Event(last) => return Ok(version_of(last.revision)),
            _ if stream.is_system() => return Ok(UNKNOWN),
            without => without,
        };
        match state_without_events(server, stream, &without).await? {
            Some((StreamState::Tombstoned, Version::NONE)) => return Ok(UNKNOWN),
            Some((_, version)) => return Ok(version),
            None => {}
        }
    }
}

/// The state and the version of a stream of which no event can be read; `None` if the stream has
/// changed meanwhile.
async fn state_without_events(
    server: &Arc<Server>,
    stream: &StreamId,
    seen: &Seen,
) -> Result<Option<(StreamState, Version)>> {
    const MISSING: (StreamState, Version) = (StreamState::Missing, Version::NONE);
    if stream.is_system() {
        return Ok(Some(MISSING));
    }
    let name = || server.names.stream(stream);
    let state = match seen {
        Seen::Tombstoned => return tombstoned(server, stream).await.map(Some),
        Seen::Event(_) | Seen::Nothing => StreamState::Live,
        Seen::Missing => {
            // Only a stream that was deleted has a version. So nothing has to be sent to find it out,
            // and a user that may only read gets an answer.
            let metadata = StreamMetadata::load(server, stream).await?;
            if metadata.is_deleted() {
                StreamState::Deleted
            } else {
                // The metadata may have been read before others deleted the stream.
                let deleted =
                    records::deleted_below(server, stream, Version::new(u64::MAX)).await?;
                if deleted > Version::NONE {
                    return Ok(Some((StreamState::Deleted, deleted)));
                }
                // A stream that was deleted keeps a `$tb` when it is written anew.
                let is_missing = metadata.truncated_before().is_none()
                    || matches!(look_at_last(server, name()).await?, Seen::Missing);
                return Ok(is_missing.then_some(MISSING));
            }
        }
    };
    let version = match probe(server, stream).await {
        Ok(ProbeAnswer::At(version)) => version,
        Ok(ProbeAnswer::Tombstoned) => return tombstoned(server, stream).await.map(Some),
        // This user may not write. A record tells at which version this store deleted the stream, the
        // metadata how far it was truncated.
        Err(error) if error.kind() == ErrorKind::Denied => {
            let version = if state == StreamState::Deleted {
                records::deleted_below(server, stream, Version::new(u64::MAX)).await?
            } else {
                let metadata = StreamMetadata::load(server, stream).await?;
                Version::new(metadata.truncated_before().unwrap_or(0))
            };
            return if version == Version::NONE { Err(error) } else { Ok(Some((state, version))) };
        }
        Err(error) => return Err(error),
    };
    // The version may count events that were appended after the look. So look again, and ask once more
    // for the version: if it is the same, nothing was appended around the second look.
    let is_same = match look_at_last(server, name()).await? {
        Seen::Nothing => state == StreamState::Live,
        Seen::Missing => state == StreamState::Deleted,
        Seen::Event(_) | Seen::Tombstoned => false,
    };
    let is_same =
        is_same && matches!(probe(server, stream).await?, ProbeAnswer::At(now) if now == version);
    Ok(is_same.then_some((state, version)))
}

/// The state of a tombstoned stream. The server does not tell its version. A record of this store does.
async fn tombstoned(server: &Arc<Server>, stream: &StreamId) -> Result<(StreamState, Version)> {
    Ok((StreamState::Tombstoned, records::tombstoned_at(server, stream).await?))
}

enum ProbeAnswer {
    Tombstoned,
    At(Version),
}

/// Finds out the version of a stream whose events are all removed. Only the refusal of an append
/// tells it, so this sends an append whose expectation cannot hold.
async fn probe(server: &Arc<Server>, stream: &StreamId) -> Result<ProbeAnswer> {
    let name = server.names.stream(stream);
    let expected = ExpectedVersion::Exact(UNREACHABLE);
    let mut retries = server.connection.retries();
    loop {
        let event = EventData::binary(PROBE, Bytes::new());
        match server.connection.append(&name, expected, &[event]).await {
            Ok(AppendAnswer::WrongVersion(version)) => return Ok(ProbeAnswer::At(version)),
            Err(failure) if failure.is_deleted(&name) => return Ok(ProbeAnswer::Tombstoned),
            Err(failure) if failure.is_transient() && retries.pause_after(&failure).await => {}
            Err(failure) => return Err(failure.into_error()),
            Ok(AppendAnswer::Written { .. }) => {
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
    let mut chases = 0;
    loop {
        let info = stream_info(server, stream).await?;
        match info.state {
            StreamState::Tombstoned => return Err(Error::stream_closed(stream)),
            StreamState::Live => {}
            _ => return Ok(()),
        }
        // A `$tb` beyond the last event would also hide events that are appended later.
        let is_beyond = before.minus(1) > info.version;
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
        let failure = match server.replace(&name, expected, metadata.truncating(before)?).await {
            // Events that were appended since the look at the stream are to be truncated, too.
            Ok(true) if is_beyond && chases < MOST_CHASES => {
                chases += 1;
                match look_at_last(server, server.names.stream(stream)).await? {
                    Seen::Event(_) => continue,
                    _ => return Ok(()),
                }
            }
            Ok(true) => return Ok(()),
            Ok(false) => {
                retries.pause_after_lost_race().await;
                continue;
            }
            Err(failure) => failure,
        };
        // A truncation that is carried out twice changes nothing the second time, so try again.
        if failure.is_deleted(&name) {
            return Err(Error::stream_closed(stream));
        } else if !(failure.is_transient() && retries.pause_after(&failure).await) {
            return Err(failure.into_write_error());
        }
    }
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
    // The version at which the removal was announced, and the mark of this call in what it announces.
    let (mut announced, mark_of_call): (Option<Version>, _) = (None, Uuid::now_v7());
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
        {
            // Another writer came first, so this call removes nothing at this version any more.
            let withdrawn = records::withdraw_removal(server, stream, at, mark_of_call).await;
            withdrawn.map_err(|e| mark(e, tried))?;
        }
        let (state, version) = (info.state, info.version);
        let deleted_at = if state == StreamState::Deleted { version } else { Version::NONE };
        StreamHead { state, version, deleted_at }.check(stream, expecting)?;
        if kind == RemovalKind::Deletion && kind.is_done(state) {
            // A snapshot may have been saved since the stream was deleted.
            if state == StreamState::Deleted {
                records::announce_removal(server, stream, version, false, None).await?;
            }
            return Ok(());
        }
        // Delete the snapshot before the stream: if this process died in between, a snapshot that
        // is left would be loaded for the next events of the stream.
        let is_tombstone = kind == RemovalKind::Tombstone;
        let by = Some(mark_of_call);
        records::announce_removal(server, stream, version, is_tombstone, by).await?;
        announced = Some(version);
        let name = server.names.stream(stream);
        // To the server, the last version of a stream holds after a deletion, too. So of several
        // deletions that expect the stream to exist, only this expectation lets one succeed.
        let by_existence =
            kind == RemovalKind::Deletion && expecting == ExpectedVersion::StreamExists;
        let at = if by_existence { expecting } else { ExpectedVersion::Exact(version) };
        let failure = match server.connection.remove(kind, &name, at).await {
            Ok(()) if by_existence => return announce_again(server, stream, version).await,
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        // For such a name the server cannot say whether the stream is closed, or at another version. It has
        // done nothing, and the next look at the stream tells which of the two it is.
        if failure.refusal() == Some(&Refusal::NoStatus) && failure.is_deleted(&name) {
            if retries.pause_after(&failure).await {
                continue;
            }
            return Err(mark(failure.into_error(), tried));
        }
        if failure.may_have_written() {
            tried = Some(version);
        }
        // If the stream has changed, the expectation is compared again. Where the server sends no
        // status, the next look at the stream tells which of the two it was.
        let again = match failure.refusal() {
            Some(Refusal::WrongVersion(actual)) => {
                // Where others write all the time, the stream has changed with every look at it.
                if is_tombstone
                    && expecting == ExpectedVersion::Any
                    && let Some(actual) = *actual
                    && close_at_end(server, stream, actual).await?
                {
                    return Ok(());
                }
                retries.pause_after_lost_race().await;
                continue;
            }
            Some(Refusal::NoStatus) => true,
            _ => failure.is_transient(),
        };
        if failure.refusal() == Some(&Refusal::Deleted) {
            if by_existence {
                // It was deleted by others, or tombstoned: the next look tells.
                retries.pause_after_lost_race().await;
                continue;
            }
            return match (kind, tried) {
                (RemovalKind::Tombstone, Some(_)) => Ok(()),
                _ => Err(Error::stream_closed(stream)),
            };
        }
        if !(again && retries.pause_after(&failure).await) {
            return Err(mark(failure.into_error(), tried));
        }
    }
}

/// Announces a deletion again if events were appended between the first announcement and the deletion.
async fn announce_again(server: &Arc<Server>, stream: &StreamId, before: Version) -> Result<()> {
    let info = stream_info(server, stream).await?;
    if info.state == StreamState::Deleted && info.version > before {
        records::announce_removal(server, stream, info.version, false, None).await?;
    }
    Ok(())
}

/// Tombstones a stream that others write to: each refusal tells the version that the next try expects.
/// False if that does not lead to an end, and nothing was written.
async fn close_at_end(
    server: &Arc<Server>,
    stream: &StreamId,
    mut version: Version,
) -> Result<bool> {
    let name = server.names.stream(stream);
    for _ in 0..MOST_RACES {
        let at = ExpectedVersion::Exact(version);
        let failure = match server.connection.remove(RemovalKind::Tombstone, &name, at).await {
            Ok(()) => {
                records::announce_removal(server, stream, version, true, None).await?;
                return Ok(true);
            }
            Err(failure) => failure,
        };
        match failure.refusal() {
            Some(Refusal::WrongVersion(Some(actual))) => version = *actual,
            _ if failure.may_have_written() => {
                return Err(failure.into_error().with_outcome_unknown());
            }
            _ => return Ok(false),
        }
    }
    Ok(false)
}
