//! A server in a container.

use std::net::SocketAddr;

use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::AsyncRunner,
};

use super::options::Options;
use crate::{BoxError, ports, watchdog::Watchdog};

/// The image's version: the newest that the tests have to work with.
const TAG: &str = "18";
pub(super) const PASSWORD: &str = "annals";
const PORT: u16 = 5432;

/// The directory that holds files until the data directory exists.
const WAITING: &str = "/annals";
/// The image runs this script when it has created the data directory.
const ON_CREATION: &str = "/docker-entrypoint-initdb.d/annals.sh";

/// A container. testcontainers removes it when this is dropped; if the process is killed, the
/// watchdog does.
pub(super) struct Docker {
    container: ContainerAsync<GenericImage>,
    _watchdog: Option<Watchdog>,
}

impl Docker {
    pub(super) async fn start(options: Options) -> Result<(Self, SocketAddr), BoxError> {
        if options.data.is_some() {
            return Err("a container cannot begin with a data directory of this machine".into());
        }
        // If Docker chose the port, it would choose another one at every start.
        let port = ports::free()?;
        let image = GenericImage::new("postgres", TAG)
            .with_wait_for(WaitFor::Nothing)
            .with_mapped_port(port, PORT.tcp())
            .with_env_var("POSTGRES_PASSWORD", PASSWORD)
            .with_copy_to(ON_CREATION, creation(&options).into_bytes());
        let files = options.files.into_iter();
        let image = files.fold(image, |image, (name, content)| {
            image.with_copy_to(format!("{WAITING}/{name}"), content)
        });
        let container = image.start().await?;
        let watchdog = Watchdog::of_container(container.id());
        let host = container.get_host().await?;
        let found = ports::resolve(&format!("{host}:{port}")).await;
        let addr = found.ok_or_else(|| format!("Docker's host {host} has no address"))?;
        Ok((Self { container, _watchdog: watchdog }, addr))
    }

    pub(super) async fn kill(&self) -> Result<(), BoxError> {
        Ok(self.container.stop_with_timeout(Some(0)).await?)
    }

    pub(super) async fn start_again(&self) -> Result<(), BoxError> {
        Ok(self.container.start().await?)
    }
}

/// The script that prepares the data directory before the server's first real start. Settings on
/// the command line would also apply to the server that creates the databases, when the files are
/// not there yet.
fn creation(options: &Options) -> String {
    let mut script = format!("cat >>\"$PGDATA/postgresql.conf\" <<'END'\n{}END\n", options.lines());
    for (name, _) in &options.files {
        script += &format!("install -m 600 '{WAITING}/{name}' \"$PGDATA/{name}\"\n");
    }
    script
}
