//! What every operation on a store needs.

use std::sync::Arc;

use annals_core::{Error, ErrorKind, Position, Result};
use sqlx::Row;

use crate::{
    config::PostgresOptions,
    connections::{Connected, Connections},
    error::driver,
    horizon::Horizon,
    identity::{FollowServer, Identity},
    notify::{Listening, Notifier, Signals},
    page::PageReader,
    recent::Recent,
    records::Records,
    sql::{Sql, query, quoted},
};

/// Whether a stream was not deleted since it had a version, as `StreamHead::was_deleted_since` says.
const SNAPSHOT_IS_KEPT: &str = "NOT EXISTS (SELECT FROM {schema}.streams AS s \
    WHERE s.name = $1 AND (s.state = 2 OR s.deleted_at > 0 AND {version} <= s.deleted_at))";

/// The connections, statements and tasks of one store, shared by its handles, reads and
/// subscriptions. They end with the last of these.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) connections: Arc<Connections>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) horizon: Horizon,
    pub(crate) pages: PageReader,
    pub(crate) recent: Recent,
    pub(crate) records: Records,
    pub(crate) sql: Arc<Sql>,
    /// The first half of the key of every advisory lock of this store.
    pub(crate) lock_key: i32,
}

impl Connected for Database {
    fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }
}

impl Database {
    /// The database of a store whose schema is there.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] if the schema was renamed, or if the sequence of positions would
    /// give a position twice.
    pub(crate) async fn new(
        connections: Arc<Connections>,
        listening: Listening,
        options: &PostgresOptions,
    ) -> Result<Self> {
        let sql = Arc::new(Sql::new(&options.schema));
        let row = connections.row(|| query(&sql.store)).await;
        let row = row.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let (lock_key, made_as): (i32, String) = row.map_err(driver)?;
        check_name(&made_as, &options.schema)?;
        connections.row(|| query(&sql.follow_server)).await.map_err(driver)?;
        connections.expect(Identity::new(&options.schema, lock_key).that_follows_servers(
            FollowServer {
                alone: sql.follow_server.clone(),
                in_transaction: sql.follow_server_in_transaction.clone(),
            },
        ));
        check_positions(&connections, &sql, &options.schema).await?;
        Ok(Self {
            notifier: Notifier::new(
                connections.clone(),
                listening,
                Signals::of(&options.schema),
                options.poll_interval,
            ),
            horizon: Horizon::new(
                connections.clone(),
                sql.horizon.clone(),
                sql.is_within_append.clone(),
                lock_key,
            ),
            pages: PageReader::new(connections.clone()),
            recent: Recent::new(connections.clone(), sql.clone()),
            records: Records::new(connections.clone(), &options.schema, SNAPSHOT_IS_KEPT),
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

    /// The position of the next event from a position on, forwards or backwards.
    pub(crate) async fn nearest(&self, position: Position, forwards: bool) -> Result<Position> {
        let (text, none) = match forwards {
            true => (&self.sql.next_position, Position::new(u64::MAX)),
            false => (&self.sql.previous_position, Position::START),
        };
        let row = self.connections.row(|| query(text).bind(position.to_i64())).await;
        let found = row.and_then(|row| row.try_get::<Option<i64>, _>(0)).map_err(driver)?;
        Ok(found.map_or(none, Position::from_i64))
    }

    /// The greatest position that was ever given. Beyond the greatest that can be seen, only a role
    /// that may read the sequence knows it.
    pub(crate) async fn greatest_position(&self) -> Result<Position> {
        let (visible, given) = positions(&self.connections, &self.sql).await?;
        Ok(Position::from_i64(given.unwrap_or(visible).max(visible)))
    }
}

/// Refuses a schema that was renamed: its functions write to the schema of the old name.
fn check_name(made_as: &str, schema: &str) -> Result<()> {
    if made_as == schema {
        return Ok(());
    }
    let message = format!(
        "the schema {schema:?} was created as {made_as:?} and renamed; the store's functions contain \
         its name, so give it back: `ALTER SCHEMA {} RENAME TO {}`",
        quoted(schema),
        quoted(made_as)
    );
    Err(Error::new(ErrorKind::Incompatible, message))
}

/// The greatest position of an event, and the last one that the sequence has given, unless the role
/// may not know it.
async fn positions(connections: &Arc<Connections>, sql: &Sql) -> Result<(i64, Option<i64>)> {
    let row = connections.row(|| query(&sql.positions)).await;
    row.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?))).map_err(driver)
}

/// Refuses a store whose sequence is behind its events, as after a restore of the data alone, or
/// after a switch to a logical replica: positions would be given again, and readers that are beyond
/// them would skip their events.
async fn check_positions(connections: &Arc<Connections>, sql: &Sql, schema: &str) -> Result<()> {
    let (greatest, last_given) = positions(connections, sql).await?;
    if last_given.is_none_or(|last_given| last_given >= greatest) {
        return Ok(());
    }
    let message = format!(
        "the sequence `positions` of the schema {schema:?} is behind the table `events`, which has \
         an event at position {greatest}, so that positions would be given twice; run `SELECT \
         setval('{}.positions', {greatest})`, or with a greater number if a checkpoint or a removed \
         event has one",
        quoted(schema)
    );
    Err(Error::new(ErrorKind::Incompatible, message))
}
