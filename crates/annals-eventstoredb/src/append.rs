//! Appends. Each is one request, which is sent again only if the server recognises a second one.

use std::sync::Arc;

use annals_core::{
    Append, Appended, Error, ErrorKind, ExpectedVersion, NewEvent, Position, Result, StreamState,
    Version, adapter::StreamHead,
};

use crate::{
    codec::event_data,
    connection::Target,
    manage,
    message::{AppendAnswer, version_of},
    names,
    reader::{Place, ReadItem, Reader},
    rpc::ReadSource,
    server::Server,
};

/// The server's `MaxAppendSize`, unless it is configured otherwise.
const MAX_APPEND_SIZE: usize = 1024 * 1024;

pub(crate) async fn append(server: &Arc<Server>, append: Append) -> Result<Appended> {
    check(&append)?;
    let name = server.names.stream(&append.stream);
    let events: Vec<_> = append.events.iter().map(event_data).collect::<Result<_>>()?;
    let mut retries = server.connection.retries();
    // The expectation that is sent. It becomes a version where the server would go by the ids of the
    // events although those that it knows are hidden, or are not all of them.
    let mut sent = append.expected;
    // True if an earlier try may have written the events.
    let mut unknown = false;
    let mark = |error: Error, unknown| if unknown { error.with_outcome_unknown() } else { error };
    loop {
        let seen = server.seen();
        let failure = match server.connection.append(&name, sent, &events).await {
            Ok(AppendAnswer::Written { version, position: Some(at) }) => {
                // A new event gets a position above all that were given before. At others, the server
                // has recognised the ids, and what it recognised may be a part of it, or hidden.
                let is_new = at > seen && !unknown && version.get() >= append.count();
                let base = version.minus(append.count());
                if is_new || is_retry(server, &append, &name, base, sent, version).await? {
                    server.note_seen(at);
                    if sent != append.expected {
                        server.note_repeated(&name, base, &append.events);
                    }
                    return Appended::after(base, append.count(), at, false);
                }
                match anew(server, &append).await? {
                    Next::Done(appended) => return Ok(appended),
                    Next::Send(expected) => (sent, unknown) = (expected, false),
                }
                continue;
            }
            // The server has recognised the ids, and the events are hidden: nothing can be read of
            // them, and nothing was written.
            Ok(AppendAnswer::Written { position: None, .. }) => {
                match anew(server, &append).await? {
                    Next::Done(appended) => return Ok(appended),
                    Next::Send(expected) => (sent, unknown) = (expected, false),
                }
                continue;
            }
            Ok(AppendAnswer::WrongVersion(actual)) => {
                match after_wrong_version(server, &append, sent, actual).await? {
                    Next::Done(appended) => return Ok(appended),
                    Next::Send(expected) => sent = expected,
                }
                retries.pause_after_lost_race().await;
                continue;
            }
            Err(failure) => failure,
        };
        if failure.is_deleted(&name) {
            return Err(removed(server, &append).await?);
        }
        // Under these expectations the server recognises a retry by its ids. Under the others it
        // recognises only ids that it has seen lately, with no guarantee how long.
        let recognised = matches!(sent, ExpectedVersion::NoStream | ExpectedVersion::Exact(_));
        unknown |= failure.may_have_written();
        let again = failure.is_transient() && (recognised || !unknown);
        if !again || !retries.pause_after(&failure).await {
            return Err(mark(failure.into_error(), unknown));
        }
    }
}

/// Refuses a reserved stream, and an append that is larger than the server accepts. The limit counts
/// event types too, in UTF-16, which the capabilities cannot express.
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

/// True if the server has recognised the append, and all of it can be read where it stands.
async fn is_retry(
    server: &Arc<Server>,
    append: &Append,
    name: &str,
    base: Version,
    sent: ExpectedVersion,
    last: Version,
) -> Result<bool> {
    // Under `Any` the server looks for each id by itself. Ids that were written more than once may
    // happen to stand in the order of this append.
    let by_ids = !matches!(sent, ExpectedVersion::NoStream | ExpectedVersion::Exact(_));
    if by_ids && server.stands_elsewhere(name, base, &append.events) {
        return Ok(false);
    }
    is_readable(server, append, last).await
}

/// True if just the events of the append stand at the versions up to this one.
async fn is_readable(server: &Arc<Server>, append: &Append, last: Version) -> Result<bool> {
    let Some(first) = last.get().checked_sub(append.count()) else { return Ok(false) };
    let source = ReadSource::Stream(server.names.stream(&append.stream));
    let place = Place::Revision(first);
    let mut reader = Reader::new(server.clone(), source, Target::Leader, false, place);
    for (event, revision) in append.events.iter().zip(first..) {
        match reader.next(append.count()).await.map_err(Error::with_outcome_unknown)? {
            ReadItem::Event(found) if found.id == event.id() && found.revision == revision => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// What follows if an expectation does not hold.
enum Next {
    /// The append had been written before.
    Done(Appended),
    /// It is sent again with this expectation.
    Send(ExpectedVersion),
}

/// What follows for events whose ids the server knows, and that are not to be read where it knows them.
///
/// If the append's expectation holds, they are sent with the stream's version: then the server does not
/// look at ids.
async fn anew(server: &Arc<Server>, append: &Append) -> Result<Next> {
    let info = manage::stream_info(server, &append.stream).await?;
    let (state, version) = (info.state, info.version);
    let deleted_at = if state == StreamState::Deleted { version } else { Version::NONE };
    let head = StreamHead { state, version, deleted_at };
    match head.check(&append.stream, append.expected) {
        Ok(()) => Ok(Next::Send(ExpectedVersion::Exact(version))),
        // They may have been written anew after a deletion.
        Err(conflict) if conflict.conflict().is_some() => at_start(server, append, conflict).await,
        Err(error) => Err(error),
    }
}

async fn after_wrong_version(
    server: &Arc<Server>,
    append: &Append,
    sent: ExpectedVersion,
    actual: Version,
) -> Result<Next> {
    let conflict = || Error::lost_race(&append.stream, append.expected, actual);
    match append.expected {
        // The server knows the first id, but not all.
        ExpectedVersion::Any => Ok(Next::Send(ExpectedVersion::Exact(actual))),
        ExpectedVersion::StreamExists if actual == Version::NONE => Err(conflict()),
        ExpectedVersion::StreamExists => anew(server, append).await,
        // Another writer came first since this version was found to be expected.
        expected if expected != sent => anew(server, append).await,
        _ => at_start(server, append, conflict()).await,
    }
}

/// The answer to an append that expects no stream, if the stream begins with its events: the server looks
/// for the events of a retry at the first revision, but they are elsewhere if the stream was deleted and
/// written anew. Else the conflict.
async fn at_start(server: &Arc<Server>, append: &Append, conflict: Error) -> Result<Next> {
    let actual = conflict.conflict().map_or(Version::NONE, |conflict| conflict.actual);
    let begins = matches!(
        append.expected,
        ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE)
    );
    if !begins || actual < Version::new(append.count()) {
        return Err(conflict);
    }
    match find_at_start(server, append).await? {
        Some((base, at)) => Appended::after(base, append.count(), at, false).map(Next::Done),
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
    let mut reader = Reader::new(server.clone(), source, Target::Leader, false, Place::First);
    let (mut base, mut at) = (None, Position::START);
    for event in &append.events {
        match reader.next(append.count()).await? {
            ReadItem::Event(found) if found.id == event.id() => {
                base.get_or_insert(version_of(found.revision).minus(1));
                at = found.position;
            }
            _ => return Ok(None),
        }
    }
    Ok(base.map(|base| (base, at)))
}

/// The error of an append to a stream that the server reports as removed: tombstoned, or, if the
/// append expects the stream to exist, perhaps only deleted.
async fn removed(server: &Arc<Server>, append: &Append) -> Result<Error> {
    let stream = &append.stream;
    if append.expected == ExpectedVersion::StreamExists {
        let info = manage::stream_info(server, stream).await?;
        if info.state != StreamState::Tombstoned {
            return Ok(Error::lost_race(stream, append.expected, info.version));
        }
    }
    Ok(Error::stream_closed(stream))
}
