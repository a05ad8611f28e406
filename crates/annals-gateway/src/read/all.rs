//! Reading `$all` or a stream of links, forwards or backwards.

use annals_core::{Error, ErrorKind, Filter, ReadAll, RecordedEvent, TryStreamExt};
use async_stream::try_stream;
use tonic::Status;

use super::request::{ReadFrom, ReadItem, ReadItems, ReadRequest};
use crate::{
    status::status,
    tombstones,
    wire::{LINK, ResolvedEvent, WireEvent},
    wire_stream::WireStream,
};

impl ReadRequest {
    /// Reads at most `count` matching events.
    pub(super) fn read_all(self, backwards: bool, count: u64) -> ReadItems {
        Box::pin(try_stream! {
            let filter = match &self.filter {
                Some(filter) => filter.store_filter(),
                None => self.linked_filter(),
            };
            let options = ReadAll::default().with_filter(filter);
            let from_the_end = options.clone().backwards();
            let options = match (self.from, backwards) {
                (ReadFrom::Start, false) => Some(options),
                (ReadFrom::At(position), false) => Some(options.after(position.saturating_sub(1))),
                (ReadFrom::End, true) => Some(options.backwards()),
                (ReadFrom::At(position), true) => Some(options.before(self.before(position))),
                (ReadFrom::End, false) | (ReadFrom::Start, true) => None,
            };
            let (mut left, mut newest) = (count, None);
            let mut at_end = backwards && self.from == ReadFrom::End;
            if let Some(options) = options.filter(|_| count > 0) {
                let mut events = self.store.read_all(options);
                while left > 0 {
                    let event = match events.try_next().await {
                        Err(error) if self.is_behind_the_links(&error) => {
                            if backwards && !at_end {
                                at_end = true;
                                events = self.store.read_all(from_the_end.clone());
                                continue;
                            }
                            None
                        }
                        event => event.map_err(|e| status(&e))?,
                    };
                    let Some(event) = event else {
                        at_end |= !backwards;
                        break;
                    };
                    let position = event.position.get();
                    if let Some(event) = self.matching(&event).await? {
                        newest = newest.max(Some(position));
                        left -= 1;
                        yield ReadItem::Event(event);
                    }
                }
            }
            if let WireStream::Linked(_) = self.stream {
                if newest.is_none() {
                    match self.last_link().await? {
                        Some(last) => {
                            for bound in self.bounds_without_events(last + 1, backwards, count) {
                                yield bound;
                            }
                        }
                        None => yield ReadItem::NotFound,
                    }
                } else if self.with_bounds {
                    // The last event was read if the read reached the end, or began there.
                    let last = match newest.filter(|_| at_end) {
                        Some(newest) => Some(newest),
                        None => self.last_link().await?,
                    };
                    if let Some(last) = last {
                        yield ReadItem::LastRevision(last);
                    }
                }
            }
        })
    }

    /// Whether a read of links was to begin behind the end of the store. To clients it is a read of a
    /// stream: behind its end a forward read gives no event, and tells the last revision, and a backward
    /// read begins with the last event.
    fn is_behind_the_links(&self, error: &Error) -> bool {
        matches!(self.stream, WireStream::Linked(_)) && error.kind() == ErrorKind::BeyondEnd
    }

    /// The revision of the last link, which is the position of its event.
    async fn last_link(&self) -> Result<Option<u64>, Status> {
        let options = ReadAll::default().with_filter(self.linked_filter()).backwards();
        let mut events = self.store.read_all(options);
        while let Some(event) = events.try_next().await.map_err(|e| status(&e))? {
            if self.link_to(&WireEvent::new(&event)).is_some() {
                return Ok(Some(event.position.get()));
            }
        }
        Ok(None)
    }

    /// `None` also if the stream is not one of links.
    fn link_to(&self, event: &WireEvent) -> Option<WireEvent> {
        match &self.stream {
            WireStream::Linked(linked) => linked.link_to(event),
            _ => None,
        }
    }

    /// The position before which a backwards read begins. A backwards read of a stream includes the
    /// event at its start. One of `$all` does not.
    fn before(&self, position: u64) -> u64 {
        match self.stream {
            WireStream::Linked(_) => position.saturating_add(1),
            _ => position,
        }
    }

    /// The part of a selection of links that the store makes. It matches everything if `$all` is read.
    pub(super) fn linked_filter(&self) -> Filter {
        match &self.stream {
            WireStream::Linked(linked) => linked.filter(),
            _ => Filter::default(),
        }
    }

    /// What the client gets for an event. `None` if the client's filter does not match, or if there is
    /// no link to the event: the store selects only in part, or not at all.
    pub(super) async fn matching(
        &self,
        event: &RecordedEvent,
    ) -> Result<Option<ResolvedEvent>, Status> {
        let event = WireEvent::new(event);
        if tombstones::is_hidden(&event) {
            return Ok(None);
        }
        if let Some(filter) = &self.filter
            && !filter.matches(&event.stream, &event.event_type)?
        {
            return Ok(None);
        }
        if let WireStream::Linked(linked) = &self.stream {
            let Some(link) = linked.link_to(&event) else { return Ok(None) };
            return Ok(Some(match self.resolve_links && link.event_type == LINK {
                true => ResolvedEvent { event: Some(event), link: Some(link) },
                false => ResolvedEvent::unlinked(link),
            }));
        }
        self.resolve(event).await.map(Some)
    }
}
