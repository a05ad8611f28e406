//! Appends. Each is one request, which is sent again only if the server recognises a second one.

use std::sync::Arc;

use annals_core::{
    Append, Appended, Direction, Error, ErrorKind, ExpectedVersion, NewEvent, Position, Result,
    StreamId, StreamState, Version,
};
use kurrentdb::{Error as ClientError, WriteResult};

use crate::{
    codec::{current_version, event_data, expected_state, position, version_of},
    error::Failure,
    manage, names,
    reader::{ReadFrom, ReadItem, ReadSource, Reader, read_one},
    server::Server,
};

/// The server's `MaxAppendSize`, unless it is configured otherwise.
const MAX_APPEND_SIZE: usize = 1024 * 1024;

pub(crate) async fn append(server: &Arc<Server>, append: Append) -> Result<Appended> {
    check(&append)?;
    let name = server.names.stream(&append.stream);
    let expected = expected_state(append.expected);
    let mut retries = server.connection.retries();
    // True if an earlier try may have written the events.
    let mut unknown = false;
    loop {
        let events = append.events.iter().map(event_data).collect::<Result<_>>()?;
        let failure = match server.append(&name, expected, events).await {
            Ok(written) => return appended(server, &append, &name, &written).await,
            Err(failure) => failure,
        };
        if let Failure::Client(ClientError::WrongExpectedVersion { current, .. }) = &failure {
            return conflict_or_retry(server, &append, current_version(current)).await;
        }
        if failure.is_deleted() {
            return Err(removed(server, &append).await?);
        }
        // Under these expectations the server recognises a retry by its ids. Under the others it
        // recognises only ids that it has seen lately, with no guarantee how long.
        let recognised =
            matches!(append.expected, ExpectedVersion::NoStream | ExpectedVersion::Exact(_));
        unknown |= failure.may_have_written();
        let again = failure.is_transient() || knows_no_leader(&failure);
        if !again || (unknown && !recognised) || !retries.pause_after(&failure).await {
            let error = if knows_no_leader(&failure) {
                Error::new(ErrorKind::Unavailable, "the cluster is choosing a leader")
            } else {
                failure.into_error()
            };
            return Err(if unknown { error.with_outcome_unknown() } else { error });
        }
    }
}

/// True if the node knows of no leader. It then answers "not found", which an append gets for no
/// other reason.
fn knows_no_leader(failure: &Failure) -> bool {
    failure.is_not_found()
}

/// Refuses a reserved stream, and an append that is larger than the server accepts. The limit
/// counts event types too, in UTF-16, which the capabilities cannot express.
fn check(append: &Append) -> Result<()> {
    names::check_not_reserved(&append.stream)?;
    let size =
        |event: &NewEvent| event.size() + 2 * event.event_type().as_str().encode_utf16().count();
    let bytes: usize = append.events.iter().map(size).sum();
    if bytes > MAX_APPEND_SIZE {
        let message = format!(
            "the append has {bytes} bytes with the types of its events; the server accepts at most \
             {MAX_APPEND_SIZE}"
        );
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(())
}

/// The result of an append that the server accepted, be it the first or a retry: the server gives
/// the same answer to both.
async fn appended(
    server: &Arc<Server>,
    append: &Append,
    name: &str,
    written: &WriteResult,
) -> Result<Appended> {
    let last = written.next_expected_version;
    let base = version_of(last).minus(append.count());
    let at = match written.position.commit {
        // The server may leave out the position of an append that it recognised.
        0 | u64::MAX => {
            let from = ReadFrom::Revision(last);
            let event = read_one(server, name.to_owned(), Direction::Forwards, from).await;
            let event = event.map_err(Error::with_outcome_unknown)?;
            event.filter(|event| event.revision == last).map_or(Position::START, |e| position(&e))
        }
        commit => Position::new(commit),
    };
    Appended::after(base, append.count(), at, false)
}

/// The result of an append whose expectation does not hold.
async fn conflict_or_retry(
    server: &Arc<Server>,
    append: &Append,
    actual: Version,
) -> Result<Appended> {
    let conflict = Error::lost_race(&append.stream, append.expected, actual);
    let no_stream = matches!(
        append.expected,
        ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE)
    );
    if !no_stream || actual < Version::new(append.count()) {
        return Err(conflict);
    }
    // The server looks for the events of a retry at the first revision. If the stream was deleted
    // and written anew, the events are not there: they are the first that can be read.
    match find_at_start(server, append).await? {
        Some((base, at)) => Appended::after(base, append.count(), at, false),
        None => Err(conflict),
    }
}

/// If the first readable events of the stream are those of the append: the version before them, and
/// the position of the last.
async fn find_at_start(
    server: &Arc<Server>,
    append: &Append,
) -> Result<Option<(Version, Position)>> {
    let source = ReadSource::Stream(server.names.stream(&append.stream));
    let mut reader = Reader::new(server.clone(), source, Direction::Forwards, ReadFrom::First);
    let (mut base, mut at) = (None, Position::START);
    for event in &append.events {
        match reader.next(append.count()).await? {
            ReadItem::Event(found) if found.id == event.id() => {
                base.get_or_insert(Version::new(found.revision));
                at = position(&found);
            }
            _ => return Ok(None),
        }
    }
    Ok(base.map(|base| (base, at)))
}

/// The error of an append to a stream that the server reports as removed: tombstoned, or, if the
/// append expects the stream to exist, perhaps only deleted.
async fn removed(server: &Arc<Server>, append: &Append) -> Result<Error> {
    let stream: &StreamId = &append.stream;
    if append.expected == ExpectedVersion::StreamExists {
        let info = manage::stream_info(server, stream).await?;
        if info.state != StreamState::Tombstoned {
            return Ok(Error::lost_race(stream, append.expected, info.version));
        }
    }
    Ok(Error::stream_closed(stream))
}
