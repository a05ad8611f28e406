//! Parked events: those that no consumer could handle. The group keeps a link to each of them in a
//! stream, where operators can read them.

use std::collections::BTreeSet;

use annals_core::{
    Append, ExpectedVersion, NewEvent, Payload, ReadStream, Store, TryStreamExt, Version,
};
use serde_json::json;
use tonic::Status;

use super::name::GroupName;
use crate::{
    names::type_from_wire,
    read::linked_event,
    status::status,
    wire::{LINK, ResolvedEvent, WireEvent},
};

pub(crate) async fn park(
    store: &dyn Store,
    name: &GroupName,
    event: &ResolvedEvent,
    reason: &str,
) -> Result<(), Status> {
    let Some(event) = event.original() else { return Ok(()) };
    let link = NewEvent::new(type_from_wire(LINK)?, Payload::binary(event.link_target()));
    let link = link.with_json_metadata(&json!({ "reason": reason })).map_err(|e| status(&e))?;
    let append = Append::new(name.parked()?, ExpectedVersion::Any, [link]);
    store.append(append).await.map(drop).map_err(|e| status(&e))
}

/// The replay of parked events. The link to an event stays in the stream until the event is done, so
/// that the event is still parked after a crash.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// The version of the last link whose event was replayed.
    last: Version,
    /// The versions of the links whose events are not done yet.
    outstanding: BTreeSet<Version>,
    /// Every link up to this version was removed.
    removed: Version,
}

impl Replay {
    /// Reads the oldest parked events that were not replayed yet, at most `most`, each with the
    /// version of its link. Links to events that were removed since are left out.
    pub(crate) async fn read(
        &mut self,
        store: &dyn Store,
        name: &GroupName,
        most: u64,
    ) -> Result<Vec<(Version, ResolvedEvent)>, Status> {
        let options = ReadStream::default().with_from(self.last.plus(1)).with_limit(most);
        let mut links = store.read_stream(&name.parked()?, options);
        let (mut last, mut events) = (self.last, Vec::new());
        while let Some(link) = links.try_next().await.map_err(|e| status(&e))? {
            last = link.version;
            if let Some((_, event)) = linked_event(store, link.data.bytes()).await? {
                events.push((link.version, ResolvedEvent::unlinked(WireEvent::new(&event))));
            }
        }
        self.last = last;
        self.outstanding.extend(events.iter().map(|(version, _)| *version));
        Ok(events)
    }

    /// Notes that the event of the link with this version is done.
    pub(crate) fn finish(&mut self, version: Version) {
        self.outstanding.remove(&version);
    }

    /// Removes the links before the first one whose event is not done.
    pub(crate) async fn remove_done(
        &mut self,
        store: &dyn Store,
        name: &GroupName,
    ) -> Result<(), Status> {
        let done = self.outstanding.first().map_or(self.last, |first| first.minus(1));
        if done > self.removed {
            store.truncate(&name.parked()?, done.plus(1)).await.map_err(|e| status(&e))?;
            self.removed = done;
        }
        Ok(())
    }

    pub(crate) fn last(&self) -> Version {
        self.last
    }
}
