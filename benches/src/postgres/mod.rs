//! A PostgreSQL server with durable settings, and databases in it.

pub(crate) mod append;
mod bare;
pub(crate) mod latency;
pub(crate) mod marten;
pub(crate) mod peers;
mod pgbench;
pub(crate) mod pooler;
pub(crate) mod quiet;
pub(crate) mod read;
pub(crate) mod scale;

use std::{path::PathBuf, sync::Arc};

use annals_postgres::{PostgresConfig, PostgresStore};
use annals_test_servers::postgres::{Options, PgBouncer, Postgres, Source};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, postgres::PgRow};
use url::Url;

use crate::plan::Plan;

/// A server that the section starts, or the one that `ANNALS_POSTGRES_URL` names.
pub(crate) struct Server<'p> {
    plan: &'p Plan,
    postgres: Arc<Postgres>,
    /// The directory of PostgreSQL's programs, if it is known.
    programs: Option<PathBuf>,
}

impl<'p> Server<'p> {
    /// Starts a server. If that is not possible, prints why and returns `None`: other sections can
    /// run.
    pub(crate) fn start(plan: &'p Plan) -> Option<Self> {
        let source = match Source::find() {
            Ok(source) => source,
            Err(reason) => {
                eprintln!("a section is left out: {reason}");
                return None;
            }
        };
        let mut options = Options::default();
        if source.is_ours() {
            // The default of PostgreSQL. Servers for tests have less.
            options = options.with_durability().with_setting("shared_buffers", "128MB");
            options = options.with_parent(plan.place_of_all());
        }
        let programs = match &source {
            Source::Local(programs) => Some(programs.clone()),
            _ => None,
        };
        let postgres = plan.run(async move { source.start(options).await }).unwrap();
        let server = Self { plan, postgres: postgres.into(), programs };
        server.introduce();
        Some(server)
    }

    fn introduce(&self) {
        let show = |name: &str| {
            let row = one(self.plan, self.postgres.url(), format!("SHOW {name}"));
            row.get::<String, _>(0)
        };
        let names = ["fsync", "synchronous_commit", "shared_buffers", "max_wal_size"];
        let settings = names.map(|name| format!("{name} = {}", show(name)));
        println!("\nPostgreSQL {}; {}", show("server_version"), settings.join(", "));
    }

    /// The path of one of PostgreSQL's programs.
    fn program(&self, name: &str) -> PathBuf {
        let packaged = self.programs.as_ref().map(|programs| programs.join(name));
        packaged.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
    }

    /// Starts PgBouncer in front of the server, with at most this many sessions. What it pools is
    /// `transaction` or `session`. If that is not possible, prints why and returns `None`.
    fn bouncer(&self, pools: &'static str, sessions: usize) -> Option<PgBouncer> {
        let started = match self.programs {
            Some(_) => {
                let postgres = self.postgres.clone();
                let start = async move { PgBouncer::start(&postgres, pools, sessions).await };
                self.plan.run(start)
            }
            None => Err("PgBouncer needs a server of this machine".into()),
        };
        started.inspect_err(|reason| eprintln!("a section is left out: {reason}")).ok()
    }

    /// A new database for one contender in one turn. Dropping the previous database makes a
    /// checkpoint, so that no checkpoint begins during a turn.
    pub(crate) fn database(&self) -> Database<'_> {
        let name = format!("annals_bench_{:016x}", fastrand::u64(..));
        execute(self.plan, self.postgres.url(), format!("CREATE DATABASE {name}"));
        let mut url = Url::parse(&self.postgres.url()).unwrap();
        url.set_path(&name);
        Database { server: self, name, url: url.into() }
    }
}

/// A database that is dropped with this value, even if clients are still connected.
pub(crate) struct Database<'s> {
    server: &'s Server<'s>,
    name: String,
    pub(crate) url: String,
}

impl Database<'_> {
    /// Opens a store with the default options.
    pub(crate) fn open(&self) -> Arc<PostgresStore> {
        self.open_at(self.url.clone())
    }

    /// Opens the store of this database at another URL, with the default options.
    pub(crate) fn open_at(&self, url: String) -> Arc<PostgresStore> {
        Arc::new(self.server.plan.run(open(url)))
    }

    /// Runs statements in one transaction, unless one of them cannot run in a transaction.
    pub(crate) fn execute(&self, sql: impl Into<String>) {
        execute(self.server.plan, self.url.clone(), sql.into());
    }

    /// Runs a query. Returns the first row.
    pub(crate) fn one(&self, sql: &str) -> PgRow {
        one(self.server.plan, self.url.clone(), sql.to_owned())
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        let url = self.server.postgres.url();
        execute(self.server.plan, url, format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

/// Opens the store at a URL.
pub(crate) async fn open(url: String) -> PostgresStore {
    PostgresStore::open(PostgresConfig::from_url(&url).unwrap()).await.unwrap()
}

fn execute(plan: &Plan, url: String, sql: String) {
    plan.run(async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

fn one(plan: &Plan, url: String, sql: String) -> PgRow {
    plan.run(async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        row
    })
}
