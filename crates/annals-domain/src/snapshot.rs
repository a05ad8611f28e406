//! When snapshots are taken, and which ones can be used.

use std::time::Duration;

use annals_core::{Payload, Result, Snapshot, Version};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::codec;

/// When to take a snapshot of an aggregate: after an append, as soon as one of the limits is reached.
/// The limits count from the last snapshot or, if there is none, from the first event.
///
/// ```
/// use std::time::Duration;
/// use annals_domain::SnapshotPolicy;
///
/// let policy = SnapshotPolicy::every(100)
///     .or_bytes(1_000_000)
///     .or_age(Duration::from_secs(24 * 60 * 60))
///     .with_schema_version(2); // the second form of the state
/// # assert_eq!((policy.events, policy.schema_version), (100, 2));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SnapshotPolicy {
    /// The form of the state. A snapshot of another version is not used: the state is computed from
    /// the events, and saved as a new snapshot.
    pub schema_version: u32,
    /// The most events since the last snapshot.
    pub events: u64,
    /// The most bytes of events (data and metadata) since the last snapshot.
    pub bytes: u64,
    /// The greatest age of the last snapshot (or, if there is none, of the first event) while there
    /// are newer events.
    pub age: Option<Duration>,
}

impl SnapshotPolicy {
    /// A snapshot after this many events (at least one), without other limits, for a state whose
    /// schema version is 1.
    #[must_use]
    pub fn every(events: u64) -> Self {
        Self { schema_version: 1, events: events.max(1), bytes: u64::MAX, age: None }
    }

    /// Also takes a snapshot after this many bytes of events.
    #[must_use]
    pub fn or_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Also takes a snapshot if the last one is this old by the clock of this machine.
    #[must_use]
    pub fn or_age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Sets the schema version of the state. Raise it with every change of the state's type or of
    /// `evolve`, since a snapshot holds what the code of its time computed.
    #[must_use]
    pub fn with_schema_version(mut self, version: u32) -> Self {
        self.schema_version = version;
        self
    }
}

/// What was appended since the last snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SinceSnapshot {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// When the last snapshot was taken or, if there is none, when the first event was recorded.
    pub(crate) began: Option<DateTime<Utc>>,
}

/// A policy, and how to write and read the state.
pub(crate) struct Snapshots<S> {
    policy: SnapshotPolicy,
    write: fn(&S) -> Result<Payload>,
    read: fn(&Payload) -> Result<S>,
}

/// The metadata of a stored snapshot.
#[derive(Serialize, Deserialize)]
struct SnapshotMetadata {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "takenAt")]
    taken_at: DateTime<Utc>,
}

impl<S: Serialize + DeserializeOwned> Snapshots<S> {
    pub(crate) fn new(policy: SnapshotPolicy) -> Self {
        Self { policy, write: codec::encode_state::<S>, read: Payload::decode::<S> }
    }
}

impl<S> Snapshots<S> {
    pub(crate) fn is_due(&self, since: &SinceSnapshot) -> bool {
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
        let metadata = SnapshotMetadata { schema_version: self.policy.schema_version, taken_at };
        let snapshot = Snapshot::new(version, (self.write)(state)?);
        Ok((snapshot.with_metadata(Payload::json(&metadata)?), taken_at))
    }

    /// The state in a snapshot and when it was taken, or why the snapshot cannot be used.
    pub(crate) fn state(&self, snapshot: &Snapshot) -> Result<(S, DateTime<Utc>), String> {
        let metadata: SnapshotMetadata = snapshot.metadata.decode().map_err(|e| e.to_string())?;
        let (found, wanted) = (metadata.schema_version, self.policy.schema_version);
        if found != wanted {
            return Err(format!("its schema version is {found}, and {wanted} is wanted"));
        }
        let state = (self.read)(&snapshot.data).map_err(|e| e.to_string())?;
        Ok((state, metadata.taken_at))
    }
}
