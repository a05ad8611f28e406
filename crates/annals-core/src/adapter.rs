//! For those who implement a store: what every adapter would otherwise write again.
//!
//! * [`check_append`] and its neighbours refuse what is refused before anything is sent.
//! * [`StreamHead::judge`] is the decision on expected versions and retries, rules 2 to 5.
//! * [`read`] makes an [`EventStream`], and [`subscribe`] a [`Subscription`], from something that
//!   reads one page at a time: [`Pages`] and [`Tail`].

use std::collections::HashSet;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    Append, Capabilities, Error, ErrorKind, EventStream, ExpectedVersion, Message, Position,
    RecordedEvent, Result, Snapshot, Source, Start, StreamId, StreamInfo, StreamState, Subscribe,
    Subscription, Version,
};

pub use crate::transfer::{ImportVerdict, check_import, import_by_appends, import_conflict};

/// Refuses an append that is empty, too large, or names something that begins with `$`; and, where
/// there are several, none at all or two to one stream.
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

/// Refuses a snapshot that is larger than an event may be.
///
/// # Errors
/// [`ErrorKind::LimitExceeded`].
pub fn check_snapshot(snapshot: &Snapshot, capabilities: &Capabilities) -> Result<()> {
    let (size, most) = (snapshot.size(), capabilities.max_event_bytes);
    if size > most {
        let message = format!("the snapshot has {size} bytes; this store takes at most {most}");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(())
}

/// What a store has to know of a stream to decide on an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHead {
    /// Whether the stream exists.
    pub state: StreamState,
    /// The version of its last event, deleted or not.
    pub version: Version,
    /// Its version when it was last deleted: where an append under `NoStream` would have begun.
    pub deleted_at: Version,
}

/// What is to be done with an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The expectation holds: write after the head's version. Under `Any` and `StreamExists` this
    /// may be a retry all the same, which the store recognises as it declares.
    Write,
    /// The expectation does not hold. If the ids of the append stand at the versions that follow
    /// this one, it has happened before; else it is a conflict.
    RetryOrConflict(Version),
    /// The expectation does not hold, and cannot have: a conflict.
    Conflict,
    /// The stream was tombstoned.
    Closed,
}

impl StreamHead {
    /// A stream that was never written to.
    pub const MISSING: Self =
        Self { state: StreamState::Missing, version: Version::NONE, deleted_at: Version::NONE };

    /// Decides on an append.
    #[must_use]
    pub fn judge(&self, expected: ExpectedVersion) -> Verdict {
        let exists = self.state == StreamState::Live;
        let (holds, retry_after) = match expected {
            _ if self.state == StreamState::Tombstoned => return Verdict::Closed,
            ExpectedVersion::Any => (true, None),
            ExpectedVersion::StreamExists => (exists, None),
            ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE) => {
                (!exists, Some(self.deleted_at))
            }
            ExpectedVersion::Exact(version) => (self.version == version, Some(version)),
        };
        match retry_after {
            _ if holds => Verdict::Write,
            // Had the append happened, the stream would be beyond that version now.
            Some(base) if base < self.version => Verdict::RetryOrConflict(base),
            _ => Verdict::Conflict,
        }
    }

    /// Decides on a deletion or a tombstone, which have no retry to recognise.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] and [`ErrorKind::StreamClosed`].
    pub fn check(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        match self.judge(expected) {
            Verdict::Write => Ok(()),
            Verdict::Closed => Err(Error::stream_closed(stream)),
            Verdict::RetryOrConflict(_) | Verdict::Conflict => {
                Err(Error::lost_race(stream, expected, self.version))
            }
        }
    }

    /// What [`stream_info`](crate::EventStore::stream_info) says of it.
    #[must_use]
    pub fn info(&self, first_version: Option<Version>) -> StreamInfo {
        StreamInfo::new(self.state, self.version, first_version)
    }
}

/// A few events, as they were read at one time.
#[derive(Clone, Debug)]
pub struct Page {
    /// The next matching events; none is possible although there are more.
    pub events: Vec<RecordedEvent>,
    /// Every position up to this one was considered. Only a subscription asks for it.
    pub considered: Position,
    /// Whether there may be more already.
    pub more: bool,
}

/// Reads on, a page at a time.
#[async_trait]
pub trait Pages: Send + 'static {
    /// The page after the last one.
    async fn next_page(&mut self) -> Result<Page>;
}

/// Reads on for ever.
#[async_trait]
pub trait Tail: Pages {
    /// Waits until there may be events that the last page could not see. Must return at once where
    /// they came between that page and this call.
    async fn changed(&mut self) -> Result<()>;
}

/// All pages, event by event.
pub fn read(pages: impl Pages) -> EventStream {
    stream::try_unfold(Some(pages), |pages| async {
        let Some(mut pages) = pages else { return Ok::<_, Error>(None) };
        let page = pages.next_page().await?;
        let events = stream::iter(page.events.into_iter().map(Ok));
        Ok(Some((events, page.more.then_some(pages))))
    })
    .try_flatten()
    .boxed()
}

/// A read that fails before it begins.
pub fn failed_read(error: Error) -> EventStream {
    stream::iter([Err(error)]).boxed()
}

/// While a filter leaves events out, a subscriber is told at least every this many positions.
pub const CHECKPOINT_EVERY: u64 = 1_000;

/// All pages from a position, for ever: catches up, says so, and goes on live. A consumer that
/// does not poll makes nothing happen, so that a slow one costs at most a page of memory, and finds
/// the rest where it is, in the store.
pub fn subscribe(tail: impl Tail, from: Position) -> Subscription {
    let tailing = Tailing { tail, told: from, live: false, waiting: false };
    let pages = stream::unfold(Some(tailing), |tailing| async {
        let mut tailing = tailing?;
        Some(match tailing.step().await {
            Ok((events, last)) => ((events, last.map(Ok)), Some(tailing)),
            Err(error) => ((Vec::new(), Some(Err(error))), None),
        })
    });
    Subscription::in_pages(pages)
}

struct Tailing<T> {
    tail: T,
    /// The position of the last message.
    told: Position,
    /// Whether the subscriber was told that it had caught up, and has not fallen behind since.
    live: bool,
    /// Whether the last page was the last there is.
    waiting: bool,
}

impl<T: Tail> Tailing<T> {
    /// The events of a page, and what there is to say after them.
    async fn step(&mut self) -> Result<(Vec<RecordedEvent>, Option<Message>)> {
        if self.waiting {
            self.tail.changed().await?;
        }
        let Page { events, considered, more } = self.tail.next_page().await?;
        self.waiting = !more;
        if let Some(last) = events.last() {
            self.told = last.position;
        }
        let caught_up = !more && !self.live;
        self.live = !more;
        let last = if caught_up {
            Message::CaughtUp(considered)
        } else if considered >= self.told.plus(CHECKPOINT_EVERY) {
            Message::Checkpoint(considered)
        } else {
            return Ok((events, None));
        };
        self.told = considered;
        Ok((events, Some(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations() {
        use ExpectedVersion::{Any, Exact, NoStream, StreamExists};
        let exact = |v: u64| Exact(v.into());
        let head = |state, version: u64, deleted_at: u64| StreamHead {
            state,
            version: version.into(),
            deleted_at: deleted_at.into(),
        };
        let retry = |v: u64| Verdict::RetryOrConflict(v.into());
        let live = head(StreamState::Live, 5, 2);
        let deleted = head(StreamState::Deleted, 5, 5);
        let closed = head(StreamState::Tombstoned, 5, 0);
        for (head, expected, verdict) in [
            (StreamHead::MISSING, Any, Verdict::Write),
            (StreamHead::MISSING, NoStream, Verdict::Write),
            (StreamHead::MISSING, exact(0), Verdict::Write),
            (StreamHead::MISSING, StreamExists, Verdict::Conflict),
            (StreamHead::MISSING, exact(1), Verdict::Conflict),
            (live, Any, Verdict::Write),
            (live, StreamExists, Verdict::Write),
            (live, exact(5), Verdict::Write),
            (live, exact(4), retry(4)),
            (live, exact(6), Verdict::Conflict),
            (live, NoStream, retry(2)),
            (live, exact(0), retry(2)),
            (deleted, Any, Verdict::Write),
            (deleted, NoStream, Verdict::Write),
            (deleted, exact(0), Verdict::Write),
            (deleted, exact(5), Verdict::Write),
            (deleted, exact(4), retry(4)),
            (deleted, StreamExists, Verdict::Conflict),
            (closed, Any, Verdict::Closed),
            (closed, exact(5), Verdict::Closed),
        ] {
            assert_eq!(head.judge(expected), verdict, "{expected} on {head:?}");
        }
    }
}
