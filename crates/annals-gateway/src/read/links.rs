//! Links: events whose data names another event, as `revision@stream`.

use annals_core::{ReadStream, RecordedEvent, Store, StreamId, TryStreamExt, Version};
use tonic::Status;

use super::request::ReadRequest;
use crate::{
    metadata::HiddenEvents,
    names::stream_from_wire,
    status::status,
    wire::{LINK, ResolvedEvent, WireEvent},
};

impl ReadRequest {
    /// Adds the event that a link leads to, if `event` is a link and the client resolves links.
    pub(super) async fn resolve(&self, event: WireEvent) -> Result<ResolvedEvent, Status> {
        if !self.resolve_links || event.event_type != LINK {
            return Ok(ResolvedEvent::unlinked(event));
        }
        let linked = match linked_event(&*self.store, &event.data).await? {
            Some((stream, linked)) => {
                let hidden = HiddenEvents::of(&*self.store, &stream).await?;
                Some(linked).filter(|linked| !hidden.hides(linked)).as_ref().map(WireEvent::new)
            }
            None => None,
        };
        Ok(ResolvedEvent { event: linked, link: Some(event) })
    }
}

/// The event that a link with the data `link` leads to, and the event's stream. `None` if that
/// event does not exist, or if `link` does not name an event.
pub(crate) async fn linked_event(
    store: &dyn Store,
    link: &[u8],
) -> Result<Option<(StreamId, RecordedEvent)>, Status> {
    let target = std::str::from_utf8(link).ok().and_then(|text| text.split_once('@'));
    let target = target.and_then(|(revision, stream)| {
        let version = Version::new(revision.parse().ok()?).plus(1);
        Some((version, stream_from_wire(stream).ok()?))
    });
    let Some((version, stream)) = target else { return Ok(None) };
    let options = ReadStream::default().with_from(version).with_limit(1);
    let event = store.read_stream(&stream, options).try_next().await.map_err(|e| status(&e))?;
    Ok(event.filter(|event| event.version == version).map(|event| (stream, event)))
}
