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
        let Some(target) = LinkTarget::parse(&event.data) else {
            return Ok(ResolvedEvent::unlinked(event));
        };
        let linked = target.visible_event(&*self.store).await?;
        Ok(ResolvedEvent { event: linked, link: Some(event) })
    }
}

/// What a link leads to.
pub(crate) struct LinkTarget {
    stream: StreamId,
    /// `None` stands for the last event.
    version: Option<Version>,
}

impl LinkTarget {
    /// `None` if the data of a link does not name an event.
    pub(crate) fn parse(link: &[u8]) -> Option<Self> {
        let (revision, stream) = std::str::from_utf8(link).ok()?.split_once('@')?;
        let version = match revision.trim().parse::<i64>().ok()? {
            -1 => None,
            revision => Some(Version::new(revision.try_into().ok()?).plus(1)),
        };
        Some(Self { stream: stream_from_wire(stream).ok()?, version })
    }

    /// The event, if it exists and the metadata of its stream does not hide it.
    pub(crate) async fn visible_event(
        &self,
        store: &dyn Store,
    ) -> Result<Option<WireEvent>, Status> {
        let Some(event) = self.event(store).await? else { return Ok(None) };
        let hidden = HiddenEvents::of(store, &self.stream).await?;
        Ok(Some(event).filter(|event| !hidden.hides(event)).as_ref().map(WireEvent::new))
    }

    async fn event(&self, store: &dyn Store) -> Result<Option<RecordedEvent>, Status> {
        let options = ReadStream::default().with_limit(1);
        let options = match self.version {
            Some(version) => options.with_from(version),
            None => options.backwards(),
        };
        let event = store.read_stream(&self.stream, options).try_next().await;
        let event = event.map_err(|e| status(&e))?;
        Ok(event.filter(|event| self.version.is_none_or(|version| version == event.version)))
    }
}
