//! `postgres:` URLs.

use std::{str::FromStr, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use url::Url;

use crate::config::PostgresConfig;

/// What is left to sqlx, which reads these as libpq does. It would log and skip any other.
const OF_LIBPQ: [&str; 13] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];

const OF_STORE: &str = "`schema`, `writers`, `poll_interval`, `request_timeout`, `migrate`, \
    `connections`, `acquire_timeout`";

pub(crate) fn parse(text: &str) -> Result<PostgresConfig> {
    let mut url = Url::parse(text).map_err(|error| {
        // `url` quotes nothing of what it reads.
        let message = "the URL cannot be read; it begins as `postgres://user:password@host/database`, \
                       and special characters of the password are written as `%40` and the like";
        Error::new(ErrorKind::InvalidInput, message).with_source(error)
    })?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return invalid("the URL does not begin with `postgres:`".to_owned());
    }
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    url.set_query(None);
    let mut config = PostgresConfig::new(PgConnectOptions::new_without_pgpass());
    let mut seen = Vec::new();
    for (name, value) in &pairs {
        if seen.contains(&name) {
            return invalid(format!("the parameter `{name}` is given twice"));
        }
        seen.push(name);
        if OF_LIBPQ.contains(&name.as_str()) {
            url.query_pairs_mut().append_pair(name, value);
        } else {
            set(&mut config, name, value)?;
        }
    }
    config.connect = PgConnectOptions::from_url(&url)
        .map_err(|error| {
            let parameters = OF_LIBPQ.map(|name| format!("`{name}`")).join(", ");
            let message = format!("one of the parameters {parameters} has an impossible value");
            Error::new(ErrorKind::InvalidInput, message).with_source(error)
        })?
        // At the level of debugging sqlx would log every statement.
        .disable_statement_logging();
    config.check()?;
    Ok(config)
}

fn set(config: &mut PostgresConfig, name: &str, value: &str) -> Result<()> {
    let options = &mut config.options;
    match name {
        "schema" => value.clone_into(&mut options.schema),
        "writers" => options.writers = number(name, value, "a number from 1 to 64")?,
        "poll_interval" => options.poll_interval = milliseconds(name, value)?,
        "request_timeout" => options.request_timeout = milliseconds(name, value)?,
        "migrate" => options.migrate = number(name, value, "`true` or `false`")?,
        "connections" => config.connections = number(name, value, "a number from 3 to 1,000")?,
        "acquire_timeout" => config.acquire_timeout = milliseconds(name, value)?,
        _ => {
            let of_libpq = OF_LIBPQ.map(|name| format!("`{name}`")).join(", ");
            return invalid(format!(
                "there is no parameter `{name}`; there are {OF_STORE}, and, as in libpq, {of_libpq}"
            ));
        }
    }
    Ok(())
}

fn milliseconds(name: &str, value: &str) -> Result<Duration> {
    number(name, value, "a number of milliseconds").map(Duration::from_millis)
}

fn number<T: FromStr>(name: &str, value: &str, what: &str) -> Result<T> {
    value.parse().or_else(|_| invalid(format!("`{name}` is {value:?}; use {what}")))
}

fn invalid<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_set() {
        let config = parse(
            "postgresql://me:p%40ss@db.example:6543/shop?schema=orders&writers=2&connections=5\
             &poll_interval=50&request_timeout=60&migrate=false&acquire_timeout=70&sslmode=verify-full&host=other",
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
            ("postgres://h/d?schema=a%22b", "small letter"),
            ("postgres://h/d?writers=0", "from 1 to 64"),
            ("postgres://h/d?writers=many", "from 1 to 64"),
            ("postgres://h/d?connections=2", "from 3"),
            ("postgres://h/d?poll_interval=0", "1 millisecond"),
            ("postgres://h/d?migrate=perhaps", "`true` or `false`"),
            ("postgres://h/d?sslmode=perhaps", "`sslmode`"),
            ("postgres://me:hunter2@h:port/d", "cannot be read"),
            ("mysql://me:hunter2@h/d", "does not begin with"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error}{error:?}").contains("hunter2"), "{url}: {error:?}");
        }
    }
}
