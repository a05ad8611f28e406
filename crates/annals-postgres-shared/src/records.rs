//! What a store keeps beside events: snapshots, checkpoints, leases.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use annals_core::{
    Error, ErrorKind, LeaseName, LeaseRecord, Position, Result, Snapshot, StreamId, SubscriberId,
    Version,
    adapter::{CheckpointSwap, content_kinds},
};
use sqlx::{Row, postgres::PgRow};

use crate::{
    connections::Connections,
    error::{driver, has_lost_connection},
    rows,
    sql::{query, quoted},
};

/// The records of a store, in the tables `snapshots`, `checkpoints` and `leases` of a schema.
#[derive(Debug)]
pub struct Records {
    connections: Arc<Connections>,
    sql: Sql,
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $text:expr;)*) => {
        /// The statements on these tables.
        #[derive(Debug)]
        struct Sql {
            load_snapshot: Arc<str>,
            save_snapshot: Arc<str>,
            $($(#[$doc])* $name: Arc<str>,)*
        }

        impl Sql {
            /// `kept` is true of a snapshot's version (`{version}`) and stream (`$1`) if the stream
            /// was not deleted since.
            fn new(schema: &str, kept: &str) -> Self {
                let schema = quoted(schema);
                let filled = |text: &str, version: &str| {
                    text.replace("{kept}", kept)
                        .replace("{schema}", &schema)
                        .replace("{version}", version)
                        .into()
                };
                Self {
                    load_snapshot: filled(LOAD_SNAPSHOT, "kept.version"),
                    save_snapshot: filled(SAVE_SNAPSHOT, "$2"),
                    $($name: filled($text, ""),)*
                }
            }
        }
    };
}

/// Leaves out a snapshot of a version that was deleted since, as `StreamHead::was_deleted_since`
/// says.
const LOAD_SNAPSHOT: &str = "SELECT kept.version, kept.flags, kept.data, kept.metadata \
    FROM {schema}.snapshots AS kept WHERE kept.stream = $1 AND {kept}";
/// A deletion that commits while this runs is not seen. Then `load_snapshot` leaves the snapshot
/// out, and the next one replaces it. To lock the stream's row would take the privilege UPDATE.
const SAVE_SNAPSHOT: &str = "INSERT INTO {schema}.snapshots AS kept \
        (stream, version, flags, data, metadata) \
    SELECT $1::text, $2::bigint, $3::smallint, $4::bytea, $5::bytea WHERE {kept} \
    ON CONFLICT (stream) DO UPDATE SET version = excluded.version, \
    flags = excluded.flags, data = excluded.data, metadata = excluded.metadata \
    WHERE excluded.version >= kept.version";

statements! {
    delete_snapshot: "DELETE FROM {schema}.snapshots WHERE stream = $1";

    load_checkpoint: "SELECT position FROM {schema}.checkpoints WHERE subscriber = $1";
    save_checkpoint: "INSERT INTO {schema}.checkpoints AS kept (subscriber, position) \
        VALUES ($1, $2) ON CONFLICT (subscriber) \
        DO UPDATE SET position = greatest(kept.position, excluded.position) RETURNING position";
    /// Writes the first checkpoint of a subscriber; `swap_checkpoint` every later one. Both answer with
    /// a row, also if the checkpoint was there before.
    begin_checkpoint: "INSERT INTO {schema}.checkpoints AS kept (subscriber, position) \
        VALUES ($1, $2) ON CONFLICT (subscriber) DO UPDATE SET position = excluded.position \
        WHERE kept.position = excluded.position RETURNING position";
    swap_checkpoint: "UPDATE {schema}.checkpoints SET position = $2 \
        WHERE subscriber = $1 AND position IN ($2, $3) RETURNING position";
    set_checkpoint: "INSERT INTO {schema}.checkpoints (subscriber, position) VALUES ($1, $2) \
        ON CONFLICT (subscriber) DO UPDATE SET position = excluded.position";
    delete_checkpoint: "DELETE FROM {schema}.checkpoints WHERE subscriber = $1";

    load_lease: "SELECT revision, token, ttl, holder FROM {schema}.leases WHERE name = $1";
    /// Writes the first record of a lease; `swap_lease` every later one, if the record before it is
    /// still there.
    begin_lease: "INSERT INTO {schema}.leases AS kept (name, revision, token, ttl, holder) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING RETURNING revision";
    swap_lease: "UPDATE {schema}.leases AS kept \
        SET revision = $2, token = $3, ttl = $4, holder = $5 \
        WHERE name = $1 AND revision = $2 - 1 RETURNING revision";
}

impl Records {
    /// `kept` is a condition on a snapshot's version (`{version}`) and stream (`$1`): whether the
    /// stream was not deleted since.
    pub fn new(connections: Arc<Connections>, schema: &str, kept: &str) -> Self {
        Self { connections, sql: Sql::new(schema, kept) }
    }

    pub async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>> {
        let statement = || query(&self.sql.load_snapshot).bind(stream.as_str()).in_binary();
        let rows = self.connections.rows(statement).await.map_err(driver)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (data, metadata) = rows::payloads(row, 1)?;
        let version = row.try_get(0).map(Version::from_i64).map_err(driver)?;
        Ok(Some(Snapshot::new(version, data).with_metadata(metadata)))
    }

    pub async fn save_snapshot(&self, stream: &StreamId, snapshot: &Snapshot) -> Result<()> {
        let Snapshot { version, data, metadata, .. } = snapshot;
        let statement = || {
            query(&self.sql.save_snapshot)
                .bind(stream.as_str())
                .bind(version.to_i64())
                .bind(i16::from(content_kinds(data, metadata)))
                .bind(&**data.bytes())
                .bind(&**metadata.bytes())
        };
        self.connections.rows(statement).await.map(drop).map_err(driver)
    }

    pub async fn delete_snapshot(&self, stream: &StreamId) -> Result<()> {
        let statement = || query(&self.sql.delete_snapshot).bind(stream.as_str());
        self.connections.rows(statement).await.map(drop).map_err(driver)
    }

    pub async fn load_checkpoint(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let statement = || query(&self.sql.load_checkpoint).bind(subscriber.as_str());
        let rows = self.connections.rows(statement).await.map_err(driver)?;
        rows.first().map(|row| row.try_get(0).map(Position::from_i64)).transpose().map_err(driver)
    }

    pub async fn save_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Position,
    ) -> Result<Position> {
        let text = &self.sql.save_checkpoint;
        let statement = || query(text).bind(subscriber.as_str()).bind(position.to_i64());
        let row = self.connections.row(statement).await;
        row.and_then(|row| row.try_get(0)).map(Position::from_i64).map_err(driver)
    }

    pub async fn swap_checkpoint(
        &self,
        subscriber: &SubscriberId,
        swap: CheckpointSwap,
    ) -> Result<bool> {
        let (sql, name, to) = (&self.sql, subscriber.as_str(), swap.to.to_i64());
        let statement = || match swap.from {
            Some(from) => query(&sql.swap_checkpoint).bind(name).bind(to).bind(from.to_i64()),
            None => query(&sql.begin_checkpoint).bind(name).bind(to),
        };
        let rows = self.connections.rows(statement).await.map_err(driver)?;
        Ok(!rows.is_empty())
    }

    pub async fn reset_checkpoint(
        &self,
        subscriber: &SubscriberId,
        position: Option<Position>,
    ) -> Result<()> {
        let sql = &self.sql;
        let statement = || match position {
            Some(position) => {
                query(&sql.set_checkpoint).bind(subscriber.as_str()).bind(position.to_i64())
            }
            None => query(&sql.delete_checkpoint).bind(subscriber.as_str()),
        };
        self.connections.rows(statement).await.map(drop).map_err(driver)
    }

    pub async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        let statement = || query(&self.sql.load_lease).bind(name.as_str());
        let rows = self.connections.rows(statement).await.map_err(driver)?;
        let record = |row: &PgRow| {
            let numbers = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
            Ok(LeaseRecord::from_stored(numbers, row.try_get(3)?))
        };
        rows.first().map(record).transpose().map_err(driver)
    }

    pub async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        let sql = &self.sql;
        let text = if record.revision == 1 { &sql.begin_lease } else { &sql.swap_lease };
        let [revision, token, ttl] = record.to_stored();
        let attempts = AtomicUsize::new(0);
        let statement = || {
            attempts.fetch_add(1, Relaxed);
            query(text).bind(name.as_str()).bind(revision).bind(token).bind(ttl).bind(record.holder)
        };
        let swapped = self.connections.rows(statement).await;
        match (swapped, attempts.into_inner()) {
            (Ok(rows), _) if !rows.is_empty() => Ok(true),
            (Ok(_), 1) => Ok(false),
            // The first attempt may have written, and its answer was lost. The record that stands there
            // instead may be the one that it wrote.
            (Ok(_), _) => {
                let message =
                    "the connection was lost, and the lease has another record than expected";
                Err(Error::new(ErrorKind::Unavailable, message).with_outcome_unknown())
            }
            (Err(error), attempts) => {
                let was_refused =
                    error.as_database_error().is_some() && !has_lost_connection(&error);
                let nothing_written = attempts == 0 || (attempts == 1 && was_refused);
                let error = driver(error);
                Err(if nothing_written { error } else { error.with_outcome_unknown() })
            }
        }
    }
}

/// The methods of an `Adapter` that snapshots, checkpoints and leases need, for a store whose field
/// `database` has these [`Records`].
#[macro_export]
macro_rules! record_methods {
    () => {
        async fn load_snapshot(
            &self,
            stream: &::annals_core::StreamId,
        ) -> ::annals_core::Result<Option<::annals_core::Snapshot>> {
            self.database.records.load_snapshot(stream).await
        }

        async fn save_snapshot(
            &self,
            stream: &::annals_core::StreamId,
            snapshot: ::annals_core::Snapshot,
        ) -> ::annals_core::Result<()> {
            self.database.records.save_snapshot(stream, &snapshot).await
        }

        async fn delete_snapshot(
            &self,
            stream: &::annals_core::StreamId,
        ) -> ::annals_core::Result<()> {
            self.database.records.delete_snapshot(stream).await
        }

        async fn load_checkpoint(
            &self,
            id: &::annals_core::SubscriberId,
        ) -> ::annals_core::Result<Option<::annals_core::Position>> {
            self.database.records.load_checkpoint(id).await
        }

        async fn save_checkpoint(
            &self,
            id: &::annals_core::SubscriberId,
            to: ::annals_core::Position,
        ) -> ::annals_core::Result<::annals_core::Position> {
            self.database.records.save_checkpoint(id, to).await
        }

        async fn swap_checkpoint(
            &self,
            id: &::annals_core::SubscriberId,
            swap: ::annals_core::adapter::CheckpointSwap,
        ) -> ::annals_core::Result<bool> {
            self.database.records.swap_checkpoint(id, swap).await
        }

        async fn reset_checkpoint(
            &self,
            id: &::annals_core::SubscriberId,
            to: Option<::annals_core::Position>,
        ) -> ::annals_core::Result<()> {
            self.database.records.reset_checkpoint(id, to).await
        }

        async fn load_lease(
            &self,
            name: &::annals_core::LeaseName,
        ) -> ::annals_core::Result<Option<::annals_core::LeaseRecord>> {
            self.database.records.load_lease(name).await
        }

        async fn swap_lease(
            &self,
            name: &::annals_core::LeaseName,
            record: &::annals_core::LeaseRecord,
        ) -> ::annals_core::Result<bool> {
            self.database.records.swap_lease(name, record).await
        }
    };
}
