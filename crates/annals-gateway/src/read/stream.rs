//! Reading one stream, forwards or backwards.

use annals_core::{ReadStream, StreamId, StreamState, TryStreamExt};
use async_stream::try_stream;

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
            let mut left = count;
            if let Some(options) = store_options(self.from, backwards, hidden.before_revision()) {
                // The store gets no limit: events that are too old do not count towards it.
                let mut events = self.store.read_stream(&stream, options);
                while left > 0 {
                    let event = events.try_next().await.map_err(|e| status(&e))?;
                    let Some(event) = event else { break };
                    if !hidden.hides(&event) {
                        left -= 1;
                        yield ReadItem::Event(self.resolve(WireEvent::new(&event)).await?);
                    } else if backwards {
                        break;
                    }
                }
            }
            if left == count {
                match self.state_of(&stream).await? {
                    StreamState::Live => {}
                    StreamState::Tombstoned => Err(stream_deleted(to_wire(stream.as_str())))?,
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
            if self.state_of(&described).await? == StreamState::Tombstoned {
                Err(stream_deleted(to_wire(described.as_str())))?;
            }
            match metadata::visible_event(&*self.store, &metadata, &described).await? {
                Some(event) => {
                    let event = WireEvent::new(&event);
                    let in_range = match (self.from, backwards) {
                        (ReadFrom::Start, false) | (ReadFrom::End, true) => true,
                        (ReadFrom::Start, true) => event.revision == 0,
                        (ReadFrom::End, false) => false,
                        (ReadFrom::At(revision), false) => event.revision >= revision,
                        (ReadFrom::At(revision), true) => event.revision <= revision,
                    };
                    if in_range && count > 0 {
                        yield ReadItem::Event(ResolvedEvent::unlinked(event));
                    }
                }
                None => yield ReadItem::NotFound,
            }
        })
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
