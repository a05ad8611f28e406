//! Pages of events. Each page is a read transaction of its own, so that no reader holds one for long.

use std::{borrow::Cow, sync::Arc};

use annals_core::{
    Filter, Result, StreamId,
    adapter::{Cursor, Page, Pages, decode_event},
};
use async_trait::async_trait;
use bytes::Bytes;
use redb::StorageError;

use crate::tables::{EVENTS, Fault, File, NUMBERS, PLACES, corrupt, last_position};

/// The events of one stream, in version order, or of all streams, in position order.
pub(crate) struct EventPages {
    pub(crate) file: Arc<File>,
    pub(crate) stream: Option<StreamId>,
    pub(crate) filter: Filter,
    pub(crate) cursor: Cursor,
}

type Positions<'a> = Box<dyn DoubleEndedIterator<Item = Result<u64, StorageError>> + 'a>;

#[async_trait]
impl Pages for EventPages {
    async fn next_page(&mut self) -> Result<Page> {
        let Self { stream, filter, cursor, .. } = self;
        let (stream, filter, mut cursor) = (stream.clone(), filter.clone(), cursor.clone());
        let read = self.file.read(move |from| {
            let (events, places) = (from.open_table(EVENTS)?, from.open_table(PLACES)?);
            let end = last_position(&from.open_table(NUMBERS)?)?;
            let (low, high) = cursor.range().into_inner();
            let positions: Positions<'_> = match stream.as_ref().map(StreamId::as_str) {
                None => Box::new(events.range(low..=high)?.map(|entry| Ok(entry?.0.value()))),
                Some(stream) => {
                    let places = places.range((stream, low)..=(stream, high))?;
                    Box::new(places.map(|entry| Ok(entry?.1.value().0)))
                }
            };
            let found = positions.map(|position| {
                let position = position?;
                let event = events.get(position)?.ok_or_else(|| corrupt("an event is missing"))?;
                let event = decode_event(Bytes::copy_from_slice(event.value()), position.into())?;
                Ok::<_, Fault>(Cow::Owned(event))
            });
            Ok((cursor.page(found, &filter, end)?, cursor))
        });
        let (page, cursor) = read.await?;
        self.cursor = cursor;
        Ok(page)
    }
}
