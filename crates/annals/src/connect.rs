//! From a URL to a store.

use std::sync::Arc;

use annals_core::{Error, ErrorKind, Result, Store};
#[cfg(feature = "dynamodb")]
use annals_dynamodb::{DynamoDbConfig, DynamoDbStore};
#[cfg(feature = "eventstoredb")]
use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbStore};
#[cfg(feature = "marten")]
use annals_marten::{MartenConfig, MartenStore};
#[cfg(feature = "memory")]
use annals_memory::MemoryStore;
#[cfg(feature = "postgres")]
use annals_postgres::{PostgresConfig, PostgresStore};
#[cfg(feature = "sqlite")]
use annals_sqlite::{Location, SqliteConfig, SqliteStore};

use crate::{Backend, OpenMode, Opener, StoreUrl};

/// Opens the store that a URL names, and creates what is missing: [`connect_with`] and
/// [`OpenMode::Create`].
///
/// | URL | backend |
/// |---|---|
/// | `memory:` | a store in memory, a new one with every call |
/// | `sqlite://shop.db`, `sqlite:///var/lib/shop.db` | an SQLite file; options: [`SqliteConfig::from_url`](crate::sqlite::SqliteConfig::from_url) |
/// | `postgres://user:password@host/database?schema=shop` | a schema in PostgreSQL; options: [`PostgresConfig::from_url`](crate::postgres::PostgresConfig::from_url) |
/// | `marten://user:password@host/database?schema=events` | the event tables of a .NET program with Marten; options: [`MartenConfig::from_url`](crate::marten::MartenConfig::from_url) |
/// | `dynamodb://shop?region=eu-west-1` | a table in DynamoDB; options: [`DynamoDbConfig::from_url`](crate::dynamodb::DynamoDbConfig::from_url) |
/// | `esdb://user:password@host:2113?namespace=shop`, `kurrentdb://`, each also with `+discover` | EventStoreDB or KurrentDB; options: [`EventStoreDbConfig::from_url`](crate::eventstoredb::EventStoreDbConfig::from_url) |
/// | any scheme that was [registered](crate::register) | a backend of another crate |
///
/// # Errors
/// Those of [`connect_with`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let error = annals::connect("shop.db").await.unwrap_err();
/// assert!(error.to_string().contains("did you mean sqlite://shop.db?"));
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Arc<dyn Store>> {
    connect_with(url, OpenMode::Create).await
}

/// Opens the store that a URL names. The mode says whether a store that is missing is created.
///
/// EventStoreDB has nothing to create: there both modes do the same.
///
/// # Errors
/// * [`ErrorKind::InvalidInput`] for a scheme that annals does not know, and for a URL that the
///   backend cannot read.
/// * [`ErrorKind::Unsupported`] for a backend that annals knows and this build lacks. The message
///   names the feature to enable.
/// * With [`OpenMode::Existing`], [`ErrorKind::InvalidInput`] or [`ErrorKind::Incompatible`] if
///   there is no store at the URL, which is always so in memory.
/// * Whatever keeps the backend from opening the store.
///
/// No error shows a password of the URL.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use annals::{OpenMode, connect_with};
///
/// let error = connect_with("sqlite://no-such-file.db", OpenMode::Existing).await.unwrap_err();
/// assert!(error.to_string().contains("does not exist"));
/// # }
/// # #[cfg(not(feature = "sqlite"))] fn main() {}
/// ```
pub async fn connect_with(url: &str, mode: OpenMode) -> Result<Arc<dyn Store>> {
    match StoreUrl::parse(url) {
        Ok(url) => open(&url, mode).await.map_err(|e| e.with_backend(url.backend().name())),
        Err(error) => Err(error),
    }
    .map_err(|e| e.with_operation("connect"))
}

impl StoreUrl {
    /// Reads the whole URL as [`connect`] does, and opens nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for what the backend cannot read in the URL;
    /// [`ErrorKind::Unsupported`] if this build lacks the backend.
    pub fn check(&self) -> Result<()> {
        match Config::read(self) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.with_backend(self.backend().name())),
        }
    }
}

async fn open(url: &StoreUrl, mode: OpenMode) -> Result<Arc<dyn Store>> {
    Config::read(url)?.open(mode).await
}

/// What a URL says, by the backend's own rules.
enum Config {
    Registered(&'static dyn Opener, String),
    #[cfg(feature = "memory")]
    Memory,
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteConfig),
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresConfig>),
    #[cfg(feature = "marten")]
    Marten(Box<MartenConfig>),
    #[cfg(feature = "dynamodb")]
    DynamoDb(Box<DynamoDbConfig>),
    #[cfg(feature = "eventstoredb")]
    EventStoreDb(Box<EventStoreDbConfig>),
}

impl Config {
    fn read(url: &StoreUrl) -> Result<Self> {
        match url.backend() {
            Backend::Registered(registered) => {
                let (opener, url) = (registered.opener(), url.as_str());
                opener.check(url).map(|()| Self::Registered(opener, url.to_owned()))
            }
            #[cfg(feature = "memory")]
            Backend::Memory => match url.as_str() {
                "memory:" | "memory://" => Ok(Self::Memory),
                _ => Err(crate::scheme::invalid(
                    "a store in memory takes no options; its URL is `memory:`",
                )),
            },
            #[cfg(feature = "sqlite")]
            Backend::Sqlite => SqliteConfig::from_url(url.as_str()).map(Self::Sqlite),
            #[cfg(feature = "postgres")]
            Backend::Postgres => {
                PostgresConfig::from_url(url.as_str()).map(|config| Self::Postgres(config.into()))
            }
            #[cfg(feature = "marten")]
            Backend::Marten => {
                MartenConfig::from_url(url.as_str()).map(|config| Self::Marten(config.into()))
            }
            #[cfg(feature = "dynamodb")]
            Backend::DynamoDb => {
                DynamoDbConfig::from_url(url.as_str()).map(|config| Self::DynamoDb(config.into()))
            }
            #[cfg(feature = "eventstoredb")]
            Backend::EventStoreDb => EventStoreDbConfig::from_url(url.as_str())
                .map(|config| Self::EventStoreDb(config.into())),
            #[allow(unreachable_patterns, reason = "a build may have all backends")]
            backend => {
                let feature = backend.name();
                let message = format!(
                    "the backend `{backend}` is known, but this build lacks the feature \
                     `{feature}`; enable it for the crate `annals` in Cargo.toml"
                );
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        }
    }

    async fn open(self, mode: OpenMode) -> Result<Arc<dyn Store>> {
        match self {
            Self::Registered(opener, url) => opener.open(&url, mode).await,
            #[cfg(feature = "memory")]
            Self::Memory => match mode {
                OpenMode::Create => Ok(Arc::new(MemoryStore::new())),
                OpenMode::Existing => Err(crate::scheme::invalid(NONE_IN_MEMORY)),
            },
            #[cfg(feature = "sqlite")]
            Self::Sqlite(mut config) => {
                if mode == OpenMode::Existing {
                    check_file(&config).await?;
                    config.create = false;
                }
                Ok(Arc::new(SqliteStore::open(config).await?))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(mut config) => {
                config.options.migrate &= mode == OpenMode::Create;
                Ok(Arc::new(PostgresStore::open(*config).await?))
            }
            #[cfg(feature = "marten")]
            Self::Marten(mut config) => {
                config.options.migrate &= mode == OpenMode::Create;
                Ok(Arc::new(MartenStore::open(*config).await?))
            }
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(mut config) => {
                if mode == OpenMode::Existing {
                    check_table(&config).await?;
                    config.options.create = false;
                }
                Ok(Arc::new(DynamoDbStore::open(*config).await?))
            }
            #[cfg(feature = "eventstoredb")]
            Self::EventStoreDb(config) => Ok(Arc::new(EventStoreDbStore::open(*config).await?)),
        }
    }
}

#[cfg(any(feature = "memory", feature = "sqlite"))]
const NONE_IN_MEMORY: &str =
    "a store in memory is a new one with every call, so that there is no existing one to open";

/// Refuses a file that exists without the tables of this version: `create=false` forbids only to
/// create the file.
#[cfg(feature = "sqlite")]
async fn check_file(config: &SqliteConfig) -> Result<()> {
    let Location::File(path) = &config.location else {
        return Err(crate::scheme::invalid(NONE_IN_MEMORY));
    };
    let found = SqliteStore::inspect(config.clone()).await?;
    if !found.exists || found.schema_version >= SqliteStore::SCHEMA_VERSION {
        return Ok(()); // `open` refuses a missing file and a newer schema.
    }
    let prefix = &config.prefix;
    let message = match found.schema_version {
        0 => format!("the file {path:?} has no tables `{prefix}_…`, and they are not created here"),
        version => format!(
            "the tables `{prefix}_…` in {path:?} have version {version}, older than this build, and \
             they are not migrated here"
        ),
    };
    Err(Error::new(ErrorKind::Incompatible, message))
}

/// Refuses a table that is not a store yet: `create=false` forbids only to create the table.
#[cfg(feature = "dynamodb")]
async fn check_table(config: &DynamoDbConfig) -> Result<()> {
    let found = DynamoDbStore::inspect(config.clone()).await?;
    match (found.table, found.layout) {
        (Some(_), None) => {
            let table = &config.table;
            let message = format!("the table {table:?} is no store yet, and is not made one here");
            Err(Error::new(ErrorKind::Incompatible, message))
        }
        // `open` refuses a missing table and a newer layout.
        _ => Ok(()),
    }
}
