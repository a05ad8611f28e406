//! Snapshots, checkpoints and leases as records: bytes under a name, for a database without tables of
//! its own for them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{Adapter, CheckpointSwap, StreamHead, content_kinds, payloads};
use crate::{
    Error, ErrorKind, LeaseName, LeaseRecord, Position, Result, Snapshot, StreamId, SubscriberId,
};

/// What a record belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordKey {
    /// The snapshot of a stream.
    Snapshot(StreamId),
    /// The checkpoint of a subscriber.
    Checkpoint(SubscriberId),
    /// A lease.
    Lease(LeaseName),
}

impl RecordKey {
    /// A word for the kind of record: records of different kinds may have the same name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Snapshot(_) => "snapshot",
            Self::Checkpoint(_) => "checkpoint",
            Self::Lease(_) => "lease",
        }
    }

    /// The name of the stream, the subscriber or the lease.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Snapshot(stream) => stream.as_str(),
            Self::Checkpoint(subscriber) => subscriber.as_str(),
            Self::Lease(name) => name.as_str(),
        }
    }
}

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum RecordChange {
    /// It stays as it is.
    Keep,
    /// These bytes replace it.
    Put(Bytes),
    /// It is removed.
    Remove,
}

impl RecordChange {
    fn put_if(holds: bool, bytes: impl FnOnce() -> Bytes) -> Self {
        if holds { Self::Put(bytes()) } else { Self::Keep }
    }
}

pub(super) async fn load_snapshot(
    store: &impl Adapter,
    stream: &StreamId,
) -> Result<Option<Snapshot>> {
    let stored = store.load_record(RecordKey::Snapshot(stream.clone())).await?;
    stored.map(snapshot).transpose()
}

pub(super) async fn save_snapshot(
    store: &impl Adapter,
    stream: &StreamId,
    new: Snapshot,
) -> Result<()> {
    let save = store.change_record(
        RecordKey::Snapshot(stream.clone()),
        move |stored: Option<Bytes>, head: StreamHead| {
            let stored = stored.map(snapshot).transpose()?;
            let is_newer = stored.is_none_or(|stored| stored.version <= new.version);
            let is_kept = is_newer && !head.was_deleted_since(new.version);
            Ok((RecordChange::put_if(is_kept, || snapshot_bytes(&new)), ()))
        },
    );
    save.await
}

pub(super) async fn delete_snapshot(store: &impl Adapter, stream: &StreamId) -> Result<()> {
    let key = RecordKey::Snapshot(stream.clone());
    store.change_record(key, |_: Option<Bytes>, _| Ok((RecordChange::Remove, ()))).await
}

pub(super) async fn load_checkpoint(
    store: &impl Adapter,
    subscriber: &SubscriberId,
) -> Result<Option<Position>> {
    let stored = store.load_record(RecordKey::Checkpoint(subscriber.clone())).await?;
    stored.map(checkpoint).transpose()
}

pub(super) async fn save_checkpoint(
    store: &impl Adapter,
    subscriber: &SubscriberId,
    to: Position,
) -> Result<Position> {
    let key = RecordKey::Checkpoint(subscriber.clone());
    let save = store.change_record(key, move |stored: Option<Bytes>, _| {
        let greatest = stored.map(checkpoint).transpose()?.unwrap_or_default().max(to);
        Ok((RecordChange::Put(checkpoint_bytes(greatest)), greatest))
    });
    save.await
}

pub(super) async fn swap_checkpoint(
    store: &impl Adapter,
    subscriber: &SubscriberId,
    swap: CheckpointSwap,
) -> Result<bool> {
    let key = RecordKey::Checkpoint(subscriber.clone());
    let swapped = store.change_record(key, move |stored: Option<Bytes>, _| {
        let holds = swap.holds(stored.map(checkpoint).transpose()?);
        Ok((RecordChange::put_if(holds, || checkpoint_bytes(swap.to)), holds))
    });
    swapped.await
}

pub(super) async fn reset_checkpoint(
    store: &impl Adapter,
    subscriber: &SubscriberId,
    to: Option<Position>,
) -> Result<()> {
    let key = RecordKey::Checkpoint(subscriber.clone());
    let reset = store.change_record(key, move |_: Option<Bytes>, _| {
        Ok((to.map_or(RecordChange::Remove, |to| RecordChange::Put(checkpoint_bytes(to))), ()))
    });
    reset.await
}

pub(super) async fn load_lease(
    store: &impl Adapter,
    name: &LeaseName,
) -> Result<Option<LeaseRecord>> {
    let stored = store.load_record(RecordKey::Lease(name.clone())).await?;
    stored.map(lease).transpose()
}

pub(super) async fn swap_lease(
    store: &impl Adapter,
    name: &LeaseName,
    new: &LeaseRecord,
) -> Result<bool> {
    let new = new.clone();
    let swap =
        store.change_record(RecordKey::Lease(name.clone()), move |stored: Option<Bytes>, _| {
            let revision = stored.map(lease).transpose()?.map_or(0, |stored| stored.revision);
            let is_next = revision.checked_add(1) == Some(new.revision);
            Ok((RecordChange::put_if(is_next, || lease_bytes(&new)), is_next))
        });
    swap.await
}

// The formats. Numbers are big-endian.

fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "annals did not write the record that is stored there")
}

fn checkpoint_bytes(position: Position) -> Bytes {
    position.get().to_be_bytes().to_vec().into()
}

fn checkpoint(bytes: Bytes) -> Result<Position> {
    let position: [u8; 8] = bytes.as_ref().try_into().map_err(|_| corrupt())?;
    Ok(u64::from_be_bytes(position).into())
}

/// Three numbers, and the holder.
fn lease_bytes(record: &LeaseRecord) -> Bytes {
    let numbers = record.to_stored().into_iter().flat_map(i64::to_be_bytes);
    numbers.chain(*record.holder.as_bytes()).collect()
}

fn lease(mut bytes: Bytes) -> Result<LeaseRecord> {
    if bytes.len() != 3 * size_of::<i64>() + size_of::<Uuid>() {
        return Err(corrupt());
    }
    let numbers = [bytes.get_i64(), bytes.get_i64(), bytes.get_i64()];
    Ok(LeaseRecord::from_stored(numbers, Uuid::from_u128(bytes.get_u128())))
}

/// Version, content kinds, the length of the data, data, metadata.
fn snapshot_bytes(snapshot: &Snapshot) -> Bytes {
    let Snapshot { version, data, metadata, .. } = snapshot;
    let mut bytes = BytesMut::with_capacity(17 + data.bytes().len() + metadata.bytes().len());
    bytes.put_u64(version.get());
    bytes.put_u8(content_kinds(data, metadata));
    bytes.put_u64(data.bytes().len() as u64);
    bytes.extend_from_slice(data.bytes());
    bytes.extend_from_slice(metadata.bytes());
    bytes.freeze()
}

fn snapshot(mut bytes: Bytes) -> Result<Snapshot> {
    let mut read = || {
        let version = bytes.try_get_u64().ok()?;
        let kinds = bytes.try_get_u8().ok()?;
        let length = usize::try_from(bytes.try_get_u64().ok()?).ok()?;
        let data = (length <= bytes.len()).then(|| bytes.split_to(length))?;
        let (data, metadata) = payloads(kinds.into(), data, bytes.clone())?;
        Some(Snapshot::new(version, data).with_metadata(metadata))
    };
    read().ok_or_else(corrupt)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Payload;

    fn is_corrupt<T: std::fmt::Debug>(read: Result<T>) -> bool {
        read.unwrap_err().kind() == ErrorKind::Corrupt
    }

    #[test]
    fn records_are_read_as_they_were_written_and_no_others_are() {
        let position = Position::new(u64::MAX);
        let bytes = checkpoint_bytes(position);
        assert_eq!(checkpoint(bytes.clone()).unwrap(), position);
        assert!(is_corrupt(checkpoint(bytes.slice(1..))));

        let record = LeaseRecord::new(3, 2, Uuid::from_u128(7), Duration::from_millis(1_500));
        let bytes = lease_bytes(&record);
        assert_eq!(lease(bytes.clone()).unwrap(), record);
        assert!(is_corrupt(lease(bytes.slice(1..))));

        let json = Payload::json(&serde_json::json!({ "n": 1 })).unwrap();
        let new = Snapshot::new(4, json).with_metadata(Payload::binary(vec![0, 255]));
        let bytes = snapshot_bytes(&new);
        assert_eq!(snapshot(bytes.clone()).unwrap(), new);
        assert!((0..24).all(|length| is_corrupt(snapshot(bytes.slice(..length)))));
    }
}
