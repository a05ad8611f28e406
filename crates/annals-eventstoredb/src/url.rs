//! `esdb:` and `kurrentdb:` URLs.

use std::fmt::Write;

use annals_core::{
    Error, ErrorKind, Result,
    adapter::url::{Parameter, Parameters, check_authority, decode},
};
use kurrentdb::{ClientSettings, Credentials};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{EventStoreDbConfig, EventStoreDbOptions};

const SCHEMES: [&str; 4] = ["esdb", "esdb+discover", "kurrentdb", "kurrentdb+discover"];

/// The parameters of the official client, which would log and skip any other. Its `defaultDeadline` is
/// not among them, since the store has a deadline of its own.
const CLIENT_PARAMETERS: [&str; 12] = [
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

/// Those of them that are times, in milliseconds.
const TIMES: [&str; 4] =
    ["discoveryInterval", "gossipTimeout", "keepAliveInterval", "keepAliveTimeout"];

const STORE_PARAMETERS: &str = "`namespace`, `retry_for`, `deadline`, `poll_interval`";

impl EventStoreDbConfig {
    /// Reads a URL: `esdb://user:password@host:2113`, with several hosts
    /// (`esdb://a:2113,b:2113,c:2113`), or with the name of a cluster
    /// (`esdb+discover://cluster:2113`). `kurrentdb` may stand for `esdb`. Special characters in
    /// user and password are percent-encoded, such as `%40` for `@`. These parameters may follow:
    ///
    /// * for the store: `namespace`, and `retry_for`, `deadline`, `poll_interval`: `500ms`, `10s`,
    ///   `2m`, or a number of milliseconds;
    /// * as for the official client: `tls`, `tlsVerifyCert`, `tlsCAFile`, `userCertFile`, `userKeyFile`,
    ///   `nodePreference` (`leader`, `follower`, `random`, `readOnlyReplica`),
    ///   `maxDiscoverAttempts`, `discoveryInterval`, `gossipTimeout`, `keepAliveInterval`,
    ///   `keepAliveTimeout`, `connectionName`.
    ///
    /// `discoveryInterval` is 20 ms unless the URL sets it. With a `nodePreference` other than `leader`,
    /// reads and subscriptions of events may lag behind appends.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], with the part of the URL that is wrong and what it may be. The
    /// error never shows the password.
    pub fn from_url(url: &str) -> Result<Self> {
        // The `url` crate cannot parse a list of hosts.
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        if !SCHEMES.contains(&scheme) {
            return invalid(
                "the URL does not begin with `esdb://`, `kurrentdb://`, `esdb+discover://` or \
                 `kurrentdb+discover://`",
            );
        }
        // A `/` in a password is no harm, since there is no path.
        check_authority(url, &['?', '#'])?;
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
        let mut for_client = Vec::new();
        for parameter in Parameters::parse(query)? {
            if CLIENT_PARAMETERS.iter().any(|known| known.eq_ignore_ascii_case(parameter.name())) {
                check_connection_name(&parameter)?;
                for_client.push(parameter);
            } else {
                set(&mut options, &parameter)?;
            }
        }
        options.check()?;
        let settings = settings(scheme, hosts, &for_client)?;
        Ok(Self { settings, credentials, options })
    }
}

fn settings(scheme: &str, hosts: &str, parameters: &[Parameter]) -> Result<ClientSettings> {
    let mut url = format!("{scheme}://{hosts}?");
    for parameter in parameters {
        let has_unit = parameter.value().ends_with(|c: char| c.is_ascii_alphabetic());
        match parameter.milliseconds() {
            // The client takes no units.
            Ok(time)
                if has_unit && TIMES.iter().any(|it| it.eq_ignore_ascii_case(parameter.name())) =>
            {
                push(&mut url, parameter.name(), &time.as_millis().to_string());
            }
            _ => push(&mut url, parameter.name(), parameter.value()),
        }
    }
    const DISCOVERY_INTERVAL: &str = "discoveryInterval";
    if !parameters.iter().any(|set| set.name().eq_ignore_ascii_case(DISCOVERY_INTERVAL)) {
        push(&mut url, DISCOVERY_INTERVAL, "20");
    }
    // The client's error quotes the text that it could not read, which may be a password in the
    // wrong place. So leave the error out, and find the parameter by trying each alone.
    url.parse::<ClientSettings>().or_else(|_| {
        let cannot_be_read = |parameter: &&Parameter| {
            let mut alone = "esdb://host?".to_owned();
            push(&mut alone, parameter.name(), parameter.value());
            alone.parse::<ClientSettings>().is_err()
        };
        invalid(match parameters.iter().find(cannot_be_read) {
            Some(parameter) => format!(
                "the value of `{}` cannot be read: most take `true` or `false`, or milliseconds",
                parameter.name()
            ),
            None => "the hosts cannot be read; use `host:2113`, or several with commas".to_owned(),
        })
    })
}

fn push(url: &mut String, name: &str, value: &str) {
    let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
    // Writing to a `String` does not fail.
    let _ = write!(url, "{name}={value}&");
}

/// The name is sent as a header.
fn check_connection_name(parameter: &Parameter) -> Result<()> {
    let sendable = |c: char| c == ' ' || c.is_ascii_graphic();
    let is_name = parameter.name().eq_ignore_ascii_case("connectionName");
    if is_name && !parameter.value().chars().all(sendable) {
        return Err(parameter.invalid("ASCII characters"));
    }
    Ok(())
}

/// Decodes user and password here, since the client would send `%40` as these three characters.
fn credentials(user: &str) -> Result<Credentials> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    Ok(Credentials::new(decode("the user", name)?, decode("the password", password)?))
}

fn set(options: &mut EventStoreDbOptions, parameter: &Parameter) -> Result<()> {
    match parameter.name() {
        "namespace" => options.namespace = Some(parameter.value().to_owned()),
        "retry_for" => options.retry_for = parameter.milliseconds()?,
        "deadline" => options.deadline = parameter.milliseconds()?,
        "poll_interval" => options.poll_interval = parameter.milliseconds()?,
        _ => {
            let for_client = CLIENT_PARAMETERS.map(|name| format!("`{name}`")).join(", ");
            let known = format!("{STORE_PARAMETERS}, and, for the client, {for_client}");
            return Err(parameter.unknown(known));
        }
    }
    Ok(())
}

fn invalid<T>(message: impl Into<std::borrow::Cow<'static, str>>) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_can_be_set() {
        let config = EventStoreDbConfig::from_url(
            "kurrentdb+discover://me:p%40ss%3A@cluster.example:2114/?tls=false&namespace=shop\
             &retry_for=1&deadline=2ms&poll_interval=3&nodePreference=follower\
             &gossipTimeout=3s",
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
        let config = EventStoreDbConfig::from_url("esdb://me:x@a:1111,b:2222,c?tls=false").unwrap();
        let hosts: Vec<_> =
            config.settings.hosts().iter().map(|e| (e.host.as_str(), e.port)).collect();
        assert_eq!(hosts, [("a", 1111), ("b", 2222), ("c", 2113)]);
        assert_eq!(
            EventStoreDbConfig::from_url("esdb://[::1]:99").unwrap().settings.hosts()[0].port,
            99
        );
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
            ("esdb://me:hunter2?hunter2@h", "its last `@`"),
            ("esdb://me:hunter2#hunter2@h", "its last `@`"),
            ("esdb://me:2?tls=hunter2@h", "its last `@`"),
            ("esdb://me:hunter2@h/path", "no host"),
            (
                "esdb://me:hunter2%@h",
                "the password holds a `%` without two hexadecimal digits; write `%25`",
            ),
            ("esdb://me:hunter2@h:port", "cannot be read"),
            ("esdb://me:hunter2@a:port,b", "cannot be read"),
            ("mysql://me:hunter2@h", "does not begin with"),
            ("hunter2", "does not begin with"),
        ] {
            let error = EventStoreDbConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error}{error:?}").contains("hunter2"), "{url}: {error:?}");
        }
    }
}
