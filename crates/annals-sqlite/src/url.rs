//! `sqlite:` URLs.

use std::time::Duration;

use annals_core::{Error, ErrorKind, Result};

use crate::config::{SqliteConfig, Synchronous};

const PARAMETERS: &str = "`prefix`, `synchronous`, `busy_timeout`, `readers` and `create`";

pub(crate) fn parse(url: &str) -> Result<SqliteConfig> {
    let Some(rest) = url.strip_prefix("sqlite:") else {
        return invalid("the URL does not begin with `sqlite:`".to_owned());
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if has_password(path) {
        // Not repeated, since it holds a secret that was meant for some other database.
        let message =
            "SQLite has no host, user or password; a path that looks so needs `%3A` for `:`";
        return invalid(message.to_owned());
    }
    let path = path.strip_prefix("//").unwrap_or(path);
    let mut config = if path == ":memory:" {
        SqliteConfig::in_memory()
    } else {
        let path = decode("the path", path)?;
        if path.is_empty() || path.contains('\0') {
            let message = "the URL has no path; use `sqlite://events.db`, `sqlite:///dir/events.db` \
                           or `sqlite::memory:`";
            return invalid(message.to_owned());
        }
        SqliteConfig::new(path)
    };
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.contains(&name) {
            return invalid(format!("the parameter `{name}` is given twice"));
        }
        seen.push(name);
        set(&mut config, name, &decode(name, value)?)?;
    }
    config.check()?;
    Ok(config)
}

/// Whether it begins as `//user:password@host`.
fn has_password(path: &str) -> bool {
    let authority = path.strip_prefix("//").and_then(|path| path.split('/').next());
    let user_info = authority.and_then(|authority| authority.rsplit_once('@'));
    user_info.is_some_and(|(user_info, _)| user_info.contains(':'))
}

fn set(config: &mut SqliteConfig, name: &str, value: &str) -> Result<()> {
    let expected = |what: &str| invalid(format!("`{name}` is {value:?}; use {what}"));
    match name {
        "prefix" => value.clone_into(&mut config.prefix),
        "synchronous" => match value {
            "full" => config.synchronous = Synchronous::Full,
            "normal" => config.synchronous = Synchronous::Normal,
            _ => return expected("`full` or `normal`"),
        },
        "busy_timeout" => match value.parse() {
            Ok(milliseconds) => config.busy_timeout = Duration::from_millis(milliseconds),
            Err(_) => return expected("a number of milliseconds"),
        },
        "readers" => match value.parse() {
            Ok(readers) => config.readers = readers,
            Err(_) => return expected("a number from 1 to 64"),
        },
        "create" => match value {
            "true" => config.create = true,
            "false" => config.create = false,
            _ => return expected("`true` or `false`"),
        },
        _ => return invalid(format!("there is no parameter `{name}`; there are {PARAMETERS}")),
    }
    Ok(())
}

/// Replaces each `%` and the two hexadecimal digits after it by the byte they stand for.
fn decode(what: &str, text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.extend(u8::try_from(high * 16 + low)),
            _ => {
                return invalid(format!(
                    "{what} holds a `%` without two hexadecimal digits; write `%25`"
                ));
            }
        }
    }
    String::from_utf8(bytes).or_else(|_| invalid(format!("{what} is not UTF-8 once decoded")))
}

fn invalid<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
                parse(url).unwrap().location,
                Location::File(Path::new(path).into()),
                "{url}"
            );
        }
        assert_eq!(parse("sqlite::memory:").unwrap(), SqliteConfig::in_memory());
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
        assert_eq!(parse(url).unwrap(), config);
    }

    #[test]
    fn faults_are_named() {
        for (url, named) in [
            ("postgres://x", "sqlite:"),
            ("sqlite://", "no path"),
            ("sqlite://root:hunter2@host/e.db", "no host, user or password"),
            ("sqlite:e.db?cache=shared", "`cache`; there are `prefix`, `synchronous`"),
            ("sqlite:e.db?readers=0", "1 to 64"),
            ("sqlite:e.db?readers=x", "`readers` is \"x\""),
            ("sqlite:e.db?busy_timeout=-1", "milliseconds"),
            ("sqlite:e.db?synchronous=off", "`full` or `normal`"),
            ("sqlite:e.db?create=1", "`true` or `false`"),
            ("sqlite:e.db?prefix=a;b", "`prefix` is \"a;b\""),
            ("sqlite:e.db?prefix=1a", "`prefix`"),
            ("sqlite:e.db?prefix=SQLite_x", "`sqlite_`"),
            ("sqlite:e.db?prefix=a&prefix=b", "twice"),
            ("sqlite:%zz.db", "%25"),
            ("sqlite:%ff.db", "UTF-8"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(error.to_string().contains(named), "{url}: {error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{url}: {error:?}");
        }
    }
}
