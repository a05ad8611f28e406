//! Sends imports to the function `append` of annals' schema.

use std::sync::Arc;

use annals_core::{Error, ErrorKind, RecordedEvent, Result};
use annals_postgres_shared::{
    connections::PooledConnection,
    error::Failure,
    import::{self, FoundStream, ImportRequest, ImportTarget},
    notify::Notifier,
};

use crate::{
    batch::{Batch, Outcome},
    database::Database,
    error::{id_taken, written},
};

/// How often a part of an import is sent again because a .NET program got in its way.
const MOST_TRIES: usize = 20;

/// Writes events that were checked.
pub(crate) async fn import(database: &Arc<Database>, events: Vec<RecordedEvent>) -> Result<()> {
    let checked = events.iter().map(|event| (&event.stream, &event.data, &event.metadata));
    database.check_write(checked)?;
    // Looked up before a connection is taken for the import, which would otherwise take a second one.
    let types = events.iter().map(|event| &event.event_type);
    database.dotnet_types.of(&database.connections, &database.sql, types).await?;
    import::import(database, events).await.map_err(written)
}

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
        let types = request.events.iter().map(|(_, event)| &event.event_type);
        let mut batch =
            Batch::new(self.dotnet_types.of(&self.connections, &self.sql, types).await?);
        for stream in &request.streams {
            batch.stream(stream.id, -10 - stream.first.minus(1).to_i64());
        }
        for (index, event) in &request.events {
            let first = request.streams.get(*index).map_or(event.version, |stream| stream.first);
            let place = (*index, event.version.get() - first.get() + 1);
            let (data, metadata) = (&event.data, &event.metadata);
            batch.event(self, place, event.id, &event.event_type, data, metadata);
            batch.recorded_at(event.recorded_at);
        }
        for _ in 0..MOST_TRIES {
            match batch.send(connection, self).await? {
                Outcome::Written(..) => return Ok(None),
                Outcome::NotWritten(found) => {
                    let found = found
                        .into_iter()
                        .map(|found| FoundStream { head: found.head, is_empty: found.is_empty });
                    return Ok(Some(found.collect()));
                }
                Outcome::IdTaken => return Err(id_taken().into()),
                Outcome::Again => {}
            }
        }
        let message = "other programs append to the same streams all the time; try again";
        Err(Error::new(ErrorKind::Busy, message).into())
    }
}
