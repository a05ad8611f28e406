//! What a store keeps beside events: snapshots, checkpoints, leases.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use annals_core::{
    Error, ErrorKind, LeaseName, LeaseRecord, Position, Result, Snapshot, StreamId, SubscriberId,
    Version,
    adapter::{CheckpointSwap, content_kinds},
};
use sqlx::{Row, postgres::PgRow};

use crate::{
    database::Database,
    error::{driver, has_lost_connection},
    rows,
    sql::query,
};

pub(crate) async fn load_snapshot(
    database: &Database,
    stream: &StreamId,
) -> Result<Option<Snapshot>> {
    let statement = || query(&database.sql.load_snapshot).bind(stream.as_str());
    let rows = database.connections.rows(statement).await.map_err(driver)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (data, metadata) = rows::payloads(row, 1)?;
    let version = row.try_get(0).map(Version::from_i64).map_err(driver)?;
    Ok(Some(Snapshot::new(version, data).with_metadata(metadata)))
}

pub(crate) async fn save_snapshot(
    database: &Database,
    stream: &StreamId,
    snapshot: &Snapshot,
) -> Result<()> {
    let Snapshot { version, data, metadata, .. } = snapshot;
    let statement = || {
        query(&database.sql.save_snapshot)
            .bind(stream.as_str())
            .bind(version.to_i64())
            .bind(i16::from(content_kinds(data, metadata)))
            .bind(&**data.bytes())
            .bind(&**metadata.bytes())
    };
    database.connections.rows(statement).await.map(drop).map_err(driver)
}

pub(crate) async fn delete_snapshot(database: &Database, stream: &StreamId) -> Result<()> {
    let statement = || query(&database.sql.delete_snapshot).bind(stream.as_str());
    database.connections.rows(statement).await.map(drop).map_err(driver)
}

pub(crate) async fn load_checkpoint(
    database: &Database,
    subscriber: &SubscriberId,
) -> Result<Option<Position>> {
    let statement = || query(&database.sql.load_checkpoint).bind(subscriber.as_str());
    let rows = database.connections.rows(statement).await.map_err(driver)?;
    rows.first().map(|row| row.try_get(0).map(Position::from_i64)).transpose().map_err(driver)
}

pub(crate) async fn save_checkpoint(
    database: &Database,
    subscriber: &SubscriberId,
    position: Position,
) -> Result<Position> {
    let text = &database.sql.save_checkpoint;
    let statement = || query(text).bind(subscriber.as_str()).bind(position.to_i64());
    let row = database.connections.row(statement).await;
    row.and_then(|row| row.try_get(0)).map(Position::from_i64).map_err(driver)
}

pub(crate) async fn swap_checkpoint(
    database: &Database,
    subscriber: &SubscriberId,
    swap: CheckpointSwap,
) -> Result<bool> {
    let (sql, name, to) = (&database.sql, subscriber.as_str(), swap.to.to_i64());
    let statement = || match swap.from {
        Some(from) => query(&sql.swap_checkpoint).bind(name).bind(to).bind(from.to_i64()),
        None => query(&sql.begin_checkpoint).bind(name).bind(to),
    };
    let rows = database.connections.rows(statement).await.map_err(driver)?;
    Ok(!rows.is_empty())
}

pub(crate) async fn reset_checkpoint(
    database: &Database,
    subscriber: &SubscriberId,
    position: Option<Position>,
) -> Result<()> {
    let sql = &database.sql;
    let statement = || match position {
        Some(position) => {
            query(&sql.set_checkpoint).bind(subscriber.as_str()).bind(position.to_i64())
        }
        None => query(&sql.delete_checkpoint).bind(subscriber.as_str()),
    };
    database.connections.rows(statement).await.map(drop).map_err(driver)
}

pub(crate) async fn load_lease(
    database: &Database,
    name: &LeaseName,
) -> Result<Option<LeaseRecord>> {
    let statement = || query(&database.sql.load_lease).bind(name.as_str());
    let rows = database.connections.rows(statement).await.map_err(driver)?;
    let record = |row: &PgRow| {
        let numbers = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
        Ok(LeaseRecord::from_stored(numbers, row.try_get(3)?))
    };
    rows.first().map(record).transpose().map_err(driver)
}

pub(crate) async fn swap_lease(
    database: &Database,
    name: &LeaseName,
    record: &LeaseRecord,
) -> Result<bool> {
    let sql = &database.sql;
    let text = if record.revision == 1 { &sql.begin_lease } else { &sql.swap_lease };
    let [revision, token, ttl] = record.to_stored();
    let attempts = AtomicUsize::new(0);
    let statement = || {
        attempts.fetch_add(1, Relaxed);
        query(text).bind(name.as_str()).bind(revision).bind(token).bind(ttl).bind(record.holder)
    };
    let swapped = database.connections.rows(statement).await;
    match (swapped, attempts.into_inner()) {
        (Ok(rows), _) if !rows.is_empty() => Ok(true),
        (Ok(_), 1) => Ok(false),
        // The first attempt may have written, and its answer was lost. The record that stands there
        // instead may be the one that it wrote.
        (Ok(_), _) => {
            let message = "the connection was lost, and the lease has another record than expected";
            Err(Error::new(ErrorKind::Unavailable, message).with_outcome_unknown())
        }
        (Err(error), attempts) => {
            let was_refused = error.as_database_error().is_some() && !has_lost_connection(&error);
            let nothing_written = attempts == 0 || (attempts == 1 && was_refused);
            let error = driver(error);
            Err(if nothing_written { error } else { error.with_outcome_unknown() })
        }
    }
}
