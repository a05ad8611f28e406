//! A schema of Marten's tables for each test, on one server.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use annals_conformance::BoxError;
use annals_core::{NewEvent, Result};
use annals_marten::{
    MartenConfig, MartenStore,
    sqlx::{self, AssertSqlSafe, ConnectOptions, Decode, PgConnection, Postgres, Type, raw_sql},
};
use annals_test_servers::postgres;

pub(crate) type Tested = Result<(), BoxError>;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A schema on the shared server. In statements, `{}` stands for its name, and `{own}` for that of the
/// schema that annals makes beside it.
pub(crate) struct Place {
    pub(crate) schema: String,
    url: String,
    connection: PgConnection,
}

impl Place {
    pub(crate) async fn new() -> Result<Self, BoxError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let schema = format!("mt_{}_{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let url = postgres::shared().await?.url().replacen("postgres", "marten", 1);
        let connection = MartenConfig::from_url(&url)?.connect.connect().await?;
        Ok(Self { schema, url, connection })
    }

    /// The URL of the schema, with more parameters.
    pub(crate) fn url(&self, parameters: &str) -> String {
        let joint = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{joint}schema={}&{parameters}", self.url, self.schema)
    }

    pub(crate) fn config(&self, parameters: &str) -> MartenConfig {
        MartenConfig::from_url(&self.url(parameters)).unwrap()
    }

    pub(crate) async fn open(&self, parameters: &str) -> Result<MartenStore> {
        MartenStore::open(MartenConfig::from_url(&self.url(parameters))?).await
    }

    /// Another connection to the database.
    pub(crate) async fn connect(&self) -> Result<PgConnection, BoxError> {
        Ok(MartenConfig::from_url(&self.url)?.connect.connect().await?)
    }

    pub(crate) fn text(&self, statement: &str) -> String {
        statement.replace("{own}", &format!("annals_{}", self.schema)).replace("{}", &self.schema)
    }

    pub(crate) async fn execute(&mut self, statement: &str) -> Result<u64, BoxError> {
        let text = self.text(statement);
        Ok(raw_sql(AssertSqlSafe(text)).execute(&mut self.connection).await?.rows_affected())
    }

    /// The only value of a statement.
    pub(crate) async fn value<T>(&mut self, statement: &str) -> Result<T, BoxError>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
    {
        let text = self.text(statement);
        Ok(sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&mut self.connection).await?)
    }

    /// Waits until a statement gives true.
    pub(crate) async fn until(&mut self, what: &str, statement: &str) -> Tested {
        let wait = async {
            while !self.value::<bool>(statement).await? {
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, wait).await.map_err(|_| format!("never: {what}"))?
    }

    /// Writes a row as a .NET program does, at a number that was taken before.
    pub(crate) fn row(&self, number: i64, stream: &str, version: i64) -> String {
        self.text(&format!(
            "INSERT INTO {{}}.mt_streams (id, type, version, timestamp, tenant_id) \
             VALUES ('{stream}', 'account', {version}, now(), '*DEFAULT*') \
             ON CONFLICT (id) DO UPDATE SET version = {version}; \
             INSERT INTO {{}}.mt_events (seq_id, id, stream_id, version, data, type, timestamp, \
                 tenant_id, mt_dotnet_type, is_archived) \
             VALUES ({number}, gen_random_uuid(), '{stream}', {version}, '{{\"Cents\": 1}}', \
                 'money_paid', now(), '*DEFAULT*', 'Shop.MoneyPaid, Shop', false)"
        ))
    }

    /// A number of the sequence, taken in a transaction of its own, as in mode `Rich`.
    pub(crate) async fn take(&mut self) -> Result<i64, BoxError> {
        self.value("SELECT nextval('{}.mt_events_sequence')").await
    }
}

pub(crate) fn event(number: u64) -> NewEvent {
    NewEvent::json("money_paid", &number).unwrap()
}

/// Waits for what a store must answer.
pub(crate) async fn within<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, answer).await.expect("it hangs")
}
