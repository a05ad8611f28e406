//! `sqlite:` URLs.

use annals_core::{
    Error, ErrorKind, Result,
    adapter::url::{Parameter, Parameters, decode, has_credentials},
};

use crate::config::{SqliteConfig, Synchronous};

const PARAMETERS: &str = "`prefix`, `synchronous`, `busy_timeout`, `readers` and `create`";

impl SqliteConfig {
    /// Parses a URL: `sqlite://relative.db`, `sqlite:///absolute.db`, `sqlite:relative.db` or
    /// `sqlite::memory:`. Percent-encoded bytes such as `%20` are decoded.
    ///
    /// | parameter | value |
    /// |---|---|
    /// | `prefix` | [`prefix`](Self::prefix) |
    /// | `synchronous` | [`synchronous`](Self::synchronous): `full` or `normal` |
    /// | `busy_timeout` | [`busy_timeout`](Self::busy_timeout): `10s`, or a number of milliseconds |
    /// | `readers` | [`readers`](Self::readers) |
    /// | `create` | [`create`](Self::create): `true` or `false` |
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]; the message names the wrong part, and what it can be.
    pub fn from_url(url: &str) -> Result<Self> {
        let Some(rest) = url.strip_prefix("sqlite:") else {
            return Err(invalid("the URL does not begin with `sqlite:`"));
        };
        if has_credentials(rest) {
            // The message does not repeat the URL: its password is meant for another database.
            let message = "SQLite has no host, user or password; if this is a path, write `%3A` \
                           for `:`, `%3F` for `?` and `%40` for `@`";
            return Err(invalid(message));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        let mut config =
            if path == ":memory:" { Self::in_memory() } else { Self::new(decode_path(path)?) };
        for parameter in Parameters::parse(query)? {
            set(&mut config, &parameter)?;
        }
        config.check()?;
        Ok(config)
    }
}

fn decode_path(path: &str) -> Result<String> {
    let path = decode("the path", path)?;
    if path.is_empty() || path.contains('\0') {
        let message = "the URL has no path; use `sqlite://events.db`, `sqlite:///dir/events.db` or \
                       `sqlite::memory:`";
        return Err(invalid(message));
    }
    Ok(path)
}

fn set(config: &mut SqliteConfig, parameter: &Parameter) -> Result<()> {
    match parameter.name() {
        "prefix" => parameter.value().clone_into(&mut config.prefix),
        "synchronous" => {
            config.synchronous =
                parameter.one_of([("full", Synchronous::Full), ("normal", Synchronous::Normal)])?;
        }
        "busy_timeout" => config.busy_timeout = parameter.milliseconds()?,
        "readers" => config.readers = parameter.parsed("a number from 1 to 64")?,
        "create" => config.create = parameter.flag()?,
        _ => return Err(parameter.unknown(PARAMETERS)),
    }
    Ok(())
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::config::Location;

    #[test]
    fn paths() {
        for (url, path) in [
            ("sqlite://relative.db", "relative.db"),
            ("sqlite:relative.db", "relative.db"),
            ("sqlite:///dir/absolute.db", "/dir/absolute.db"),
            ("sqlite:/dir/absolute.db", "/dir/absolute.db"),
            ("sqlite://a%20b%3fc%C3%BC.db?create=false", "a b?cü.db"),
        ] {
            assert_eq!(
                SqliteConfig::from_url(url).unwrap().location,
                Location::File(Path::new(path).into()),
                "{url}"
            );
        }
        assert_eq!(SqliteConfig::from_url("sqlite::memory:").unwrap(), SqliteConfig::in_memory());
    }

    #[test]
    fn parameters() {
        let url =
            "sqlite:e.db?prefix=shop&synchronous=normal&busy_timeout=250&readers=2&create=false";
        let config = SqliteConfig::new("e.db")
            .with_prefix("shop")
            .with_synchronous(Synchronous::Normal)
            .with_busy_timeout(Duration::from_millis(250))
            .with_readers(2)
            .with_create(false);
        assert_eq!(SqliteConfig::from_url(url).unwrap(), config);
    }

    #[test]
    fn faults_are_named() {
        for (url, named) in [
            ("postgres://x", "sqlite:"),
            ("sqlite://", "no path"),
            ("sqlite://root:hunter2@host/e.db", "no host, user or password"),
            ("sqlite://root:hunter2/hunter2@host/e.db", "no host, user or password"),
            ("sqlite://root:hun?hunter2@host/e.db", "no host, user or password"),
            ("sqlite:hunter2?hunter2@host", "no host, user or password"),
            ("sqlite:e.db?cache=shared", "`cache`; there are `prefix`, `synchronous`"),
            ("sqlite:e.db?readers=0", "1 to 64"),
            ("sqlite:e.db?readers=x", "`readers` is \"x\""),
            ("sqlite:e.db?busy_timeout=-1", "milliseconds"),
            ("sqlite:e.db?synchronous=off", "`full` or `normal`"),
            ("sqlite:e.db?create=1", "`true` or `false`"),
            ("sqlite:e.db?prefix=a;b", "`prefix` is \"a;b\""),
            ("sqlite:e.db?prefix=1a", "`prefix`"),
            ("sqlite:e.db?prefix=SQLite_x", "`sqlite_`"),
            ("sqlite:e.db?prefix=sqlite_x", "`sqlite_`"),
            ("sqlite:e.db?prefix=Shop", "small letters"),
            ("sqlite:e.db?prefix=sHOP", "small letters"),
            ("sqlite:e.db?prefix=a&prefix=b", "twice"),
            ("sqlite:%zz.db", "%25"),
            ("sqlite:%ff.db", "UTF-8"),
        ] {
            let error = SqliteConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(error.to_string().contains(named), "{url}: {error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{url}: {error:?}");
        }
    }
}
