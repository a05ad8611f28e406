//! What every operation on a store needs.

use std::sync::Arc;

use annals_core::{Position, Result};
use sqlx::Row;

use crate::{
    config::PostgresOptions,
    connections::Connections,
    error::driver,
    horizon::Horizon,
    notify::Notifier,
    page::PageReader,
    sql::{Sql, query},
};

/// The connections, statements and tasks of one store, shared by its handles, reads and
/// subscriptions. They end with the last of these.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) connections: Arc<Connections>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) horizon: Horizon,
    pub(crate) pages: PageReader,
    pub(crate) sql: Arc<Sql>,
    /// The first half of the key of every advisory lock of this store.
    pub(crate) lock_key: i32,
}

impl Database {
    /// The database of a store whose schema is there.
    pub(crate) async fn new(
        connections: Arc<Connections>,
        options: &PostgresOptions,
    ) -> Result<Self> {
        let sql = Arc::new(Sql::new(&options.schema));
        let row = connections.row(|| query(&sql.store)).await;
        let lock_key = row.and_then(|row| row.try_get(0)).map_err(driver)?;
        Ok(Self {
            notifier: Notifier::new(connections.clone(), &options.schema, options.poll_interval),
            horizon: Horizon::new(connections.clone(), sql.clone(), lock_key),
            pages: PageReader::new(connections.clone()),
            connections,
            sql,
            lock_key,
        })
    }

    /// The greatest position that can be seen.
    pub(crate) async fn last_position(&self) -> Result<Position> {
        let row = self.connections.row(|| query(&self.sql.last_position)).await;
        row.and_then(|row| row.try_get(0)).map(Position::from_i64).map_err(driver)
    }
}
