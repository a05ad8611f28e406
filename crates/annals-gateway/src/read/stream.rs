//! Reading one stream, forwards or backwards.

use annals_core::{ReadStream, StreamId, StreamState, TryStreamExt};
use async_stream::try_stream;
use tonic::Status;

use super::request::{ReadFrom, ReadItem, ReadItems, ReadRequest};
use crate::{
    metadata::{self, HiddenEvents},
    names::to_wire,
    status::{status, stream_deleted},
    wire::{ResolvedEvent, WireEvent},
};

impl ReadRequest {
    /// Reads at most `count` events of an ordinary stream.
    pub(super) fn read_stream(self, stream: StreamId, backwards: bool, count: u64) -> ReadItems {
        Box::pin(try_stream! {
            let hidden = HiddenEvents::of(&*self.store, &stream).await?;
            let (mut left, mut newest, mut at_end) = (count, None, backwards && self.from == ReadFrom::End);
            if let Some(options) = store_options(self.from, backwards, hidden.before_revision()) {
                // The store gets no limit: events that are too old do not count towards it.
                let mut events = self.store.read_stream(&stream, options);
                while left > 0 {
                    let event = events.try_next().await.map_err(|e| status(&e))?;
                    let Some(event) = event else {
                        at_end |= !backwards;
                        break;
                    };
                    let revision = event.version.minus(1).get();
                    newest = newest.max(Some(revision));
                    if !hidden.hides(&event) {
                        if left == count && !backwards && self.begins_before(revision) {
                            yield ReadItem::FirstRevision(revision);
                        }
                        left -= 1;
                        yield ReadItem::Event(self.resolve(WireEvent::new(&event)).await?);
                    } else if backwards {
                        break;
                    }
                }
            }
            if left < count {
                if self.with_bounds {
                    // The last event was read if the read reached the end, or began there.
                    let last = match newest.filter(|_| at_end) {
                        Some(newest) => newest,
                        None => self.info(&stream).await?.version.minus(1).get(),
                    };
                    yield ReadItem::LastRevision(last);
                }
            } else {
                let info = self.info(&stream).await?;
                match info.state {
                    StreamState::Live => {
                        let next = info.version.get();
                        for bound in self.bounds_without_events(next, backwards, count) {
                            yield bound;
                        }
                    }
                    StreamState::Tombstoned => Err(stream_deleted(to_wire(stream.as_str())))?,
                    StreamState::Deleted if self.was_revived(&stream).await? => {
                        for bound in self.bounds_without_events(info.version.get(), backwards, count) {
                            yield bound;
                        }
                    }
                    _ => yield ReadItem::NotFound,
                }
            }
        })
    }

    /// Reads a metadata stream, in which clients see only the last event.
    pub(super) fn read_metadata(
        self,
        metadata: StreamId,
        described: StreamId,
        backwards: bool,
        count: u64,
    ) -> ReadItems {
        Box::pin(try_stream! {
            if self.info(&described).await?.state == StreamState::Tombstoned {
                Err(stream_deleted(to_wire(metadata.as_str())))?;
            }
            let event = metadata::visible_event(&*self.store, &metadata, &described).await?;
            let Some(event) = event else {
                if self.info(&metadata).await?.state == StreamState::Tombstoned {
                    Err(stream_deleted(to_wire(metadata.as_str())))?;
                }
                yield ReadItem::NotFound;
                return;
            };
            let event = WireEvent::new(&event);
            let last = event.revision;
            let in_range = match (self.from, backwards) {
                (ReadFrom::Start, false) | (ReadFrom::End, true) => true,
                (ReadFrom::Start, true) => last == 0,
                (ReadFrom::End, false) => false,
                (ReadFrom::At(revision), false) => last >= revision,
                (ReadFrom::At(revision), true) => last <= revision,
            };
            if in_range && count > 0 {
                if !backwards && self.begins_before(last) {
                    yield ReadItem::FirstRevision(last);
                }
                yield ReadItem::Event(ResolvedEvent::unlinked(event));
                if self.with_bounds {
                    yield ReadItem::LastRevision(last);
                }
            } else {
                for bound in self.bounds_without_events(last + 1, backwards, count) {
                    yield bound;
                }
            }
        })
    }

    /// True if a stream that the store has deleted got other metadata since, which made it a stream
    /// without events.
    async fn was_revived(&self, stream: &StreamId) -> Result<bool, Status> {
        let store = &*self.store;
        let revived = async {
            let has_metadata = metadata::exists(store, stream).await?;
            Ok(has_metadata && !metadata::is_deleted(store, stream).await?)
        };
        revived.await.map_err(|e| status(&e))
    }

    /// True if the client is to be told that the read begins at a later revision than it asked for.
    fn begins_before(&self, revision: u64) -> bool {
        self.with_bounds && matches!(self.from, ReadFrom::At(from) if from < revision)
    }

    /// The items of a read that finds no event. The .NET client waits for ever for the first item of a
    /// read. `next` is the revision that the next event of the stream will get.
    pub(super) fn bounds_without_events(
        &self,
        next: u64,
        backwards: bool,
        count: u64,
    ) -> Vec<ReadItem> {
        let from = match self.from {
            ReadFrom::Start => 0,
            ReadFrom::At(revision) => revision,
            ReadFrom::End => next,
        };
        let first = !backwards && count > 0 && from != next;
        let first = first.then_some(ReadItem::FirstRevision(next));
        let last = next.checked_sub(1).map(ReadItem::LastRevision);
        first.into_iter().chain(last).filter(|_| self.with_bounds).collect()
    }
}

/// The options for a read of the store that skips all events below the revision `hidden_before`.
/// `None` if no event can be in the range.
fn store_options(from: ReadFrom, backwards: bool, hidden_before: u64) -> Option<ReadStream> {
    let options = ReadStream::default();
    let version = |revision: u64| revision.saturating_add(1);
    Some(match (from, backwards) {
        (ReadFrom::End, false) => return None,
        (ReadFrom::Start, false) => options.with_from(version(hidden_before)),
        (ReadFrom::At(revision), false) => options.with_from(version(revision.max(hidden_before))),
        (ReadFrom::End, true) => options.backwards(),
        (ReadFrom::Start, true) => options.with_from(1).backwards(),
        (ReadFrom::At(revision), true) => options.with_from(version(revision)).backwards(),
    })
}
