//! The streams of a store that can list them, one after another.

use std::sync::Arc;

use annals::{Store, StreamId, StreamInfo};

use crate::{failure::Failure, select::SelectStreams};

/// How many streams are requested at once.
const PAGE: usize = 1_000;

pub(crate) struct Listing<'a> {
    store: &'a Arc<dyn Store>,
    page: std::vec::IntoIter<(StreamId, StreamInfo)>,
    last: Option<StreamId>,
}

impl<'a> Listing<'a> {
    pub(crate) fn of(store: &'a Arc<dyn Store>) -> Self {
        Self { store, page: Vec::new().into_iter(), last: None }
    }

    /// The next selected stream, in the order of the bytes of their ids.
    pub(crate) async fn next(
        &mut self,
        streams: &SelectStreams,
    ) -> Result<Option<(StreamId, StreamInfo)>, Failure> {
        loop {
            let Some((stream, info)) = self.page.next() else {
                let page = self.store.list_streams(self.last.as_ref(), PAGE).await?;
                let Some((last, _)) = page.last() else { return Ok(None) };
                self.last = Some(last.clone());
                self.page = page.into_iter();
                continue;
            };
            if streams.matches(&stream) {
                return Ok(Some((stream, info)));
            }
        }
    }
}
