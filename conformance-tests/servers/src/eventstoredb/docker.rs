//! A server in a container.

use std::net::SocketAddr;

use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::AsyncRunner,
};

use crate::{BoxError, ports, watchdog::Watchdog};

const IMAGE: &str = "kurrentplatform/kurrentdb";
/// `docker-compose.yml` and the workflow name the same tag.
const TAG: &str = "26.1.1";
const PORT: u16 = 2113;

/// A container. testcontainers removes it when this value is dropped. If the process is killed
/// before that, the watchdog removes it.
pub(super) struct Docker {
    container: ContainerAsync<GenericImage>,
    _watchdog: Option<Watchdog>,
}

impl Docker {
    pub(super) async fn start() -> Result<(Self, SocketAddr), BoxError> {
        // Choose the port here: Docker would choose another one at every start.
        let port = ports::free()?;
        // No `--mem-db`: the events have to survive a kill of the server.
        let container = GenericImage::new(IMAGE, TAG)
            .with_wait_for(WaitFor::Nothing)
            .with_mapped_port(port, PORT.tcp())
            .with_cmd(["--insecure", "--run-projections=All"])
            .start()
            .await?;
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
