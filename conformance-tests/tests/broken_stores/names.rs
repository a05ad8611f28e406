//! The names under which a simulated server keeps its records. They are correct but for the bug of
//! the handle.

use annals_core::{Append, EventType, Filter, LeaseName, NewEvent, StreamId, SubscriberId};

use crate::{bug::Bug, store::Handle};

/// A column that is too short for some names.
const COLUMN: usize = 128;

/// The name, cut at the end of a column.
pub(crate) fn cut(name: &str) -> &str {
    let end = (0..=COLUMN.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

impl Handle {
    /// The id under which the server keeps the snapshot of a stream.
    pub(crate) fn snapshot_id(&self, stream: &StreamId) -> StreamId {
        match self.bug {
            Some(Bug::CutsSnapshotNames) => StreamId::new(cut(stream.as_str())).unwrap(),
            _ => stream.clone(),
        }
    }

    pub(crate) fn subscriber(&self, subscriber: &SubscriberId) -> SubscriberId {
        match self.bug {
            Some(Bug::CutsSubscribers) => SubscriberId::new(cut(subscriber.as_str())).unwrap(),
            _ => subscriber.clone(),
        }
    }

    pub(crate) fn lease_name(&self, name: &LeaseName) -> Option<LeaseName> {
        let cuts = self.has(Bug::CutsLeases);
        cuts.then(|| LeaseName::new(cut(name.as_str())).unwrap())
    }

    /// The events of an append, as the server keeps them.
    pub(crate) fn cut_types(&self, append: &mut Append) {
        if self.has(Bug::CutsTypes) {
            for event in &mut append.events {
                let event_type = EventType::new(cut(event.event_type().as_str())).unwrap();
                let (data, metadata) = (event.data().clone(), event.metadata().clone());
                *event = NewEvent::from_stored(event.id(), event_type, data, metadata);
            }
        }
    }

    /// The filter that the server applies.
    pub(crate) fn cut_filter(&self, filter: &mut Filter) {
        if self.has(Bug::CutsPrefixes)
            && let Some(prefix) = &mut filter.prefix
        {
            *prefix = annals_core::StreamPrefix::new(cut(prefix.as_str())).unwrap();
        }
    }
}
