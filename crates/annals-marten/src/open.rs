//! Opens a store: connects, looks at Marten's tables, makes annals' own schema beside them.

use std::sync::Arc;

use annals_core::{Capabilities, Error, ErrorKind, Result};
use annals_postgres_shared::{
    connections::Connections,
    dial::{Dial, Dialled},
    imitation,
    migrate::{self, Migrations},
    session,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::{
    MartenStore, capabilities,
    config::{AppendMode, Create, MartenConfig, MartenOptions},
    database::Database,
    digest::digest,
    error::{context, driver},
    shape::{self, Appends, Ids, Shape},
    sql::{Own, quoted},
    words,
};

/// The scripts of annals' own schema.
const SCRIPTS: &[&str] = &[include_str!("../schema/0001.sql"), include_str!("../schema/0002.sql")];
/// The views and functions, which depend on Marten's tables.
const SHAPE: &str = include_str!("../schema/shape.sql");
/// How often to look for the lock of another session, if a connection pooler has no two sessions at the
/// moment.
const LOOKS: usize = 10;

impl MartenStore {
    /// The version of annals' own schema that this build reads and writes.
    pub const SCHEMA_VERSION: i32 = SCRIPTS.len() as i32;

    /// Opens a store on the tables of Marten. Makes annals' own schema beside them if it is missing.
    ///
    /// # Errors
    /// * [`ErrorKind::InvalidInput`] for options that cannot work, if Marten's tables are not there, and
    ///   if the database has several tenants and none is given.
    /// * [`ErrorKind::Incompatible`] for tables beside which a store cannot keep its promises: with a
    ///   partition for each tenant, a sequence that caches numbers, or row security that applies to the
    ///   role; and for a server that is a standby or only looks like PostgreSQL.
    /// * [`ErrorKind::Denied`] for wrong credentials, and if the role may not create what is missing.
    /// * [`ErrorKind::Unavailable`] if the server cannot be reached.
    pub async fn open(config: MartenConfig) -> Result<Self> {
        let opening = async {
            config.check()?;
            let MartenConfig { connect, mut options, connections, listen, acquire_timeout } =
                config;
            options.resolve()?;
            let (request_timeout, poll_interval) = (options.request_timeout, options.poll_interval);
            let dial = Dial {
                connect,
                connections,
                listen,
                acquire_timeout,
                request_timeout,
                poll_interval,
            };
            open_on(dial.dial().await?, options).await
        };
        opening.await.map_err(context("open"))
    }

    /// What a store with default options can do, beside a program that appends in mode `Quick` and does
    /// not partition archived streams.
    #[must_use]
    pub fn declared() -> &'static Capabilities {
        &capabilities::DECLARED
    }

    /// The options with which the store was opened.
    #[must_use]
    pub fn options(&self) -> &MartenOptions {
        &self.options
    }
}

async fn open_on(dialled: Dialled, options: MartenOptions) -> Result<MartenStore> {
    let Dialled { pool, pooling, probes, most_idle, listening } = dialled;
    let [mut connection, mut other] = probes;
    let server = session::check_server(&mut connection, &pooling).await?;
    imitation::check_name(&server.version)?;
    let shape = find(&mut connection, &options).await?;
    check_options(&options, &shape)?;
    let is_rich = is_rich(&options, &shape)?;
    if options.gap_wait.is_some() && !is_rich {
        let message = "`gap_wait` is for `mode=rich`: in the other modes a reader sees who may still \
                       fill a gap";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let id = if shape.ids == Ids::Guid { "uuid" } else { "varchar" };
    let migrations = Migrations { scripts: SCRIPTS, words: &[("{id}", id)] };
    let (own, key) = if options.read_only {
        find_own(&mut connection, &options, migrations).await?
    } else {
        let schema = options.own_schema();
        migrate::run(&mut connection, schema, migrations, options.migrate).await?;
        let key = adapt(&mut connection, &options, &shape).await?;
        imitation::check(&mut connection, &mut other, schema).await?;
        check_locks(&mut connection, &mut other, schema).await?;
        (Own::Schema, Some(key))
    };
    [connection, other].into_iter().for_each(session::close);
    let most = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
    // One connection is left for readers.
    let writers = options.writers.min(most.saturating_sub(1).max(1));
    let connections = Connections::new(pool, pooling, most_idle, options.request_timeout);
    let database = Database::new(connections, listening, &options, &shape, (own, key), writers);
    database.check_positions(&options).await?;
    let capabilities = capabilities::of(&options, &shape, is_rich, server.is_durable);
    Ok(MartenStore {
        database: Arc::new(database),
        options: Arc::new(options),
        capabilities: Arc::new(capabilities),
    })
}

/// Looks for annals' own tables, which a store that only reads uses if they are there.
async fn find_own(
    connection: &mut PgConnection,
    options: &MartenOptions,
    migrations: Migrations<'_>,
) -> Result<(Own, Option<i32>)> {
    let schema = options.own_schema();
    let text = format!(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE n.nspname = '{schema}' AND c.relname = 'migrations'"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(text)).fetch_one(&mut *connection).await;
    if row.and_then(|row| row.try_get::<i64, _>(0)).map_err(driver)? == 0 {
        return Ok((Own::Tables { are_there: false }, None));
    }
    migrate::run(connection, schema, migrations, false).await?;
    let found = Stored::read(connection, schema, "").await?;
    found.check(options)?;
    Ok((Own::Tables { are_there: true }, Some(found.lock_key)))
}

/// Looks for Marten's tables, and creates them if the options say so.
async fn find(connection: &mut PgConnection, options: &MartenOptions) -> Result<Shape> {
    let schema = &options.schema;
    if let Some(shape) = shape::look(connection, schema).await? {
        return Ok(shape);
    }
    let Some(create) = options.create.filter(|_| options.migrate) else {
        let message = format!(
            "the schema {schema:?} has no tables of Marten (mt_streams, mt_events, \
             mt_events_sequence); check `schema`, or make them by `create=guid` or `create=string`"
        );
        return Err(Error::new(ErrorKind::InvalidInput, message));
    };
    let ids = if create == Create::Guid { Ids::Guid } else { Ids::String };
    let mut transaction = connection.begin().await.map_err(driver)?;
    lock(&mut transaction, schema).await.map_err(driver)?;
    if shape::look(&mut transaction, schema).await?.is_none() {
        if !migrate::exists(&mut transaction, schema).await? {
            let create = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
            sqlx::raw_sql(AssertSqlSafe(create))
                .execute(&mut *transaction)
                .await
                .map_err(driver)?;
        }
        shape::create(&mut transaction, schema, ids).await?;
    }
    transaction.commit().await.map_err(driver)?;
    let message = "Marten's tables were created, and then removed by somebody else; try again";
    let shape = shape::look(connection, schema).await?;
    shape.ok_or_else(|| Error::new(ErrorKind::Busy, message))
}

/// One process changes a schema at a time. The others wait, and then find the change made.
async fn lock(connection: &mut PgConnection, schema: &str) -> sqlx::Result<()> {
    let text = format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL search_path = pg_catalog, pg_temp; \
         SELECT pg_advisory_xact_lock(hashtextextended('annals marten {schema}', 0))"
    );
    sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop)
}

fn check_options(options: &MartenOptions, shape: &Shape) -> Result<()> {
    let refused = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
    let schema = &options.schema;
    match (shape.conjoined, &options.tenant) {
        (true, None) => {
            return refused(format!(
                "the tables of the schema {schema:?} have several tenants; name one by `tenant`"
            ));
        }
        (false, Some(tenant)) => {
            return refused(format!(
                "the tables of the schema {schema:?} have no tenants, and so not {tenant:?}"
            ));
        }
        _ => {}
    }
    let wanted = options.create.map(|create| match create {
        Create::Guid => Ids::Guid,
        Create::String => Ids::String,
    });
    if wanted.is_some_and(|wanted| wanted != shape.ids) {
        return refused(format!(
            "the tables of the schema {schema:?} are there already, and their ids are of the other \
             type than `create` says"
        ));
    }
    Ok(())
}

/// Whether the .NET program takes numbers before its transaction begins.
fn is_rich(options: &MartenOptions, shape: &Shape) -> Result<bool> {
    match (options.mode, shape.appends) {
        (AppendMode::Rich, _) => Ok(true),
        (AppendMode::Quick, _) | (AppendMode::Auto, Appends::Quick) => Ok(false),
        // No .NET program has used these tables yet.
        (AppendMode::Auto, Appends::Unknown) if options.create.is_some() => Ok(false),
        (AppendMode::Auto, Appends::Unknown | Appends::QuickOrRich) => {
            let message = format!(
                "the schema {:?} does not show whether the .NET program appends in the mode Quick or \
                 Rich (`Events.AppendMode`); say `mode=quick` or `mode=rich`",
                options.schema
            );
            Err(Error::new(ErrorKind::InvalidInput, message))
        }
    }
}

/// Makes the views and functions anew if Marten's tables are no longer as they were. Gives the key of
/// the store.
async fn adapt(
    connection: &mut PgConnection,
    options: &MartenOptions,
    shape: &Shape,
) -> Result<i32> {
    let own = options.own_schema();
    let found = Stored::read(connection, own, "").await?;
    found.check(options)?;
    let text = words::fill(SHAPE, shape, options, found.lock_key);
    let digest = digest(&text);
    if found.shape.as_deref() == Some(digest.as_str()) {
        return Ok(found.lock_key);
    }
    if !options.migrate {
        let message = format!(
            "the functions of the schema {own:?} are not those for Marten's tables as they are now; \
             open it once with `migrate` on, by a role that owns them"
        );
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    let mut transaction = connection.begin().await.map_err(driver)?;
    lock(&mut transaction, own).await.map_err(driver)?;
    let found = Stored::read(&mut transaction, own, "FOR UPDATE").await?;
    found.check(options)?;
    if found.shape.as_deref() != Some(digest.as_str()) {
        let claim = format!(
            "UPDATE {}.store SET marten = '{}', tenant = {}, shape = '{digest}'",
            quoted(own),
            options.schema,
            words::literal(options.tenant())
        );
        for text in [text, claim] {
            let sent = sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *transaction).await;
            sent.map_err(driver)?;
        }
    }
    transaction.commit().await.map_err(driver)?;
    Ok(found.lock_key)
}

/// The row about the store.
struct Stored {
    lock_key: i32,
    made_as: String,
    marten: Option<String>,
    tenant: Option<String>,
    shape: Option<String>,
}

impl Stored {
    async fn read(connection: &mut PgConnection, own: &str, lock: &str) -> Result<Self> {
        let text = format!(
            "SELECT lock_key, schema, marten, tenant, shape FROM {}.store {lock}",
            quoted(own)
        );
        let row = sqlx::raw_sql(AssertSqlSafe(text)).fetch_one(connection).await;
        let stored = row.and_then(|row| {
            Ok(Self {
                lock_key: row.try_get(0)?,
                made_as: row.try_get(1)?,
                marten: row.try_get(2)?,
                tenant: row.try_get(3)?,
                shape: row.try_get(4)?,
            })
        });
        stored.map_err(driver)
    }

    /// Refuses a schema that belongs to other tables.
    fn check(&self, options: &MartenOptions) -> Result<()> {
        let own = options.own_schema();
        let incompatible = |message| Err(Error::new(ErrorKind::Incompatible, message));
        if self.made_as != own {
            return incompatible(format!(
                "the schema {own:?} was created as {:?} and renamed; give it its name back",
                self.made_as
            ));
        }
        let (Some(marten), Some(tenant)) = (&self.marten, &self.tenant) else { return Ok(()) };
        if (marten.as_str(), tenant.as_str()) != (options.schema.as_str(), options.tenant()) {
            return incompatible(format!(
                "the schema {own:?} belongs to the tenant {tenant:?} of the schema {marten:?}; name \
                 another one by `own_schema`"
            ));
        }
        Ok(())
    }
}

/// Refuses a server that does not show in `pg_locks` who has taken a number of a sequence: readers could
/// not tell whether a missing number will still come.
async fn check_locks(
    connection: &mut PgConnection,
    other: &mut PgConnection,
    own: &str,
) -> Result<()> {
    let trial = format!("'{}.trial'::pg_catalog.regclass", quoted(own));
    let take = format!("BEGIN; SELECT pg_catalog.nextval({trial})");
    let look = format!(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND granted \
         AND mode = 'RowExclusiveLock' AND relation = {trial} AND database = (SELECT oid \
             FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
    );
    for _ in 0..LOOKS {
        let took = sqlx::raw_sql(AssertSqlSafe(take.clone())).execute(&mut *other).await;
        took.map_err(driver)?;
        let look = async {
            let row = sqlx::raw_sql(AssertSqlSafe(look.clone())).fetch_one(&mut *connection).await;
            row.and_then(|row| row.try_get::<i64, _>(0))
        };
        match session::while_held(look, other).await.map_err(driver)? {
            (0, true) => {
                let message = "the server does not show in `pg_locks` who has taken a number of a \
                               sequence, so that readers would skip events";
                return Err(Error::new(ErrorKind::Incompatible, message));
            }
            (_, true) => return Ok(()),
            (_, false) => {}
        }
    }
    let message = "a connection pooler had no two sessions at the same time; try again";
    Err(Error::new(ErrorKind::Busy, message))
}
