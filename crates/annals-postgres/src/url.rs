//! Reads the URL of a store.

use annals_core::{Error, ErrorKind, Result, adapter::url::Parameter};
use annals_postgres_shared::url::{names_of_libpq, read};
use sqlx::postgres::PgConnectOptions;

use crate::config::PostgresConfig;

const OF_STORE: &str = "`schema`, `writers`, `poll_interval`, `request_timeout`, `migrate`, \
    `connections`, `acquire_timeout`, `listen_url`";

impl PostgresConfig {
    /// Reads a URL: `postgres://user:password@host:port/database`, with any of the parameters
    ///
    /// * of the store: `schema`, `writers`, `migrate` (`true` or `false`), `connections`;
    ///   `poll_interval`, `request_timeout`, `acquire_timeout`: `500ms`, `10s`, `2m`, or a number of
    ///   milliseconds; `listen_url`: the URL of a direct connection to the same database, past a
    ///   connection pooler, with parameters of libpq only, and encoded as a value of a URL has to
    ///   be: `%3A` for `:`, `%2F` for `/`, `%40` for `@`, `%3F` for `?`, `%25` for `%`;
    /// * of libpq: `sslmode` (`disable`, `prefer`, `require`, `verify-ca`, `verify-full`),
    ///   `sslrootcert`, `sslcert`, `sslkey`, `host` (a directory for a Unix socket), `hostaddr`,
    ///   `port`, `dbname`, `user`, `password`, `application_name`, `options`.
    ///
    /// What the URL leaves out is taken from `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`,
    /// `PGDATABASE`, `PGSSLMODE` and the like, and the password also from `~/.pgpass`, as libpq
    /// does.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], which names the part that is wrong and what it could be, and
    /// never shows the password.
    pub fn from_url(url: &str) -> Result<Self> {
        let (connect, parameters) = read(url, &["postgres", "postgresql"])?;
        let mut config = Self::new(connect);
        for parameter in &parameters {
            config.set(parameter)?;
        }
        config.check()?;
        Ok(config)
    }

    fn set(&mut self, parameter: &Parameter) -> Result<()> {
        let options = &mut self.options;
        match parameter.name() {
            "schema" => parameter.value().clone_into(&mut options.schema),
            "writers" => options.writers = parameter.parsed("a number from 1 to 64")?,
            "poll_interval" => options.poll_interval = parameter.milliseconds()?,
            "request_timeout" => options.request_timeout = parameter.milliseconds()?,
            "migrate" => options.migrate = parameter.flag()?,
            "connections" => self.connections = parameter.parsed("a number from 3 to 1,000")?,
            "acquire_timeout" => self.acquire_timeout = parameter.milliseconds()?,
            "listen_url" => self.listen = Some(listen_options(parameter.value())?),
            _ => {
                let known = format!("{OF_STORE}, and, as in libpq, {}", names_of_libpq());
                return Err(parameter.unknown(known));
            }
        }
        Ok(())
    }
}

/// The connection options of a `listen_url`.
fn listen_options(url: &str) -> Result<PgConnectOptions> {
    let refused = |message: String| Error::new(ErrorKind::InvalidInput, message);
    let parsed = PostgresConfig::from_url(url).map_err(|error| {
        refused(format!("`listen_url` has a mistake: {error}")).with_source(error)
    })?;
    let plain = PostgresConfig::new(PgConnectOptions::new_without_pgpass());
    if parsed.options != plain.options || parsed.listen.is_some() {
        return Err(refused("`listen_url` takes parameters of libpq only".to_owned()));
    }
    Ok(parsed.connect)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_can_be_set() {
        let config = PostgresConfig::from_url(
            "postgresql://me:p%40ss@db.example:6543/shop?schema=orders&writers=2&connections=5\
             &poll_interval=50&request_timeout=60ms&migrate=false&acquire_timeout=70&sslmode=verify-full&host=other\
             &listen_url=postgres%3A%2F%2Fme%3Ap%2540ss%40direct.example%2Fshop",
        )
        .unwrap();
        let mut options = crate::PostgresOptions::default()
            .with_schema("orders")
            .with_writers(2)
            .with_poll_interval(Duration::from_millis(50))
            .with_request_timeout(Duration::from_millis(60));
        options.migrate = false;
        assert_eq!(config.options, options);
        assert_eq!((config.connections, config.acquire_timeout.as_millis()), (5, 70));
        assert_eq!(config.connect.get_host(), "other");
        assert_eq!(config.connect.get_port(), 6543);
        assert_eq!(config.listen.as_ref().map(|listen| listen.get_host()), Some("direct.example"));
        assert_eq!(config.connect.get_database(), Some("shop"));
        assert!(!format!("{config:?}").contains("ss@"), "{config:?}");
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        for (url, says) in [
            ("postgres://h/d?pasword=hunter2", "no parameter `pasword`"),
            ("postgres://h/d?schema=a&schema=b", "twice"),
            ("postgres://h/d?schema=Annals", "`schema` is \"Annals\""),
            ("postgres://h/d?schema=pg_annals", "`pg_`"),
            ("postgres://h/d?schema=a%22b", "lower-case letter"),
            ("postgres://h/d?writers=0", "from 1 to 64"),
            ("postgres://h/d?writers=many", "from 1 to 64"),
            ("postgres://h/d?connections=2", "from 3"),
            ("postgres://h/d?poll_interval=0", "1 millisecond"),
            ("postgres://h/d?migrate=perhaps", "`true` or `false`"),
            ("postgres://h/d?sslmode=perhaps", "`sslmode`"),
            ("postgres://h/d?listen_url=mysql%3A%2F%2Fme%3Ahunter2%40h%2Fd", "`listen_url` has"),
            ("postgres://h/d?listen_url=postgres%3A%2F%2Fh%2Fd%3Fwriters%3D2", "of libpq only"),
            ("postgres://me:hunter2@h:port/d", "cannot be read: invalid port number"),
            ("postgres://me:hunter2@h:1,i:2/d", "several hosts"),
            ("postgres://me:hunter2?hunter2@h/d", "its last `@`"),
            ("postgres://me:2/hunter2@h/d", "its last `@`"),
            ("postgres://me:2#hunter2@h/d", "its last `@`"),
            ("postgres:me:hunter2@h/d", "its last `@`"),
            ("mysql://me:hunter2@h/d", "does not begin with"),
        ] {
            let error = PostgresConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error}{error:?}").contains("hunter2"), "{url}: {error:?}");
        }
    }
}
