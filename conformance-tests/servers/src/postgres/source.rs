//! Finds a way to get a server.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// The environment variable that holds the URL of a running server.
pub(super) const URL: &str = "ANNALS_POSTGRES_URL";
/// The environment variable that names the directory of PostgreSQL's programs.
const PROGRAMS: &str = "ANNALS_POSTGRES_BIN";

/// A way to get a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A server that is running at this URL, from `ANNALS_POSTGRES_URL`.
    Given(String),
    /// PostgreSQL's programs in this directory.
    Local(PathBuf),
    /// A Docker engine, which pulls the image if it does not have it.
    Docker,
}

impl Source {
    /// Finds a source, without starting anything. It tries, in this order: the URL in
    /// `ANNALS_POSTGRES_URL`; the programs in `ANNALS_POSTGRES_BIN`; the newest programs where
    /// packages install them; programs on the `PATH`; Docker, if its engine answers.
    ///
    /// # Errors
    /// One sentence that says why there is no source.
    pub fn find() -> Result<Self, String> {
        let set = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty());
        if let Some(url) = set(URL) {
            let url = url.into_string().map_err(|_| format!("{URL} is not UTF-8"))?;
            return Ok(Self::Given(url));
        }
        if let Some(directory) = set(PROGRAMS).map(PathBuf::from) {
            if has_programs(&directory) {
                return Ok(Self::Local(directory));
            }
            let directory = directory.display();
            return Err(format!("{PROGRAMS} is {directory}, which lacks postgres or initdb"));
        }
        if let Some(directory) = packaged().or_else(on_path) {
            return Ok(Self::Local(directory));
        }
        if docker_answers() {
            return Ok(Self::Docker);
        }
        Err(format!("there is no PostgreSQL on this machine, no Docker, and no {URL}"))
    }

    /// Whether the servers of this source are started here, so that tests may restart them.
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::Given(_))
    }
}

/// Describes the source without its URL, which may hold a password.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => write!(f, "the server that {URL} names"),
            Self::Local(directory) => write!(f, "the programs in {}", directory.display()),
            Self::Docker => write!(f, "a container"),
        }
    }
}

fn has_programs(directory: &Path) -> bool {
    ["postgres", "initdb", "pg_ctl"].iter().all(|program| directory.join(program).is_file())
}

/// The newest programs where the packages of Debian, of PostgreSQL for Red Hat, and of Homebrew
/// install them.
fn packaged() -> Option<PathBuf> {
    let places = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ];
    let mut found = Vec::new();
    for (parent, prefix) in places {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)).map(version);
            let directory = entry.path().join("bin");
            if let Some(Some(version)) = version
                && has_programs(&directory)
            {
                found.push((version, directory));
            }
        }
    }
    found.into_iter().max().map(|(_, directory)| directory)
}

/// The numbers of a version, so that `9.6` is less than `10`.
fn version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|number| number.parse().ok()).collect()
}

fn on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).find(|directory| has_programs(directory))
}

/// Whether a Docker engine answers at the place where testcontainers would look for it.
fn docker_answers() -> bool {
    let listens = |path: &Path| std::os::unix::net::UnixStream::connect(path).is_ok();
    if let Ok(host) = env::var("DOCKER_HOST") {
        return match host.split_once("://") {
            Some(("unix", path)) => listens(Path::new(path)),
            Some((_, authority)) => connects(authority),
            None => false,
        };
    }
    let below =
        |variable: &str, path: &str| env::var_os(variable).map(|d| Path::new(&d).join(path));
    let sockets = [
        Some(PathBuf::from("/var/run/docker.sock")),
        below("XDG_RUNTIME_DIR", ".docker/run/docker.sock"),
        below("HOME", ".docker/run/docker.sock"),
        below("HOME", ".docker/desktop/docker.sock"),
    ];
    // testcontainers takes the first socket that exists.
    sockets.into_iter().flatten().find(|path| path.exists()).is_some_and(|path| listens(&path))
}

fn connects(authority: &str) -> bool {
    use std::net::{TcpStream, ToSocketAddrs};
    let addresses = authority.trim_end_matches('/').to_socket_addrs();
    addresses
        .into_iter()
        .flatten()
        .any(|address| TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("9.6") < version("10"));
        assert!(version("15") < version("18"));
        assert_eq!(version("common"), None);
    }
}
