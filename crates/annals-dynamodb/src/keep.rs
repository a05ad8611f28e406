//! Snapshots, checkpoints and leases.

use std::time::Duration;

use annals_core::{
    Error, LeaseName, LeaseRecord, Position, Result, Snapshot, StreamId, SubscriberId,
};
use chrono::Utc;
use uuid::Uuid;

use crate::{
    codec,
    error::corrupt,
    item::{EXPIRES, Item, Key, bytes, get_bytes, get_number, number},
    store::Shared,
    table::{Condition, Written},
};

impl Shared {
    pub(crate) async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let Some(item) = self.table.get(&Key::snapshot(stream)).await? else { return Ok(None) };
        // DynamoDB takes its time to remove what has expired.
        if get_number(&item, EXPIRES)?.is_some_and(|expires| expires <= now()) {
            return Ok(None);
        }
        let (version, body) = (get_number(&item, "v")?, get_bytes(&item, "b")?);
        let (Some(version), Some(body)) = (version, body) else {
            return Err(corrupt("an incomplete snapshot"));
        };
        codec::unpack_snapshot(version, body).map(Some)
    }

    pub(crate) async fn save_snapshot(&self, stream: &StreamId, snapshot: &Snapshot) -> Result<()> {
        let mut item = Key::snapshot(stream).attributes();
        let version = number(snapshot.version.get());
        item.insert("v".to_owned(), version.clone());
        item.insert("b".to_owned(), bytes(codec::pack_snapshot(snapshot)?));
        if let Some(ttl) = self.options.snapshot_ttl {
            item.insert(EXPIRES.to_owned(), number(now().saturating_add(ttl.as_secs())));
        }
        // Refused where a later one is kept that has not expired.
        let condition = Condition::when(
            "attribute_not_exists(v) OR v <= :v OR expires <= :now",
            [(":v", version), (":now", number(now()))],
        );
        self.table.put(&item, &condition).await?;
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
        item.as_ref().map(position).transpose()
    }

    pub(crate) async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        kept: Position,
    ) -> Result<Position> {
        let item = checkpoint(subscriber, kept);
        let p = [(":p", number(kept.get()))];
        match self
            .table
            .put(&item, &Condition::when("attribute_not_exists(p) OR p < :p", p))
            .await?
        {
            Written::Done => Ok(kept),
            Written::Refused(found) => position(&found),
        }
    }

    pub(crate) async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        to: Option<Position>,
    ) -> Result<()> {
        match to {
            Some(position) => {
                self.table.put(&checkpoint(subscriber, position), &Condition::NONE).await?;
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
        // Tells it from a record of another call, where the answer to a first try was lost.
        let nonce = fastrand::u64(..);
        let mut item = Key::lease(name.as_str()).attributes();
        for (name, value) in [("r", revision), ("t", token), ("l", ttl), ("n", nonce)] {
            item.insert(name.to_owned(), number(value));
        }
        item.insert("h".to_owned(), bytes(*record.holder.as_bytes()));
        let condition = match revision {
            1 => Condition::ABSENT,
            _ => Condition::when("r = :r", [(":r", number(revision.saturating_sub(1)))]),
        };
        match self.table.put(&item, &condition).await? {
            Written::Done => Ok(true),
            Written::Refused(found) => Ok(get_number(&found, "n")? == Some(nonce)),
        }
    }
}

fn lease(item: &Item) -> Result<LeaseRecord> {
    let get = |name| get_number(item, name).transpose().ok_or_else(incomplete_lease)?;
    let holder = get_bytes(item, "h")?.and_then(|holder| Uuid::from_slice(holder).ok());
    let holder = holder.ok_or_else(incomplete_lease)?;
    Ok(LeaseRecord::new(get("r")?, get("t")?, holder, Duration::from_millis(get("l")?)))
}

fn incomplete_lease() -> Error {
    corrupt("an incomplete lease")
}

fn checkpoint(subscriber: &SubscriberId, position: Position) -> Item {
    let mut item = Key::checkpoint(subscriber.as_str()).attributes();
    item.insert("p".to_owned(), number(position.get()));
    item
}

fn position(item: &Item) -> Result<Position> {
    let position = get_number(item, "p")?.ok_or_else(|| corrupt("an incomplete checkpoint"))?;
    Ok(Position::new(position))
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(Utc::now().timestamp()).unwrap_or(0)
}
