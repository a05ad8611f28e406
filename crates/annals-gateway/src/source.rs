//! Reading: a stream, a category, or `$all`, once or for ever.

use std::sync::Arc;

use annals_core::{
    Filter, Message, ReadAll, ReadStream, RecordedEvent, Start, Store, StreamId, StreamState,
    Subscribe, TryStreamExt, Version,
};
use async_stream::try_stream;
use futures::stream::BoxStream;
use tonic::Status;

use crate::{
    filter::EventFilter,
    metadata::{self, Hiding},
    names::{Target, described_by, out, stream_in},
    proto::shared::{all_options::AllOption, stream_options::RevisionOption},
    status::{status, stream_deleted},
    wire::{LINK, Recorded, Resolved},
};

/// Where a read begins: a revision, or a position where it is over more than one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Start,
    End,
    At(u64),
}

impl From {
    pub(crate) fn in_stream(option: Option<RevisionOption>) -> Self {
        match option {
            Some(RevisionOption::Revision(revision)) => Self::At(revision),
            Some(RevisionOption::End(_)) => Self::End,
            Some(RevisionOption::Start(_)) | None => Self::Start,
        }
    }

    pub(crate) fn in_all(option: Option<AllOption>) -> Self {
        match option {
            Some(AllOption::Position(position)) => Self::At(position.commit_position),
            Some(AllOption::End(_)) => Self::End,
            Some(AllOption::Start(_)) | None => Self::Start,
        }
    }
}

/// What is read.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) target: Target,
    /// A read includes it, unless it goes backwards over `$all`; a subscription begins after it.
    pub(crate) from: From,
    pub(crate) filter: Option<Arc<EventFilter>>,
    pub(crate) resolve_links: bool,
}

/// What is found.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are events")]
pub(crate) enum Item {
    Event(Resolved),
    /// There is no such stream.
    NotFound,
    /// Everything up to this position was looked at.
    Checkpoint(u64),
    /// What comes is new. The last revision, or position, that was seen.
    CaughtUp(Option<u64>),
}

pub(crate) type Items = BoxStream<'static, Result<Item, Status>>;

impl Query {
    /// At most so many events.
    pub(crate) fn read(self, backwards: bool, count: u64) -> Items {
        match self.target.clone() {
            Target::Stream(stream) => match described_by(&stream) {
                Some(described) => self.read_metadata(stream, described, backwards, count),
                None => self.read_stream(stream, backwards, count),
            },
            Target::All | Target::Category(_) => self.read_all(backwards, count),
        }
    }

    fn read_stream(self, stream: StreamId, backwards: bool, count: u64) -> Items {
        Box::pin(try_stream! {
            let hiding = Hiding::of(&*self.store, &stream).await?;
            let mut left = count;
            if let Some(options) = stream_options(self.from, backwards, hiding.before()) {
                // What is too old is left out, and does not count.
                let mut events = self.store.read_stream(&stream, options);
                while left > 0 {
                    let event = events.try_next().await.map_err(|e| status(&e))?;
                    let Some(event) = event else { break };
                    if !hiding.hides(&event) {
                        left -= 1;
                        yield Item::Event(self.resolve(Recorded::new(&event)).await?);
                    } else if backwards {
                        break;
                    }
                }
            }
            if left == count {
                match self.state(&stream).await? {
                    StreamState::Live => {}
                    StreamState::Tombstoned => Err(stream_deleted(out(stream.as_str())))?,
                    _ => yield Item::NotFound,
                }
            }
        })
    }

    async fn state(&self, stream: &StreamId) -> Result<StreamState, Status> {
        Ok(self.store.stream_info(stream).await.map_err(|e| status(&e))?.state)
    }

    fn read_metadata(
        self,
        stream: StreamId,
        described: StreamId,
        backwards: bool,
        count: u64,
    ) -> Items {
        Box::pin(try_stream! {
            if self.state(&described).await? == StreamState::Tombstoned {
                Err(stream_deleted(out(described.as_str())))?;
            }
            match metadata::event(&*self.store, &stream, &described).await? {
                Some(event) => {
                    let event = Recorded::new(&event);
                    let within = match (self.from, backwards) {
                        (From::Start, false) | (From::End, true) => true,
                        (From::Start, true) => event.revision == 0,
                        (From::End, false) => false,
                        (From::At(revision), false) => event.revision >= revision,
                        (From::At(revision), true) => event.revision <= revision,
                    };
                    if within && count > 0 {
                        yield Item::Event(Resolved::event(event));
                    }
                }
                None => yield Item::NotFound,
            }
        })
    }

    fn read_all(self, backwards: bool, count: u64) -> Items {
        Box::pin(try_stream! {
            let filter = match &self.filter {
                Some(filter) => filter.of_store(),
                None => self.of_target(),
            };
            let options = ReadAll::default().with_filter(filter);
            let options = match (self.from, backwards) {
                (From::Start, false) => Some(options),
                (From::At(position), false) => Some(options.after(position.saturating_sub(1))),
                (From::End, true) => Some(options.backwards()),
                (From::At(position), true) => Some(options.before(self.before(position))),
                (From::End, false) | (From::Start, true) => None,
            };
            let (mut left, mut any) = (count, false);
            if let Some(options) = options.filter(|_| count > 0) {
                let mut events = self.store.read_all(options);
                while left > 0 {
                    let event = events.try_next().await.map_err(|e| status(&e))?;
                    let Some(event) = event else { break };
                    any = true;
                    if let Some(found) = self.wanted(&event).await? {
                        left -= 1;
                        yield Item::Event(found);
                    }
                }
            }
            if !any && matches!(self.target, Target::Category(_)) && self.from == From::Start {
                yield Item::NotFound;
            }
        })
    }

    /// Going backwards, a stream gives the revision that is asked for, and `$all` what is before.
    fn before(&self, position: u64) -> u64 {
        match self.target {
            Target::Category(_) => position.saturating_add(1),
            _ => position,
        }
    }

    /// What the store leaves out: the rest of a filter, or all of it, is left out here.
    fn of_target(&self) -> Filter {
        match &self.target {
            Target::Category(category) => Filter::default().with_category(category.clone()),
            _ => Filter::default(),
        }
    }

    /// What a client gets of an event of many streams, if it wants that.
    async fn wanted(&self, event: &RecordedEvent) -> Result<Option<Resolved>, Status> {
        let event = Recorded::new(event);
        if let Some(filter) = &self.filter
            && !filter.matches(&event.stream, &event.event_type)?
        {
            return Ok(None);
        }
        if let Target::Category(_) = self.target {
            let link = event.category_link(self.target.name());
            // Who does not want links resolved gets them as they are.
            return Ok(Some(match self.resolve_links {
                true => Resolved { event: Some(event), link: Some(link) },
                false => Resolved::event(link),
            }));
        }
        self.resolve(event).await.map(Some)
    }

    /// The event that a link leads to, where it is one and the client wants that.
    async fn resolve(&self, event: Recorded) -> Result<Resolved, Status> {
        if !self.resolve_links || event.event_type != LINK {
            return Ok(Resolved::event(event));
        }
        let found = match linked(&*self.store, &event.data).await? {
            Some((stream, found)) => {
                let hiding = Hiding::of(&*self.store, &stream).await?;
                Some(found).filter(|event| !hiding.hides(event)).as_ref().map(Recorded::new)
            }
            None => None,
        };
        Ok(Resolved { event: found, link: Some(event) })
    }

    /// Everything that comes, too. Nothing is read that the client does not take.
    pub(crate) async fn subscribe(self) -> Result<Items, Status> {
        let mut hiding = Hiding::default();
        let (source, start): (annals_core::Source, _) = match &self.target {
            Target::Stream(stream) => {
                if self.state(stream).await? == StreamState::Tombstoned {
                    return Err(stream_deleted(out(stream.as_str())));
                }
                hiding = Hiding::of(&*self.store, stream).await?;
                let start = match self.from {
                    From::Start => Start::Beginning,
                    From::End => Start::End,
                    From::At(revision) => Start::AfterVersion(revision.saturating_add(1).into()),
                };
                (stream.clone().into(), start)
            }
            Target::All | Target::Category(_) => {
                let start = match self.from {
                    From::Start => Start::Beginning,
                    From::End => Start::End,
                    From::At(position) => Start::After(position.into()),
                };
                // A filter runs here, since a subscriber is told how far it is after so many events
                // that are left out, which the store would not count.
                (self.of_target().into(), start)
            }
        };
        let options = Subscribe::to(source).with_start(start);
        let mut messages = self.store.subscribe(options).await.map_err(|e| status(&e))?;
        let every = self.filter.as_ref().map_or(u64::MAX, |filter| filter.checkpoint_every);
        Ok(Box::pin(try_stream! {
            let of_stream = matches!(self.target, Target::Stream(_));
            // The last revision or position that was seen; how many events were left out since the
            // client heard of one.
            let (mut seen, mut left_out) = (None, 0);
            loop {
                match messages.next().await.map_err(|e| status(&e))? {
                    Message::Event(event) => {
                        let position = event.position.get();
                        let here = if of_stream { event.version.get() - 1 } else { position };
                        seen = Some(here);
                        let found = match of_stream {
                            true if hiding.hides(&event) => None,
                            true => Some(self.resolve(Recorded::new(&event)).await?),
                            false => self.wanted(&event).await?,
                        };
                        if let Some(found) = found {
                            left_out = 0;
                            yield Item::Event(found);
                        } else {
                            left_out += 1;
                            if left_out >= every {
                                left_out = 0;
                                yield Item::Checkpoint(position);
                            }
                        }
                    }
                    Message::Checkpoint(position) => {
                        if !of_stream {
                            seen = Some(position.get());
                        }
                        if self.filter.is_some() {
                            left_out = 0;
                            yield Item::Checkpoint(position.get());
                        }
                    }
                    Message::CaughtUp(position) => {
                        if !of_stream && position.get() > 0 {
                            seen = Some(position.get());
                        }
                        if self.filter.is_some() && position.get() > 0 {
                            left_out = 0;
                            yield Item::Checkpoint(position.get());
                        }
                        yield Item::CaughtUp(seen);
                    }
                    _ => {}
                }
            }
        }))
    }
}

/// The event that a link has as its data, where it is there.
pub(crate) async fn linked(
    store: &dyn Store,
    link: &[u8],
) -> Result<Option<(StreamId, RecordedEvent)>, Status> {
    let target = std::str::from_utf8(link).ok().and_then(|text| text.split_once('@'));
    let target = target.and_then(|(revision, stream)| {
        let version = Version::new(revision.parse().ok()?).plus(1);
        Some((version, stream_in(stream).ok()?))
    });
    let Some((version, stream)) = target else { return Ok(None) };
    let options = ReadStream::default().with_from(version).with_limit(1);
    let found = store.read_stream(&stream, options).try_next().await.map_err(|e| status(&e))?;
    Ok(found.filter(|event| event.version == version).map(|event| (stream, event)))
}

/// How to read a stream of which nothing before a revision is shown; none where that is nothing.
fn stream_options(from: From, backwards: bool, hidden: u64) -> Option<ReadStream> {
    let options = ReadStream::default();
    let version = |revision: u64| revision.saturating_add(1);
    Some(match (from, backwards) {
        (From::End, false) => return None,
        (From::Start, false) => options.with_from(version(hidden)),
        (From::At(revision), false) => options.with_from(version(revision.max(hidden))),
        (From::End, true) => options.backwards(),
        (From::Start, true) => options.with_from(1).backwards(),
        (From::At(revision), true) => options.with_from(version(revision)).backwards(),
    })
}
