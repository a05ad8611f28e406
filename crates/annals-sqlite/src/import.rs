//! Events and streams, as they go from one store to another.

use std::collections::HashMap;

use annals_core::{
    RecordedEvent, StreamId, StreamInfo, StreamState, Version,
    adapter::{ImportVerdict, import_conflict},
};
use rusqlite::{OptionalExtension, params};

use crate::{
    database::Database,
    error::{Failure, corrupt},
    readers::Reader,
    rows::{self, Head},
    session::Session,
};

impl Session<'_> {
    /// Writes events of another store, or nothing: a refusal leaves the transaction as it was.
    pub(crate) fn import(&mut self, events: &[RecordedEvent]) -> Result<(), Failure> {
        // Where each stream stands, or will once what is to be written before is written.
        let mut heads: HashMap<&StreamId, Head> = HashMap::new();
        let mut new = Vec::with_capacity(events.len());
        for event in events {
            let head = match heads.get(&event.stream) {
                // The versions of a stream go up by 1: what follows a new event is new.
                Some(_) => {
                    new.push(event);
                    continue;
                }
                None => self.head(&event.stream)?,
            };
            match head.head.judge_import(event, head.last_id.is_none())? {
                ImportVerdict::Write => {
                    heads.insert(&event.stream, head);
                    new.push(event);
                }
                ImportVerdict::Compare => self.compare(event, &head)?,
            }
        }
        for event in new {
            // Judged above, so it is there.
            let Some(head) = heads.get_mut(&event.stream) else { continue };
            self.write_imported(event, head)?;
        }
        for (stream, head) in heads {
            self.heads.put(stream, head);
            self.has_appended = true;
        }
        Ok(())
    }

    /// Whether an event stands where it should.
    fn compare(&self, event: &RecordedEvent, head: &Head) -> Result<(), Failure> {
        let mut statement = self.connection.prepare_cached(&self.database.sql.id_at)?;
        let found = statement
            .query_row(params![head.row, event.version.to_i64()], |row| {
                row.get_ref(0).map(rows::uuid)
            })
            .optional()?;
        match found.flatten() {
            Some(id) if id == event.id => Ok(()),
            _ => Err(import_conflict(event, head.head.version).into()),
        }
    }

    fn write_imported(&mut self, event: &RecordedEvent, head: &mut Head) -> Result<(), Failure> {
        let row = match (head.row, head.head.state) {
            (Some(row), StreamState::Live) => row,
            _ => self.writable(&event.stream, head)?,
        };
        if event.version != head.head.version.plus(1) {
            let before = event.version.minus(1).to_i64();
            self.connection
                .prepare_cached(&self.database.sql.set_removed_to)?
                .execute(params![row, before])?;
        }
        let RecordedEvent { version, recorded_at, id, event_type, data, metadata, .. } = event;
        self.insert(row, *version, *recorded_at, *id, event_type, [data, metadata])?;
        head.row = Some(row);
        head.head.version = event.version;
        head.head.state = StreamState::Live;
        head.last_id = Some(event.id);
        Ok(())
    }
}

/// The streams after a name, in the order of their bytes.
pub(crate) fn list(
    database: &Database,
    reader: &mut Reader,
    after: &str,
    limit: usize,
) -> Result<Vec<(StreamId, StreamInfo)>, Failure> {
    let mut statement = reader.connection.prepare_cached(&database.sql.list_streams)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![after, limit])?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let stream = StreamId::new(&name)
            .map_err(|e| corrupt("a stream has an illegal name").with_source(e))?;
        let (state, version) = rows::state(&stream, row.get(1)?, row.get(2)?, row.get(4)?)?;
        let first: Option<i64> = row.get(3)?;
        streams.push((stream, StreamInfo::new(state, version, first.map(Version::from_i64))));
    }
    Ok(streams)
}
