//! The metadata that the server keeps of a stream, of which annals needs one property.

use std::{collections::BTreeMap, sync::Arc};

use annals_core::{Direction, Result, StreamId};
use kurrentdb::{EventData, StreamState as Expected};
use serde_json::value::{RawValue, to_raw_value};

use crate::{error::corrupt, read::one_of, reader::From, store::Shared};

/// The revision before which all events are hidden, and removed with the next clean-up.
const TRUNCATE_BEFORE: &str = "$tb";
/// What the server sets it to when a stream is deleted.
const DELETED: u64 = i64::MAX.unsigned_abs();
/// The type of events in streams of metadata.
const TYPE: &str = "$metadata";

/// The properties as they stand there, since others set theirs too: the client's own type would
/// refuse some, and write numbers in another way.
#[derive(Debug, Default)]
pub(crate) struct StreamMetadata {
    properties: BTreeMap<String, Box<RawValue>>,
    revision: Option<u64>,
}

impl StreamMetadata {
    pub(crate) async fn load(shared: &Arc<Shared>, stream: &StreamId) -> Result<Self> {
        let name = shared.names.metadata(stream);
        match one_of(shared, name, Direction::Backwards, From::First).await? {
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

    /// The first revision that is not removed, if any were.
    pub(crate) fn truncated_before(&self) -> Option<u64> {
        serde_json::from_str(self.properties.get(TRUNCATE_BEFORE)?.get()).ok()
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.truncated_before() == Some(DELETED)
    }

    /// What the stream of the metadata must be at for a change of it.
    pub(crate) fn expected(&self) -> Expected {
        self.revision.map_or(Expected::NoStream, Expected::StreamRevision)
    }

    /// The same, with another first revision.
    pub(crate) fn truncating(mut self, before: u64) -> Result<EventData> {
        let written = to_raw_value(&before).and_then(|value| {
            self.properties.insert(TRUNCATE_BEFORE.to_owned(), value);
            EventData::json(TYPE, &self.properties)
        });
        written.map_err(|e| corrupt("the stream's metadata cannot be written").with_source(e))
    }
}
