//! Parked events: those that no consumer could handle. The group keeps a link to each of them in a
//! stream, where operators can read them.

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

/// The oldest parked events, at most `most`, and the version of the last link that was read. `None`
/// if nothing is parked. Links to events that were removed since are left out.
pub(crate) async fn oldest(
    store: &dyn Store,
    name: &GroupName,
    most: u64,
) -> Result<Option<(Vec<ResolvedEvent>, Version)>, Status> {
    let mut links = store.read_stream(&name.parked()?, ReadStream::default().with_limit(most));
    let (mut last, mut events) = (None, Vec::new());
    while let Some(link) = links.try_next().await.map_err(|e| status(&e))? {
        last = Some(link.version);
        if let Some((_, event)) = linked_event(store, link.data.bytes()).await? {
            events.push(ResolvedEvent::unlinked(WireEvent::new(&event)));
        }
    }
    Ok(last.map(|last| (events, last)))
}

/// Removes the links up to the version `last`.
pub(crate) async fn forget(
    store: &dyn Store,
    name: &GroupName,
    last: Version,
) -> Result<(), Status> {
    store.truncate(&name.parked()?, last.plus(1)).await.map_err(|e| status(&e))
}
