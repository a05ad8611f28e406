//! When a snapshot is taken, and what makes it fit.

use std::time::Duration;

use annals_core::{Payload, Result, Snapshot, Version};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// When to take a snapshot of an aggregate: as soon as one of the limits is reached. They count
/// from the snapshot before, or from the beginning.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SnapshotPolicy {
    /// Which form the state has. A snapshot of another version is not read: the state is made anew
    /// from the events, and kept in its new form.
    pub schema_version: u32,
    /// The most events without a snapshot.
    pub events: u64,
    /// The most bytes of events (data and metadata) without a snapshot.
    pub bytes: u64,
    /// How old a snapshot may get while there are newer events; or where there is none, the first
    /// event.
    pub age: Option<Duration>,
}

impl SnapshotPolicy {
    /// One every so many events (at least one), and without other limits. State of version 1.
    #[must_use]
    pub fn every(events: u64) -> Self {
        Self { schema_version: 1, events: events.max(1), bytes: u64::MAX, age: None }
    }

    /// Also after so many bytes of events.
    #[must_use]
    pub fn or_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Also where the last one is this old; by this machine's clock.
    #[must_use]
    pub fn or_age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Says which form the state has now. Change it with every change of the state's type, or of
    /// `evolve`: what a snapshot holds was made by the code of its day.
    #[must_use]
    pub fn with_schema_version(mut self, version: u32) -> Self {
        self.schema_version = version;
        self
    }
}

/// What happened since the last snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Since {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// When that was taken, or where there is none, the first event was written.
    pub(crate) began: Option<DateTime<Utc>>,
}

/// A policy, and how a state is written and read.
pub(crate) struct Snapshots<S> {
    policy: SnapshotPolicy,
    write: fn(&S) -> Result<Payload>,
    read: fn(&Payload) -> Result<S>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "takenAt")]
    taken_at: DateTime<Utc>,
}

impl<S: Serialize + DeserializeOwned> Snapshots<S> {
    pub(crate) fn new(policy: SnapshotPolicy) -> Self {
        Self { policy, write: Payload::json::<S>, read: Payload::decode::<S> }
    }
}

impl<S> Snapshots<S> {
    pub(crate) fn is_due(&self, since: &Since) -> bool {
        let SnapshotPolicy { events, bytes, age, .. } = self.policy;
        let is_old = |age: Duration| {
            let taken = since.began.map(|at| Utc::now().signed_duration_since(at).to_std());
            taken.is_some_and(|passed| passed.is_ok_and(|passed| passed >= age))
        };
        since.events > 0
            && (since.events >= events || since.bytes >= bytes || age.is_some_and(is_old))
    }

    pub(crate) fn take(&self, state: &S, version: Version) -> Result<(Snapshot, DateTime<Utc>)> {
        let taken_at = Utc::now();
        let header = Header { schema_version: self.policy.schema_version, taken_at };
        let snapshot = Snapshot::new(version, (self.write)(state)?);
        Ok((snapshot.with_metadata(Payload::json(&header)?), taken_at))
    }

    /// The state, where the snapshot fits; else why it does not.
    pub(crate) fn state(&self, snapshot: &Snapshot) -> Result<(S, DateTime<Utc>), String> {
        let header: Header = snapshot.metadata.decode().map_err(|e| e.to_string())?;
        let (found, due) = (header.schema_version, self.policy.schema_version);
        if found != due {
            return Err(format!("its schema version is {found}, and {due} is wanted"));
        }
        let state = (self.read)(&snapshot.data).map_err(|e| e.to_string())?;
        Ok((state, header.taken_at))
    }
}
