//! Snapshots, checkpoints and leases: small records beside the streams.

use annals_core::{
    LeaseName, LeaseRecord, Position, Snapshot, StreamId, SubscriberId, Version,
    adapter::{self, CheckpointSwap},
};
use rusqlite::{OptionalExtension, params};

use crate::{
    error::{Failure, corrupt},
    readers::Reader,
    rows::{self, StoredStream},
    session::Session,
};

/// Loads.
impl Reader {
    pub(crate) fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, Failure> {
        let mut statement = self.connection.prepare_cached(&self.database.sql.load_snapshot)?;
        let mut rows = statement.query([stream.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (data, metadata) = rows::payloads(row, 1)?;
        let version = Version::from_i64(row.get(0)?);
        // An older annals could save a snapshot after the deletion of its stream.
        let stored = StoredStream::load(&self.connection, &self.database.sql, stream)?;
        if stored.head.was_deleted_since(version) {
            return Ok(None);
        }
        Ok(Some(Snapshot::new(version, data).with_metadata(metadata)))
    }

    pub(crate) fn load_checkpoint(
        &self,
        subscriber: &SubscriberId,
    ) -> Result<Option<Position>, Failure> {
        let mut statement = self.connection.prepare_cached(&self.database.sql.load_checkpoint)?;
        let position = statement.query_row([subscriber.as_str()], |row| row.get(0)).optional()?;
        Ok(position.map(Position::from_i64))
    }

    pub(crate) fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>, Failure> {
        let mut statement = self.connection.prepare_cached(&self.database.sql.load_lease)?;
        let mut rows = statement.query([name.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let holder = rows::uuid(row.get_ref(2)?)
            .ok_or_else(|| corrupt("the holder of a lease is not a UUID"))?;
        let numbers = [row.get(0)?, row.get(1)?, row.get(3)?];
        Ok(Some(LeaseRecord::from_stored(numbers, holder)))
    }
}

/// Changes.
impl Session<'_> {
    /// Keeps a snapshot, unless a later one is kept or its version was deleted since.
    pub(crate) fn save_snapshot(
        &mut self,
        stream: &StreamId,
        snapshot: &Snapshot,
    ) -> Result<(), Failure> {
        let Snapshot { version, data, metadata, .. } = snapshot;
        if self.stream(stream)?.head.was_deleted_since(*version) {
            return Ok(());
        }
        self.connection.prepare_cached(&self.database.sql.save_snapshot)?.execute(params![
            stream.as_str(),
            version.to_i64(),
            adapter::content_kinds(data, metadata),
            &**data.bytes(),
            &**metadata.bytes(),
        ])?;
        Ok(())
    }

    pub(crate) fn delete_snapshot(&self, stream: &StreamId) -> Result<(), Failure> {
        let delete = &self.database.sql.delete_snapshot;
        self.connection.prepare_cached(delete)?.execute([stream.as_str()])?;
        Ok(())
    }

    /// Moves a checkpoint forward. Returns the checkpoint that is kept now.
    pub(crate) fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position, Failure> {
        let mut statement = self.connection.prepare_cached(&self.database.sql.save_checkpoint)?;
        let checkpoint = params![subscriber.as_str(), position.to_i64()];
        Ok(Position::from_i64(statement.query_row(checkpoint, |row| row.get(0))?))
    }

    /// Moves a checkpoint if it stands where it is expected. Returns whether it did.
    pub(crate) fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        swap: CheckpointSwap,
    ) -> Result<bool, Failure> {
        let (sql, name, to) = (&self.database.sql, subscriber.as_str(), swap.to.to_i64());
        let rows = match swap.from {
            Some(from) => self
                .connection
                .prepare_cached(&sql.swap_checkpoint)?
                .execute(params![name, to, from.to_i64()])?,
            None => {
                self.connection.prepare_cached(&sql.begin_checkpoint)?.execute(params![name, to])?
            }
        };
        Ok(rows > 0)
    }

    pub(crate) fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<(), Failure> {
        let sql = &self.database.sql;
        let name = subscriber.as_str();
        match position {
            Some(position) => self
                .connection
                .prepare_cached(&sql.set_checkpoint)?
                .execute(params![name, position.to_i64()])?,
            None => self.connection.prepare_cached(&sql.delete_checkpoint)?.execute([name])?,
        };
        Ok(())
    }

    /// Writes the record of a lease if it follows the record that is stored. Returns whether it did.
    pub(crate) fn swap_lease(
        &self,
        name: &LeaseName,
        record: &LeaseRecord,
    ) -> Result<bool, Failure> {
        let sql = &self.database.sql;
        let statement = if record.revision == 1 { &sql.begin_lease } else { &sql.swap_lease };
        let [revision, token, ttl] = record.to_stored();
        let holder = record.holder.as_bytes();
        let record = params![name.as_str(), revision, token, holder, ttl];
        Ok(self.connection.prepare_cached(statement)?.execute(record)? > 0)
    }
}
