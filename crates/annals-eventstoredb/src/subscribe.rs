//! Where subscriptions begin. Their pages are in `follow_all` and `follow_stream`.

use std::sync::Arc;

use annals_core::{Position, Result, Start, StreamId, Version};

use crate::{
    connection::Target,
    message::ServerEvent,
    message::version_of,
    reader::{Place, look, read_last},
    server::Server,
};

/// The version after which a subscription to a stream begins, and the position that belongs to it.
pub(crate) async fn start_in(
    server: &Arc<Server>,
    stream: &StreamId,
    start: Start,
) -> Result<(Version, Position)> {
    let name = || server.names.stream(stream);
    match start {
        // A time has become a version before this call.
        Start::Beginning | Start::At(_) | Start::AfterVersion(Version::NONE) => {
            Ok((Version::NONE, Position::START))
        }
        Start::AfterVersion(version) => {
            let place = Place::Revision(version.minus(1).get());
            let before = look(server, Target::Leader, name(), true, place).await?.event();
            Ok((version, position(before)))
        }
        Start::After(after) => Ok((version_at(server, stream, after).await?, after)),
        Start::End => Ok(match read_last(server, name()).await? {
            Some(last) => (version_of(last.revision), last.position),
            None => (Version::NONE, Position::START),
        }),
    }
}

fn position(event: Option<ServerEvent>) -> Position {
    event.map_or(Position::START, |event| event.position)
}

/// The version that a stream had at a position. Positions rise with revisions, so this is a binary
/// search: about as many requests as the version has binary digits.
pub(crate) async fn version_at(
    server: &Arc<Server>,
    stream: &StreamId,
    at: Position,
) -> Result<Version> {
    if at == Position::START {
        return Ok(Version::NONE);
    }
    let name = || server.names.stream(stream);
    let Some(last) = read_last(server, name()).await? else { return Ok(Version::NONE) };
    if last.position <= at {
        return Ok(version_of(last.revision));
    }
    // Events before the revision `from` are at or before the position; the event at the revision
    // `to` is after it.
    let (mut from, mut to) = (0, last.revision);
    while from < to {
        let middle = from + (to - from) / 2;
        let place = Place::Revision(middle);
        match look(server, Target::Leader, name(), false, place).await?.event() {
            // If the event at `middle` was removed, this is the first event behind it.
            Some(found) if found.position <= at => from = found.revision + 1,
            _ => to = middle,
        }
    }
    Ok(Version::new(from))
}
