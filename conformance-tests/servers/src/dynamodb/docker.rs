//! A server in a container.

use std::net::SocketAddr;

use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::AsyncRunner,
};

use crate::{BoxError, ports, watchdog::Watchdog};

const IMAGE: &str = "amazon/dynamodb-local";
/// The same as in `docker-compose.yml` and in the workflow.
const TAG: &str = "3.3.1";
const PORT: u16 = 8000;

/// A container, which testcontainers removes when this is dropped, and a watchdog for the case that
/// it is not.
pub(super) struct Docker {
    _container: ContainerAsync<GenericImage>,
    _watchdog: Option<Watchdog>,
}

impl Docker {
    pub(super) async fn start() -> Result<(Self, SocketAddr), BoxError> {
        let container = GenericImage::new(IMAGE, TAG)
            .with_wait_for(WaitFor::Nothing)
            .with_exposed_port(PORT.tcp())
            // One database for all regions and credentials, which URLs need not agree on.
            .with_cmd(["-jar", "DynamoDBLocal.jar", "-sharedDb", "-inMemory"])
            .start()
            .await?;
        let watchdog = Watchdog::of_container(container.id());
        let port = container.get_host_port_ipv4(PORT).await?;
        let host = container.get_host().await?;
        let found = ports::resolve(&format!("{host}:{port}")).await;
        let addr = found.ok_or_else(|| format!("Docker's host {host} has no address"))?;
        Ok((Self { _container: container, _watchdog: watchdog }, addr))
    }
}
