//! Where a server can be had.

use std::{env, fmt};

/// The environment variable with the URL of a store whose server is running.
pub(super) const URL: &str = "ANNALS_DYNAMODB_URL";
/// The environment variable with the kind of server to start.
const SERVER: &str = "ANNALS_DYNAMODB_SERVER";

/// Where a server can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// It is running, and this is the URL of a store on it: `ANNALS_DYNAMODB_URL`. The table in it
    /// is a prefix for the tables of tests. Without an endpoint it is the real service.
    Given(String),
    /// Dynoxide, on a thread of this process. It executes one request after the other, and so knows
    /// neither transactions in conflict nor throttling; [`Faults`](super::Faults) makes up for it.
    InProcess,
    /// DynamoDB Local, on a Docker engine, which pulls the image if it does not have it.
    Docker,
    /// Moto, a Python package: a second opinion. It does not honour the token that makes a
    /// transaction idempotent, and its capacity units are wrong.
    Moto,
}

impl Source {
    /// Finds one, without starting anything: `ANNALS_DYNAMODB_URL` if it is set, else what
    /// `ANNALS_DYNAMODB_SERVER` names, of `dynoxide` (the default), `moto` and `docker`.
    ///
    /// # Errors
    /// What is wrong with these, in one sentence.
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
            _ => Err(format!("{SERVER} is {name:?}, and can be dynoxide, moto or docker")),
        }
    }

    /// Whether its servers are started here.
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
