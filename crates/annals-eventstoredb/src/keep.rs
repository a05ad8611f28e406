//! Snapshots, checkpoints and leases: each the last event of a stream's metadata, of which the server
//! keeps no other. What is forgotten is an event that says so.
//!
//! The event's data is the state of a snapshot. Its metadata is a line of JSON, the [`Header`], and
//! after it the metadata of the snapshot. Nothing of it is marked as JSON, which the server would
//! take for properties of a stream.

use std::sync::Arc;

use annals_core::{
    ContentKind, Direction, Error, LeaseName, LeaseRecord, Payload, Position, Result, Snapshot,
    StreamId, SubscriberId, Version,
};
use bytes::Bytes;
use kurrentdb::{EventData, StreamState as Expected};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{append::send, error::corrupt, read::one_of, reader::From, store::Shared};

const SNAPSHOT: &str = "annals-snapshot";
const CHECKPOINT: &str = "annals-checkpoint";
const LEASE: &str = "annals-lease";

/// What is kept, but for the bytes of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// The version of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// Whether its data is JSON.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    json: bool,
    /// Whether its metadata is JSON.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    json_metadata: bool,
    /// The version at which the stream was tombstoned, which the server does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed_at: Option<u64>,
    /// The position of the subscriber.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
}

/// The record of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    revision: i64,
    token: i64,
    holder: Uuid,
    /// Milliseconds.
    ttl: i64,
}

/// What is kept under a name.
struct Kept {
    header: Header,
    data: Bytes,
    metadata: Bytes,
}

impl Kept {
    fn read(event: kurrentdb::RecordedEvent) -> Result<Self> {
        let all = event.custom_metadata;
        let end = all.iter().position(|byte| *byte == b'\n').unwrap_or(all.len());
        let header = serde_json::from_slice(all.get(..end).unwrap_or_default())
            .map_err(|e| corrupt("what is kept there was not written by annals").with_source(e))?;
        let metadata = all.slice((end + 1).min(all.len())..);
        Ok(Self { header, data: event.data, metadata })
    }

    fn of_snapshot(snapshot: &Snapshot, closed_at: Option<u64>) -> Self {
        let is_json = |payload: &Payload| payload.kind() == ContentKind::Json;
        let header = Header {
            version: Some(snapshot.version.get()),
            json: is_json(&snapshot.data),
            json_metadata: is_json(&snapshot.metadata),
            closed_at,
            ..Header::default()
        };
        let (data, metadata) = (&snapshot.data, &snapshot.metadata);
        Self { header, data: data.bytes().clone(), metadata: metadata.bytes().clone() }
    }

    fn of(header: Header) -> Self {
        Self { header, data: Bytes::new(), metadata: Bytes::new() }
    }

    fn snapshot(self) -> Option<Snapshot> {
        let payload = |is_json, bytes| {
            let kind = if is_json { ContentKind::Json } else { ContentKind::Binary };
            Payload::from_stored(kind, bytes)
        };
        let Self { header, data, metadata } = self;
        let snapshot = Snapshot::new(header.version?, payload(header.json, data));
        Some(snapshot.with_metadata(payload(header.json_metadata, metadata)))
    }

    fn event(&self, event_type: &str) -> Result<EventData> {
        let mut metadata = serde_json::to_vec(&self.header)
            .map_err(|e| corrupt("what is to be kept cannot be written").with_source(e))?;
        metadata.push(b'\n');
        metadata.extend_from_slice(&self.metadata);
        Ok(EventData::binary(event_type, self.data.clone()).metadata(metadata.into()))
    }
}

async fn load(shared: &Arc<Shared>, name: &str) -> Result<(Expected, Option<Kept>)> {
    let last = one_of(shared, name.to_owned(), Direction::Backwards, From::First).await?;
    let Some(event) = last else { return Ok((Expected::NoStream, None)) };
    let expected = Expected::StreamRevision(event.revision);
    Kept::read(event).map(|kept| (expected, Some(kept)))
}

/// What becomes of what is kept.
enum Change<T> {
    Stays(T),
    Becomes(Box<Kept>, T),
}

/// Decides on what is kept, again and again until nobody came in between.
async fn change<T>(
    shared: &Arc<Shared>,
    name: &str,
    event_type: &str,
    mut decide: impl FnMut(Option<Kept>) -> Change<T>,
) -> Result<T> {
    let mut patience = shared.connection.patience();
    loop {
        let (expected, kept) = load(shared, name).await?;
        let (kept, answer) = match decide(kept) {
            Change::Stays(answer) => return Ok(answer),
            Change::Becomes(kept, answer) => (kept, answer),
        };
        let failure = match send(shared, name, expected, vec![kept.event(event_type)?]).await {
            Ok(_) => return Ok(answer),
            Err(failure) => failure,
        };
        // Whether it was written, the next look says.
        if failure.is_failed_precondition() {
            patience.lost_race().await;
        } else if !(failure.is_passing() && patience.again(&failure).await) {
            return Err(failure.into_write_error());
        }
    }
}

pub(crate) async fn load_snapshot(
    shared: &Arc<Shared>,
    stream: &StreamId,
) -> Result<Option<Snapshot>> {
    let (_, kept) = load(shared, &shared.names.snapshot(stream)).await?;
    Ok(kept.and_then(Kept::snapshot))
}

pub(crate) async fn save_snapshot(
    shared: &Arc<Shared>,
    stream: &StreamId,
    snapshot: &Snapshot,
) -> Result<()> {
    let name = shared.names.snapshot(stream);
    change(shared, &name, SNAPSHOT, |kept| {
        let before = kept.map_or(Header::default(), |kept| kept.header);
        match before.version {
            Some(version) if version > snapshot.version.get() => Change::Stays(()),
            _ => Change::Becomes(Box::new(Kept::of_snapshot(snapshot, before.closed_at)), ()),
        }
    })
    .await
}

/// Forgets the snapshot of a stream, and notes the version at which the stream is closed, if it is.
pub(crate) async fn forget_snapshot(
    shared: &Arc<Shared>,
    stream: &StreamId,
    closing: Option<Version>,
) -> Result<()> {
    let name = shared.names.snapshot(stream);
    change(shared, &name, SNAPSHOT, |kept| {
        let before = kept.map_or(Header::default(), |kept| kept.header);
        let closed_at = closing.map(Version::get).or(before.closed_at);
        let after = Header { closed_at, ..Header::default() };
        if before == after {
            Change::Stays(())
        } else {
            Change::Becomes(Box::new(Kept::of(after)), ())
        }
    })
    .await
}

/// The version at which a stream was closed, as far as annals closed it.
pub(crate) async fn closed_at(shared: &Arc<Shared>, stream: &StreamId) -> Result<Version> {
    let (_, kept) = load(shared, &shared.names.snapshot(stream)).await?;
    Ok(kept.and_then(|kept| kept.header.closed_at).map_or(Version::NONE, Version::new))
}

pub(crate) async fn load_checkpoint(
    shared: &Arc<Shared>,
    subscriber: &SubscriberId,
) -> Result<Option<Position>> {
    let (_, kept) = load(shared, &shared.names.checkpoint(subscriber)).await?;
    Ok(kept.and_then(|kept| kept.header.position).map(Position::new))
}

pub(crate) async fn save_checkpoint(
    shared: &Arc<Shared>,
    subscriber: &SubscriberId,
    position: Position,
) -> Result<Position> {
    let name = shared.names.checkpoint(subscriber);
    change(shared, &name, CHECKPOINT, |kept| {
        match kept.and_then(|kept| kept.header.position).map(Position::new) {
            Some(kept) if kept >= position => Change::Stays(kept),
            _ => Change::Becomes(Box::new(checkpoint(Some(position))), position),
        }
    })
    .await
}

pub(crate) async fn reset_checkpoint(
    shared: &Arc<Shared>,
    subscriber: &SubscriberId,
    position: Option<Position>,
) -> Result<()> {
    let name = shared.names.checkpoint(subscriber);
    change(shared, &name, CHECKPOINT, |kept| {
        if kept.and_then(|kept| kept.header.position).map(Position::new) == position {
            Change::Stays(())
        } else {
            Change::Becomes(Box::new(checkpoint(position)), ())
        }
    })
    .await
}

fn checkpoint(position: Option<Position>) -> Kept {
    Kept::of(Header { position: position.map(Position::get), ..Header::default() })
}

pub(crate) async fn load_lease(
    shared: &Arc<Shared>,
    name: &LeaseName,
) -> Result<Option<LeaseRecord>> {
    let (_, kept) = load(shared, &shared.names.lease(name)).await?;
    let lease = kept.and_then(|kept| kept.header.lease);
    Ok(lease.map(|Lease { revision, token, holder, ttl }| {
        LeaseRecord::from_stored([revision, token, ttl], holder)
    }))
}

pub(crate) async fn swap_lease(
    shared: &Arc<Shared>,
    name: &LeaseName,
    record: &LeaseRecord,
) -> Result<bool> {
    let name = shared.names.lease(name);
    let [revision, token, ttl] = record.to_stored();
    let lease = Lease { revision, token, holder: record.holder, ttl };
    let kept = Kept::of(Header { lease: Some(lease), ..Header::default() });
    // The same for each try, so that one whose answer was lost is known again.
    let id = Uuid::now_v7();
    let mut patience = shared.connection.patience();
    let mut unknown = false;
    let in_doubt =
        |error: Error, unknown| if unknown { error.with_outcome_unknown() } else { error };
    loop {
        let last = one_of(shared, name.clone(), Direction::Backwards, From::First).await;
        let (expected, before) = match last.map_err(|e| in_doubt(e, unknown))? {
            Some(event) if event.id == id => return Ok(true),
            Some(event) => {
                let expected = Expected::StreamRevision(event.revision);
                let lease = Kept::read(event).map_err(|e| in_doubt(e, unknown))?.header.lease;
                (expected, lease.map_or(0, |lease| lease.revision))
            }
            None => (Expected::NoStream, 0),
        };
        if before.checked_add(1) != Some(revision) {
            return Ok(false);
        }
        let event = kept.event(LEASE)?.id(id);
        let failure = match send(shared, &name, expected, vec![event]).await {
            Ok(_) => return Ok(true),
            Err(failure) => failure,
        };
        unknown |= failure.may_have_written();
        if failure.is_failed_precondition() {
            patience.lost_race().await;
        } else if !(failure.is_passing() && patience.again(&failure).await) {
            return Err(in_doubt(failure.into_error(), unknown));
        }
    }
}
