//! Snapshots, checkpoints and leases: one item each.

use std::time::Duration;

use annals_core::{
    Error, LeaseName, LeaseRecord, Position, Result, Snapshot, StreamId, SubscriberId,
    adapter::CheckpointSwap,
};
use chrono::Utc;
use uuid::Uuid;

use crate::{
    codec,
    error::corrupt,
    item::{
        Item, Key,
        attribute::{
            BODY, DELETED_AT, EXPIRES, HOLDER, NONCE, POSITION, REVISION, TIME_TO_LIVE, TOKEN,
            VERSION,
        },
        bytes, get_bytes, get_number, number,
    },
    shared::Shared,
    table::{Change, Condition, WriteOutcome},
};

impl Shared {
    pub(crate) async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let Some(item) = self.table.get(&Key::snapshot(stream)).await? else { return Ok(None) };
        // DynamoDB may take days to delete an expired item.
        if get_number(&item, EXPIRES)?.is_some_and(|expires| expires <= now()) {
            return Ok(None);
        }
        let (version, body) = (get_number(&item, VERSION)?, get_bytes(&item, BODY)?);
        let (Some(version), Some(body)) = (version, body) else {
            return Err(corrupt("the item of the snapshot lacks its version or its data"));
        };
        codec::unpack_snapshot(version, body).map(Some)
    }

    /// Keeps a snapshot, unless a later one is kept or its version was deleted since. Both are
    /// judged in the transaction that writes, and a deletion removes the snapshot in its own
    /// transaction: so no snapshot in the table is of a version that was deleted.
    pub(crate) async fn save_snapshot(&self, stream: &StreamId, snapshot: &Snapshot) -> Result<()> {
        let mut item = Key::snapshot(stream).to_item();
        let version = number(snapshot.version.get());
        item.insert(VERSION.to_owned(), version.clone());
        item.insert(BODY.to_owned(), bytes(codec::pack_snapshot(snapshot)?));
        if let Some(ttl) = self.options.snapshot_ttl {
            item.insert(EXPIRES.to_owned(), number(now().saturating_add(ttl.as_secs())));
        }
        // An older snapshot does not replace a newer one that has not expired.
        let condition = Condition::when(
            format!(
                "attribute_not_exists({VERSION}) OR {VERSION} <= :version OR {EXPIRES} <= :now"
            ),
            [(":version", version), (":now", number(now()))],
        );
        let not_deleted = Condition::when(
            format!("attribute_not_exists({DELETED_AT}) OR {DELETED_AT} < :version"),
            [(":version", number(snapshot.version.get()))],
        );
        let changes =
            [Change::Put(item, condition), Change::Check(Key::removal(stream), not_deleted)];
        self.table.transact(&changes).await?;
        Ok(())
    }

    pub(crate) async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        self.table.delete(&Key::snapshot(stream)).await
    }

    pub(crate) async fn load_checkpoint(
        &self,
        subscriber: &SubscriberId,
    ) -> Result<Option<Position>> {
        let item = self.table.get(&Key::checkpoint(subscriber.as_str())).await?;
        item.as_ref().map(position_of).transpose()
    }

    pub(crate) async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        let item = checkpoint(subscriber, position);
        match self.table.put(&item, &Condition::less(POSITION, position.get())).await? {
            WriteOutcome::Written => Ok(position),
            WriteOutcome::Refused(found) => position_of(&found),
        }
    }

    pub(crate) async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        swap: CheckpointSwap,
    ) -> Result<bool> {
        let condition = match swap.from {
            Some(from) => {
                let from = number(from.get());
                Condition::when(format!("{POSITION} = :from"), [(":from", from)])
            }
            None => Condition::absent(),
        };
        match self.table.put(&checkpoint(subscriber, swap.to), &condition).await? {
            WriteOutcome::Written => Ok(true),
            // Without an item there is none to describe.
            WriteOutcome::Refused(found) if found.is_empty() => Ok(false),
            WriteOutcome::Refused(found) => Ok(position_of(&found)? == swap.to),
        }
    }

    pub(crate) async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        to: Option<Position>,
    ) -> Result<()> {
        match to {
            Some(position) => {
                self.table.put(&checkpoint(subscriber, position), &Condition::ALWAYS).await?;
                Ok(())
            }
            None => self.table.delete(&Key::checkpoint(subscriber.as_str())).await,
        }
    }

    pub(crate) async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        self.table.get(&Key::lease(name.as_str())).await?.as_ref().map(lease).transpose()
    }

    pub(crate) async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        let [revision, token, ttl] = record.to_stored().map(i64::unsigned_abs);
        // If the answer to the first try is lost, this tells whether the record is ours.
        let nonce = fastrand::u64(..);
        let mut item = Key::lease(name.as_str()).to_item();
        let numbers = [(REVISION, revision), (TOKEN, token), (TIME_TO_LIVE, ttl), (NONCE, nonce)];
        for (name, value) in numbers {
            item.insert(name.to_owned(), number(value));
        }
        item.insert(HOLDER.to_owned(), bytes(*record.holder.as_bytes()));
        let condition = match revision {
            1 => Condition::absent(),
            _ => {
                let previous = number(revision.saturating_sub(1));
                Condition::when(format!("{REVISION} = :previous"), [(":previous", previous)])
            }
        };
        match self.table.put(&item, &condition).await? {
            WriteOutcome::Written => Ok(true),
            WriteOutcome::Refused(found) => Ok(get_number(&found, NONCE)? == Some(nonce)),
        }
    }
}

fn lease(item: &Item) -> Result<LeaseRecord> {
    let get = |name| get_number(item, name).transpose().ok_or_else(incomplete_lease)?;
    let holder = get_bytes(item, HOLDER)?.and_then(|holder| Uuid::from_slice(holder).ok());
    let holder = holder.ok_or_else(incomplete_lease)?;
    let ttl = Duration::from_millis(get(TIME_TO_LIVE)?);
    Ok(LeaseRecord::new(get(REVISION)?, get(TOKEN)?, holder, ttl))
}

fn incomplete_lease() -> Error {
    corrupt("the item of the lease lacks an attribute")
}

fn checkpoint(subscriber: &SubscriberId, position: Position) -> Item {
    let mut item = Key::checkpoint(subscriber.as_str()).to_item();
    item.insert(POSITION.to_owned(), number(position.get()));
    item
}

fn position_of(item: &Item) -> Result<Position> {
    let position = get_number(item, POSITION)?;
    position.map(Position::new).ok_or_else(|| corrupt("the item of the checkpoint has no position"))
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(Utc::now().timestamp()).unwrap_or(0)
}
