//! The metadata that the server keeps for each stream. annals uses one of its properties, `$tb`.

use std::{collections::BTreeMap, sync::Arc};

use annals_core::{ExpectedVersion, Result, StreamId};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    error::corrupt,
    message::{EventData, version_of},
    reader::read_last,
    server::Server,
};

/// Events before this revision are hidden, and removed by the server's next clean-up.
const TRUNCATE_BEFORE: &str = "$tb";
/// The server sets `$tb` to this value when a stream is deleted.
const DELETED: u64 = i64::MAX.unsigned_abs();
/// The type of events in metadata streams.
const EVENT_TYPE: &str = "$metadata";

/// A stream's metadata. Other applications set properties of their own, so each value is kept as
/// the text that it is, with its numbers as they were written.
#[derive(Debug, Default)]
pub(crate) struct StreamMetadata {
    properties: BTreeMap<String, Box<RawValue>>,
    revision: Option<u64>,
}

impl StreamMetadata {
    pub(crate) async fn load(server: &Arc<Server>, stream: &StreamId) -> Result<Self> {
        let name = server.names.metadata(stream);
        match read_last(server, name).await? {
            None => Ok(Self::default()),
            Some(event) => {
                let properties = if event.data.is_empty() {
                    BTreeMap::new()
                } else {
                    serde_json::from_slice(&event.data).map_err(|e| {
                        corrupt("the stream's metadata is not a JSON object").with_source(e)
                    })?
                };
                Ok(Self { properties, revision: Some(event.revision) })
            }
        }
    }

    /// The revision before which events are hidden, if the stream was truncated or deleted.
    pub(crate) fn truncated_before(&self) -> Option<u64> {
        serde_json::from_str(self.properties.get(TRUNCATE_BEFORE)?.get()).ok()
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.truncated_before() == Some(DELETED)
    }

    /// What a change expects of the metadata stream: that nobody changed it since it was loaded.
    pub(crate) fn expected(&self) -> ExpectedVersion {
        self.revision.map_or(ExpectedVersion::NoStream, |at| ExpectedVersion::Exact(version_of(at)))
    }

    /// The event that sets `$tb` to `before` and leaves the other properties as they are.
    pub(crate) fn truncating(mut self, before: u64) -> Result<EventData> {
        let written = to_raw_value(&before).and_then(|value| {
            self.properties.insert(TRUNCATE_BEFORE.to_owned(), value);
            serde_json::to_vec(&self.properties)
        });
        let event = |data: Vec<u8>| EventData {
            is_json: true,
            ..EventData::binary(EVENT_TYPE, data.into())
        };
        written
            .map(event)
            .map_err(|e| corrupt("the stream's metadata cannot be written").with_source(e))
    }
}
