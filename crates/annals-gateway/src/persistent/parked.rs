//! Parked events: those that no consumer could handle. The group keeps a link to each of them in a
//! stream, where operators can read them.

use std::collections::BTreeSet;

use annals_core::{
    Append, ContentKind, ExpectedVersion, NewEvent, Payload, ReadStream, Store, StreamId,
    StreamState, TryStreamExt, Version,
};
use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use tonic::Status;

use super::name::GroupName;
use crate::{
    linked::LinkedStream,
    metadata,
    names::{metadata_stream, type_from_wire},
    read::LinkTarget,
    status::status,
    wire::{LINK, ResolvedEvent, WireEvent},
};

/// Why an event is parked.
#[derive(Clone, Debug)]
pub(crate) enum Reason {
    /// A consumer asked for it, and said why.
    Nack(String),
    /// It was retried as often as the group allows.
    Retries(i32),
}

/// The metadata of the link to a parked event, as EventStoreDB writes it.
#[derive(Serialize)]
struct ParkedMetadata {
    added: String,
    reason: String,
    #[serde(rename = "subscriptionEventNumber", skip_serializing_if = "is_first")]
    number: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_first(number: &u64) -> bool {
    *number == 0
}

/// Parks an event: writes a link to it, or to the event that it leads to.
pub(crate) async fn park(
    store: &dyn Store,
    name: &GroupName,
    event: &ResolvedEvent,
    reason: &Reason,
) -> Result<(), Status> {
    let Some(original) = event.original() else { return Ok(()) };
    let metadata = ParkedMetadata {
        added: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
        reason: match reason {
            Reason::Nack(reason) => format!("Client explicitly NAK'ed message.\n{reason}"),
            Reason::Retries(count) => format!("Reached retry count of {count}"),
        },
        number: original.revision,
    };
    let json = serde_json::to_string_pretty(&metadata);
    let json = json.map_err(|error| Status::internal(error.to_string()))?;
    // A link to a link that leads nowhere keeps where that one leads.
    let target = match &event.event {
        // The gateway makes this link only when it is read, so keep where it leads.
        Some(event) if LinkedStream::parse(&event.stream).is_some() => event.data.clone(),
        Some(event) => event.link_target().into(),
        None => original.data.clone(),
    };
    let link = NewEvent::new(type_from_wire(LINK)?, Payload::binary(target));
    let link = link.with_metadata(json);
    let append = Append::new(name.parked()?, ExpectedVersion::Any, [link]);
    store.append(append).await.map(drop).map_err(|e| status(&e))
}

/// Removes all parked events of a group that is deleted.
pub(crate) async fn remove(store: &dyn Store, name: &GroupName) -> Result<(), Status> {
    let parked = name.parked()?;
    let info = store.stream_info(&parked).await.map_err(|e| status(&e))?;
    if info.state != StreamState::Live {
        return Ok(());
    }
    store.delete(&parked, ExpectedVersion::Any).await.map_err(|e| status(&e))?;
    write_metadata(store, &parked, &metadata::for_deleted().to_string()).await
}

/// Writes to the metadata of the stream of parked events that it begins at this revision, and who may
/// read it, as EventStoreDB does.
async fn write_begin(store: &dyn Store, parked: &StreamId, revision: u64) -> Result<(), Status> {
    let acl =
        r#""$acl":{"$r":"$admins","$w":"$admins","$d":"$admins","$mr":"$admins","$mw":"$admins"}"#;
    write_metadata(store, parked, &format!("{{\"$tb\":{revision},{acl}}}")).await
}

async fn write_metadata(store: &dyn Store, stream: &StreamId, json: &str) -> Result<(), Status> {
    let Some(stream) = metadata_stream(stream) else { return Ok(()) };
    let json = Payload::from_stored(ContentKind::Json, json.to_owned());
    let event = NewEvent::new(type_from_wire(metadata::TYPE)?, json);
    let append = Append::new(stream, ExpectedVersion::Any, [event]);
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
    /// Reads the parked events that were not replayed yet, up to the revision `end`, which is not among
    /// them. Each comes with the version of its link. If the event that a link leads to was removed,
    /// the link comes alone.
    pub(crate) async fn read(
        &mut self,
        store: &dyn Store,
        name: &GroupName,
        end: Option<u64>,
    ) -> Result<Vec<(Version, ResolvedEvent)>, Status> {
        let options = ReadStream::default().with_from(self.last.plus(1));
        let mut links = store.read_stream(&name.parked()?, options);
        let (mut last, mut events) = (self.last, Vec::new());
        while let Some(link) = links.try_next().await.map_err(|e| status(&e))? {
            if end.is_some_and(|end| link.version.get() > end) {
                break;
            }
            last = link.version;
            let event = match LinkTarget::parse(link.data.bytes()) {
                Some(target) => target.visible_event(store).await?,
                None => None,
            };
            events.push((last, ResolvedEvent { event, link: Some(WireEvent::new(&link)) }));
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
            let parked = name.parked()?;
            store.truncate(&parked, done.plus(1)).await.map_err(|e| status(&e))?;
            self.removed = done;
            if self.outstanding.is_empty() {
                write_begin(store, &parked, done.get()).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn last(&self) -> Version {
        self.last
    }
}
