//! What is asked about streams, and the removal of their events.

use annals_core::{
    ExpectedVersion, Position, StreamId, StreamInfo, StreamState, Version, adapter::state_code,
};
use rusqlite::params;

use crate::{
    error::{Failure, corrupt},
    readers::Reader,
    rows::{StoredStream, first_version, last_position, state_and_version},
    session::Session,
};

/// Questions.
impl Reader {
    pub(crate) fn last_position(&self) -> Result<Position, Failure> {
        last_position(&self.connection, &self.database.sql)
    }

    pub(crate) fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, Failure> {
        let (connection, sql) = (&self.connection, &self.database.sql);
        let StoredStream { row, head, .. } = StoredStream::load(connection, sql, stream)?;
        let first = row.map(|row| first_version(connection, sql, row)).transpose()?;
        Ok(head.info(first.flatten()))
    }

    /// At most `limit` streams whose ids are greater than `after`, in the order of their bytes.
    pub(crate) fn list_streams(
        &self,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, StreamInfo)>, Failure> {
        let mut statement = self.connection.prepare_cached(&self.database.sql.list_streams)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let after = after.map_or("", StreamId::as_str);
        let mut rows = statement.query(params![after, limit])?;
        let mut streams = Vec::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let stream = StreamId::new(&name)
                .map_err(|e| corrupt("a stream has an illegal name").with_source(e))?;
            let (state, version) =
                state_and_version(&stream, row.get(1)?, row.get(2)?, row.get(4)?)?;
            let first: Option<i64> = row.get(3)?;
            let info = StreamInfo::new(state, version, first.map(Version::from_i64));
            streams.push((stream, info.with_deleted_at(Version::from_i64(row.get(5)?))));
        }
        Ok(streams)
    }
}

/// Removal.
impl Session<'_> {
    /// Removes the events of a stream before a version; all of them if the version is beyond the
    /// last.
    pub(crate) fn truncate(&mut self, stream: &StreamId, before: Version) -> Result<(), Failure> {
        let StoredStream { row, head, .. } = self.stream(stream)?;
        head.check(stream, ExpectedVersion::Any)?;
        let Some(row) = row else { return Ok(()) };
        self.remove_events(stream, row, before.minus(1).min(head.version))
    }

    /// Removes all events of a stream, and its snapshot, and leaves the stream deleted or
    /// tombstoned.
    pub(crate) fn delete(
        &mut self,
        stream: &StreamId,
        expected: ExpectedVersion,
        state: StreamState,
    ) -> Result<(), Failure> {
        let StoredStream { row, head, .. } = self.stream(stream)?;
        head.check(stream, expected)?;
        if head.state == StreamState::Missing && state == StreamState::Deleted {
            return Ok(());
        }
        let row = match row {
            Some(row) => row,
            None => self.insert_stream(stream)?,
        };
        self.remove_events(stream, row, head.version)?;
        self.connection.prepare_cached(&self.database.sql.close_stream)?.execute(params![
            row,
            state_code(state),
            head.version.to_i64()
        ])?;
        self.delete_snapshot(stream)
    }

    /// Removes the events of a stream up to a version, and keeps a note of them, so that neither
    /// their versions nor their positions are given again.
    fn remove_events(&mut self, stream: &StreamId, row: i64, to: Version) -> Result<(), Failure> {
        self.forget(stream);
        let sql = &self.database.sql;
        let range = params![row, to.to_i64()];
        if self.connection.prepare_cached(&sql.remove_events)?.execute(range)? > 0 {
            self.connection.prepare_cached(&sql.set_removed_to)?.execute(range)?;
            self.connection.prepare_cached(&sql.raise_floor)?.execute([self.last.to_i64()])?;
        }
        Ok(())
    }
}
