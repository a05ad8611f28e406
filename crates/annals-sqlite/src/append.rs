//! Appends: the judgement, and the rows.

use annals_core::{Append, Appended, Position, StreamState, Version, adapter};
use rusqlite::params;

use crate::{
    error::Failure,
    rows::{self, StoredStream},
    session::Session,
};

impl Session<'_> {
    /// Writes all the appends, or none: it judges all of them before it writes the first. So a
    /// refused append leaves the transaction as it was.
    pub(crate) fn append(&mut self, appends: &[Append]) -> Result<Vec<Appended>, Failure> {
        let mut streams = Vec::with_capacity(appends.len());
        let mut judged = Vec::with_capacity(appends.len());
        for append in appends {
            let stored = self.stream(&append.stream)?;
            judged.push((stored.head, self.first_answer(append, &stored)?));
            streams.push(stored);
        }
        if let Some(replayed) = adapter::all_or_none(appends, &judged)? {
            return Ok(replayed);
        }
        let written = appends.iter().zip(streams);
        written.map(|(append, stored)| self.write(append, stored)).collect()
    }

    /// The answer that an append got when it was written before; `None` if it is to be written.
    fn first_answer(
        &self,
        append: &Append,
        stored: &StoredStream,
    ) -> Result<Option<Appended>, Failure> {
        // Under `Any` and `StreamExists` look for a retry only at the end of the stream. To find it
        // anywhere takes an index on ids, which would make every append more expensive.
        let retry_after = || stored.head.retry_at_end(append, stored.last_id);
        let Some(base) = stored.head.compare_after(append, retry_after)? else { return Ok(None) };
        let mut statement = self.connection.prepare_cached(&self.database.sql.ids_after)?;
        let count = Version::new(append.count()).to_i64();
        let found = statement.query_map(params![stored.row, base.to_i64(), count], |row| {
            let (version, position) = (row.get(0)?, row.get(1)?);
            let id = rows::uuid(row.get_ref(2)?);
            Ok((Version::from_i64(version), id, Position::from_i64(position)))
        })?;
        // An event whose id cannot be decoded is not an event of this append.
        let found = found.map_while(|row| match row {
            Ok((version, id, position)) => id.map(|id| Ok((version, id, position))),
            Err(error) => Some(Err(Failure::from(error))),
        });
        let found = adapter::written_after(append, base, found)?;
        Ok(stored.head.compared(append, found)?)
    }

    fn write(&mut self, append: &Append, mut stored: StoredStream) -> Result<Appended, Failure> {
        let row = self.live_row(&append.stream, &stored)?;
        let base = stored.head.version;
        for (n, event) in (1..).zip(&append.events) {
            let payloads = (event.data(), event.metadata());
            let name = (event.id(), event.event_type());
            self.insert_event(row, base.plus(n), self.now, name, payloads)?;
            stored.last_id = Some(event.id());
        }
        stored.row = Some(row);
        stored.head.version = base.plus(append.count());
        stored.head.state = StreamState::Live;
        self.remember(&append.stream, stored);
        self.has_appended = true;
        Ok(Appended::after(base, append.count(), self.last, false)?)
    }
}
