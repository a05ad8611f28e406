//! Runs the tests, and holds what they share.

use std::{
    future::Future,
    pin::Pin,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use annals_core::{EventStoreExt, NewEvent, RecordedEvent, StreamId};
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, query},
};
use annals_test_servers::{
    BoxError,
    postgres::{self, PgBouncer, Postgres, Source},
    until,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;

pub(crate) type Tested = Result<(), BoxError>;

/// How long a test waits for something that should happen soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One test.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) run: fn() -> Pin<Box<dyn Future<Output = Tested> + Send>>,
}

/// What kind of server a test needs.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Needs {
    /// Any server: each test has a schema of its own.
    Any,
    /// A server that the test may configure and restart.
    Ours,
    /// A server whose programs are on this machine.
    Local,
    /// A server whose programs are on this machine, and PgBouncer.
    Pooler,
    /// A server whose programs are on this machine, and those of a newer version: see [`NEWER`].
    Newer,
}

/// The environment variable that names the directory of the programs of a newer PostgreSQL, to which
/// a test upgrades.
pub(crate) const NEWER: &str = "ANNALS_POSTGRES_NEWER_BIN";

/// Lists the tests of a file, each with what it needs.
macro_rules! tests {
    ($theme:literal: $($needs:ident $name:ident;)+) => {
        pub(crate) const TESTS: &[$crate::common::Test] = &[$($crate::common::Test {
            name: concat!($theme, "::", stringify!($name)),
            needs: $crate::common::Needs::$needs,
            run: || Box::pin($name()),
        }),+];
    };
}
pub(crate) use tests;

pub(crate) fn run<const N: usize>(themes: [&[Test]; N]) -> ExitCode {
    let source = Source::find();
    let runtime = Arc::new(Runtime::new().unwrap());
    let tests = themes.into_iter().flatten();
    let trials = tests.map(|test| trial(*test, &source, &runtime)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(test: Test, source: &Result<Source, String>, runtime: &Arc<Runtime>) -> Trial {
    let ignored = match source {
        Err(reason) => Some(reason.clone()),
        Ok(source) => {
            let suits = match test.needs {
                Needs::Any => true,
                Needs::Ours => source.is_ours(),
                _ => matches!(source, Source::Local(_)),
            };
            match test.needs {
                _ if !suits => Some(format!("not possible with {source}")),
                Needs::Pooler if PgBouncer::program().is_none() => {
                    Some("there is no PgBouncer on this machine".to_owned())
                }
                Needs::Newer if std::env::var_os(NEWER).is_none() => {
                    Some(format!("{NEWER} names no newer PostgreSQL"))
                }
                _ => None,
            }
        }
    };
    let is_missing = source.is_err();
    let runtime = runtime.clone();
    Trial::ignorable_test(test.name, move || match ignored {
        Some(reason) if is_missing && is_required() => Err(Failed::from(reason)),
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => {
            let limit = PATIENCE * 4;
            let done = runtime
                .block_on(async { tokio::time::timeout(limit, tokio::spawn((test.run)())).await });
            done.map_err(|_| format!("the test has not ended after {limit:?}"))???;
            Ok(Completion::Completed)
        }
    })
}

fn is_required() -> bool {
    let required = std::env::var("ANNALS_REQUIRE").unwrap_or_default();
    required.split(',').any(|name| name.trim() == "postgres")
}

/// The seed of a test's random numbers, printed so that the test can be repeated with it.
pub(crate) fn seed(test: &str) -> u64 {
    let given = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{test}: replay with ANNALS_SEED={seed}");
    seed
}

/// A test's own schema on a server.
pub(crate) struct Place {
    pub(crate) server: Arc<Postgres>,
    pub(crate) schema: String,
    /// The database, if it is not that of the server's URL.
    database: Option<String>,
}

impl Place {
    /// A schema on the server that all tests share.
    pub(crate) async fn shared() -> Result<Self, BoxError> {
        Ok(Self::on(postgres::shared().await?))
    }

    pub(crate) fn on(server: Arc<Postgres>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { server, schema: format!("t{}_{count}", std::process::id()), database: None }
    }

    /// A schema in a database of its own, made with these options, on the server that all tests
    /// share.
    pub(crate) async fn in_database(options: &str) -> Result<Self, BoxError> {
        let place = Self::shared().await?;
        let database = format!("{}_database", place.schema);
        place.execute(&format!("CREATE DATABASE {database} {options}")).await?;
        Ok(Self { database: Some(database), ..place })
    }

    pub(crate) fn config(&self) -> PostgresConfig {
        self.config_at(&self.server.url())
    }

    /// The configuration with another URL, such as that of a proxy.
    pub(crate) fn config_at(&self, url: &str) -> PostgresConfig {
        let mut config = PostgresConfig::from_url(url).unwrap();
        self.schema.clone_into(&mut config.options.schema);
        if let Some(database) = &self.database {
            config.connect = config.connect.database(database);
        }
        config
    }

    pub(crate) async fn open(&self) -> annals_core::Result<PostgresStore> {
        PostgresStore::open(self.config()).await
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection, BoxError> {
        Ok(self.config().connect.connect().await?)
    }

    /// Runs a statement, with the schema in place of `{schema}`.
    pub(crate) async fn execute(&self, sql: &str) -> Result<u64, BoxError> {
        let sql = sql.replace("{schema}", &self.schema);
        let mut connection = self.connect().await?;
        Ok(query(AssertSqlSafe(sql)).execute(&mut connection).await?.rows_affected())
    }

    /// Removes the schema. A test that fails leaves it, so that it can be inspected on a server
    /// that stays.
    pub(crate) async fn remove(mut self) -> Tested {
        if let Some(database) = self.database.take() {
            let drop = format!("DROP DATABASE {database} WITH (FORCE)");
            return self.execute(&drop).await.map(std::mem::drop);
        }
        self.execute("DROP SCHEMA IF EXISTS {schema} CASCADE").await.map(drop)
    }
}

pub(crate) fn id(stream: &str) -> StreamId {
    StreamId::new(stream).unwrap()
}

pub(crate) fn event(number: u64) -> NewEvent {
    NewEvent::json("Counted", &number).unwrap()
}

/// The channel of the store's notifications.
pub(crate) fn channel(place: &Place) -> String {
    format!("annals {}", place.schema)
}

/// The SQL condition for sessions that listen to the store's channel.
pub(crate) fn listening(place: &Place) -> String {
    format!("query = 'LISTEN \"{}\"' AND pid <> pg_backend_pid()", channel(place))
}

/// Waits until this many handles of a store listen.
pub(crate) async fn until_listening(place: &Place, handles: u64) -> Tested {
    let sessions =
        format!("SELECT 1 FROM pg_stat_activity WHERE state = 'idle' AND {}", listening(place));
    let listen = || async { place.execute(&sessions).await.is_ok_and(|rows| rows == handles) };
    until("the store listens", PATIENCE, listen).await
}

/// All events of a store. Checks that they are in order, and that the versions of streams have no
/// gaps.
pub(crate) async fn everything(store: &PostgresStore) -> Result<Vec<RecordedEvent>, BoxError> {
    use annals_core::{EventStore, ReadAll, TryStreamExt};
    let events: Vec<_> = store.read_all(ReadAll::default()).try_collect().await?;
    assert!(events.windows(2).all(|pair| pair[0].position < pair[1].position), "out of order");
    let mut streams = std::collections::HashMap::new();
    for event in &events {
        let version = streams.entry(event.stream.clone()).or_insert(0);
        *version += 1;
        assert_eq!(event.version.get(), *version, "a gap in {}", event.stream.as_str());
    }
    let last = store.last_position().await?;
    assert_eq!(events.last().map(|event| event.position).unwrap_or_default(), last);
    Ok(events)
}
