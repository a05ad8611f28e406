//! Appends: one request each, sent again only where that is safe.

use annals_core::{
    Append, Appended, Direction, Error, ErrorKind, ExpectedVersion, Position, Result, StreamId,
    StreamState, Version, adapter,
};
use kurrentdb::{
    AppendToStreamOptions, CurrentRevision, Error as ClientError, EventData,
    StreamState as Expected, WriteResult,
};
use std::sync::Arc;

use crate::{
    codec::{event_data, position},
    error::Failure,
    names,
    read::one_of,
    reader::{From, Next, Reader, What},
    store::{CAPABILITIES, Shared},
};

/// The `MaxAppendSize` of a server unless it is set.
const SERVER_MAX: usize = 1024 * 1024;

pub(crate) async fn append(shared: &Arc<Shared>, append: Append) -> Result<Appended> {
    check(&append)?;
    let name = shared.names.stream(&append.stream);
    let expected = expected(append.expected);
    let mut patience = shared.connection.patience();
    // Whether an earlier try may have been written.
    let mut unknown = false;
    loop {
        let data = append.events.iter().map(event_data).collect::<Result<_>>()?;
        let failure = match send(shared, &name, expected, data).await {
            Ok(written) => return answer(shared, &append, &name, &written).await,
            Err(failure) => failure,
        };
        if let Failure::Client(ClientError::WrongExpectedVersion { current, .. }) = &failure {
            return refused(shared, &append, version(current)).await;
        }
        if failure.is_deleted() {
            return deleted(shared, &append).await;
        }
        // The server recognises these by their ids. Under the others it does so as long as it
        // remembers them, which is not said to be long.
        let recognised =
            matches!(append.expected, ExpectedVersion::NoStream | ExpectedVersion::Exact(_));
        unknown |= failure.may_have_written();
        let again = failure.is_passing() || no_leader(&failure);
        if !again || (unknown && !recognised) || !patience.again(&failure).await {
            let error = if no_leader(&failure) { leaderless() } else { failure.into_error() };
            return Err(if unknown { error.with_outcome_unknown() } else { error });
        }
    }
}

/// A node that knows of no leader says just this; there is nothing else that an append could not
/// find.
fn no_leader(failure: &Failure) -> bool {
    failure.is_not_found()
}

fn leaderless() -> Error {
    Error::new(ErrorKind::Unavailable, "the cluster is choosing a leader")
}

fn check(append: &Append) -> Result<()> {
    adapter::check_append(std::slice::from_ref(append), &CAPABILITIES)?;
    names::check(&append.stream)?;
    // The server counts the types too, in UTF-16.
    let size = |event: &annals_core::NewEvent| {
        event.size() + 2 * event.event_type().as_str().encode_utf16().count()
    };
    let bytes: usize = append.events.iter().map(size).sum();
    if bytes > SERVER_MAX {
        let message = format!(
            "the bytes of the append are, with the types of its events, {bytes}; the server takes \
             at most {SERVER_MAX}"
        );
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(())
}

pub(crate) async fn send(
    shared: &Shared,
    name: &str,
    expected: Expected,
    events: Vec<EventData>,
) -> Result<WriteResult, Failure> {
    let options = AppendToStreamOptions::default().stream_state(expected);
    let options = shared.connection.identify_briefly(options);
    let name = name.to_owned();
    shared
        .connection
        .once(|client| async move { client.append_to_stream(name, &options, events).await })
        .await
}

/// Versions count from 1, revisions from 0.
pub(crate) fn expected(expected: ExpectedVersion) -> Expected {
    match expected {
        ExpectedVersion::Any => Expected::Any,
        ExpectedVersion::StreamExists => Expected::StreamExists,
        ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE) => Expected::NoStream,
        ExpectedVersion::Exact(version) => {
            // The greatest of ours is beyond what the server knows, and no stream is there.
            Expected::StreamRevision(version.minus(1).get().min(i64::MAX.unsigned_abs() - 1))
        }
    }
}

pub(crate) fn version(current: &CurrentRevision) -> Version {
    match current {
        CurrentRevision::Current(revision) => Version::new(revision.saturating_add(1)),
        CurrentRevision::NoStream => Version::NONE,
    }
}

async fn answer(
    shared: &Arc<Shared>,
    append: &Append,
    name: &str,
    written: &WriteResult,
) -> Result<Appended> {
    let last = written.next_expected_version;
    let base = Version::new(last.saturating_add(1)).minus(append.count());
    let at = match written.position.commit {
        // Of an append that it recognised, a server may tell no position.
        0 | u64::MAX => {
            let from = From::Revision(last);
            let event = one_of(shared, name.to_owned(), Direction::Forwards, from).await;
            let event = event.map_err(Error::with_outcome_unknown)?;
            event.filter(|event| event.revision == last).map_or(Position::START, |e| position(&e))
        }
        commit => Position::new(commit),
    };
    // The server does not tell the second answer from the first.
    Appended::after(base, append.count(), at, false)
}

/// The expectation does not hold.
async fn refused(shared: &Arc<Shared>, append: &Append, actual: Version) -> Result<Appended> {
    let conflict = Error::lost_race(&append.stream, append.expected, actual);
    let no_stream = matches!(
        append.expected,
        ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE)
    );
    if !no_stream || actual < Version::new(append.count()) {
        return Err(conflict);
    }
    // The server looks for the events of a retry where the stream once began, and not where it
    // began again after a deletion: there they are the first that can be read.
    match first_are(shared, append).await {
        Ok(Some((base, at))) => Appended::after(base, append.count(), at, false),
        Ok(None) => Err(conflict),
        Err(error) => Err(error),
    }
}

/// Whether the first events of a stream are those of an append: the version before them, and the
/// position of the last.
async fn first_are(shared: &Arc<Shared>, append: &Append) -> Result<Option<(Version, Position)>> {
    let what = What::Stream(shared.names.stream(&append.stream));
    let mut reader = Reader::new(shared.clone(), what, Direction::Forwards, From::First);
    let (mut base, mut at) = (None, Position::START);
    for event in &append.events {
        match reader.next(append.count()).await? {
            Next::Event(found) if found.id == event.id() => {
                base.get_or_insert(Version::new(found.revision));
                at = position(&found);
            }
            _ => return Ok(None),
        }
    }
    Ok(base.map(|base| (base, at)))
}

/// The server takes the stream for deleted: for ever, or, under `StreamExists`, for now.
async fn deleted(shared: &Arc<Shared>, append: &Append) -> Result<Appended> {
    let stream: &StreamId = &append.stream;
    if append.expected == ExpectedVersion::StreamExists {
        let info = crate::manage::stream_info(shared, stream).await?;
        if info.state != StreamState::Tombstoned {
            return Err(Error::lost_race(stream, append.expected, info.version));
        }
    }
    Err(Error::stream_closed(stream))
}
