//! The groups whose tasks run: those that were used since the gateway started.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use annals_core::Store;
use tonic::Status;

use super::{
    catalog::Group,
    handle::{Counts, GroupHandle},
    name::GroupName,
    worker::Worker,
};
use crate::tombstones::Tombstones;

#[derive(Clone, Debug, Default)]
pub(crate) struct RunningGroups {
    handles: Arc<Mutex<HashMap<GroupName, GroupHandle>>>,
}

impl RunningGroups {
    /// The task of a group. Starts one if the group has none.
    pub(crate) fn start(
        &self,
        store: &Arc<dyn Store>,
        tombstones: &Tombstones,
        group: Group,
    ) -> Result<GroupHandle, Status> {
        let mut handles = self.lock();
        match handles.get(&group.name) {
            Some(handle) if !handle.has_ended() => Ok(handle.clone()),
            _ => {
                let name = group.name.clone();
                let handle = Worker::start(store.clone(), tombstones.clone(), group)?;
                handles.insert(name, handle.clone());
                Ok(handle)
            }
        }
    }

    /// Ends the task of a group, if it has one. Its consumers are told `why`.
    pub(crate) async fn stop(&self, name: &GroupName, why: Status) {
        let handle = self.lock().remove(name);
        if let Some(handle) = handle {
            handle.stop(why).await;
        }
    }

    /// `None` if the group has no task.
    pub(crate) async fn counts(&self, name: &GroupName) -> Option<Counts> {
        let handle = self.lock().get(name).cloned()?;
        handle.counts().await
    }

    pub(crate) fn names(&self) -> Vec<GroupName> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GroupName, GroupHandle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
