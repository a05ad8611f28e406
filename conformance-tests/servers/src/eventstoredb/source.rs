//! Where tests get a server from.

use std::{env, ffi::OsString, fmt, path::Path};

/// The environment variable with the URL of a running server.
pub(super) const URL: &str = "ANNALS_EVENTSTOREDB_URL";

/// Where tests get a server from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A running server, at the URL in `ANNALS_EVENTSTOREDB_URL`. Each test uses a namespace of its
    /// own.
    Given(String),
    /// A Docker engine, which pulls the image unless it has it.
    Docker,
}

impl Source {
    /// Finds a source without starting anything: `ANNALS_EVENTSTOREDB_URL` if it is set, or else a
    /// Docker engine that answers.
    ///
    /// # Errors
    /// If there is neither, a sentence that says so.
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

    /// True if the tests start the servers, and so may restart them.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::Given(_))
    }
}

/// Leaves out the URL, which may contain a password.
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
