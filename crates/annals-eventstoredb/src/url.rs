//! `esdb:` and `kurrentdb:` URLs.

use std::{borrow::Cow, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use kurrentdb::{ClientSettings, Credentials};
use url::form_urlencoded;

use crate::config::{EventStoreDbConfig, EventStoreDbOptions};

const SCHEMES: [&str; 4] = ["esdb", "esdb+discover", "kurrentdb", "kurrentdb+discover"];

/// What is left to the client. It would log and skip any other. Not `defaultDeadline`: the store
/// has a deadline of its own.
const OF_CLIENT: [&str; 12] = [
    "tls",
    "tlsVerifyCert",
    "tlsCAFile",
    "userCertFile",
    "userKeyFile",
    "nodePreference",
    "maxDiscoverAttempts",
    "discoveryInterval",
    "gossipTimeout",
    "keepAliveInterval",
    "keepAliveTimeout",
    "connectionName",
];

const OF_STORE: &str = "`namespace`, `retry_for`, `deadline`, `poll_interval`";

/// By hand as far as the hosts: several of them are not a URL.
pub(crate) fn parse(text: &str) -> Result<EventStoreDbConfig> {
    let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
    if !SCHEMES.contains(&scheme) {
        return invalid(
            "the URL does not begin with `esdb://` or `kurrentdb://`, nor with `+discover` in it",
        );
    }
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = authority.trim_end_matches('/');
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    if hosts.is_empty() || hosts.contains('/') {
        return invalid("the URL names no host; it begins as `esdb://user:password@host:2113`");
    }
    let credentials = user.map(credentials).transpose()?;
    let mut options = EventStoreDbOptions::default();
    let mut of_client = form_urlencoded::Serializer::new(String::new());
    let mut seen = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let lower = name.to_lowercase();
        if seen.contains(&lower) {
            return invalid(format!("the parameter `{name}` is given twice"));
        }
        if OF_CLIENT.iter().any(|known| known.to_lowercase() == lower) {
            check_header(&lower, &value)?;
            of_client.append_pair(&name, &value);
        } else {
            set(&mut options, &name, &value)?;
        }
        seen.push(lower);
    }
    options.check()?;
    if !seen.iter().any(|name| name == "discoveryinterval") {
        // The client waits as long before its first try, too, and half a second unless told.
        of_client.append_pair("discoveryInterval", "20");
    }
    let url = format!("{scheme}://{hosts}?{}", of_client.finish());
    // The client's error quotes what it could not read, which may be a secret in the wrong place.
    let settings = url.parse::<ClientSettings>().map_err(|_| {
        let wrong = |(name, value): &(Cow<'_, str>, Cow<'_, str>)| {
            let alone =
                form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
            let known = OF_CLIENT.iter().any(|known| known.eq_ignore_ascii_case(name));
            known && format!("esdb://host?{alone}").parse::<ClientSettings>().is_err()
        };
        let message = match form_urlencoded::parse(query.as_bytes()).find(wrong) {
            Some((name, _)) => format!(
                "the value of `{name}` cannot be read: most take `true` or `false`, or milliseconds"
            ),
            None => "the hosts cannot be read: `host:2113`, or several with commas".to_owned(),
        };
        Error::new(ErrorKind::InvalidInput, message)
    })?;
    Ok(EventStoreDbConfig { settings, credentials, options })
}

/// The client panics over a name that cannot be sent.
fn check_header(name: &str, value: &str) -> Result<()> {
    let sendable = |c: char| c == ' ' || c.is_ascii_graphic();
    if name == "connectionname" && !value.chars().all(sendable) {
        return invalid(format!("`connectionName` is {value:?}; use ASCII characters"));
    }
    Ok(())
}

/// The client would send `%40` as it stands here.
fn credentials(user: &str) -> Result<Credentials> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let decoded = |text| {
        decode(text).map_or_else(
            || invalid("special characters of user and password are written as `%40` and the like"),
            Ok,
        )
    };
    Ok(Credentials::new(decoded(name)?, decoded(password)?))
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn set(options: &mut EventStoreDbOptions, name: &str, value: &str) -> Result<()> {
    match name {
        "namespace" => options.namespace = Some(value.to_owned()),
        "retry_for" => options.retry_for = milliseconds(name, value)?,
        "deadline" => options.deadline = milliseconds(name, value)?,
        "poll_interval" => options.poll_interval = milliseconds(name, value)?,
        _ => {
            let of_client = OF_CLIENT.map(|name| format!("`{name}`")).join(", ");
            return invalid(format!(
                "there is no parameter `{name}`; there are {OF_STORE}, and, of the client, \
                 {of_client}"
            ));
        }
    }
    Ok(())
}

fn milliseconds(name: &str, value: &str) -> Result<Duration> {
    value
        .parse()
        .map(Duration::from_millis)
        .or_else(|_| invalid(format!("`{name}` is {value:?}; use a number of milliseconds")))
}

fn invalid<T>(message: impl Into<std::borrow::Cow<'static, str>>) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_set() {
        let config = parse(
            "kurrentdb+discover://me:p%40ss%3A@cluster.example:2114/?tls=false&namespace=shop\
             &retry_for=1&deadline=2&poll_interval=3&nodePreference=follower",
        )
        .unwrap();
        let options = EventStoreDbOptions::default()
            .with_namespace("shop")
            .with_retry_for(Duration::from_millis(1))
            .with_deadline(Duration::from_millis(2))
            .with_poll_interval(Duration::from_millis(3));
        assert_eq!(config.options, options);
        assert_eq!(config.credentials, Some(Credentials::new("me", "p@ss:")));
        assert!(config.settings.is_dns_discovery_enabled());
        assert!(!config.settings.is_secure_mode_enabled());
        assert_eq!(*config.settings.default_authenticated_user(), None);
        assert!(!format!("{config:?}").contains("p@ss"), "{config:?}");
    }

    #[test]
    fn several_hosts_can_be_given() {
        let config = parse("esdb://me:x@a:1111,b:2222,c?tls=false").unwrap();
        let hosts: Vec<_> =
            config.settings.hosts().iter().map(|e| (e.host.as_str(), e.port)).collect();
        assert_eq!(hosts, [("a", 1111), ("b", 2222), ("c", 2113)]);
        assert_eq!(parse("esdb://[::1]:99").unwrap().settings.hosts()[0].port, 99);
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        for (url, says) in [
            ("esdb://h?tsl=hunter2", "no parameter `tsl`"),
            ("esdb://h?tls=true&TLS=false", "twice"),
            ("esdb://h?namespace=", "`namespace` is \"\""),
            ("esdb://h?namespace=%24x", "no `$`"),
            ("esdb://h?deadline=0", "1 millisecond"),
            ("esdb://h?deadline=soon", "milliseconds"),
            ("esdb://h?connectionName=%0A", "ASCII"),
            ("esdb://h?defaultDeadline=1", "no parameter `defaultDeadline`"),
            ("esdb://h?tls=hunter2", "`tls` cannot be read"),
            ("esdb://me:hunter2@", "no host"),
            ("esdb://me:hunter2@h/path", "no host"),
            ("esdb://me:hunter2%@h", "`%40`"),
            ("esdb://me:hunter2@h:port", "cannot be read"),
            ("esdb://me:hunter2@a:port,b", "cannot be read"),
            ("mysql://me:hunter2@h", "does not begin with"),
            ("hunter2", "does not begin with"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error}{error:?}").contains("hunter2"), "{url}: {error:?}");
        }
    }
}
