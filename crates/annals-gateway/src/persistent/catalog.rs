//! The groups of a store. One stream holds them: its last event is the list of all groups.

use std::time::Duration;

use annals_core::{Append, ErrorKind, ExpectedVersion, NewEvent, Store, Version, adapter::Backoff};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tonic::Status;

use super::{
    name::{CATALOG, GroupName},
    settings::{GroupFilter, Settings},
};
use crate::{
    metadata,
    names::{stream_from_wire, type_from_wire},
    status::status,
};

/// The type of the events in that stream, as EventStoreDB names it.
const TYPE: &str = "$PersistentConfig";
/// How often a change is tried if other changes keep getting in between.
const MAX_ATTEMPTS: usize = 20;
/// The first and the longest pause between two attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) name: GroupName,
    /// The first revision or position that the group gets. If the client asked for the end, this is
    /// where the end was when the group was created.
    pub(crate) first: u64,
    /// What the client asked for, as other clients are told it.
    pub(crate) start_from: String,
    pub(crate) filter: Option<GroupFilter>,
    pub(crate) settings: Settings,
}

pub(crate) async fn groups(store: &dyn Store) -> Result<Vec<Group>, Status> {
    Ok(load(store).await?.0)
}

pub(crate) async fn group(store: &dyn Store, name: &GroupName) -> Result<Group, Status> {
    let group = groups(store).await?.into_iter().find(|group| group.name == *name);
    group.ok_or_else(|| name.missing())
}

/// Changes the list of groups. If another client changes the list at the same time, `change` is
/// called again with the new list.
pub(crate) async fn update(
    store: &dyn Store,
    change: impl Fn(&mut Vec<Group>) -> Result<(), Status>,
) -> Result<(), Status> {
    let stream = stream_from_wire(CATALOG)?;
    let mut backoff = Backoff::new(PAUSES[0], PAUSES[1]);
    for _ in 0..MAX_ATTEMPTS {
        let (mut groups, version) = load(store).await?;
        change(&mut groups)?;
        let event = NewEvent::json(type_from_wire(TYPE)?, &groups).map_err(|e| status(&e))?;
        let expected = ExpectedVersion::Exact(version);
        match store.append(Append::new(stream.clone(), expected, [event])).await {
            Ok(appended) => {
                // Nothing reads the older lists.
                if store.capabilities().truncate
                    && let Err(error) = store.truncate(&stream, appended.last_version).await
                {
                    tracing::debug!(%error, "could not remove older lists of groups");
                }
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                sleep(backoff.next_pause()).await;
            }
            Err(error) => return Err(status(&error)),
        }
    }
    Err(Status::unavailable("other clients kept changing the groups; try again"))
}

/// All groups, and the version of the stream that holds them.
async fn load(store: &dyn Store) -> Result<(Vec<Group>, Version), Status> {
    let last = metadata::last(store, &stream_from_wire(CATALOG)?).await;
    let Some(event) = last.map_err(|e| status(&e))? else {
        return Ok((Vec::new(), Version::NONE));
    };
    let groups = serde_json::from_slice(event.data.bytes());
    let unreadable =
        |error| Status::data_loss(format!("the stored list of groups cannot be read: {error}"));
    Ok((groups.map_err(unreadable)?, event.version))
}
