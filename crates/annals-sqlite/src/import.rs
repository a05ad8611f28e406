//! Imports: events as another store recorded them.

use std::collections::HashMap;

use annals_core::{
    RecordedEvent, StreamId, StreamState,
    adapter::{ImportVerdict, import_conflict},
};
use rusqlite::{OptionalExtension, params};

use crate::{
    error::Failure,
    rows::{self, StoredStream},
    session::Session,
};

impl Session<'_> {
    /// Writes events of another store, or none: it judges all of them before it writes the first.
    /// So a refused import leaves the transaction as it was.
    pub(crate) fn import(&mut self, events: &[RecordedEvent]) -> Result<(), Failure> {
        // The streams that get new events.
        let mut streams: HashMap<&StreamId, StoredStream> = HashMap::new();
        let mut new = Vec::with_capacity(events.len());
        for event in events {
            if streams.contains_key(&event.stream) {
                // The versions of a stream increase by 1, so all events after a new one are new.
                new.push(event);
                continue;
            }
            let stored = self.stream(&event.stream)?;
            match stored.head.judge_import(event, stored.last_id.is_none())? {
                ImportVerdict::Write => {
                    streams.insert(&event.stream, stored);
                    new.push(event);
                }
                ImportVerdict::Compare => self.compare(event, &stored)?,
            }
        }
        for event in new {
            if let Some(stored) = streams.get_mut(&event.stream) {
                self.write_imported(event, stored)?;
            }
        }
        for (stream, stored) in streams {
            self.remember(stream, stored);
            self.has_appended = true;
        }
        Ok(())
    }

    /// Checks that the stream has this event at its version.
    fn compare(&self, event: &RecordedEvent, stored: &StoredStream) -> Result<(), Failure> {
        let mut statement = self.connection.prepare_cached(&self.database.sql.id_at)?;
        let place = params![stored.row, event.version.to_i64()];
        let found = statement.query_row(place, |row| row.get_ref(0).map(rows::uuid)).optional()?;
        match found.flatten() {
            Some(id) if id == event.id => Ok(()),
            _ => Err(import_conflict(event, stored.head.version).into()),
        }
    }

    fn write_imported(
        &mut self,
        event: &RecordedEvent,
        stored: &mut StoredStream,
    ) -> Result<(), Failure> {
        let row = self.live_row(&event.stream, stored)?;
        let RecordedEvent { version, recorded_at, id, event_type, data, metadata, .. } = event;
        if *version != stored.head.version.plus(1) {
            // The stream begins late, as if the versions before this one had been removed.
            let set_removed_to = &self.database.sql.set_removed_to;
            let removed_to = version.minus(1).to_i64();
            self.connection.prepare_cached(set_removed_to)?.execute(params![row, removed_to])?;
        }
        self.insert_event(row, *version, *recorded_at, (*id, event_type), (data, metadata))?;
        stored.row = Some(row);
        stored.head.version = *version;
        stored.head.state = StreamState::Live;
        stored.last_id = Some(*id);
        Ok(())
    }
}
