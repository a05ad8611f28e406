//! What the connections need of the client's settings, in the form in which they need it.

use std::{fmt, sync::Arc, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use base64::Engine;
use kurrentdb::{ClientSettings, Credentials, NodePreference};
use rustls::ClientConfig;
use tonic::{
    codegen::http::{Uri, uri::InvalidUri},
    metadata::AsciiMetadataValue,
};

use crate::tls;

/// A node's host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    pub(crate) fn new(host: &str, port: u16) -> Self {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Self { host: host.to_owned(), port }
    }

    pub(crate) fn uri(&self, scheme: &str) -> Result<Uri, InvalidUri> {
        format!("{scheme}://{self}").parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How to reach a server or a cluster.
pub(crate) struct Settings {
    /// The hosts of the URL. One host without discovery is a server by itself.
    pub(crate) seeds: Vec<Address>,
    /// True if the one seed is a name that stands for all nodes of a cluster.
    pub(crate) discovers: bool,
    pub(crate) preference: NodePreference,
    pub(crate) max_discover_attempts: usize,
    pub(crate) discovery_interval: Duration,
    pub(crate) gossip_timeout: Duration,
    /// How long a connection may be silent before it is probed, and how long the answer may take.
    pub(crate) keep_alive: Option<(Duration, Duration)>,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) authorization: Option<AsciiMetadataValue>,
    pub(crate) connection_name: Option<AsciiMetadataValue>,
}

/// The parts of the settings that have no getters.
#[derive(serde::Deserialize)]
struct Hidden {
    keep_alive_interval: u64,
    keep_alive_timeout: u64,
    connection_name: Option<String>,
}

impl Settings {
    pub(crate) fn new(given: &ClientSettings, credentials: Option<&Credentials>) -> Result<Self> {
        let mut seeds = Vec::new();
        for host in given.hosts() {
            let invalid = || {
                let message =
                    format!("{:?} with port {} is not a valid host", host.host, host.port);
                Error::new(ErrorKind::InvalidInput, message)
            };
            let port = u16::try_from(host.port).map_err(|_| invalid())?;
            let address = Address::new(&host.host, port);
            address.uri("http").map_err(|e| invalid().with_source(e))?;
            seeds.push(address);
        }
        if seeds.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "the settings name no host"));
        }
        let hidden = serde_json::to_value(given).and_then(serde_json::from_value::<Hidden>);
        let hidden = hidden.map_err(|e| {
            Error::new(ErrorKind::Internal, "the client's settings cannot be read").with_source(e)
        })?;
        // The client stands for "never" by the greatest number.
        let milliseconds = |time: u64| Some(Duration::from_millis(time)).filter(|_| time < NEVER);
        let keep_alive = milliseconds(hidden.keep_alive_interval).map(|interval| {
            let longest = Duration::from_millis(NEVER);
            (interval, milliseconds(hidden.keep_alive_timeout).unwrap_or(longest))
        });
        let name = hidden.connection_name.map(AsciiMetadataValue::try_from).transpose();
        let name = name.map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "`connectionName` takes ASCII characters")
                .with_source(e)
        })?;
        Ok(Self {
            seeds,
            discovers: given.is_dns_discovery_enabled(),
            preference: given.node_preference(),
            max_discover_attempts: given.max_discover_attempts().max(1),
            discovery_interval: given.discovery_interval(),
            gossip_timeout: given.gossip_timeout(),
            keep_alive,
            tls: given.is_secure_mode_enabled().then(|| tls::config(given)).transpose()?,
            authorization: credentials.and_then(authorization),
            connection_name: name,
        })
    }

    /// True if there may be several nodes, of which one is the leader.
    pub(crate) fn is_cluster(&self) -> bool {
        self.discovers || self.seeds.len() > 1
    }

    /// True if events are read from the leader, too. Nothing that is read then is out of date.
    pub(crate) fn reads_from_leader(&self) -> bool {
        !self.is_cluster() || matches!(self.preference, NodePreference::Leader)
    }
}

/// A time, in milliseconds, from which on it stands for "never".
const NEVER: u64 = i64::MAX.unsigned_abs();

/// The header with the credentials. The client's type has no getters, so this serialises it.
fn authorization(credentials: &Credentials) -> Option<AsciiMetadataValue> {
    let parts = serde_json::to_value(credentials).ok()?;
    let bytes =
        |name: &str| -> Option<Vec<u8>> { serde_json::from_value(parts.get(name)?.clone()).ok() };
    let pair = [bytes("login")?, bytes("password")?].join(&b':');
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    let mut value = AsciiMetadataValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_sent_and_not_shown() {
        let value = authorization(&Credentials::new("admin", "changeit")).unwrap();
        assert_eq!(value.to_str().unwrap(), "Basic YWRtaW46Y2hhbmdlaXQ=");
        assert!(!format!("{value:?}").contains("YWRt"), "{value:?}");
    }

    #[test]
    fn the_settings_of_a_url_are_kept() {
        let of = |url: &str| Settings::new(&url.parse().unwrap(), None).unwrap();
        let one = of("esdb://[::1]:1111?tls=false&keepAliveInterval=20000&keepAliveTimeout=-1");
        assert_eq!(one.seeds, [Address::new("::1", 1111)]);
        assert_eq!(one.seeds[0].to_string(), "[::1]:1111");
        assert_eq!(one.keep_alive.unwrap().0, Duration::from_secs(20));
        assert!(one.tls.is_none() && !one.is_cluster() && one.reads_from_leader());
        let several = of("esdb://a:1,b:2?tls=false&nodePreference=follower&connectionName=me\
                          &keepAliveInterval=-1");
        assert!(several.is_cluster() && !several.reads_from_leader());
        assert!(several.keep_alive.is_none());
        assert_eq!(several.connection_name.unwrap(), "me");
        assert!(of("esdb+discover://cluster:1?tls=false").is_cluster());
    }
}
