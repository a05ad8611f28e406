//! Reading `$all` or a category, forwards or backwards.

use annals_core::{Error, ErrorKind, Filter, ReadAll, RecordedEvent, TryStreamExt};
use async_stream::try_stream;
use tonic::Status;

use super::request::{ReadFrom, ReadItem, ReadItems, ReadRequest};
use crate::{
    names::WireStream,
    status::status,
    wire::{ResolvedEvent, WireEvent},
};

impl ReadRequest {
    /// Reads at most `count` matching events.
    pub(super) fn read_all(self, backwards: bool, count: u64) -> ReadItems {
        Box::pin(try_stream! {
            let filter = match &self.filter {
                Some(filter) => filter.store_filter(),
                None => self.category_filter(),
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
                        Err(error) if self.is_behind_the_category(&error) => {
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
                    newest = newest.max(Some(event.position.get()));
                    if let Some(event) = self.matching(&event).await? {
                        left -= 1;
                        yield ReadItem::Event(event);
                    }
                }
            }
            if let WireStream::Category(_) = self.stream {
                if newest.is_none() {
                    match self.last_in_category().await? {
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
                        None => self.last_in_category().await?,
                    };
                    if let Some(last) = last {
                        yield ReadItem::LastRevision(last);
                    }
                }
            }
        })
    }

    /// Whether a read of a category was to begin behind the end of the store. A category is a stream
    /// to clients: behind its end a forward read gives no event, and tells the last revision, and a
    /// backward read begins with the last event.
    fn is_behind_the_category(&self, error: &Error) -> bool {
        matches!(self.stream, WireStream::Category(_)) && error.kind() == ErrorKind::BeyondEnd
    }

    /// The revision of the category's last event, which is the event's position.
    async fn last_in_category(&self) -> Result<Option<u64>, Status> {
        let options = ReadAll::default().with_filter(self.category_filter()).backwards();
        let last = self.store.read_all(options.with_limit(1)).try_next().await;
        Ok(last.map_err(|e| status(&e))?.map(|event| event.position.get()))
    }

    /// The position before which a backwards read begins. A backwards read of a stream includes the
    /// event at its start, and the categories are streams to clients. One of `$all` does not.
    fn before(&self, position: u64) -> u64 {
        match self.stream {
            WireStream::Category(_) => position.saturating_add(1),
            _ => position,
        }
    }

    /// The filter by category, which the store applies. It matches everything if `$all` is read.
    pub(super) fn category_filter(&self) -> Filter {
        match &self.stream {
            WireStream::Category(category) => Filter::default().with_category(category.clone()),
            _ => Filter::default(),
        }
    }

    /// What the client gets for an event of `$all` or a category. `None` if the client's filter
    /// does not match: the store applies only a part of the filter, or nothing of it.
    pub(super) async fn matching(
        &self,
        event: &RecordedEvent,
    ) -> Result<Option<ResolvedEvent>, Status> {
        let event = WireEvent::new(event);
        if let Some(filter) = &self.filter
            && !filter.matches(&event.stream, &event.event_type)?
        {
            return Ok(None);
        }
        if let WireStream::Category(_) = self.stream {
            let link = event.category_link(self.stream.name());
            return Ok(Some(match self.resolve_links {
                true => ResolvedEvent { event: Some(event), link: Some(link) },
                false => ResolvedEvent::unlinked(link),
            }));
        }
        self.resolve(event).await.map(Some)
    }
}
