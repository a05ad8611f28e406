//! Everything that is written besides events.

use annals_core::{ExpectedVersion, Position, Snapshot, StreamId, StreamState, Version};
use rusqlite::params;

use crate::{
    error::{Failure, corrupt},
    queue::{Answer, Command},
    rows::{self, Head, StoredState},
    session::Session,
};

impl Session<'_> {
    /// Makes one change, inside a transaction.
    pub(crate) fn execute(&mut self, command: &Command) -> Result<Answer, Failure> {
        match command {
            Command::Append(append) => return self.append(append).map(Answer::Appended),
            Command::AppendMulti(appends) => {
                return self.append_multi(appends).map(Answer::AppendedMulti);
            }
            Command::Import(events) => self.import(events)?,
            Command::Truncate { stream, before } => self.truncate(stream, *before)?,
            Command::Delete { stream, expected, state } => {
                self.delete(stream, *expected, *state)?;
            }
            Command::SaveSnapshot { stream, snapshot } => self.save_snapshot(stream, snapshot)?,
            Command::DeleteSnapshot { stream } => self.delete_snapshot(stream)?,
            Command::SaveCheckpoint { subscriber, position } => {
                let kept: i64 = self
                    .connection
                    .prepare_cached(&self.database.sql.save_checkpoint)?
                    .query_row(params![subscriber.as_str(), position.to_i64()], |row| row.get(0))?;
                return Ok(Answer::Kept(Position::from_i64(kept)));
            }
            Command::ResetCheckpoint { subscriber, position } => {
                let sql = &self.database.sql;
                match position {
                    Some(position) => self
                        .connection
                        .prepare_cached(&sql.set_checkpoint)?
                        .execute(params![subscriber.as_str(), position.to_i64()])?,
                    None => self
                        .connection
                        .prepare_cached(&sql.delete_checkpoint)?
                        .execute([subscriber.as_str()])?,
                };
            }
            Command::SwapLease { name, record } => {
                let sql = &self.database.sql;
                let statement =
                    if record.revision == 1 { &sql.begin_lease } else { &sql.swap_lease };
                let [revision, token, ttl] = record.to_stored();
                let holder = record.holder.as_bytes();
                let changed = self.connection.prepare_cached(statement)?.execute(params![
                    name.as_str(),
                    revision,
                    token,
                    holder,
                    ttl
                ])?;
                return Ok(Answer::Swapped(changed > 0));
            }
        }
        Ok(Answer::Done)
    }

    /// Removes what stands before a version; all of it where that is beyond the last.
    fn truncate(&mut self, stream: &StreamId, before: Version) -> Result<(), Failure> {
        let head = self.head(stream)?;
        head.head.check(stream, ExpectedVersion::Any)?;
        let Some(row) = head.row else { return Ok(()) };
        self.remove(stream, row, before.minus(1).min(head.head.version))
    }

    /// Removes everything: for the time being, or for ever.
    fn delete(
        &mut self,
        stream: &StreamId,
        expected: ExpectedVersion,
        state: StreamState,
    ) -> Result<(), Failure> {
        let Head { row, head, .. } = self.head(stream)?;
        head.check(stream, expected)?;
        if head.state == StreamState::Missing && state == StreamState::Deleted {
            return Ok(());
        }
        let stored = state.to_stored().ok_or_else(|| corrupt("no state to delete into"))?;
        let row = match row {
            Some(row) => row,
            None => self.insert_stream(stream)?,
        };
        self.remove(stream, row, head.version)?;
        self.connection.prepare_cached(&self.database.sql.close_stream)?.execute(params![
            row,
            stored,
            head.version.to_i64()
        ])?;
        self.delete_snapshot(stream)
    }

    /// Removes the events up to a version, and sees to it that neither their versions nor their
    /// positions are given again.
    fn remove(&mut self, stream: &StreamId, row: i64, to: Version) -> Result<(), Failure> {
        self.heads.forget(stream);
        let sql = &self.database.sql;
        let range = params![row, to.to_i64()];
        if self.connection.prepare_cached(&sql.remove_events)?.execute(range)? > 0 {
            self.connection.prepare_cached(&sql.set_removed_to)?.execute(range)?;
            self.connection.prepare_cached(&sql.raise_floor)?.execute([self.last.to_i64()])?;
        }
        Ok(())
    }

    fn save_snapshot(&self, stream: &StreamId, snapshot: &Snapshot) -> Result<(), Failure> {
        let Snapshot { version, data, metadata, .. } = snapshot;
        self.connection.prepare_cached(&self.database.sql.save_snapshot)?.execute(params![
            stream.as_str(),
            version.to_i64(),
            rows::kinds(data, metadata),
            &**data.bytes(),
            &**metadata.bytes(),
        ])?;
        Ok(())
    }

    fn delete_snapshot(&self, stream: &StreamId) -> Result<(), Failure> {
        self.connection
            .prepare_cached(&self.database.sql.delete_snapshot)?
            .execute([stream.as_str()])?;
        Ok(())
    }
}
