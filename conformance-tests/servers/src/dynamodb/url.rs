//! The URLs of stores.

use std::net::{IpAddr, SocketAddr};

use url::{Host, Url, form_urlencoded};

use super::source;
use crate::BoxError;

/// The URL of a store, taken apart so that the table and the endpoint can be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreUrl {
    /// The start of the names of all tables; may be empty.
    prefix: String,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    /// The parameters as they were given, except the endpoint.
    parameters: Vec<String>,
}

/// The region of servers that are started here. They accept any region.
pub(super) const REGION: &str = "us-east-1";

impl StoreUrl {
    /// The URL of a server that was started here.
    pub(super) fn ours(addr: SocketAddr) -> Self {
        Self {
            prefix: String::new(),
            region: Some(REGION.to_owned()),
            endpoint: Some(format!("http://{addr}")),
            parameters: vec![format!("region={REGION}")],
        }
    }

    pub(super) fn parse(url: &str) -> Result<Self, BoxError> {
        let wanted = "dynamodb://prefix?region=eu-west-1&endpoint=http://host:port";
        let refused = || format!("{} must have the form {wanted}", source::URL);
        let parsed = Url::parse(url).map_err(|_| refused())?;
        let prefix = parsed.host_str().unwrap_or_default().to_owned();
        if parsed.scheme() != "dynamodb" || prefix.is_empty() {
            return Err(refused().into());
        }
        let mut found = Self { prefix, region: None, endpoint: None, parameters: Vec::new() };
        for pair in parsed.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let decoded = form_urlencoded::parse(pair.as_bytes()).next();
            match decoded.as_ref().map(|(name, value)| (name.as_ref(), value.as_ref())) {
                Some(("endpoint", value)) => found.endpoint = Some(value.to_owned()),
                Some(("region", value)) => {
                    found.region = Some(value.to_owned());
                    found.parameters.push(pair.to_owned());
                }
                _ => found.parameters.push(pair.to_owned()),
            }
        }
        Ok(found)
    }

    pub(super) fn table(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}_{name}", self.prefix) }
    }

    /// The URL of a table with an endpoint; without one, that of the real service.
    pub(super) fn of(&self, table: &str, endpoint: Option<&str>) -> String {
        let mut parameters = self.parameters.clone();
        parameters.extend(endpoint.map(|endpoint| format!("endpoint={endpoint}")));
        let mark = if parameters.is_empty() { "" } else { "?" };
        format!("dynamodb://{}{mark}{}", self.table(table), parameters.join("&"))
    }

    /// The host and port of the endpoint, if it is plain HTTP.
    pub(super) fn authority(&self) -> Option<String> {
        let url = self.plain()?;
        Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
    }

    /// Whether the endpoint is plain HTTP on this machine, and so is not the real service.
    pub(super) fn is_loopback(&self) -> bool {
        match self.plain().as_ref().and_then(Url::host) {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
            None => false,
        }
    }

    fn plain(&self) -> Option<Url> {
        let url = Url::parse(self.endpoint.as_deref()?).ok()?;
        (url.scheme() == "http").then_some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::StoreUrl;

    #[test]
    fn a_table_and_an_endpoint_are_put_in() {
        for (url, moved, authority, loopback) in [
            (
                "dynamodb://Pre-fix?region=eu-west-1&endpoint=http://localhost:8000",
                "dynamodb://Pre-fix_t?region=eu-west-1&endpoint=http://x:2",
                Some("localhost:8000"),
                true,
            ),
            (
                "dynamodb://p?endpoint=http%3A%2F%2F[::1]&log=off",
                "dynamodb://p_t?log=off&endpoint=http://x:2",
                Some("[::1]:80"),
                true,
            ),
            (
                "dynamodb://p?endpoint=https://dynamodb.eu-west-1.amazonaws.com",
                "dynamodb://p_t?endpoint=http://x:2",
                None,
                false,
            ),
            ("dynamodb://p", "dynamodb://p_t?endpoint=http://x:2", None, false),
        ] {
            let parsed = StoreUrl::parse(url).unwrap();
            assert_eq!(parsed.of("t", Some("http://x:2")), moved);
            assert_eq!(parsed.authority().as_deref(), authority);
            assert_eq!(parsed.is_loopback(), loopback);
        }
        assert_eq!(StoreUrl::parse("dynamodb://p").unwrap().of("t", None), "dynamodb://p_t");
        for url in ["", "p", "http://p", "dynamodb://", "dynamodb://?region=a"] {
            assert!(StoreUrl::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn ours_has_no_prefix() {
        let url = StoreUrl::ours(([127, 0, 0, 1], 1).into());
        let expected = "dynamodb://t?region=us-east-1&endpoint=http://127.0.0.1:1";
        assert_eq!(url.of("t", url.endpoint.as_deref()), expected);
    }
}
