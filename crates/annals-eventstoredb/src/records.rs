//! Snapshots, checkpoints and leases. Each is a record in a metadata stream of its own, of which
//! the server keeps only the last event. A deleted record is replaced by an empty one.
//!
//! The event's data is the snapshot's data. The event's metadata is one line of JSON, the
//! [`Header`], followed by the snapshot's metadata. The event is not marked as JSON, since the
//! server would then read its data as the properties of a stream.

use std::sync::Arc;

use annals_core::{
    ContentKind, Error, ErrorKind, ExpectedVersion, LeaseName, LeaseRecord, Payload, Position,
    Result, Snapshot, StreamId, StreamState, SubscriberId, Version, adapter::CheckpointSwap,
};
use bytes::Bytes;
use futures::future::try_join;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    error::corrupt,
    manage::stream_info,
    message::{EventData, ServerEvent, version_of},
    metadata::StreamMetadata,
    names::{CHECKPOINT_TYPE, LEASE_TYPE, SNAPSHOT_TYPE},
    reader::read_last,
    server::Server,
};

/// How many calls are remembered that have announced a removal at the same version.
const MOST_ANNOUNCERS: usize = 16;

/// All of a record but the bytes of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// The version of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// True if the snapshot's data is JSON.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    json: bool,
    /// True if the snapshot's metadata is JSON.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    json_metadata: bool,
    /// The stream's version when it was tombstoned, or was about to be. The server does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed_at: Option<u64>,
    /// The stream's version when it was last deleted or tombstoned, or was about to be. No snapshot
    /// up to it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleted_at: Option<u64>,
    /// What `deleted_at` was before: the last deletion, as long as the next is only announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleted_before: Option<u64>,
    /// The calls that have announced the removal at `deleted_at`, as long as one may take that back. Empty
    /// if the stream was removed there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    announced_by: Vec<Uuid>,
    /// The position of the subscriber.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<StoredLease>,
}

impl Header {
    /// What is left when the snapshot is deleted.
    fn without_snapshot(self) -> Self {
        let Self { closed_at, deleted_at, deleted_before, announced_by, .. } = self;
        Self { closed_at, deleted_at, deleted_before, announced_by, ..Self::default() }
    }

    /// This with the announcement of a removal.
    fn announcing(self, at: Version, is_tombstone: bool, by: Option<Uuid>) -> Self {
        let deleted_at = Some(at.get()).filter(|at| *at > 0);
        let is_same = self.deleted_at == deleted_at;
        let announced_by = match by {
            None => Vec::new(),
            // The stream was removed at this version.
            Some(_) if is_same && self.announced_by.is_empty() => Vec::new(),
            Some(by) => {
                let others = self.announced_by.into_iter().filter(|other| is_same && *other != by);
                let mut all = others.chain([by]).collect::<Vec<_>>();
                all.split_off(all.len().saturating_sub(MOST_ANNOUNCERS))
            }
        };
        Self {
            closed_at: if is_tombstone { Some(at.get()) } else { self.closed_at },
            deleted_at,
            deleted_before: if is_same { self.deleted_before } else { self.deleted_at },
            announced_by,
            ..Self::default()
        }
    }

    /// Takes back what a call has announced. False if there is nothing to take back.
    fn withdraws(&mut self, at: Version, by: Uuid) -> bool {
        if self.deleted_at != Some(at.get()) || !self.announced_by.contains(&by) {
            return false;
        }
        self.announced_by.retain(|other| *other != by);
        if self.announced_by.is_empty() {
            self.deleted_at = self.deleted_before.take();
            self.closed_at = self.closed_at.filter(|closed| *closed != at.get());
        }
        true
    }
}

/// A [`LeaseRecord`] as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredLease {
    revision: i64,
    token: i64,
    holder: Uuid,
    /// The time to live in milliseconds.
    ttl: i64,
}

struct Record {
    header: Header,
    data: Bytes,
    metadata: Bytes,
}

impl Record {
    fn read(event: ServerEvent) -> Result<Self> {
        let all = event.metadata;
        let end = all.iter().position(|byte| *byte == b'\n').unwrap_or(all.len());
        let header = serde_json::from_slice(all.get(..end).unwrap_or_default()).map_err(|e| {
            corrupt("annals did not write the snapshot, checkpoint or lease that is stored there")
                .with_source(e)
        })?;
        let metadata = all.slice((end + 1).min(all.len())..);
        Ok(Self { header, data: event.data, metadata })
    }

    /// The record of a snapshot, which keeps what the record before it says of removals.
    fn of_snapshot(snapshot: &Snapshot, before: Header) -> Self {
        let is_json = |payload: &Payload| payload.kind() == ContentKind::Json;
        let header = Header {
            version: Some(snapshot.version.get()),
            json: is_json(&snapshot.data),
            json_metadata: is_json(&snapshot.metadata),
            ..before.without_snapshot()
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
        let mut metadata = serde_json::to_vec(&self.header).map_err(|e| {
            corrupt("the snapshot, checkpoint or lease cannot be written as JSON").with_source(e)
        })?;
        metadata.push(b'\n');
        metadata.extend_from_slice(&self.metadata);
        let event = EventData::binary(event_type, self.data.clone());
        Ok(EventData { metadata: metadata.into(), ..event })
    }
}

/// The record under a name, and what a replacement of it has to expect of the stream.
async fn load(server: &Arc<Server>, name: &str) -> Result<(ExpectedVersion, Option<Record>)> {
    match read_last(server, name.to_owned()).await? {
        Some(event) => {
            let expected = ExpectedVersion::Exact(version_of(event.revision));
            Record::read(event).map(|record| (expected, Some(record)))
        }
        None => Ok((ExpectedVersion::NoStream, None)),
    }
}

/// A decision on a record, with the answer to the caller.
enum Change<T> {
    Keep(T),
    Replace(Box<Record>, T),
}

/// Loads a record, lets `decide` change it, and writes it. Begins again if another writer came
/// first.
async fn change<T>(
    server: &Arc<Server>,
    name: &str,
    event_type: &str,
    mut decide: impl FnMut(Option<Record>) -> Change<T>,
) -> Result<T> {
    let mut retries = server.connection.retries();
    loop {
        let (expected, before) = load(server, name).await?;
        let (record, answer) = match decide(before) {
            Change::Keep(answer) => return Ok(answer),
            Change::Replace(record, answer) => (record, answer),
        };
        let event = record.event(event_type)?;
        let failure = match server.replace(name, expected, event).await {
            Ok(true) => return Ok(answer),
            Ok(false) => {
                retries.pause_after_lost_race().await;
                continue;
            }
            Err(failure) => failure,
        };
        // If the answer was lost, the next load shows whether the record was written.
        if !(failure.is_transient() && retries.pause_after(&failure).await) {
            return Err(failure.into_write_error());
        }
    }
}

pub(crate) async fn load_snapshot(
    server: &Arc<Server>,
    stream: &StreamId,
) -> Result<Option<Snapshot>> {
    let name = server.names.snapshot(stream);
    let (record, is_deleted) = try_join(load(server, &name), is_deleted(server, stream)).await?;
    let snapshot = record.1.and_then(Record::snapshot);
    match snapshot {
        // Another application that deletes a stream leaves no mark in the record.
        Some(snapshot) if is_deleted => {
            let deleted_at = stream_info(server, stream).await?.version;
            Ok(Some(snapshot).filter(|snapshot| snapshot.version > deleted_at))
        }
        snapshot => Ok(snapshot),
    }
}

/// Whether the metadata of a stream say that it was deleted.
async fn is_deleted(server: &Arc<Server>, stream: &StreamId) -> Result<bool> {
    match StreamMetadata::load(server, stream).await {
        Ok(metadata) => Ok(metadata.is_deleted()),
        // Metadata that cannot be read do not say that the stream is deleted.
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(false),
        Err(error) => Err(error),
    }
}

/// Keeps a snapshot, unless a later one is kept or its version was deleted since.
pub(crate) async fn save_snapshot(
    server: &Arc<Server>,
    stream: &StreamId,
    snapshot: &Snapshot,
) -> Result<()> {
    let (name, version) = (server.names.snapshot(stream), snapshot.version.get());
    // True once it is known that a tombstone that was announced was not set.
    let mut is_open = false;
    loop {
        let saved = change(server, &name, SNAPSHOT_TYPE, |record| {
            let before = record.map_or(Header::default(), |record| record.header);
            let is_later = before.version.is_some_and(|kept| kept > version);
            if is_later || before.deleted_at.is_some_and(|deleted| version <= deleted) {
                Change::Keep(true)
            } else if before.closed_at.is_some() && !is_open {
                Change::Keep(false)
            } else {
                Change::Replace(Box::new(Record::of_snapshot(snapshot, before)), true)
            }
        });
        if saved.await? || stream_info(server, stream).await?.state == StreamState::Tombstoned {
            return Ok(());
        }
        is_open = true;
    }
}

/// Deletes the snapshot of a stream.
pub(crate) async fn delete_snapshot(server: &Arc<Server>, stream: &StreamId) -> Result<()> {
    forget_snapshot(server, stream, Header::without_snapshot).await
}

/// Deletes the snapshot of a stream that is about to be deleted or tombstoned at this version, and
/// keeps snapshots up to there from being saved later. `by` marks the call that does so, which may take
/// it back; `None` if the stream was removed already.
pub(crate) async fn announce_removal(
    server: &Arc<Server>,
    stream: &StreamId,
    at: Version,
    is_tombstone: bool,
    by: Option<Uuid>,
) -> Result<()> {
    forget_snapshot(server, stream, |before| before.announcing(at, is_tombstone, by)).await
}

/// Takes back what this call has announced, after its removal has lost a race. If another call has
/// announced a removal at the same version, which may have happened, that stands.
pub(crate) async fn withdraw_removal(
    server: &Arc<Server>,
    stream: &StreamId,
    at: Version,
    by: Uuid,
) -> Result<()> {
    let name = server.names.snapshot(stream);
    change(server, &name, SNAPSHOT_TYPE, |record| {
        let Some(mut record) = record else { return Change::Keep(()) };
        match record.header.withdraws(at, by) {
            true => Change::Replace(Box::new(record), ()),
            false => Change::Keep(()),
        }
    })
    .await
}

async fn forget_snapshot(
    server: &Arc<Server>,
    stream: &StreamId,
    left: impl Fn(Header) -> Header,
) -> Result<()> {
    let name = server.names.snapshot(stream);
    change(server, &name, SNAPSHOT_TYPE, |record| {
        let before = record.map_or(Header::default(), |record| record.header);
        let after = left(before.clone());
        if before == after {
            Change::Keep(())
        } else {
            Change::Replace(Box::new(Record::of(after)), ())
        }
    })
    .await
}

/// The version below `first` at which a stream was last deleted: `NONE` if it was not, or if another
/// application deleted it.
pub(crate) async fn deleted_below(
    server: &Arc<Server>,
    stream: &StreamId,
    first: Version,
) -> Result<Version> {
    let (_, record) = load(server, &server.names.snapshot(stream)).await?;
    let header = record.map_or(Header::default(), |record| record.header);
    // A deletion that was only announced is not below the first event.
    let deleted = [header.deleted_at, header.deleted_before].into_iter().flatten();
    Ok(deleted.map(Version::new).filter(|deleted| *deleted < first).max().unwrap_or_default())
}

/// The version at which a stream was tombstoned: `NONE` if another application tombstoned it.
pub(crate) async fn tombstoned_at(server: &Arc<Server>, stream: &StreamId) -> Result<Version> {
    let (_, record) = load(server, &server.names.snapshot(stream)).await?;
    Ok(record.and_then(|record| record.header.closed_at).map_or(Version::NONE, Version::new))
}

pub(crate) async fn load_checkpoint(
    server: &Arc<Server>,
    subscriber: &SubscriberId,
) -> Result<Option<Position>> {
    let (_, record) = load(server, &server.names.checkpoint(subscriber)).await?;
    Ok(record.and_then(|record| record.header.position).map(Position::new))
}

pub(crate) async fn save_checkpoint(
    server: &Arc<Server>,
    subscriber: &SubscriberId,
    position: Position,
) -> Result<Position> {
    let name = server.names.checkpoint(subscriber);
    change(server, &name, CHECKPOINT_TYPE, |record| {
        match record.and_then(|record| record.header.position).map(Position::new) {
            Some(stored) if stored >= position => Change::Keep(stored),
            _ => Change::Replace(Box::new(checkpoint(Some(position))), position),
        }
    })
    .await
}

pub(crate) async fn swap_checkpoint(
    server: &Arc<Server>,
    subscriber: &SubscriberId,
    swap: CheckpointSwap,
) -> Result<bool> {
    let name = server.names.checkpoint(subscriber);
    change(server, &name, CHECKPOINT_TYPE, |record| {
        let stored = record.and_then(|record| record.header.position).map(Position::new);
        if stored == Some(swap.to) || !swap.holds(stored) {
            Change::Keep(stored == Some(swap.to))
        } else {
            Change::Replace(Box::new(checkpoint(Some(swap.to))), true)
        }
    })
    .await
}

pub(crate) async fn reset_checkpoint(
    server: &Arc<Server>,
    subscriber: &SubscriberId,
    position: Option<Position>,
) -> Result<()> {
    let name = server.names.checkpoint(subscriber);
    change(server, &name, CHECKPOINT_TYPE, |record| {
        if record.and_then(|record| record.header.position).map(Position::new) == position {
            Change::Keep(())
        } else {
            Change::Replace(Box::new(checkpoint(position)), ())
        }
    })
    .await
}

fn checkpoint(position: Option<Position>) -> Record {
    Record::of(Header { position: position.map(Position::get), ..Header::default() })
}

pub(crate) async fn load_lease(
    server: &Arc<Server>,
    name: &LeaseName,
) -> Result<Option<LeaseRecord>> {
    let (_, record) = load(server, &server.names.lease(name)).await?;
    let lease = record.and_then(|record| record.header.lease);
    Ok(lease.map(|StoredLease { revision, token, holder, ttl }| {
        LeaseRecord::from_stored([revision, token, ttl], holder)
    }))
}

pub(crate) async fn swap_lease(
    server: &Arc<Server>,
    name: &LeaseName,
    record: &LeaseRecord,
) -> Result<bool> {
    let name = server.names.lease(name);
    let [revision, token, ttl] = record.to_stored();
    let lease = StoredLease { revision, token, holder: record.holder, ttl };
    let record = Record::of(Header { lease: Some(lease), ..Header::default() });
    // Every try has the same id, which shows whether a try whose answer was lost has written.
    let id = Uuid::now_v7();
    let mut retries = server.connection.retries();
    // True if an earlier try may have written the record.
    let mut unknown = false;
    let mark = |error: Error, unknown| if unknown { error.with_outcome_unknown() } else { error };
    loop {
        let last = read_last(server, name.clone()).await;
        let (expected, before) = match last.map_err(|e| mark(e, unknown))? {
            Some(event) if event.id == id => return Ok(true),
            Some(event) => {
                let expected = ExpectedVersion::Exact(version_of(event.revision));
                let lease = Record::read(event).map_err(|e| mark(e, unknown))?.header.lease;
                (expected, lease.map_or(0, |lease| lease.revision))
            }
            None => (ExpectedVersion::NoStream, 0),
        };
        if before.checked_add(1) != Some(revision) {
            return Ok(false);
        }
        let event = EventData { id, ..record.event(LEASE_TYPE)? };
        let failure = match server.replace(&name, expected, event).await {
            Ok(true) => return Ok(true),
            Ok(false) => {
                retries.pause_after_lost_race().await;
                continue;
            }
            Err(failure) => failure,
        };
        unknown |= failure.may_have_written();
        if !(failure.is_transient() && retries.pause_after(&failure).await) {
            return Err(mark(failure.into_error(), unknown));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What others have announced at the same version, or have done, is not taken back.
    #[test]
    fn a_call_takes_back_only_what_it_has_announced() {
        let [one, other] = [1, 2].map(Uuid::from_u128);
        let at = Version::new(5);
        let before = Header { deleted_at: Some(2), ..Header::default() };
        let mut alone = before.clone().announcing(at, true, Some(one));
        assert_eq!((alone.deleted_at, alone.closed_at), (Some(5), Some(5)));
        assert!(!alone.withdraws(at, other) && alone.withdraws(at, one));
        assert_eq!(alone, before);
        let mut two = before.clone().announcing(at, false, Some(one));
        two = two.announcing(at, false, Some(other));
        assert!(two.withdraws(at, one));
        assert_eq!(two.deleted_at, Some(5), "the other call may have removed the stream");
        assert!(two.withdraws(at, other));
        assert_eq!(two, before);
        // Once the stream was removed, or in a record of an older version.
        let mut done = before.announcing(at, false, Some(one)).announcing(at, false, None);
        done = done.announcing(at, false, Some(other));
        assert!(!done.withdraws(at, one) && !done.withdraws(at, other));
        assert_eq!((done.deleted_at, done.deleted_before), (Some(5), Some(2)));
    }
}
