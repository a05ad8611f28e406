//! Sends imports to the function `import` of the schema.

use std::sync::Arc;

use annals_core::{RecordedEvent, Version, adapter::content_kinds};
use annals_postgres_shared::import::{FoundStream, ImportRequest, ImportTarget};
use sqlx::{Row, postgres::PgRow};

use crate::{
    append,
    connections::PooledConnection,
    database::Database,
    error::{Failure, internal},
    notify::Notifier,
    sql::query,
};

impl ImportTarget for Database {
    fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    fn ids_between(&self) -> &Arc<str> {
        &self.sql.ids_between
    }

    async fn send(
        &self,
        connection: &mut PooledConnection,
        request: &ImportRequest<'_>,
    ) -> Result<Option<Vec<FoundStream>>, Failure> {
        let streams = || request.streams.iter();
        let events = || request.events.iter().map(|(_, event)| *event);
        let owner = |index: usize| i32::try_from(index + 1).unwrap_or(i32::MAX);
        let flags = |event: &RecordedEvent| i16::from(content_kinds(&event.data, &event.metadata));
        let query = query(&self.sql.import)
            .bind(self.lock_key)
            .bind(streams().map(|stream| stream.id.as_str()).collect::<Vec<_>>())
            .bind(streams().map(|stream| stream.id.category_str()).collect::<Vec<_>>())
            .bind(streams().map(|stream| stream.first.to_i64()).collect::<Vec<_>>())
            .bind(request.events.iter().map(|(index, _)| owner(*index)).collect::<Vec<_>>())
            .bind(events().map(|event| event.version.to_i64()).collect::<Vec<_>>())
            .bind(events().map(|event| event.recorded_at).collect::<Vec<_>>())
            .bind(events().map(|event| event.id).collect::<Vec<_>>())
            .bind(events().map(|event| event.event_type.as_str()).collect::<Vec<_>>())
            .bind(events().map(flags).collect::<Vec<_>>())
            .bind(events().map(|event| &**event.data.bytes()).collect::<Vec<_>>())
            .bind(events().map(|event| &**event.metadata.bytes()).collect::<Vec<_>>());
        let row = connection.run_one(query).await?;
        if row.try_get(0)? { Ok(None) } else { decode(&row, request).map(Some) }
    }
}

fn decode(row: &PgRow, request: &ImportRequest<'_>) -> Result<Vec<FoundStream>, Failure> {
    let states: Vec<Option<i16>> = row.try_get(1)?;
    let (versions, removals): (Vec<i64>, Vec<i64>) = (row.try_get(2)?, row.try_get(3)?);
    let mut found = Vec::with_capacity(request.streams.len());
    for ((state, version), removed_to) in states.into_iter().zip(versions).zip(removals) {
        // An import is judged without the version at which the stream was deleted.
        let head = append::head(state, Version::from_i64(version), None)?;
        found.push(FoundStream { head, is_empty: version <= removed_to });
    }
    if found.len() != request.streams.len() {
        return Err(internal("not as many answers as streams").into());
    }
    Ok(found)
}
