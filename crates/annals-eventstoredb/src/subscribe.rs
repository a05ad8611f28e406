//! Subscriptions: pages of a read, and then whatever comes.

use std::{sync::Arc, time::Duration};

use annals_core::{
    Direction, ErrorKind, Filter, Position, Result, Source, Start, StreamId, Subscribe,
    Subscription, Version,
    adapter::{self, Page, Pages, Tail},
};
use async_trait::async_trait;
use tokio::time::sleep;

use crate::{
    codec::position,
    doorbell::Doorbell,
    filter::ServerFilter,
    read::{AllPages, Batch, StreamPages, last_position, one_of},
    reader::From,
    store::Shared,
    wire::ReadReq,
};

/// How long a subscription waits before it tries again what the server did not answer, at first and
/// at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often a subscriber looks by itself while nobody would wake it.
const UNWOKEN: Duration = Duration::from_millis(100);

pub(crate) async fn subscribe(shared: Arc<Shared>, options: Subscribe) -> Result<Subscription> {
    let Subscribe { source, start, .. } = options;
    match source {
        Source::All(filter) => {
            let after = match start {
                Start::Beginning | Start::AfterVersion(_) => Position::START,
                Start::After(position) => position,
                Start::End => last_position(&shared).await?,
            };
            let request = ReadReq::all(ServerFilter::new(&filter, &shared.names).as_ref());
            let tail = AllTail::new(shared.clone(), filter, after);
            Ok(adapter::subscribe(Live::new(shared, tail, request), after))
        }
        Source::Stream(stream) => {
            let (version, after) = start_in(&shared, &stream, start).await?;
            let request = ReadReq::stream(&shared.names.stream(&stream));
            let tail = StreamTail::new(shared.clone(), &stream, version, after);
            Ok(adapter::subscribe(Live::new(shared, tail, request), after))
        }
    }
}

/// The version after which a subscription to a stream begins, and the position it starts with.
async fn start_in(
    shared: &Arc<Shared>,
    stream: &StreamId,
    start: Start,
) -> Result<(Version, Position)> {
    let name = || shared.names.stream(stream);
    let last = || one_of(shared, name(), Direction::Backwards, From::First);
    match start {
        Start::Beginning | Start::AfterVersion(Version::NONE) => {
            Ok((Version::NONE, Position::START))
        }
        Start::AfterVersion(version) => {
            let revision = i64::try_from(version.minus(1).get()).unwrap_or(i64::MAX);
            let from = From::Revision(revision.unsigned_abs());
            let before = one_of(shared, name(), Direction::Backwards, from).await?;
            Ok((version, before.as_ref().map_or(Position::START, position)))
        }
        Start::After(after) => Ok((version_at(shared, stream, after).await?, after)),
        Start::End => Ok(match last().await? {
            Some(last) => (Version::new(last.revision + 1), position(&last)),
            None => (Version::NONE, Position::START),
        }),
    }
}

/// The version that a stream had at a position. Positions rise with revisions, so it takes about as
/// many requests as the version has binary digits.
async fn version_at(shared: &Arc<Shared>, stream: &StreamId, at: Position) -> Result<Version> {
    if at == Position::START {
        return Ok(Version::NONE);
    }
    let name = || shared.names.stream(stream);
    let Some(last) = one_of(shared, name(), Direction::Backwards, From::First).await? else {
        return Ok(Version::NONE);
    };
    if position(&last) <= at {
        return Ok(Version::new(last.revision + 1));
    }
    // What is before `from` is at or before the position, what is at `to` is after it.
    let (mut from, mut to) = (0, last.revision);
    while from < to {
        let middle = from + (to - from) / 2;
        match one_of(shared, name(), Direction::Forwards, From::Revision(middle)).await? {
            Some(found) if position(&found) <= at => from = found.revision + 1,
            // It may be beyond the middle, where what was there is removed.
            _ => to = middle,
        }
    }
    Ok(Version::new(from))
}

/// Reads on in all streams, and knows how far it has come where the filter leaves events out.
struct AllTail {
    shared: Arc<Shared>,
    pages: AllPages,
    considered: Position,
    /// Whether the last page was the last there was.
    live: bool,
}

impl AllTail {
    fn new(shared: Arc<Shared>, filter: Filter, after: Position) -> Self {
        let direction = Direction::Forwards;
        let pages = AllPages::new(shared.clone(), filter, direction, Some(after), None);
        Self { shared, pages, considered: after, live: false }
    }
}

#[async_trait]
impl Pages for AllTail {
    async fn next_page(&mut self) -> Result<Page> {
        loop {
            let node = self.shared.connection.node();
            // What the filter leaves out says nothing. So the end of all is looked up before the
            // page is read that goes to the end; it takes a request of its own, which live events
            // do not wait for.
            let end = if self.live { None } else { Some(last_position(&self.shared).await?) };
            let Batch { events, last, more } = self.pages.batch().await?;
            self.considered = self.considered.max(last.unwrap_or_default());
            self.live = !more;
            match end {
                _ if more => {}
                // Another node may lag behind the one that told where the end is.
                Some(_) if self.shared.connection.node() != node => {
                    self.live = false;
                    return Ok(Page { events, considered: self.considered, more: true });
                }
                Some(end) => self.considered = self.considered.max(end),
                None if events.is_empty() => {
                    self.live = false;
                    continue;
                }
                None => {}
            }
            return Ok(Page { events, considered: self.considered, more });
        }
    }
}

/// Reads on in one stream.
struct StreamTail {
    pages: StreamPages,
    considered: Position,
}

impl StreamTail {
    fn new(shared: Arc<Shared>, stream: &StreamId, after: Version, at: Position) -> Self {
        let from = From::Revision(after.get().min(i64::MAX.unsigned_abs()));
        let pages = StreamPages::new(shared, stream, Direction::Forwards, from, None);
        Self { pages, considered: at }
    }
}

#[async_trait]
impl Pages for StreamTail {
    async fn next_page(&mut self) -> Result<Page> {
        let Batch { events, last, more } = self.pages.batch().await?;
        self.considered = self.considered.max(last.unwrap_or_default());
        Ok(Page { events, considered: self.considered, more })
    }
}

/// The pages of a subscription.
struct Live<P> {
    pages: P,
    bell: Doorbell,
    poll_interval: Duration,
}

impl<P: Pages> Live<P> {
    fn new(shared: Arc<Shared>, pages: P, request: ReadReq) -> Self {
        let bell = Doorbell::new(shared.bells.clone(), request);
        Self { pages, bell, poll_interval: shared.options.poll_interval }
    }
}

#[async_trait]
impl<P: Pages> Pages for Live<P> {
    async fn next_page(&mut self) -> Result<Page> {
        let mut pause = RETRY.0;
        loop {
            // Before the page is read: what comes in between wakes the next call.
            self.bell.forget();
            match self.pages.next_page().await {
                // A subscriber has nothing better to do than to wait for the server.
                Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Unavailable) => {
                    tracing::debug!(%error, "a subscription waits for the server");
                    sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(RETRY.1);
                }
                page => return page,
            }
        }
    }
}

#[async_trait]
impl<P: Pages> Tail for Live<P> {
    async fn changed(&mut self) -> Result<()> {
        let most =
            if self.bell.works() { self.poll_interval } else { self.poll_interval.min(UNWOKEN) };
        tokio::select! {
            () = self.bell.rung() => {}
            () = sleep(most) => {}
        }
        Ok(())
    }
}
