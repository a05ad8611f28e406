//! What is refused before anything is sent (contract, rule 7).

use std::collections::HashSet;

use crate::{
    Append, Capabilities, Error, ErrorKind, Position, Result, Snapshot, Source, Start, StreamId,
    Subscribe,
};

/// Refuses an append that is empty, too large, has an event with the nil id, or names something that
/// begins with `$`; and, where there are several, none at all, too many, or two to one stream.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] and [`ErrorKind::LimitExceeded`].
pub fn check_append(appends: &[Append], capabilities: &Capabilities) -> Result<()> {
    let invalid = |message: &'static str| Err(Error::new(ErrorKind::InvalidInput, message));
    let limit = |what: &str, is: usize, most: usize| {
        let message = format!("{what} {is}; this store takes at most {most}");
        Err(Error::new(ErrorKind::LimitExceeded, message))
    };
    if appends.is_empty() {
        return invalid("an append to several streams needs at least one");
    }
    let (mut events, mut bytes) = (0, 0);
    for append in appends {
        check_writable(&append.stream)?;
        let check = || {
            if append.events.is_empty() {
                return invalid("an append needs at least one event");
            }
            for event in &append.events {
                if event.id().is_nil() {
                    return invalid("an event needs an id that is not nil");
                }
                if event.event_type().is_system() {
                    return invalid("event types that begin with `$` belong to the backend");
                }
                if event.size() > capabilities.max_event_bytes {
                    let what = "the bytes of an event's data and metadata are";
                    return limit(what, event.size(), capabilities.max_event_bytes);
                }
            }
            Ok(())
        };
        check().map_err(|e| e.with_stream(&append.stream))?;
        events += append.events.len();
        bytes += append.events.iter().map(crate::NewEvent::size).sum::<usize>();
    }
    if events > capabilities.max_append_events {
        return limit("the events of the append are", events, capabilities.max_append_events);
    }
    if appends.len() > capabilities.max_append_streams {
        let most = capabilities.max_append_streams;
        return limit("the streams of the append are", appends.len(), most);
    }
    if bytes > capabilities.max_append_bytes {
        return limit("the bytes of the append are", bytes, capabilities.max_append_bytes);
    }
    if let [_, _, ..] = appends {
        let mut seen = HashSet::new();
        if let Some(twice) = appends.iter().find(|append| !seen.insert(&append.stream)) {
            return invalid("the stream appears twice in one append; join its events")
                .map_err(|e: Error| e.with_stream(&twice.stream));
        }
    }
    Ok(())
}

/// Refuses a stream that belongs to the backend.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
pub fn check_writable(stream: &StreamId) -> Result<()> {
    if stream.is_system() {
        let message = "streams whose id begins with `$` belong to the backend";
        return Err(Error::new(ErrorKind::InvalidInput, message).with_stream(stream));
    }
    Ok(())
}

/// Refuses a subscription to more than one stream, or from a position, where the store keeps no
/// order over all streams; and a start by version with more than one stream.
///
/// # Errors
/// [`ErrorKind::Unsupported`] and [`ErrorKind::InvalidInput`].
pub fn check_subscribe(options: &Subscribe, capabilities: &Capabilities) -> Result<()> {
    let all = matches!(options.source, Source::All(_));
    if all && matches!(options.start, Start::AfterVersion(_)) {
        let message = "a start by version needs a subscription to one stream";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    if !capabilities.global_order && (all || matches!(options.start, Start::After(_))) {
        return Err(Error::unsupported("order over all streams"));
    }
    Ok(())
}

/// Refuses a snapshot that is larger than an event may be, or of a version that no event can have.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] and [`ErrorKind::LimitExceeded`].
pub fn check_snapshot(snapshot: &Snapshot, capabilities: &Capabilities) -> Result<()> {
    check_number("the version of the snapshot", snapshot.version.get())?;
    let (size, most) = (snapshot.size(), capabilities.max_event_bytes);
    if size > most {
        let message = format!("the snapshot has {size} bytes; this store takes at most {most}");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(())
}

/// Refuses a checkpoint at a position that no event can have.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
pub fn check_checkpoint(position: Position) -> Result<()> {
    check_number("the checkpoint", position.get())
}

/// Databases keep numbers with a sign. A store that took a greater one would keep another number.
fn check_number(what: &str, number: u64) -> Result<()> {
    const GREATEST: u64 = i64::MAX.unsigned_abs();
    if number > GREATEST {
        let message = format!("{what} is {number}; no event has a number above {GREATEST}");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(())
}
