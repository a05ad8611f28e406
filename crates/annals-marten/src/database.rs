//! What every operation on a store needs.

use std::{sync::Arc, time::Duration};

use annals_core::{Error, ErrorKind, Payload, Position, Result, StreamId};
use annals_postgres_shared::{
    connections::{Connected, Connections},
    early::EarlyNumbers,
    horizon::Horizon,
    identity::Identity,
    notify::{Listening, Notifier, Signals},
    page::PageReader,
    records::Records,
};
use sqlx::Row;
use tokio::sync::Semaphore;

use crate::{
    config::{MartenOptions, Payloads},
    dotnet::DotnetTypes,
    error::driver,
    json::{self, Columns},
    shape::{Ids, Shape},
    sql::{Own, SNAPSHOT_IS_KEPT, Sql, query},
};

/// The channel on which .NET programs with `UseListenNotifyForEventAppends` wait.
const MARTENS_CHANNEL: &str = "mt_events_appended";
/// The stream of Marten's tombstones in a database whose ids are texts.
const TOMBSTONES: &str = "mt_tombstone";

/// The connections, statements and tasks of one store, shared by its handles, reads and
/// subscriptions. They end with the last of these.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) connections: Arc<Connections>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) horizon: Horizon,
    pub(crate) pages: PageReader,
    pub(crate) records: Records,
    pub(crate) sql: Arc<Sql>,
    pub(crate) dotnet_types: DotnetTypes,
    /// The appends that may be under way at the same time, so that readers find connections.
    pub(crate) writers: Arc<Semaphore>,
    pub(crate) columns: Columns,
    pub(crate) lock_key: i32,
    /// How long an append is sent again that others get in the way of.
    pub(crate) patience: Duration,
    /// Whether the bytes of payloads are kept beside Marten's tables.
    pub(crate) keeps_bytes: bool,
    read_only: bool,
    ids: Ids,
    named: bool,
}

impl Connected for Database {
    fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }
}

impl Database {
    pub(crate) fn new(
        connections: Arc<Connections>,
        listening: Listening,
        options: &MartenOptions,
        shape: &Shape,
        (statements, key): (Own, Option<i32>),
        writers: usize,
    ) -> Self {
        let sql = Arc::new(Sql::new(options, shape, statements));
        let own = options.own_schema();
        if let Some(key) = key {
            connections.expect(Identity::new(own, key));
        }
        let lock_key = key.unwrap_or_default();
        let signals = Signals::of(own).and_of_others(
            MARTENS_CHANNEL,
            sql.last_position.clone(),
            options.look_interval,
        );
        let horizon = Horizon::new(
            connections.clone(),
            sql.horizon.clone(),
            sql.is_within_append.clone(),
            lock_key,
        );
        let has = |column: &str| shape.event_columns.iter().any(|known| known == column);
        Self {
            notifier: Notifier::new(connections.clone(), listening, signals, options.poll_interval),
            horizon: match options.gap_wait {
                None => horizon,
                Some(wait) => horizon.with_early_numbers(EarlyNumbers::new(
                    wait,
                    sql.gaps.clone(),
                    sql.events_in_gaps.clone(),
                )),
            },
            pages: PageReader::new(connections.clone()),
            records: Records::new(connections.clone(), own, SNAPSHOT_IS_KEPT),
            dotnet_types: DotnetTypes::new(&options.dotnet_types, options.refuse_unknown_types),
            writers: Arc::new(Semaphore::new(writers)),
            columns: Columns {
                headers: has("headers"),
                correlation: has("correlation_id"),
                causation: has("causation_id"),
            },
            connections,
            sql,
            lock_key,
            patience: options.request_timeout,
            ids: shape.ids,
            named: options.named,
            read_only: options.read_only,
            keeps_bytes: options.payloads == Payloads::Exact,
        }
    }

    /// The greatest position that can be seen.
    pub(crate) async fn last_position(&self) -> Result<Position> {
        let row = self.connections.row(|| query(&self.sql.last_position)).await;
        row.and_then(|row| row.try_get(0)).map(Position::from_i64).map_err(driver)
    }

    /// The greatest position that was ever given. Beyond the greatest that can be seen, only a role
    /// that may read the sequence knows it.
    pub(crate) async fn greatest_position(&self) -> Result<Position> {
        let (visible, given) = self.positions().await?;
        Ok(Position::from_i64(given.unwrap_or(visible).max(visible)))
    }

    async fn positions(&self) -> Result<(i64, Option<i64>)> {
        let row = self.connections.row(|| query(&self.sql.positions)).await;
        row.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?))).map_err(driver)
    }

    /// Refuses a store whose sequence is behind its events, as after a restore of the data alone.
    pub(crate) async fn check_positions(&self, options: &MartenOptions) -> Result<()> {
        let (greatest, last_given) = self.positions().await?;
        if last_given.is_none_or(|last_given| last_given >= greatest) {
            return Ok(());
        }
        let schema = &options.schema;
        let message = format!(
            "the sequence mt_events_sequence of the schema {schema:?} is behind the table mt_events, \
             which has an event at {greatest}, so that numbers would be given twice; run `SELECT \
             setval('{schema}.mt_events_sequence', {greatest})`"
        );
        Err(Error::new(ErrorKind::Incompatible, message))
    }

    /// Refuses events that cannot be kept: everything is refused if the store only reads.
    pub(crate) fn check_write<'a>(
        &self,
        events: impl IntoIterator<Item = (&'a StreamId, &'a Payload, &'a Payload)>,
    ) -> Result<()> {
        if self.read_only {
            let message = "the store was opened with `read_only`";
            return Err(Error::new(ErrorKind::Denied, message));
        }
        for (stream, data, metadata) in events {
            let is_kept = || {
                self.check_stream(stream)?;
                if self.keeps_bytes { Ok(()) } else { json::check(data, metadata, self.columns) }
            };
            is_kept().map_err(|error| error.with_stream(stream))?;
        }
        Ok(())
    }

    /// Refuses a stream that cannot be written: its id has no place in Marten's tables.
    pub(crate) fn check_stream(&self, stream: &StreamId) -> Result<()> {
        let refused = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
        let id = stream.as_str();
        match self.ids {
            Ids::String if id == TOMBSTONES => {
                refused(format!("the stream {TOMBSTONES} belongs to Marten"))
            }
            Ids::Guid if !self.named && !is_typed(id) => refused(format!(
                "the ids of this database are Guids, and {id:?} has none; use the stream's type, \
                 `-` and a Guid in lower case, or 32 hexadecimal digits; or open the store with \
                 `ids=named`"
            )),
            _ => Ok(()),
        }
    }
}

/// Whether a Guid stands in a stream id: after its type, or alone without dashes.
fn is_typed(id: &str) -> bool {
    let is_hex =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if id.len() == 32 && is_hex(id) {
        return true;
    }
    let Some((head, guid)) = id.len().checked_sub(36).and_then(|at| id.split_at_checked(at)) else {
        return false;
    };
    let lengths: Vec<usize> = guid.split('-').map(str::len).collect();
    head.len() > 1
        && head.ends_with('-')
        && lengths == [8, 4, 4, 4, 12]
        && guid.split('-').all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::is_typed;

    #[test]
    fn a_typed_id_ends_with_a_guid() {
        for id in [
            "account-d4b567c6-4a06-5f1e-39f8-736c05428488",
            "a-b-d4b567c6-4a06-5f1e-39f8-736c05428488",
            "d4b567c64a065f1e39f8736c05428488",
        ] {
            assert!(is_typed(id), "{id}");
        }
        for id in [
            "d4b567c6-4a06-5f1e-39f8-736c05428488",
            "-d4b567c6-4a06-5f1e-39f8-736c05428488",
            "account-D4B567C6-4a06-5f1e-39f8-736c05428488",
            "account-d4b567c6-4a06-5f1e-39f8736c-05428488",
            "order-42",
            "ü-d4b567c6-4a06-5f1e-39f8-736c0542848",
        ] {
            assert!(!is_typed(id), "{id}");
        }
    }
}
