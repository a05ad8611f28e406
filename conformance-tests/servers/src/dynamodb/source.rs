//! Which kind of server tests use.

use std::{env, fmt};

/// The environment variable with the URL of a store on a running server.
pub(super) const URL: &str = "ANNALS_DYNAMODB_URL";
/// The environment variable with the kind of server to start.
const SERVER: &str = "ANNALS_DYNAMODB_SERVER";

/// Which kind of server tests use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A running server: `ANNALS_DYNAMODB_URL` is the URL of a store on it. The table in the URL is
    /// a prefix for the tables of tests. A URL without an endpoint means the real service.
    Given(String),
    /// Dynoxide, on a thread of this process. It executes one request after the other, so that no
    /// transactions conflict, and it does not throttle; [`Faults`](super::Faults) makes up for
    /// both.
    InProcess,
    /// DynamoDB Local on a Docker engine, which pulls the image if necessary.
    Docker,
    /// Moto, a Python package, as a second implementation. It ignores the token that makes a
    /// transaction idempotent, and its capacity units are wrong.
    Moto,
}

impl Source {
    /// Reads the environment: `ANNALS_DYNAMODB_URL` if it is set, else `ANNALS_DYNAMODB_SERVER`,
    /// which is `dynoxide` (the default), `moto` or `docker`. Starts nothing.
    ///
    /// # Errors
    /// A sentence that says which variable is wrong.
    pub fn find() -> Result<Self, String> {
        let set = |name: &str| match env::var(name) {
            Err(env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8")),
            value => Ok(value.ok().filter(|value| !value.is_empty())),
        };
        if let Some(url) = set(URL)? {
            return Ok(Self::Given(url));
        }
        Self::named(set(SERVER)?.as_deref().unwrap_or("dynoxide"))
    }

    fn named(name: &str) -> Result<Self, String> {
        match name {
            "dynoxide" => Ok(Self::InProcess),
            "moto" => Ok(Self::Moto),
            "docker" => Ok(Self::Docker),
            _ => Err(format!("{SERVER} is {name:?}; use dynoxide, moto or docker")),
        }
    }

    /// Whether tests start this server themselves.
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::Given(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => write!(f, "the server that {URL} names"),
            Self::InProcess => write!(f, "Dynoxide in this process"),
            Self::Docker => write!(f, "DynamoDB Local in a container"),
            Self::Moto => write!(f, "Moto"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn an_unknown_server_is_refused_with_the_choices() {
        assert_eq!(Source::named("dynoxide"), Ok(Source::InProcess));
        assert_eq!(Source::named("moto"), Ok(Source::Moto));
        assert_eq!(Source::named("docker"), Ok(Source::Docker));
        let refused = Source::named("local").unwrap_err();
        assert!(["dynoxide", "moto", "docker"].iter().all(|name| refused.contains(name)));
    }
}
