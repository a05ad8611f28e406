//! Where a server can be had.

use std::{env, ffi::OsString, fmt, path::Path};

/// The environment variable with the URL of a server that is running.
pub(super) const URL: &str = "ANNALS_EVENTSTOREDB_URL";

/// Where a server can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// It is running, at this URL: `ANNALS_EVENTSTOREDB_URL`. Tests take namespaces of their own.
    Given(String),
    /// A Docker engine, which pulls the image if it does not have it.
    Docker,
}

impl Source {
    /// Finds one, without starting anything: `ANNALS_EVENTSTOREDB_URL` if it is set; Docker, if
    /// there is an engine.
    ///
    /// # Errors
    /// Why there is none, in one sentence.
    pub fn find() -> Result<Self, String> {
        if let Some(url) = env::var_os(URL).filter(|value: &OsString| !value.is_empty()) {
            let url = url.into_string().map_err(|_| format!("{URL} is not UTF-8"))?;
            return Ok(Self::Given(url));
        }
        if docker_answers() {
            return Ok(Self::Docker);
        }
        Err(format!("there is no Docker on this machine, and no {URL}"))
    }

    /// Whether its servers are started here, and so can be restarted.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::Given(_))
    }
}

/// A description for people, without the password that may stand in a URL.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => write!(f, "the server that {URL} names"),
            Self::Docker => write!(f, "a container"),
        }
    }
}

fn docker_answers() -> bool {
    let listens = |path: &Path| std::os::unix::net::UnixStream::connect(path).is_ok();
    match env::var("DOCKER_HOST") {
        Ok(host) => match host.split_once("://") {
            Some(("unix", path)) => listens(Path::new(path)),
            Some((_, authority)) => std::net::TcpStream::connect(authority).is_ok(),
            None => false,
        },
        Err(_) => listens(Path::new("/var/run/docker.sock")),
    }
}
